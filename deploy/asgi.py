"""As much of ASGI as the small servers of the stack need."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class TooLong(Exception):
    """The body is longer than it may be."""


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """The request's body. Raises TooLong."""
    body, size, more = b"", 0, True
    while more:  # to the end even when it is too long: a caller that is still sending would not see the answer
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        body = body + part if size <= bytes_max else b""
        more = message.get("more_body", False)
    if size > bytes_max:
        raise TooLong
    return body


async def answer_json(send: Send, status: int, answer: dict[str, Any], handed_on: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """The whole answer; `handed_on` are further headers."""
    body = json.dumps(answer, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"%d" % len(body)), *handed_on]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
