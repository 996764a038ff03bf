"""Applications for service apps that a reviewer can say yes to, and what reviewers say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

from tests.support.servers import wait_until

FORM: Final[dict[str, Any]] = {
    "name": "Minutes",
    "purpose": "Summarises the minutes of meetings for those who were not there.",
    "intended_users": "Employees of our company",
    "expected_daily_volume": 2000,
    "samples": [{"prompt": "Minutes of 3 March: ...", "output": "Decided: the new office."}],
    "risky_output_prevention": "A filter of words, and a summary that quotes nobody.",
    "abuse_monitoring": "Reports of users are read every day.",
    "abuse_response": "Whoever abuses it loses access within an hour.",
    "contact": {"name": "Kim Minji", "email": "minji@example.com"},
}
"""As deploy/review.yaml asks for it, whole."""
CHECKLIST: Final = dict.fromkeys(("ethics", "tested", "no_harm", "output_filter", "abuse", "told"), True)
PATH: Final = "/serviceapp/v1/completions"
"""Where the proxy has the service."""
CRITERIA: Final = ("code_of_ethics", "safe_case", "risk_response", "monitoring", "accuracy_and_fairness")
APPROVED: Final[dict[str, Any]] = {"decision": "approved", "criteria": {criterion: {"met": True} for criterion in CRITERIA}}


def rejected(criterion: str, reason: str = "Nobody would notice abuse on a weekend.") -> dict[str, Any]:
    """A decision by which that criterion is not met."""
    judged = {**APPROVED["criteria"], criterion: {"met": False, "reason": reason}}
    return {"decision": "rejected", "criteria": judged}


def called_test_app(ready: Mapping[str, Any], owner: httpx.Client) -> str:
    """The Client ID of a new test app of the running stack, which has called its service."""
    issued = owner.post("/v1/apps", json={"name": "test app", "services": ["clova-studio"]}).raise_for_status().json()
    headers = {"X-NCP-APIGW-API-KEY-ID": issued["client_id"], "X-NCP-APIGW-API-KEY": issued["client_secret"]}
    with httpx.Client(base_url=ready["proxy_url"], headers=headers, timeout=20, trust_env=False) as caller:
        wait_until(lambda: caller.post(PATH, content=b"Hello").status_code == 200, "a call of the test app")
    return str(issued["client_id"])
