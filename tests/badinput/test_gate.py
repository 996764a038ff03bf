"""Hostile calls to the gate, itself and through the proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.badinput.conftest import PERSONAL, SECRET, raw
from tests.support.stack import StackProcess

ID, KEY = b"X-NCP-APIGW-API-KEY-ID", b"X-NCP-APIGW-API-KEY"
NAMES = [ID, KEY, KEY.lower(), b"Origin", b"Referer", b"X-Android-Package", b"X-Ios-Bundle-Identifier", b"X-Tollbook-Quantity"]
NAMES += [b"X-Forwarded-Uri", b"X-Original-URI", b"X-Forwarded-For", b"X-Forwarded-Host"]
VALUES = [
    b"",
    b"a" * 20,
    b"\xff\xfe",
    "😀".encode(),
    "\u202e".encode(),
    PERSONAL.encode(),
    SECRET.encode(),
    b"-1",
    b"1e308",
    b"9" * 400,
]
VALUES += [
    b"/?" + ID + b"=%00&" + KEY + b"=%ED%A0%80",
    b"/?" + b"&".join([KEY + b"=x"] * 500),
    b"null",
    b"file:",
    b"http://[",
    b"%",
]
value = st.sampled_from(VALUES) | st.binary(max_size=40).map(
    lambda data: data.translate(None, bytes(range(32)) + b"\x7f").strip()
)


@pytest.fixture(scope="module")
def gate(stack: StackProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.ready["gate_url"], timeout=20, trust_env=False) as http:
        yield http


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    headers=st.lists(st.tuples(st.sampled_from(NAMES), value), max_size=8),
    query=st.binary(max_size=60) | st.sampled_from(VALUES),
    service=st.sampled_from(["csr", "nope", "%00", "%ED%A0%80", "..", "a" * 5_000]),
)
def test_whatever_comes_is_refused(gate: httpx.Client, headers: list[tuple[bytes, bytes]], query: bytes, service: str) -> None:
    answer = gate.get(f"/authorize/{service}?{''.join(f'%{byte:02x}' for byte in query[:200])}", headers=headers)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert error["errorCode"] in ("100", "200", "210", "300", "430")
    assert error["message"]
    assert SECRET not in answer.text


CALLS: list[tuple[str, bytes]] = [
    ("a header of 100 kB", b"X-Filler: " + b"f" * 100_000),
    ("a secret of 100 kB", KEY + b": " + b"f" * 100_000),
    ("a secret that is not ASCII", KEY + b": \xf0\x9f\x98\x80\xff"),
    ("two secrets", KEY + b": a\r\n" + KEY + b": b"),
    ("a quantity of 400 digits", b"X-Tollbook-Quantity: " + b"9" * 400),
    ("a length and chunks", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
    ("two lengths", b"Content-Length: 5\r\nContent-Length: 6"),
    ("NUL", KEY + b": a\x00b"),
    ("who it is", b"X-Tollbook-Client-Id: " + b"a" * 20 + b"\r\nX-Tollbook-Account: demo"),
]


@pytest.mark.parametrize("head", [row[1] for row in CALLS], ids=[row[0] for row in CALLS])
@pytest.mark.parametrize("edge", ["proxy_url", "gate_url"])
async def test_calls(stack: StackProcess, edge: str, head: bytes) -> None:
    path = b"/authorize/csr" if edge == "gate_url" else b"/recog/v1/stt?lang=Kor"
    request = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + head + b"\r\n\r\n"
    answer = await raw(stack.ready[edge], request)
    assert 400 <= int(answer.split()[1]) < 500, answer[:300]


async def test_ten_megabytes_without_a_secret_reach_nobody(stack: StackProcess) -> None:
    head = b"POST /recog/v1/stt HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10485760\r\n\r\n"
    answer = await raw(stack.ready["proxy_url"], head + b" " * 10_485_760)
    assert answer == b"" or b" 401 " in answer[:20], answer[:200]
    slow = await raw(stack.ready["proxy_url"], head + b"{")
    assert b" 401 " in slow[:20], slow[:200]
