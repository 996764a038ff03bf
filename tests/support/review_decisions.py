"""What services/review decides, as the log feed of a test says it, with what of it does not matter filled in."""

from __future__ import annotations

from typing import Any

from shared.events.review import Outcome, ReviewDecided, ServiceAppSuspended, SuspensionLifted

SERVICE = "clova-studio"


def decided(client_id: str, decision: Outcome = "approved", **extra: Any) -> ReviewDecided:
    fields: dict[str, Any] = {
        **_about(client_id),
        "revision": 1,
        "decision": decision,
        "findings": (),
        "reviewers": ("token:t9",),
        "model": "HCX",
        "task": "summary",
        "form_version": "1",
        "form_hash": "0" * 64,
        "content_hash": "1" * 64,
    }
    return ReviewDecided(**{**fields, **extra})


def suspends(client_id: str, **extra: Any) -> ServiceAppSuspended:
    return ServiceAppSuspended(**{**_about(client_id), "reviewer": "token:t9", "reason": "Misuse.", **extra})


def lifts(client_id: str, **extra: Any) -> SuspensionLifted:
    return SuspensionLifted(**{**_about(client_id), "reviewer": "token:t9", **extra})


def _about(client_id: str) -> dict[str, Any]:
    return {"account": "acme", "review_id": "r1", "client_id": client_id, "service": SERVICE}
