"""API tokens: who gets in, who does not, and how often one may try."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from services.console import app as console
from services.console.tokens import new_token
from tests.integration.console.conftest import House
from tests.support.consoles import client, issue_token, make_console, revoke_token, running

PATH = "/v1/nothing"  # 404 once signed in: needs no other service


async def status(house: House, authorization: str | None, **headers: str) -> int:
    if authorization is not None:
        headers["Authorization"] = authorization
    async with client(house.url, **headers) as api:
        return (await api.get(PATH)).status_code


async def test_a_token_lets_in_until_it_is_revoked_or_expires(alone: House) -> None:
    assert await status(alone, f"Bearer {alone.token}") == 404
    assert await status(alone, f"bearer  {alone.token}") == 404
    await revoke_token(alone.dsn, alone.token)
    await revoke_token(alone.dsn, alone.token)  # already so: nothing happens
    assert await status(alone, f"Bearer {alone.token}") == 401

    expired = await issue_token(alone.dsn, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    lasting = await issue_token(alone.dsn, expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert [await status(alone, f"Bearer {token}") for token in (expired, lasting)] == [401, 404]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Basic dXNlcjpwYXNz", "Bearer tbk_x", "Bearer " + "x" * 60_000, "Bearer tbk_\xff", "tbk_x"],
)
async def test_what_is_no_token(alone: House, authorization: str | None) -> None:
    async with client(alone.url) as api:
        headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
        answer = await api.get(PATH, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["code"] == "unauthenticated"


async def test_two_authorization_headers_are_refused(alone: House) -> None:
    async with client(alone.url) as api:
        value = f"Bearer {alone.token}"
        answer = await api.get(PATH, headers=[("Authorization", value), ("Authorization", value)])
    assert answer.status_code == 401


async def test_only_a_hash_is_kept_and_use_is_noted(alone: House) -> None:
    await status(alone, f"Bearer {alone.token}")
    connection = await asyncpg.connect(alone.dsn.owner_dsn)
    try:
        kept = await connection.fetch("SELECT data::text FROM console.event UNION ALL SELECT t::text FROM console.token t")
        used = await connection.fetchval("SELECT last_used_at FROM console.token_use")
    finally:
        await connection.close()
    secret = alone.token.split("_")[2]
    assert not any(secret in row[0] for row in kept)
    assert used is not None


async def test_ten_failures_a_minute_from_one_address(alone: House) -> None:
    assert [await status(alone, f"Bearer {new_token().text}") for _ in range(10)] == [401] * 10
    async with client(alone.url, new_token().text) as api:
        refused = await api.get(PATH)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert await status(alone, f"Bearer {alone.token}") == 429, "a token that this console has not seen before is not looked up"


async def test_who_was_signed_in_before_works_on_beside_a_guesser(alone: House) -> None:
    assert await status(alone, f"Bearer {alone.token}") == 404
    for _ in range(11):
        await status(alone, f"Bearer {new_token().text}")
    assert await status(alone, f"Bearer {alone.token}") == 404
    await revoke_token(alone.dsn, alone.token)
    assert await status(alone, f"Bearer {alone.token}") == 401, "known is not the same as valid"
    assert await status(alone, f"Bearer {alone.token}") == 429


async def test_forwarded_addresses_count_only_from_trusted_proxies(alone: House) -> None:
    for number in range(10):
        assert await status(alone, f"Bearer {new_token().text}", **{"X-Forwarded-For": f"192.0.2.{number}"}) == 401
    assert await status(alone, f"Bearer {new_token().text}", **{"X-Forwarded-For": "192.0.2.99"}) == 429

    async with running(make_console(alone.nats_url, alone.dsn, trusted_proxies="127.0.0.0/8, ::1/128")) as url:
        behind = House(url, alone.nats_url, alone.dsn, alone.token, alone.api)
        for _ in range(11):
            last = await status(behind, f"Bearer {new_token().text}", **{"X-Forwarded-For": "6.6.6.6, 192.0.2.1"})
        assert last == 429
        assert await status(behind, f"Bearer {new_token().text}", **{"X-Forwarded-For": "6.6.6.6, 192.0.2.2"}) == 401


async def test_a_token_id_that_is_guessed_with_is_limited_from_everywhere(alone: House) -> None:
    async with running(make_console(alone.nats_url, alone.dsn, trusted_proxies="127.0.0.1")) as url:
        behind = House(url, alone.nats_url, alone.dsn, alone.token, alone.api)
        guess = alone.token[:-1] + ("x" if alone.token[-1] != "x" else "y")
        statuses = [await status(behind, f"Bearer {guess}", **{"X-Forwarded-For": f"192.0.2.{number}"}) for number in range(11)]
        assert statuses == [401] * 10 + [429]


async def test_a_database_that_is_away_is_503(alone: House) -> None:
    connection = await asyncpg.connect(alone.dsn.owner_dsn)
    try:
        await connection.execute("ALTER TABLE console.token RENAME TO moved")
        began = time.monotonic()
        async with client(alone.url, alone.token) as api:
            answer = await api.get(PATH)
        assert answer.status_code == 503
        assert time.monotonic() - began < 3
        assert "database" in answer.json()["detail"]
    finally:
        await connection.close()


async def test_a_rebuild_gives_the_same_tokens(alone: House) -> None:
    revoked = await issue_token(alone.dsn, "other", ("member", "reviewer"))
    await revoke_token(alone.dsn, revoked, "other")
    connection = await asyncpg.connect(alone.dsn.owner_dsn)
    try:
        before = await connection.fetch("SELECT * FROM console.token ORDER BY token_id")
        settings = console.SETTINGS(postgres_dsn=alone.dsn.dsn, postgres_owner_dsn=alone.dsn.owner_dsn)
        await console.rebuild(settings)
        assert await connection.fetch("SELECT * FROM console.token ORDER BY token_id") == before
    finally:
        await connection.close()
