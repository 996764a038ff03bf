"""What an API token can go through. Pure: no I/O, no clock, no randomness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from services.console.commands import IssueToken, RevokeToken, TokenKept
from shared.errors import Conflict, NotFound
from shared.eventlog.decision import Decision
from shared.events.console import ConsoleEvent, TokenIssued, TokenRevoked

TokenDecision = Decision[ConsoleEvent, TokenKept]


@dataclass(frozen=True)
class Token:
    """One token as its events tell it. `account` is empty before it is issued."""

    account: str = ""
    revoked: bool = False


INITIAL = Token()


def stream_of(token_id: str) -> str:
    """The token's stream in the log."""
    return f"token/{token_id}"


def evolve(state: Token, event: ConsoleEvent) -> Token:
    """The token after `event`."""
    match event:
        case TokenIssued():
            return Token(event.account)
        case TokenRevoked():
            return Token(state.account, revoked=True)
        case _ as never:
            assert_never(never)


def issue(command: IssueToken, state: Token) -> TokenDecision:
    """A new token. Raises Conflict when its id is taken."""
    if state.account:
        raise Conflict("There is a token with this id already. Make another one.")
    event = TokenIssued(
        token_id=command.token_id,
        account=command.account,
        roles=command.roles,
        label=command.label,
        verifier=command.verifier,
        expires_at=command.expires_at,
    )
    return Decision([event], TokenKept(token_id=command.token_id))


def revoke(command: RevokeToken, state: Token) -> TokenDecision:
    """No token any more; nothing happens when it is revoked already. Raises NotFound for another account's token."""
    if state.account != command.account:
        raise NotFound(f"This account has no token {command.token_id}.")
    events = [] if state.revoked else [TokenRevoked(token_id=command.token_id, account=command.account)]
    return Decision(events, TokenKept(token_id=command.token_id))
