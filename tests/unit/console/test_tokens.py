"""Given the events of a token, when it is issued or revoked, then ..."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import asyncpg
import pytest

from services.console import domain
from services.console.commands import IssueToken, RevokeToken
from services.console.projection import project
from services.console.tokens import Authenticator, digest_of, new_token
from shared.clock import FixedClock
from shared.errors import Conflict, NotFound, Unavailable
from shared.eventlog.log import Recorded
from shared.events.console import ConsoleEvent, TokenIssued, TokenRevoked

ID = "k3v9x2m8q1zz"
ISSUED = TokenIssued(token_id=ID, account="demo", roles=("owner",), label="first", verifier="ab" * 32)
REVOKED = TokenRevoked(token_id=ID, account="demo")
ISSUE = IssueToken(
    command_id="c", account="demo", actor="service:test", token_id=ID, roles=("owner",), label="first", verifier="ab" * 32
)


def given(*events: ConsoleEvent) -> domain.Token:
    state = domain.INITIAL
    for event in events:
        state = domain.evolve(state, event)
    return state


def revoke(account: str = "demo") -> RevokeToken:
    return RevokeToken(command_id="c", account=account, actor="service:test", token_id=ID)


def test_a_new_token_is_issued() -> None:
    assert domain.issue(ISSUE, given()).events == [ISSUED]


def test_an_id_is_not_issued_twice() -> None:
    for past in ([ISSUED], [ISSUED, REVOKED]):
        with pytest.raises(Conflict):
            domain.issue(ISSUE, given(*past))


def test_a_token_is_revoked_once() -> None:
    assert domain.revoke(revoke(), given(ISSUED)).events == [REVOKED]
    assert domain.revoke(revoke(), given(ISSUED, REVOKED)).events == []


def test_what_is_not_there_or_anothers_is_not_revoked() -> None:
    for past in ([], [ISSUED]):
        with pytest.raises(NotFound):
            domain.revoke(revoke("other"), given(*past))


def test_each_event_changes_the_table() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    recorded = Recorded(1, domain.stream_of(ID), 1, "TokenIssued", 1, b"", b"", at, b"")
    (inserted,) = project(recorded, ISSUED)
    assert inserted.args == (ID, "demo", ["owner"], "first", bytes.fromhex("ab" * 32), at, None)
    (revoked,) = project(recorded, REVOKED)
    assert revoked.args == (ID, at)


def test_a_tokens_text_is_random_and_shows_itself_nowhere() -> None:
    first, second = new_token(), new_token()
    assert re.fullmatch(r"tbk_[a-z0-9]{12}_[A-Za-z0-9]{40}", first.text)
    assert first.text != second.text
    assert first.text not in repr(first)
    assert bytes.fromhex(first.verifier) == digest_of(first.text)


class BrokenPool:
    """A pool whose connections are confused, as asyncpg's are after PostgreSQL was killed."""

    async def fetchrow(self, *_: object, **__: object) -> None:
        raise asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")


async def test_a_confused_connection_is_a_database_that_is_away() -> None:
    authenticator = Authenticator(FixedClock(datetime(2026, 3, 1, tzinfo=UTC)))
    authenticator.pool = BrokenPool()  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        await authenticator.authenticate(new_token().text, "127.0.0.1")
