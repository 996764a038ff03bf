"""Our reading of headers is nats-py's own, only faster."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from shared.streams.headers import parse_header_lines, read_headers_quickly

PIECES = st.lists(
    st.sampled_from(
        [b":", b"\r\n", b" ", b"\t", b"\r", b"\n", b"\x1c", b"\xa0", b"\xff", b"ce-id", b"Name", b"1.0", "é".encode()]
    )
    | st.binary(max_size=3),
    max_size=30,
).map(b"".join)


@given(PIECES)
@example(b"ce-id: 1\r\nce-id: 2\r\n\r\n")
@example(b": nameless\r\na b: space inside\r\n c :d\r\n")
def test_it_reads_what_nats_py_reads(raw: bytes) -> None:
    assert parse_header_lines(raw) == Client._parse_header_lines(raw)


async def test_a_connection_uses_it() -> None:
    nc = Client()
    read_headers_quickly(nc)
    nc._parse_header_lines = lambda raw: {"seen": raw.decode()}  # type: ignore[method-assign]
    assert await nc._process_headers(b"NATS/1.0\r\nce-id: 1\r\n\r\n") == {"seen": "ce-id: 1\r\n\r\n"}
