"""Applications for service apps that a reviewer can say yes to, and what reviewers say."""

from __future__ import annotations

from typing import Any, Final

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
CRITERIA: Final = ("code_of_ethics", "safe_case", "risk_response", "monitoring", "accuracy_and_fairness")
APPROVED: Final[dict[str, Any]] = {"decision": "approved", "criteria": {criterion: {"met": True} for criterion in CRITERIA}}


def rejected(criterion: str, reason: str = "Nobody would notice abuse on a weekend.") -> dict[str, Any]:
    """A decision by which that criterion is not met."""
    judged = {**APPROVED["criteria"], criterion: {"met": False, "reason": reason}}
    return {"decision": "rejected", "criteria": judged}
