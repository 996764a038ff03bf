"""Everything that a client can get wrong: the documented problem, never a 5xx, nothing done."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from urllib.parse import urlsplit

import pytest

from services.console.http import boundary
from tests.integration.console.conftest import House

GOOD = {"name": "speech", "services": ["clova-voice"]}
JSON = {"Content-Type": "application/json"}
HTTP_LENGTH = 10 * 1024 * 1024


def with_(**fields: object) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


BODIES: list[tuple[str, bytes, int, list[str]]] = [
    ("not JSON", b"{", 400, []),
    ("not UTF-8", b'{"name": "\xff"}', 400, []),
    ("nested too deep", b"[" * 100_000, 400, []),
    ("a number of 5,000 digits", b'{"name": ' + b"1" * 5000 + b"}", 400, []),
    ("an array", b"[]", 422, ["(whole)"]),
    ("null", b"null", 422, ["(whole)"]),
    ("nothing", b"", 422, ["(whole)"]),
    ("an empty object", b"{}", 422, ["name", "services"]),
    ("everything wrong at once", b'{"name": 3, "services": [], "x": 1}', 422, ["name", "services", "x"]),
    ("NUL in the name", with_(name="a\x00b"), 422, ["name"]),
    ("half a surrogate pair", b'{"name": "\\ud83d", "services": ["clova-voice"]}', 422, ["name"]),
    ("a name of 21 characters", with_(name="x" * 21), 422, ["name"]),
    ("a name of spaces", with_(name="   "), 422, ["name"]),
    ("a service that is none", with_(services=["nonsense"]), 422, ["services[0]"]),
    ("a service twice", with_(services=["clova-voice", "clova-voice"]), 422, ["services[1]"]),
    ("no mobile environment", with_(services=["csr"]), 422, ["environments"]),
    ("who asks", with_(account="other", actor="me", command_id="x"), 422, ["account", "actor", "command_id"]),
    ("a wrong URL", with_(environments={"web": ["http://naver.com", "ftp://x"]}), 422, ["environments.web[1]"]),
    ("eleven URLs", with_(environments={"web": [f"http://a{n}.com" for n in range(11)]}), 422, ["environments.web"]),
    ("an unknown environment", with_(environments={"linux": []}), 422, ["environments.linux"]),
    ("a wrong package", with_(environments={"android": ["1.a"]}), 422, ["environments.android[0]"]),
]


@pytest.mark.parametrize(("body", "status", "fields"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
async def test_bodies(house: House, body: bytes, status: int, fields: list[str]) -> None:
    answer = await house.api.post("/v1/apps", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert sorted(field["field"] for field in problem.get("fields", [])) == sorted(fields)
    assert all(field["problem"] and field["hint"] for field in problem.get("fields", []))
    assert (await house.api.get("/v1/apps")).json()["apps"] == []


async def test_an_emoji_is_told_or_taken_but_never_breaks(house: House) -> None:
    answer = await house.api.post("/v1/apps", json={**GOOD, "name": "🎙️ speech"})
    assert answer.status_code in (201, 422)


async def test_a_body_that_is_not_declared_as_json(house: House) -> None:
    answer = await house.api.post("/v1/apps", content=with_(), headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["fields"][0]["hint"]) == (422, "Send Content-Type: application/json.")


async def test_a_hundred_thousand_unknown_fields_get_a_short_answer(house: House) -> None:
    body = json.dumps(dict.fromkeys((f"field{number}" for number in range(50_000)), 1)).encode()
    answer = await house.api.post("/v1/apps", content=body, headers=JSON)
    assert (answer.status_code, len(answer.json()["fields"])) == (422, 101)
    long_name = await house.api.post("/v1/apps", content=json.dumps({"x" * 500_000: 1}).encode(), headers=JSON)
    assert long_name.status_code == 422
    assert len(long_name.content) < 2_000


async def test_query_headers_and_body_are_told_together(house: House) -> None:
    answer = await house.api.post(
        "/v1/apps?dry_run=1", content=b'{"name": 1}', headers={**JSON, "Idempotency-Key": "with a space"}
    )
    assert answer.status_code == 422
    assert {field["field"] for field in answer.json()["fields"]} == {"dry_run", "Idempotency-Key", "name", "services"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/apps?limit=0", ["limit"]),
        ("/v1/apps?limit=101&cursor=", ["cursor", "limit"]),
        ("/v1/apps?limit=ten&page=2", ["limit", "page"]),
        ("/v1/terms?version=1", ["version"]),
        (f"/v1/apps/{'a' * 20}/usage", ["service"]),
        (
            f"/v1/apps/{'a' * 20}/usage?service=CSR&period=weekly&from=x&to=2026-13-01&z=1",
            ["from", "period", "service", "to", "z"],
        ),
    ],
)
async def test_queries(house: House, path: str, fields: list[str]) -> None:
    answer = await house.api.get(path)
    assert answer.status_code == 422, answer.text
    assert sorted(field["field"] for field in answer.json()["fields"]) == fields


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v1/apps/short", 404),
        ("GET", "/v1/apps/" + "a" * 20, 404),
        ("GET", "/v1/apps/" + "%00" * 20, 404),
        ("GET", "/v1/apps/" + "a" * 10_000, 404),
        ("GET", "/v1/apps/", 404),
        ("PUT", "/v1/apps", 405),
        ("TRACE", "/v1/apps", 405),
        ("HEAD", "/v1/apps", 405),
    ],
)
async def test_addresses_and_methods(house: House, method: str, path: str, status: int) -> None:
    answer = await house.api.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 405:
        assert answer.headers["allow"] == "GET, POST"


async def test_every_answer_forbids_caching_and_sniffing(house: House) -> None:
    for answer in (await house.api.get("/v1/terms"), await house.api.get("/v1/nothing"), await house.api.get("/v1/openapi.json")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def raw(house: House, head: str, *chunks: bytes, pause_s: float = 0.0) -> tuple[int, dict[str, Any], int]:
    """Speak HTTP by hand: status, problem, and how many bytes the server took before it answered or closed."""
    port = urlsplit(house.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = 0
    try:
        writer.write(f"POST /v1/apps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.token}\r\n{head}\r\n".encode())
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)
            await asyncio.sleep(pause_s)
    except ConnectionError:
        pass  # it has answered already
    try:
        answer = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
    headers, _, body = answer.partition(b"\r\n\r\n")
    return int(headers.split()[1]), json.loads(body), sent


async def test_a_body_of_ten_megabytes_is_refused_unread(house: House) -> None:
    status, problem, _ = await raw(house, f"Content-Type: application/json\r\nContent-Length: {HTTP_LENGTH}\r\n")
    assert (status, problem["code"]) == (413, "too_large")


async def test_a_body_without_a_length_is_counted_as_it_comes(house: House) -> None:
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    head = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    port = urlsplit(house.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST /v1/apps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.token}\r\n{head}\r\n".encode())
    for _ in range(17):
        writer.write(chunk)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_body_that_dawdles_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = house.edge
    monkeypatch.setattr(edge, "_timeout_s", 0.3)
    assert boundary.BODY_TIMEOUT_S == 10
    status, problem, _ = await raw(house, "Content-Type: application/json\r\nContent-Length: 100\r\n", b"{")
    assert (status, problem["code"]) == (408, "body_too_slow")


async def test_nobody_who_is_not_signed_in_gets_a_body_read(house: House) -> None:
    port = urlsplit(house.url).port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/apps HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 401")


async def test_a_mistake_of_ours_is_not_told_and_leaves_no_secret_in_the_log(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "open-sesame"

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError(f"{secret} {house.token}")

    monkeypatch.setattr("services.console.http.apps.addressed", breaks)
    with caplog.at_level(logging.DEBUG):
        answer = await house.api.post("/v1/apps", json=GOOD)
    assert (answer.status_code, answer.json()["code"]) == (500, "unexpected")
    assert secret not in answer.text
    assert "RuntimeError" in caplog.text
    assert secret not in caplog.text
    assert house.token not in caplog.text


async def test_no_secret_is_logged_on_the_usual_ways(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        issued = await house.register()
        await house.api.get(f"/v1/apps/{issued['client_id']}/authentication")
        await house.api.get("/v1/apps", headers={"Authorization": f"Bearer {house.token}x"})
        await house.api.post("/v1/apps", json={"name": issued["client_secret"], "client_secret": issued["client_secret"]})
    assert issued["client_secret"] not in caplog.text
    assert house.token not in caplog.text
