"""The KV bucket `notifications`: what a dashboard sees of an application's notifications, now. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

BUCKET: Final = "notifications"
OF_ACCOUNT: Final = "account"
"""Stands in a key for what is not about one application; a Client ID is longer."""
NEWEST_MAX: Final = 10


class Counts(msgspec.Struct, frozen=True):
    """Notifications by state."""

    waiting: int = 0
    delivered: int = 0
    failed: int = 0


class Newest(msgspec.Struct, frozen=True):
    """One of the newest notifications. Of who is told it has the id only. `percent` for kind "crossed"; `reason` if it failed."""

    delivery_id: str
    service: str
    contact_id: str
    method: str
    kind: str
    percent: int | None
    state: str
    requested_at: datetime
    due_at: datetime
    settled_at: datetime | None
    reason: str | None


class Told(msgspec.Struct, frozen=True):
    """The percentages that a rule tells of a service."""

    daily: tuple[int, ...]
    monthly: tuple[int, ...]


class NotificationsValue(msgspec.Struct, frozen=True):
    """One value of the bucket, as JSON. client_id "": what is not about one application.

    `rules` by service; `newest` first. `position` is that of the newest event of the log that can be in it, `as_of` when that
    was recorded.
    """

    client_id: str
    counts: Counts
    rules: dict[str, Told]
    newest: tuple[Newest, ...]
    as_of: datetime
    position: int


def key_of(account: str, client_id: str) -> str:
    """The key of a value: `<account>.<client_id>`, for client_id "" `<account>.account`."""
    return f"{account}.{client_id or OF_ACCOUNT}"


def split_key(key: str) -> tuple[str, str]:
    """(account, client_id) of a key; client_id "": the account's own."""
    account, client_id = key.split(".")
    return account, "" if client_id == OF_ACCOUNT else client_id


def encode(value: NotificationsValue) -> bytes:
    return msgspec.json.encode(value)
