"""Which waiting notifications become a message, and when: many things at once are one message, not many. Pure.

Those of one contact by one method wait a moment for company, and the longer, the more messages it had lately. So ten thousand
crossings are a handful of mails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeVar

ITEMS_MAX: Final = 10_000
"""Things that one message tells, at most."""
SETTLE_S: Final = 0.25
SETTLE_MAX_S: Final = 60.0
SETTLE_URGENT_MAX_S: Final = 1.0
LATELY: Final = timedelta(minutes=10)
"""How far back messages count for how long the next one waits."""
ALONE: Final = ("verification", "test")
"""Kinds that somebody waits for: each is a message of its own, at once."""

T = TypeVar("T")


class Gathering(NamedTuple):
    """What is due of one contact by one method and in no message yet. `lately`: messages made for it within LATELY."""

    contact_id: str
    method: str
    first_due: datetime
    urgent: bool
    lately: int


def ready_at(gathering: Gathering) -> datetime:
    """When it is to become a message."""
    settle_s = min(SETTLE_S * 2.0 ** min(gathering.lately, 30), SETTLE_MAX_S)
    if gathering.urgent:
        settle_s = min(settle_s, SETTLE_URGENT_MAX_S)
    return gathering.first_due + timedelta(seconds=settle_s)


def bundles(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items of a message each."""
    for start in range(0, len(items), ITEMS_MAX):
        yield items[start : start + ITEMS_MAX]
