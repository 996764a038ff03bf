"""Events of reviews as tests hear them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from shared.events.review import Comment, Finding, ReviewEvent
from tests.support.alerting import APP

E = TypeVar("E", bound=ReviewEvent)

SECRET: Final = "what only the applicant and a reviewer may read"
"""In every text that somebody wrote."""
DUE: Final = datetime(2026, 11, 27, 9, tzinfo=UTC)
_KNOWN: Final[dict[str, Any]] = {
    "account": "acme",
    "review_id": "e" * 32,
    "client_id": APP,
    "service": "csr",
    "revision": 1,
    "model": SECRET,
    "task": SECRET,
    "task_id": "t" * 32,
    "name": SECRET,
    "form_version": "1",
    "form_hash": "f" * 64,
    "definition": SECRET,
    "vault_id": "v" * 32,
    "content_hash": "c" * 64,
    "due_at": DUE,
    "reviewer": "token:r1",
    "reviewers": ("token:r1",),
    "reason": SECRET,
    "comments": (Comment("form.purpose", SECRET),),
    "decision": "rejected",
    "findings": (Finding("purpose", False, SECRET),),
    "by": "d" * 32,
}


def reviewing(event: type[E], **fields: Any) -> E:
    """That event, of acme's application at csr unless told otherwise."""
    known = {name: _KNOWN[name] for name in event.__struct_fields__ if name in _KNOWN}
    return event(**known | fields)
