"""Whether a message may be sent now, and when it is tried again. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from shared.events.alerts import FailureReason

BACKOFF_MIN_S: Final = 2.0
BACKOFF_MAX_S: Final = 900.0
RETRY_AFTER_MAX_S: Final = 3600.0
"""What a provider may ask for; one that names a year has made a mistake."""


def next_try(now: datetime, message_id: str, attempts: int, retry_after_s: float | None) -> datetime:
    """When to try again after that many tries.

    The wait doubles from 2 s to 15 minutes, less up to half of it, so that what failed together does not come back together: how
    much less follows from the message's random id. Never before the provider wants it.
    """
    wait_s = min(BACKOFF_MIN_S * 2.0 ** min(attempts - 1, 30), BACKOFF_MAX_S)
    digest = hashlib.sha256(f"{message_id} {attempts}".encode()).digest()
    wait_s *= 1 - int.from_bytes(digest[:4]) / 2**33
    if retry_after_s is not None:
        wait_s = max(wait_s, min(retry_after_s, RETRY_AFTER_MAX_S))
    return now + timedelta(seconds=wait_s)


class Standing(NamedTuple):
    """How it is with the contact (`there`) and its address now. An address that it has no longer is not verified."""

    there: bool = False
    verified: bool = False
    unsubscribed: bool = False


class Coded(NamedTuple):
    """How it is with a code that is to be told. `known`: the vault has it, and it is the one that is waited for."""

    expires_at: datetime
    known: bool


def obstacle(now: datetime, standing: Standing, coded: Coded | None) -> FailureReason | None:
    """Why nothing may be sent there; None: it may. `coded`: the message is one that verifies the address."""
    if not standing.there:
        return "contact_removed"
    if coded is not None:
        return None if coded.known and now < coded.expires_at else "expired"
    if not standing.verified:
        return "not_verified"
    return "unsubscribed" if standing.unsubscribed else None
