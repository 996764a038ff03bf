"""Hostile requests to the REST API of the running stack."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.badinput.conftest import PERSONAL, SECRET, raw
from tests.support.stack import StackProcess

JSON = {"content-type": "application/json"}
REFUSED = {400, 404, 409, 413, 422}
NASTY = [
    "",
    "\x00",
    "\ud800",
    "😀" * 30,
    "\u202e\u2066abc",
    "e\u0301" * 50,
    PERSONAL,
    SECRET,
    "x" * 100_000,
    "../../etc/passwd",
    "%s%n",
    "'; --",
]
NUMBERS = [-1, 0, 2**31, 2**63, 2**64, 10**400, 1.5, 1e308, -0.0, float("nan"), float("inf"), True, None]
anything: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([*NASTY, *NUMBERS]) | st.text(st.characters(codec=None), max_size=30) | st.integers() | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("name", "services", "environments", "web", "android", "ios", "command_id", "account", "client_id", "\u202ename", "")
bounded = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def app(console: httpx.Client) -> Iterator[str]:
    issued = console.post("/v1/apps", json={"name": "target", "services": ["clova-voice"]})
    client_id = issued.json()["client_id"]
    yield client_id
    assert console.delete(f"/v1/apps/{client_id}").status_code == 204


def apps(console: httpx.Client) -> set[str]:
    return {app["client_id"] for app in console.get("/v1/apps?limit=100").json()["apps"]}


def checked(answer: httpx.Response) -> dict[str, Any]:
    """A refusal as documented."""
    assert answer.status_code in REFUSED, (answer.status_code, answer.text[:500])
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 40_000
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["code"] in ("malformed_request", "invalid_input", "not_found", "conflict", "too_large")
    return problem


@bounded
@given(field=st.sampled_from(FIELDS), value=anything, deeper=st.booleans())
def test_no_field_of_a_registration_can_do_harm(console: httpx.Client, field: str, value: Any, deeper: bool) -> None:
    body: dict[str, Any] = {"name": "speech", "services": ["clova-voice"]}
    if deeper:
        body["environments"] = {field: value}
    else:
        body[field] = value
    before = apps(console)
    answer = console.post("/v1/apps", content=json.dumps(body), headers=JSON)
    if answer.status_code == 201:
        assert console.delete(f"/v1/apps/{answer.json()['client_id']}").status_code == 204
    else:
        checked(answer)
    assert apps(console) == before


@bounded
@given(field=st.sampled_from((*FIELDS, "grace_seconds", "version")), value=anything)
def test_no_field_of_a_change_can_do_harm(console: httpx.Client, app: str, field: str, value: Any) -> None:
    content = json.dumps({field: value})
    for method, path in (
        ("PATCH", f"/v1/apps/{app}"),
        ("POST", f"/v1/apps/{app}/secret/reissue"),
        ("PUT", "/v1/terms/acceptance"),
    ):
        before = console.get(f"/v1/apps/{app}/authentication").json()
        answer = console.request(method, path, content=content, headers=JSON)
        if answer.status_code != 200:
            checked(answer)
            assert console.get(f"/v1/apps/{app}/authentication").json() == before


PEOPLE = ("name", "email", "phone", "webhook_url", "locale", "zone", "quiet_hours", "digest_at", "start", "end", "contact_id")
RULE = ("daily", "monthly", "daily_custom", "monthly_custom", "recipients", "expected_version", "contact_id", "methods", "x")


@bounded
@given(field=st.sampled_from((*PEOPLE, "contacts", "method", "code", "account")), value=anything, deeper=st.booleans())
def test_no_field_of_a_contact_can_do_harm(console: httpx.Client, field: str, value: Any, deeper: bool) -> None:
    entered = {"quiet_hours": {field: value}} if deeper else {field: value}
    before = (console.get("/v1/contacts").json(), console.get("/v1/contact-groups").json())
    for path, body in (("/v1/contacts", {"name": "Kim", "email": "kim@example.com"}), ("/v1/contact-groups", {"name": "Kim"})):
        answer = console.post(path, content=json.dumps(body | entered), headers=JSON)
        if answer.status_code == 201:
            where = answer.headers["location"]
            for method, rest in (("PATCH", ""), ("POST", "/verification"), ("PUT", "/verification"), ("POST", "/test")):
                changed = console.request(method, f"{where}{rest}", content=json.dumps(entered), headers=JSON)
                if not changed.is_success:
                    checked(changed)
            assert console.delete(where).status_code == 204
        else:
            checked(answer)
    assert (console.get("/v1/contacts").json(), console.get("/v1/contact-groups").json()) == before


@bounded
@given(field=st.sampled_from(RULE), value=anything, deeper=st.booleans())
def test_no_field_of_a_rule_can_do_harm(console: httpx.Client, app: str, field: str, value: Any, deeper: bool) -> None:
    content = json.dumps({"recipients": [{field: value}]} if deeper else {field: value})
    for path in (f"/v1/apps/{app}/services/clova-voice/notifications", "/v1/services/clova-voice/notifications"):
        before = console.get(path).json()
        answer = console.put(path, content=content, headers=JSON)
        if answer.status_code != 200:
            checked(answer)
            assert console.get(path).json() == before


@pytest.mark.parametrize("token", [*(one for one in NASTY if one not in ("", "\ud800")), "a" * 500, "A-_" * 100])
def test_no_token_of_a_link_can_do_harm(console: httpx.Client, token: str) -> None:
    where = f"/unsubscribe/{quote(token[:2000], safe='')}"
    with httpx.Client(base_url=console.base_url, timeout=20, trust_env=False) as reader:
        assert reader.get(where).status_code in (200, 404)
        answer = reader.post(where, content=b"List-Unsubscribe=One-Click")
        assert answer.status_code in (404, 429), answer.text
        assert token not in answer.text


@bounded
@given(
    query=st.dictionaries(
        st.sampled_from(
            ["service", "period", "from", "to", "limit", "cursor", "interval", "group_by", "format", "kind", "method", "x"]
        ),
        st.sampled_from(NASTY[:8]),
    )
)
def test_no_query_can_do_harm(console: httpx.Client, app: str, query: dict[str, str]) -> None:
    told = {name: value.encode("utf-8", "surrogatepass") for name, value in query.items()}
    for path in (
        f"/v1/apps/{app}/usage",
        f"/v1/apps/{app}/corrections",
        f"/v1/apps/{app}/usage/history",
        "/v1/usage/history",
        "/v1/apps",
        "/v1/terms",
        f"/v1/apps/{app}/deliveries",
        "/v1/deliveries/counts",
        "/v1/notification-templates/crossed/preview",
    ):
        answer = console.get(path, params=told)  # type: ignore[arg-type]  # httpx takes bytes
        if answer.status_code != 200:
            checked(answer)


@bounded
@given(
    body=st.binary(max_size=200)
    | st.sampled_from([b"[" * 500_000, b'{"a":' * 90_000, b"\xff\xfe", b"\xef\xbb\xbf{}", b"{}{}", b"NaN"])
)
def test_no_body_can_do_harm(console: httpx.Client, app: str, body: bytes) -> None:
    for path in ("/v1/apps", f"/v1/apps/{app}/secret/reissue"):
        answer = console.post(path, content=body, headers=JSON)
        if answer.status_code != 200:
            checked(answer)


HEADS: list[tuple[str, bytes, tuple[int, ...]]] = [
    ("a header of 100 kB", b"Content-Length: 2\r\nX-Filler: " + b"f" * 100_000, (422,)),
    ("a header of 2 MB", b"Content-Length: 2\r\nX-Filler: " + b"f" * 2_000_000, (431,)),
    ("a key of 100 kB", b"Content-Length: 2\r\nIdempotency-Key: " + b"f" * 100_000, (422,)),
    ("5,000 headers", b"Content-Length: 2" + b"".join(b"\r\nX-%d: a" % n for n in range(5_000)), (422,)),
    ("a path of 100 kB", b"", (400,)),
    ("two tokens", b"Content-Length: 2\r\nAuthorization: Bearer tbk_other", (401,)),
    ("two lengths", b"Content-Length: 2\r\nContent-Length: 3", (400,)),
    ("a length and chunks", b"Content-Length: 2\r\nTransfer-Encoding: chunked", (400, 422)),
    ("a negative length", b"Content-Length: -2", (400,)),
    ("a length of 30 digits", b"Content-Length: " + b"9" * 30, (400, 413)),
    ("NUL in a header", b"X-Name: a\x00b", (400,)),
    ("a space before the colon", b"X-Name : a", (400,)),
    ("bytes that are not ASCII", b"X-Name: \xff\xfe\xf0\x9f\x98\x80\xe2\x80\xae\r\nContent-Length: 2", (422,)),
    ("two keys", b"Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 2", (422,)),
    ("a key that is not ASCII", b"Idempotency-Key: \xf0\x9f\x98\x80\r\nContent-Length: 2", (422,)),
]


@pytest.mark.parametrize(("head", "statuses"), [row[1:] for row in HEADS], ids=[row[0] for row in HEADS])
async def test_heads(stack: StackProcess, head: bytes, statuses: tuple[int, ...]) -> None:
    path, head = (b"/v1/apps", head) if head else (b"/v1/" + b"p" * 100_000, b"Content-Length: 2")
    token = stack.ready["owner_token"].encode()
    request = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + token
    answer = await raw(stack.ready["console_url"], request + b"\r\nContent-Type: application/json\r\n" + head + b"\r\n\r\n{}")
    assert int(answer.split()[1]) in statuses, answer[:300]
    assert b"content-type: application/problem+json" in answer


async def test_ten_megabytes_and_bodies_that_dawdle_at_once(stack: StackProcess, console: httpx.Client) -> None:
    head = f"POST /v1/apps HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.ready['owner_token']}\r\n".encode()
    head += b"Content-Type: application/json\r\n"
    url = stack.ready["console_url"]
    slow = [asyncio.create_task(raw(url, head + b"Content-Length: 100\r\n\r\n{")) for _ in range(40)]
    chunks = b"".join(b"100000\r\n" + b" " * 2**20 + b"\r\n" for _ in range(10)) + b"0\r\n\r\n"
    big = [raw(url, head + b"Content-Length: 10485760\r\n\r\n" + b" " * 10_485_760) for _ in range(4)]
    big += [raw(url, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks) for _ in range(4)]
    for answer in await asyncio.gather(*big):
        assert answer == b"" or b" 413 " in answer[:20], answer[:200]  # "": it hung up while the rest was still being sent
    assert (await asyncio.to_thread(console.get, "/v1/terms")).status_code == 200, "nobody waits behind those who dawdle"
    for answer in await asyncio.gather(*slow):
        assert b" 408 " in answer[:20], answer[:200]
