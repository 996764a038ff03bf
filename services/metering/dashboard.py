"""The KV buckets `usage` and `limits`: what a dashboard sees of one application at one service, now. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from shared.commands.limits import AccountLimitView, LimitsView
from shared.windows import Window

BUCKET: Final = "usage"
LIMITS_BUCKET: Final = "limits"
OF_ACCOUNT: Final = "account"
"""Stands in a key of `limits` for the account itself; a Client ID is longer."""


class WindowValue(msgspec.Struct, frozen=True):
    """The open window: after `resets_at` it is closed, and another value follows. `limit` None: there is none."""

    used: int
    calls: int
    limit: int | None
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


def limits_key(account: str, client_id: str, service: str) -> str:
    """The key in the bucket `limits`: as in `usage`, for client_id "" `<account>.account.<service>`."""
    return key_of(account, client_id or OF_ACCOUNT, service)


def split_limits_key(key: str) -> tuple[str, str, str]:
    """(account, client_id, service) of a key of the bucket `limits`; client_id "": the account's own."""
    account, client_id, service = split_key(key)
    return account, "" if client_id == OF_ACCOUNT else client_id, service


def window_value(window: Window, used: int, calls: int, limit: int | None) -> WindowValue:
    return WindowValue(used, calls, limit, window.start, window.end)


def encode(value: UsageValue) -> bytes:
    return msgspec.json.encode(value)


def encode_limits(view: LimitsView | AccountLimitView, unit: str | None, as_of: datetime | None, position: int) -> bytes:
    """One value of the bucket `limits`, as JSON: the view, the service's unit, and the event of the log that it is as new as."""
    return msgspec.json.encode({**view.model_dump(mode="json"), "unit": unit, "as_of": as_of, "position": position})
