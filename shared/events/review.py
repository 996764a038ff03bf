"""What reviews decided about service apps. Stream REVIEW, subjects review.events.<Type>."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from shared.events.codec import Codec, Event

Outcome = Literal["approved", "rejected"]


class Finding(msgspec.Struct, frozen=True, gc=False):
    """What a reviewer found about one criterion, and why."""

    criterion: str
    met: bool
    reason: str = ""


class ReviewDecided(Event, frozen=True, kw_only=True):
    """A reviewer has decided about the service app of an application at a service. The decision is final."""

    account: str
    review_id: str
    client_id: str
    service: str
    decision: Outcome
    findings: tuple[Finding, ...] = ()


ReviewEvent = ReviewDecided

CODEC: Codec[ReviewEvent] = Codec("review", ReviewEvent)
STREAM: Final = "REVIEW"
SUBJECTS: Final = "review.events.>"
