"""Messages straight from the wire: what nats-py does with each on its way to a callback takes more time than counting it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from shared.errors import Unavailable

Deliver = Callable[[bytes, bytes, bytes, bytes], None]
"""Is called with subject, reply, headers and data of each message, in order, in the middle of reading the connection. `reply` and
`headers` are empty when there are none; headers are as they came, with their first line."""

_CRLF: Final = b"\r\n"
_REST_S: Final = 0.01
_REST_TRIES: Final = 200


class WireParser(Parser):
    """Takes the place of nats-py's own parser on a connection. Messages of the subscriptions in `deliver` go there, and nowhere
    else; all others go where they always did; what is not a message is read by nats-py's parser."""

    def __init__(self, nc: Client) -> None:
        self.deliver: dict[int, Deliver] = {}
        """By the id of the subscription."""
        self._life = 0
        super().__init__(nc)

    def reset(self) -> None:
        """Begin anew: it is another connection."""
        super().reset()
        self._life += 1
        self._keep(b"", 0)

    async def parse(self, data: bytes = b"") -> None:
        """Read what the server has sent, as far as it is complete. Raises ProtocolError."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size < self._needed:
            return
        life, buffer = self._life, b"".join(self._chunks)
        place = 0
        while True:
            line_end = buffer.find(_CRLF, place)
            if line_end < 0:
                needed = len(buffer) + 1
                break
            after_line = line_end + len(_CRLF)
            words = buffer[place:line_end].split()
            if not words or words[0] not in (b"MSG", b"HMSG"):
                await self._read_line(buffer[place:after_line])
                place = after_line
                continue
            sid, reply, headers_size, size = _arguments(words)
            after_headers, needed = after_line + headers_size, after_line + size + len(_CRLF)
            if len(buffer) < needed:
                break
            place, data = needed, buffer[after_headers : after_line + size]
            deliver = self.deliver.get(sid)
            if deliver is None:
                await self.nc._process_msg(sid, words[1], reply, data, buffer[after_line:after_headers] or None)
                continue
            try:
                deliver(words[1], reply, buffer[after_line:after_headers], data)
            except Exception as error:  # as nats-py does with its callbacks: one message must not end the connection
                await self.nc._error_cb(error)
        if life == self._life:
            self._keep(buffer[place:], needed - place)

    def _keep(self, rest: bytes, needed: int) -> None:
        """Have what is not complete wait for more: `needed` bytes in all before it is worth looking again."""
        self._chunks, self._size, self._needed = [rest], len(rest), needed

    async def _read_line(self, line: bytes) -> None:
        self.buf = bytearray(line)
        await super().parse()
        if self.buf:
            raise ProtocolError("nats: unknown protocol")


def _arguments(words: list[bytes]) -> tuple[int, bytes, int, int]:
    """(subscription, reply, bytes of headers, bytes in all) of `MSG subject sid [reply] size` or
    `HMSG subject sid [reply] headers size`. Raises ProtocolError."""
    sizes = 2 if words[0] == b"HMSG" else 1
    try:
        sid, reply = words[2], words[3] if len(words) > 3 + sizes else b""
        return int(sid), reply, int(words[-2]) if sizes == 2 else 0, int(words[-1])
    except (IndexError, ValueError):
        raise ProtocolError("nats: malformed MSG") from None


async def wire_of(nc: Client) -> WireParser:
    """What reads this connection from now on. Raises Unavailable when nats-py is never between two messages.

    `_ps` is not documented: tests/unit/shared/streams/test_wire.py compares the two parsers at every upgrade of nats-py.
    """
    for _ in range(_REST_TRIES):
        parser = nc._ps
        if isinstance(parser, WireParser):
            return parser
        if parser.state == AWAITING_CONTROL_LINE and not parser.buf:
            parser.nc._ps = wire = WireParser(parser.nc)
            return wire
        await asyncio.sleep(_REST_S)
    raise Unavailable("The connection to NATS is in the middle of a message.")
