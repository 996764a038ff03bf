"""What the console decided: who may use it. Kept in the console's own log; nobody follows it, so it has no stream."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from shared.events.codec import Codec, Event

Role = Literal["owner", "member", "reviewer", "operator"]


class TokenIssued(Event, frozen=True, kw_only=True):
    """An API token works from now on.

    Never the token itself: `verifier` is hex(SHA-256(token)). `label` tells an account's tokens apart; it is a slug, so that it
    does not become a place for people's names.
    """

    token_id: str
    account: str
    roles: tuple[Role, ...]
    label: str
    verifier: str
    expires_at: datetime | None = None


class TokenRevoked(Event, frozen=True, kw_only=True):
    """That API token works no longer, at once."""

    token_id: str
    account: str


ConsoleEvent = TokenIssued | TokenRevoked

CODEC: Codec[ConsoleEvent] = Codec("console", ConsoleEvent)
