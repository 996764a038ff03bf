"""Every answer of /authorize/{service}, over HTTP, from a gate that knows only what the registry's stream said."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx
import pytest
from nats.aio.client import Client

from shared.events.registry import (
    AppDeleted,
    AppEdited,
    Environments,
    RegistryEvent,
    SecretReissued,
    SecretRevoked,
    SelectedService,
    ServiceActivated,
    ServiceResumed,
    ServiceSuspended,
)
from tests.support.gates import Gate, Issued, Registry, counted, issue, running_gate, stored_batches, until

ENVIRONMENTS = Environments(web=("naver.com",), android=("com.example.app",), ios=("com.example.app",))
PASSED = (200, "", "")


def answer(response: httpx.Response) -> tuple[int, str, str]:
    if response.status_code == 200:
        assert response.content == b""
        return PASSED
    error = response.json()["error"]
    assert error["details"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, error["errorCode"], error["message"]


UNAUTHENTICATED = (401, "200", "Authentication Failed")
DENIED = (401, "210", "Permission Denied")
NOT_FOUND = (404, "300", "Not Found")
BAD = (400, "100", "Bad Request")


async def raw(port: int, request: bytes) -> bytes:
    """What comes back for these bytes, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def soon(gate: Gate, issued: Issued, expected: tuple[int, str, str], **headers: str) -> None:
    """The answer becomes this one: within a second of the event is promised, a busy machine is given more."""

    async def has_come() -> bool:
        return answer(await gate.call(issued, **headers)) == expected

    await until(has_come, f"the answer {expected}", timeout_s=5)


async def test_a_call_that_passes(gate: Gate, registry: Registry, nc: Client) -> None:
    issued = await registry.registers(("csr", "papago-nmt"))
    await soon(gate, issued, PASSED)
    response = await gate.call(issued, "papago-nmt", X_Tollbook_Quantity="12")
    assert answer(response) == PASSED
    told = {name: value for name, value in response.headers.items() if name.startswith("x-tollbook")}
    assert told == {
        "x-tollbook-client-id": issued.client_id,
        "x-tollbook-account": "acme",
        "x-tollbook-service": "papago-nmt",
        "x-tollbook-tier": "live",
    }
    record = (await stored_batches(nc))[-1].records[-1]
    assert (record.client_id, record.service, record.quantity, record.lease) == (issued.client_id, "papago-nmt", 12, "")
    occurred = datetime.fromtimestamp(record.occurred_at_us / 1e6, UTC)
    assert abs(datetime.now(UTC) - occurred) < timedelta(minutes=1)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND"])
async def test_any_method_and_any_body(gate: Gate, registry: Registry, method: str) -> None:
    issued = await registry.registers()
    await soon(gate, issued, PASSED)
    response = await gate.http.request(method, "/authorize/csr", headers=issued.headers, content=b"x" * 3_000_000)
    assert answer(response) == PASSED
    assert answer(await gate.call(issued)) == PASSED


async def test_credentials(gate: Gate, registry: Registry, nc: Client) -> None:
    issued, other = await registry.registers(), await registry.registers()
    await soon(gate, other, PASSED)
    unknown = Issued("x" * 20, issued.secret)
    wrong = Issued(issued.client_id, other.secret)
    answers = [
        await gate.call(held) for held in (unknown, wrong, Issued(issued.client_id, "y"), Issued(issued.client_id, "~" * 40))
    ]
    for response in answers:
        assert answer(response) == UNAUTHENTICATED
        assert response.content == answers[0].content
    lines = b"X-NCP-APIGW-API-KEY-ID: \xff\xc3\x28%s\r\nX-NCP-APIGW-API-KEY: %s\r\n" % (b"a" * 17, b"\xed\xa0\x80\t" * 10)
    got = await raw(gate.port, b"GET /authorize/csr HTTP/1.1\r\nHost: g\r\nConnection: close\r\n" + lines + b"\r\n")
    assert got.startswith(b"HTTP/1.1 401 ")
    for headers in ({}, {"X-NCP-APIGW-API-KEY-ID": issued.client_id}, issued.headers | {"X-NCP-APIGW-API-KEY": ""}):
        assert answer(await gate.http.get("/authorize/csr", headers=headers)) == UNAUTHENTICATED
    shouted = {name.upper(): value for name, value in issued.headers.items()}
    assert answer(await gate.http.get("/authorize/csr", headers=shouted)) == PASSED
    assert counted(await stored_batches(nc)) == {issued.client_id: 1, other.client_id: len(gate.passed)}


async def test_credentials_in_the_original_query_string(gate: Gate, registry: Registry) -> None:
    issued = await registry.registers()
    await soon(gate, issued, PASSED)
    query = "&".join(f"{name.lower()}={quote(value)}" for name, value in issued.headers.items())
    for header in ("X-Forwarded-Uri", "X-Original-URI"):
        assert answer(await gate.http.get("/authorize/csr", headers={header: f"/recog/v1/stt?lang=Kor&{query}"})) == PASSED
        assert answer(await gate.http.get("/authorize/csr", headers={header: f"/recog?{query}x"})) == UNAUTHENTICATED
    assert answer(await gate.http.get(f"/authorize/csr?{query}")) == PASSED


async def test_headers_given_twice(gate: Gate, registry: Registry) -> None:
    issued = await registry.registers(environments=ENVIRONMENTS)
    await soon(gate, issued, PASSED)
    held = list(issued.headers.items())

    async def with_also(*more: tuple[str, str]) -> tuple[int, str, str]:
        return answer(await gate.http.get("/authorize/csr", headers=[*held, *more]))

    assert await with_also(*held) == PASSED
    assert await with_also(("x-ncp-apigw-api-key", "other")) == UNAUTHENTICATED
    assert await with_also(("x-ncp-apigw-api-key-id", "")) == UNAUTHENTICATED
    assert await with_also(("origin", "https://naver.com"), ("origin", "https://evil.example")) == DENIED
    assert await with_also(("x-tollbook-quantity", "1"), ("x-tollbook-quantity", "2")) == BAD


@pytest.mark.parametrize(
    "path", ["/", "/authorize", "/authorize/", "/authorize/none", "/authorize/csr/x", "/AUTHORIZE/csr", "/authorize/%00"]
)
async def test_what_is_not_there(gate: Gate, path: str) -> None:
    assert answer(await gate.http.get(path)) == NOT_FOUND


async def test_quantity(gate: Gate, registry: Registry, nc: Client) -> None:
    issued = await registry.registers()
    await soon(gate, issued, PASSED)
    for text in ("0", "-1", "1.5", "1e3", "", "many", "1000000001", "9" * 10_000):
        assert answer(await gate.call(issued, X_Tollbook_Quantity=text)) == BAD
    before = counted(await stored_batches(nc))[issued.client_id]
    assert answer(await gate.call(issued, X_Tollbook_Quantity="1000000000")) == PASSED
    assert counted(await stored_batches(nc))[issued.client_id] == before + 1_000_000_000


async def test_environments(gate: Gate, registry: Registry) -> None:
    issued = await registry.registers(environments=ENVIRONMENTS)
    await soon(gate, issued, PASSED)
    assert answer(await gate.call(issued, Origin="https://www.dev.naver.com:444")) == PASSED
    assert answer(await gate.call(issued, Referer="http://naver.com/page?x=1")) == PASSED
    assert answer(await gate.call(issued, X_Android_Package="com.example.app")) == PASSED
    assert answer(await gate.call(issued, X_Ios_Bundle_Identifier="com.example.app")) == PASSED
    for name, value in {
        "Origin": "https://notnaver.com",
        "Referer": "garbage",
        "X_Android_Package": "com.example.other",
        "X_Ios_Bundle_Identifier": "*",
    }.items():
        assert answer(await gate.call(issued, **{name: value})) == DENIED


async def test_a_service_that_is_not_selected(gate: Gate, registry: Registry, nats_url: str) -> None:
    issued = await registry.registers(("papago-nmt",))
    await soon(gate, issued, DENIED)
    async with running_gate(nats_url, naver_unselected_answer=True) as switched:
        response = await switched.call(issued)
        assert answer(response) == (429, "400", "Quota Exceeded")


async def test_every_change_shows_within_a_second(gate: Gate, registry: Registry) -> None:
    issued = await registry.registers(environments=ENVIRONMENTS)
    await soon(gate, issued, PASSED)

    async def says(event: RegistryEvent) -> None:
        await registry.says(event)

    def edited(*services: str, environments: Environments = ENVIRONMENTS) -> AppEdited:
        selected = tuple(SelectedService(service, "test") for service in services)
        return AppEdited(account="acme", client_id=issued.client_id, name="a", services=selected, environments=environments)

    await says(edited("papago-nmt"))
    await soon(gate, issued, DENIED)
    await says(edited("csr"))
    await soon(gate, issued, PASSED)
    assert (await gate.call(issued)).headers["x-tollbook-tier"] == "test"
    await says(ServiceActivated(account="acme", client_id=issued.client_id, service="csr"))

    async def is_live() -> bool:
        return (await gate.call(issued)).headers["x-tollbook-tier"] == "live"

    await until(is_live, "the tier live", timeout_s=5)
    await says(edited("csr", environments=Environments(web=("daum.net",))))
    await soon(gate, issued, DENIED, Origin="https://naver.com")

    second = Issued(issued.client_id, "S" * 40)
    grace_end = datetime.now(UTC) + timedelta(seconds=1.5)
    secret = issue(*second.as_pair())
    await says(SecretReissued(account="acme", client_id=issued.client_id, secret=secret, previous_valid_until=grace_end))
    await soon(gate, second, PASSED)
    assert answer(await gate.call(issued)) == PASSED
    await asyncio.sleep(max(0.0, (grace_end - datetime.now(UTC)).total_seconds()))
    await soon(gate, issued, UNAUTHENTICATED)
    assert answer(await gate.call(second)) == PASSED

    await says(SecretRevoked(account="acme", client_id=issued.client_id, secret_id=secret.secret_id))
    await soon(gate, second, UNAUTHENTICATED)


async def test_a_suspended_service_is_refused_and_one_that_is_resumed_is_not(
    gate: Gate, registry: Registry, nats_url: str
) -> None:
    issued = await registry.registers(("csr", "papago-nmt"))
    about = {"account": "acme", "client_id": issued.client_id, "service": "csr", "review_id": "r1"}
    await soon(gate, issued, PASSED)
    await registry.says(ServiceSuspended(**about))
    await soon(gate, issued, DENIED)
    assert (await gate.call(issued)).json()["error"]["details"] == "The service app is suspended."
    assert answer(await gate.call(issued, "papago-nmt")) == PASSED
    async with running_gate(nats_url) as second:
        assert answer(await second.call(issued)) == DENIED
        await registry.says(ServiceResumed(**about))
        await soon(second, issued, PASSED)
    await soon(gate, issued, PASSED)


async def test_a_deleted_application(gate: Gate, registry: Registry) -> None:
    issued = await registry.registers()
    await soon(gate, issued, PASSED)
    await registry.says(AppDeleted(account="acme", client_id=issued.client_id))
    await soon(gate, issued, UNAUTHENTICATED)


@pytest.mark.parametrize(
    "header",
    [
        "X-NCP-APIGW-API-KEY: " + "s" * 100_000,
        "X-Filler: " + "s" * 100_000,
        "X-Forwarded-Uri: /" + "s" * 100_000,
        *["A: " + "b" * 70_000],
    ],
)
async def test_headers_of_100_kb(gate: Gate, header: str) -> None:
    request = f"GET /authorize/csr HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{header}\r\n\r\n".encode()
    got = await raw(gate.port, request)
    assert got.startswith(b"HTTP/1.1 413 ")
    assert b'"errorCode":"430"' in got


async def test_ten_thousand_headers(gate: Gate) -> None:
    many = "".join(f"X-{n}: {n}\r\n" for n in range(10_000))
    got = await raw(gate.port, f"GET /authorize/csr HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{many}\r\n".encode())
    assert got.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("chunks", [20, 400])
@pytest.mark.parametrize("start", [b"GET /authorize/csr HTTP/1.1\r\nX-Filler: ", b"GET /"])
async def test_a_head_that_does_not_end_ends_the_connection(gate: Gate, registry: Registry, start: bytes, chunks: int) -> None:
    issued = await registry.registers()
    got = await raw(gate.port, start + b"x" * 10_000 * chunks)
    assert got.startswith(b"HTTP/1.1 413 Request Entity Too Large\r\n"), got
    assert got.endswith(b"}}")
    assert b'"errorCode":"430"' in got
    await soon(gate, issued, PASSED)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /authorize/csr\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"GET /authorize/csr HTTP/1.1\r\nHost: g\r\nX-NCP-APIGW-API-KEY : x\r\n\r\n",
        b"GET /authorize/csr HTTP/1.1\r\nHost: g\r\nX-NCP-APIGW-API-KEY: a\x00b\r\n\r\n",
        b"GET /authorize/\xff HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: g\r\n\r\n",
        b"CONNECT g:1 HTTP/1.1\r\nHost: g\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_client_error(gate: Gate, request_bytes: bytes) -> None:
    got = await raw(gate.port, request_bytes)
    assert got.startswith(b"HTTP/1.1 4"), got
    assert b'"errorCode":"' in got


async def test_a_request_to_upgrade_is_answered_and_the_connection_goes_on(gate: Gate, registry: Registry) -> None:
    issued = await registry.registers()
    await soon(gate, issued, PASSED)
    for _ in range(2):
        assert answer(await gate.call(issued, Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version="13")) == PASSED
    assert answer(await gate.call(issued)) == PASSED
