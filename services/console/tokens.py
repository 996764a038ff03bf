"""API tokens: their text, and who is signed in by one.

A token is `tbk_<token id>_<secret>`; only SHA-256 of the whole is kept. A plain hash is right here: the secret has 238 random
bits, so there is no dictionary to try, and nothing that a slow hash or a salt would add; and each request makes a check, so it
must be cheap.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.console import queries
from services.console.problems import DATABASE_ERRORS, of_database
from services.console.queries import TokenRow
from services.console.ratelimit import FailureLimit, Remembered
from shared.clock import Clock
from shared.errors import TooManyRequests, Unauthenticated, Unavailable
from shared.events.console import Role
from shared.ids import new_token_id, new_token_secret
from shared.postgres import Pool

PREFIX: Final = "tbk_"
_TOKEN: Final = re.compile(r"tbk_([a-z0-9]{12})_[A-Za-z0-9]{40}", re.ASCII)
_LENGTH_MAX: Final = 128
USE_NOTED_EVERY: Final = timedelta(minutes=1)
_DETAIL: Final = "This API token is not valid: it is unknown, revoked or expired."


@dataclass(frozen=True)
class NewToken:
    """A token that was just made. `text` is shown once and kept nowhere."""

    token_id: str
    text: str

    @property
    def verifier(self) -> str:
        return digest_of(self.text).hex()

    def __repr__(self) -> str:
        return f"NewToken(token_id={self.token_id!r})"


@dataclass(frozen=True)
class Principal:
    """Who asks, and for which account."""

    account: str
    actor: str
    roles: frozenset[Role]
    token_id: str
    expires_at: datetime | None = None


def new_token() -> NewToken:
    """A token that nobody has yet."""
    token_id = new_token_id()
    return NewToken(token_id, f"{PREFIX}{token_id}_{new_token_secret()}")


def digest_of(text: str) -> bytes:
    """SHA-256 of a token's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Authenticator:
    """Tells who a token's bearer is, and bears only so many failures.

    While an address, or a token id, is over the limit, its attempts are refused without a look into the database, except for
    tokens that were good in this process within the last 15 minutes: so a guesser costs nothing, and colleagues behind the same
    address, or the true bearer of a token whose id somebody else guesses with, go on working.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = FailureLimit(clock.monotonic)
        self._good = Remembered(clock.monotonic)
        self.pool: Pool | None = None

    async def authenticate(self, text: str, address: str) -> Principal:
        """The bearer of token `text`, who speaks from `address`.

        Raises Unauthenticated, TooManyRequests, or Unavailable when the database does not answer.
        """
        match = _TOKEN.fullmatch(text) if len(text) <= _LENGTH_MAX else None
        keys = [f"address {address}"] if match is None else [f"address {address}", f"token {match[1]}"]
        digest = digest_of(text) if match is not None else b""
        wait_s = self._failures.retry_after_s(*keys)
        if wait_s and digest not in self._good:
            raise TooManyRequests("Too many failed sign-ins. Wait as long as Retry-After says.", retry_after_s=wait_s)
        pool = self._pool()
        row = await _find(pool, match[1]) if match is not None else None
        now = self._clock.now()
        if row is None or not hmac.compare_digest(row.verifier, digest) or not _usable(row, now):
            self._good.discard(digest)
            self._failures.failed(*keys)
            raise Unauthenticated(_DETAIL)
        self._good.add(digest)
        await _note_use(pool, row, now)
        return Principal(row.account, f"token:{row.token_id}", frozenset(row.roles), row.token_id, row.expires_at)

    def _pool(self) -> Pool:
        if self.pool is None:
            raise Unavailable("The console is starting. Trying again in a moment is safe.")
        return self.pool


async def _find(pool: Pool, token_id: str) -> TokenRow | None:
    try:
        return await queries.token_by_id(pool, token_id)
    except DATABASE_ERRORS as error:
        raise of_database(error) from error


async def _note_use(pool: Pool, row: TokenRow, now: datetime) -> None:
    """Once a minute at most: so reading does not become writing."""
    if row.last_used_at is not None and now - row.last_used_at < USE_NOTED_EVERY:
        return
    try:
        await queries.touch_token(pool, row.token_id, now)
    except DATABASE_ERRORS as error:
        raise of_database(error) from error


def _usable(row: TokenRow, now: datetime) -> bool:
    return row.revoked_at is None and (row.expires_at is None or now < row.expires_at)
