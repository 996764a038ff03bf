"""The KV bucket `usage`: what a dashboard sees of one application at one service, now. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from shared.windows import Window

BUCKET: Final = "usage"


class WindowValue(msgspec.Struct, frozen=True):
    """The open window: after `resets_at` it is closed, and another value follows."""

    used: int
    calls: int
    window_start: datetime
    resets_at: datetime


class UsageValue(msgspec.Struct, frozen=True):
    """One value of the bucket, as JSON. `unit` is None for a service that the catalog no longer has.

    `as_of` is JetStream's time of the newest record that can be in it, `position` that record's sequence in USAGE.
    """

    client_id: str
    service: str
    unit: str | None
    daily: WindowValue
    monthly: WindowValue
    as_of: datetime
    position: int


def key_of(account: str, client_id: str, service: str) -> str:
    """The key of a value: `<account>.<client_id>.<service>`."""
    return f"{account}.{client_id}.{service}"


def split_key(key: str) -> tuple[str, str, str]:
    """(account, client_id, service) of a key."""
    account, client_id, service = key.split(".")
    return account, client_id, service


def window_value(window: Window, used: int, calls: int) -> WindowValue:
    return WindowValue(used, calls, window.start, window.end)


def encode(value: UsageValue) -> bytes:
    return msgspec.json.encode(value)
