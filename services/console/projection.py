"""Events of the console as changes of its table `token`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from shared.eventlog.changes import Change
from shared.events.console import ConsoleEvent, TokenIssued, TokenRevoked

if TYPE_CHECKING:
    from shared.eventlog.log import Placed

TABLES: Final = ("token",)
"""What a rebuild empties first."""

_INSERT: Final = """
    INSERT INTO token (token_id, account, roles, label, verifier, issued_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
"""
_REVOKE: Final = "UPDATE token SET revoked_at = $2 WHERE token_id = $1"


def project(recorded: Placed, event: ConsoleEvent) -> list[Change]:
    """The changes that `event` makes."""
    match event:
        case TokenIssued():
            verifier, issued_at = bytes.fromhex(event.verifier), recorded.recorded_at
            row = (event.token_id, event.account, list(event.roles), event.label, verifier, issued_at, event.expires_at)
            return [Change(_INSERT, row)]
        case TokenRevoked():
            return [Change(_REVOKE, (event.token_id, recorded.recorded_at))]
        case _ as never:
            assert_never(never)
