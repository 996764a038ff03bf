"""Our reading of a connection is nats-py's own; messages that are asked for go another way, in the same order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from shared.errors import Unavailable
from shared.streams import wire
from shared.streams.wire import WireParser, wire_of


class Seen:
    """What a parser tells its client, as a nats.aio.client.Client is told it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.told.append((sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.told.append(("PING",))

    async def _process_pong(self) -> None:
        self.told.append(("PONG",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.told.append(("INFO", json.dumps(info)))

    async def _process_err(self, text: str) -> None:
        self.told.append(("-ERR", text))

    async def _error_cb(self, error: Exception) -> None:
        self.told.append((type(error),))


def message(sid: int, reply: bytes, headers: bytes, data: bytes) -> bytes:
    middle = b" " + reply if reply else b""
    if headers:
        sizes = b"%d %d" % (len(headers), len(headers) + len(data))
        return b"HMSG a.b %d%b %b\r\n%b%b\r\n" % (sid, middle, sizes, headers, data)
    return b"MSG a.b %d%b %d\r\n%b\r\n" % (sid, middle, len(data), data)


LINES = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Stale Connection'\r\n", b'INFO {"max_payload": 7}\r\n'])
MESSAGES = st.builds(
    message,
    st.integers(1, 3),
    st.sampled_from([b"", b"$JS.ACK.S.c.1.2.3.4.5", b"_INBOX.x"]),
    st.sampled_from([b"", b"NATS/1.0\r\nce-id: 7\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n"]),
    st.binary(max_size=12) | st.sampled_from([b"\r\n", b"PING\r\n", b"MSG a 1 3\r\n", b"x" * 5_000]),
)


async def fed(parser: Parser, stream: bytes, cuts: Sequence[int]) -> None:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for begin, end in itertools.pairwise(places):
        await parser.parse(stream[begin:end])


@given(st.lists(LINES | MESSAGES, max_size=12), st.lists(st.integers(0, 100_000), max_size=8))
async def test_it_reads_what_nats_py_reads_however_it_is_cut(items: list[bytes], cuts: list[int]) -> None:
    theirs, ours, apart = Seen(), Seen(), Seen()
    stream = b"".join(items)
    await fed(Parser(theirs), stream, cuts)
    await fed(WireParser(ours), stream, cuts)  # type: ignore[arg-type]
    assert ours.told == theirs.told

    parser = WireParser(apart)  # type: ignore[arg-type]
    delivered = []
    parser.deliver[2] = lambda subject, reply, headers, data: delivered.append((2, subject, reply, data, headers or None))
    await fed(parser, stream, cuts)
    assert delivered == [one for one in theirs.told if one[0] == 2]
    assert apart.told == [one for one in theirs.told if one[0] != 2]


@pytest.mark.parametrize(
    "line", [b"MSG a\r\n", b"MSG a x 3\r\n", b"HMSG a 1 x 3\r\n", b"HELLO\r\n", b"\r\n", b"HELLO" * 2_000 + b"\r\n"]
)
async def test_what_is_no_protocol_ends_the_connection(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        await WireParser(Seen()).parse(line)  # type: ignore[arg-type]


async def test_one_that_cannot_be_taken_is_told_and_the_next_one_comes() -> None:
    seen = Seen()
    parser = WireParser(seen)  # type: ignore[arg-type]
    delivered = []

    def deliver(_subject: bytes, _reply: bytes, _headers: bytes, data: bytes) -> None:
        if data == b"bad":
            raise ValueError(data)
        delivered.append(data)

    parser.deliver[1] = deliver
    await parser.parse(b"".join(message(1, b"", b"", data) for data in (b"bad", b"good")))
    assert (delivered, seen.told) == ([b"good"], [(ValueError,)])


async def test_another_connection_begins_anew() -> None:
    seen = Seen()
    parser = WireParser(seen)  # type: ignore[arg-type]
    await parser.parse(b"MSG a.b 1 10\r\n0123")
    parser.reset()
    await parser.parse(b"PING\r\n")
    assert seen.told == [("PING",)]


async def test_it_takes_its_place_between_two_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_REST_S", 0.0)
    nc = Client()
    nc._subs[1] = None  # type: ignore[assignment]
    for half in (b"MSG a.b 1 4", b"\r\n", b"01", b"23"):
        await nc._ps.parse(half)
        with pytest.raises(Unavailable, match="middle of a message"):
            await wire_of(nc)
    await nc._ps.parse(b"\r\n")
    parser = await wire_of(nc)
    assert nc._ps is parser
    assert await wire_of(nc) is parser
