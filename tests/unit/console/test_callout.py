"""JWTs as nats-server has them, and requests that are none."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import nkeys
import pytest

from services.console import nats_jwt
from services.console.callout import BUCKETS, Callout, permissions
from services.console.tokens import Authenticator
from shared.clock import FixedClock
from shared.errors import Unavailable

CLOCK = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


def key(prefix: int, fill: int = 7) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(bytes([fill]) * 32, prefix))


SERVER = key(nkeys.PREFIX_BYTE_SERVER)
ACCOUNT_SEED = nkeys.encode_seed(bytes([9]) * 32, nkeys.PREFIX_BYTE_ACCOUNT)
USER = key(nkeys.PREFIX_BYTE_USER).public_key.decode()


def request(**changes: Any) -> dict[str, Any]:
    asked = {
        "server_id": {"id": SERVER.public_key.decode()},
        "user_nkey": USER,
        "client_info": {"host": "192.0.2.1"},
        "connect_opts": {"auth_token": "tbk_nonsense"},
    }
    return {"aud": "nats-authorization-request", "sub": USER, "nats": {**asked, **changes.pop("nats", {})}, **changes}


def callout() -> Callout:
    return Callout(ACCOUNT_SEED.decode(), "TOLLBOOK", Authenticator(CLOCK), CLOCK)


def test_what_is_encoded_is_decoded() -> None:
    token = nats_jwt.encode({"sub": "x", "name": "한글"}, SERVER)
    claims = nats_jwt.decode(token, nkeys.PREFIX_BYTE_SERVER)
    assert (claims["sub"], claims["name"], claims["iss"]) == ("x", "한글", SERVER.public_key.decode())
    assert len(claims["jti"]) == 52


def test_a_changed_or_foreign_jwt_is_refused() -> None:
    header, body, signature = nats_jwt.encode({"sub": "x"}, SERVER).split(".")
    other = nats_jwt.encode({"sub": "x"}, key(nkeys.PREFIX_BYTE_SERVER, 8)).split(".")
    no_algorithm = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).decode().rstrip("=")
    for broken in (
        "",
        "a.b",
        "a.b.c",
        "é.é.é",
        f"{header}.{body}.",
        f"{header}.{other[1]}.{signature}",
        f"{header}.{body}.{other[2]}",
        f"{no_algorithm}.{body}.{signature}",
        f"{header}.{base64.urlsafe_b64encode(b'[]').decode()}.{signature}",
        "x" * 300_000,
    ):
        with pytest.raises(nats_jwt.BadJwt):
            nats_jwt.decode(broken, nkeys.PREFIX_BYTE_SERVER)
    with pytest.raises(nats_jwt.BadJwt):
        nats_jwt.decode(f"{header}.{body}.{signature}", nkeys.PREFIX_BYTE_ACCOUNT)


@pytest.mark.parametrize(
    "claims",
    [
        request(aud="something-else"),
        request(nats={"server_id": {"id": "N" + "A" * 55}}),
        request(nats={"server_id": None}),
        request(nats={"user_nkey": None}),
        request(nats={"connect_opts": "x"}),
        {"aud": "nats-authorization-request"},
    ],
)
async def test_what_is_no_request_gets_no_answer(claims: dict[str, Any]) -> None:
    assert await callout().answer(nats_jwt.encode(claims, SERVER).encode()) is None


async def test_a_refusal_says_why_and_is_signed_for_that_server() -> None:
    answer = await callout().answer(nats_jwt.encode(request(nats={"connect_opts": {}}), SERVER).encode())
    assert answer is not None
    claims = nats_jwt.decode(answer, nkeys.PREFIX_BYTE_ACCOUNT)
    assert (claims["aud"], claims["sub"]) == (SERVER.public_key.decode(), USER)
    assert claims["nats"] == {"type": "authorization_response", "version": 2, "error": "Connect with an API token."}


async def test_before_the_database_is_open_nobody_comes_in() -> None:
    answer = await callout().answer(nats_jwt.encode(request(), SERVER).encode())
    assert answer is not None
    assert "starting" in nats_jwt.decode(answer, nkeys.PREFIX_BYTE_ACCOUNT)["nats"]["error"]
    with pytest.raises(Unavailable):
        await Authenticator(CLOCK).authenticate("tbk_nonsense", "192.0.2.1")


def test_every_permission_names_the_account() -> None:
    allowed = permissions("demo")
    assert allowed["sub"] == {"allow": ["_INBOX_demo.>"]}
    keys = [subject for subject in allowed["pub"]["allow"] if "$KV." in subject]
    assert len(keys) == 2 * len(BUCKETS)
    assert all(subject.endswith(".demo.>") for subject in keys)
    assert not any("STREAM" in subject or "NEXT" in subject for subject in allowed["pub"]["allow"])
