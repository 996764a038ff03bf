"""Named reads of the console's tables, and the one write that is no decision: when a token was last used."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from shared.events.console import Role
from shared.postgres import Pool

TOKENS_LISTED_MAX: Final = 1_000

_FIND: Final = """
    SELECT t.token_id, t.account, t.roles, t.label, t.verifier, t.issued_at, t.expires_at, t.revoked_at, u.last_used_at
    FROM token t LEFT JOIN token_use u USING (token_id)
"""
_TOUCH: Final = """
    INSERT INTO token_use (token_id, last_used_at) VALUES ($1, $2)
    ON CONFLICT (token_id) DO UPDATE SET last_used_at = greatest(token_use.last_used_at, excluded.last_used_at)
"""


class TokenRow(NamedTuple):
    """One API token as the tables hold it."""

    token_id: str
    account: str
    roles: tuple[Role, ...]
    label: str
    verifier: bytes
    issued_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


async def token_by_id(pool: Pool, token_id: str) -> TokenRow | None:
    """The token with this id, whatever became of it."""
    row = await pool.fetchrow(_FIND + "WHERE t.token_id = $1", token_id, timeout=1.0)
    return None if row is None else _row(tuple(row))


async def list_tokens(pool: Pool, account: str | None) -> list[TokenRow]:
    """The newest tokens, of one account or of all, at most TOKENS_LISTED_MAX."""
    rows = await pool.fetch(
        _FIND + "WHERE $1::text IS NULL OR t.account = $1 ORDER BY t.issued_at DESC LIMIT $2", account, TOKENS_LISTED_MAX
    )
    return [_row(tuple(row)) for row in rows]


async def touch_token(pool: Pool, token_id: str, at: datetime) -> None:
    """Remember that the token was used at `at`."""
    await pool.execute(_TOUCH, token_id, at, timeout=1.0)


def _row(values: tuple[object, ...]) -> TokenRow:
    row = TokenRow(*values)  # type: ignore[arg-type]
    return row._replace(roles=tuple(row.roles))
