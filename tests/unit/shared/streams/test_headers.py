"""Our reading of headers is nats-py's own, but for names in lower case."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from shared.streams.headers import parse_headers, parse_status

PIECES = st.lists(
    st.sampled_from(
        [b":", b"\r\n", b" ", b"\t", b"\r", b"\n", b"\x1c", b"\xa0", b"\xff", b"ce-id", b"Name", b"1.0", "é".encode()]
    )
    | st.binary(max_size=3),
    max_size=30,
).map(b"".join)


@given(PIECES)
@example(b"ce-id: 1\r\nCE-Id: 2\r\n\r\n")
@example(b": nameless\r\na b: space inside\r\n c :d\r\n")
@example("ce-id:\u2003wide\u2003\r\n".encode())
def test_it_reads_what_nats_py_reads(raw: bytes) -> None:
    expected: dict[str, str] = {}
    for line in raw.split(b"\r\n"):
        expected |= {name.lower(): value for name, value in Client._parse_header_lines(line).items()}
    assert parse_headers(b"NATS/1.0\r\n" + raw) == expected


def test_a_block_without_headers() -> None:
    assert parse_headers(b"") == {}
    assert parse_headers(b"NATS/1.0 404 No Messages\r\n\r\n") == {}


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"NATS/1.0 404 No Messages\r\n\r\n", ("404", "No Messages")),
        (b"NATS/1.0 503\r\n\r\n", ("503", "")),
        (b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n", ("100", "Idle Heartbeat")),
        (b"NATS/1.0\r\nce-id: 7\r\n\r\n", ("", "")),
        (b"", ("", "")),
    ],
)
def test_statuses(raw: bytes, status: tuple[str, str]) -> None:
    assert parse_status(raw) == status
