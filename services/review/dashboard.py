"""The KV bucket `reviews`: what a dashboard sees of an application's service app, now. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from shared.commands.review import State

BUCKET: Final = "reviews"


class ReviewValue(msgspec.Struct, frozen=True):
    """One value of the bucket, as JSON: the newest application of `client_id` for `service`. Nothing of its form.

    `live`: the one that stands, this or one before, be it suspended; null: none. `position` is that of the last event of the log
    that shows in it, `as_of` when that was recorded.
    """

    client_id: str
    service: str
    review_id: str
    state: State
    revision: int
    model: str | None
    task: str | None
    amends: str | None
    live: str | None
    submitted_at: datetime | None
    due_at: datetime | None
    decided_at: datetime | None
    as_of: datetime
    position: int


def key_of(account: str, client_id: str, service: str) -> str:
    """The key of a value: `<account>.<client_id>.<service>`."""
    return f"{account}.{client_id}.{service}"


def encode(value: ReviewValue) -> bytes:
    return msgspec.json.encode(value)
