"""Answers without ASGI, for an edge that decides in a step: a task, two messages and their checks for each request, and all that
ASGI has to be told about it, would cost more than the decision (docs/decisions/0014)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Container
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from shared.http_head import BoundedHttpProtocol

_CLOSE: Final = b"connection: close\r\n"


class Request:
    """One request, and the way to answer it.

    `path` is without the query string, its %-escapes undone; `query` and the values of `headers` are as they came, the names of
    headers in lower case. The body is not kept.
    """

    # What uvicorn asks of the cycle of a request, this has as well: it may be its protocol's `cycle`.
    __slots__ = ("_is_head", "_protocol", "disconnected", "headers", "keep_alive", "path", "query", "response_complete")
    message_event: Final = asyncio.Event()
    """Is set when a caller goes; nobody waits for it."""

    def __init__(
        self,
        protocol: DirectHttpProtocol,
        path: str,
        query: bytes,
        headers: list[tuple[bytes, bytes]],
        is_head: bool,
        keep_alive: bool,
    ) -> None:
        self.path = path
        self.query = query
        self.headers = headers
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self._is_head = is_head
        self._protocol = protocol

    def reply(self, head: bytes, body: bytes) -> None:
        """Send the one answer: its status line and header lines, each with its CRLF, and its body. The server adds `date`,
        `connection` and the empty line. At any later time, also to a caller that has gone; a second answer is ignored."""
        if self.response_complete or self.disconnected:
            return
        self.response_complete = True
        self._protocol.answer(head, b"" if self._is_head else body, self.keep_alive)


DirectEdge = Callable[[Request], None]
"""Is asked once for each request; never raises."""


class DirectHttpProtocol(BoundedHttpProtocol):
    """Asks `config.app.direct` for every path that is not in `config.app.asgi_paths`; ASGI has the rest.

    uvicorn is told of a request once it is known to be ASGI's. Which request is whose turn, keep-alive and shutting down are as
    uvicorn has them.
    """

    cycle: RequestResponseCycle | Request | None  # type: ignore[assignment]
    pipeline: deque[tuple[RequestResponseCycle | Request, Any]]  # type: ignore[assignment]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        service: Any = self.config.app
        self._direct: DirectEdge = service.direct
        self._asgi_paths: Container[str] = service.asgi_paths
        self._url_before, self._target = b"", ("", b"")
        self._idle_since_s: float | None = None
        self._defaults: list[tuple[bytes, bytes]] | None = None
        self._ending = b"\r\n"

    # -- a request comes

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # not in a trailer, which would come when the request is asked about already, and has no bound
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.url != self._url_before:  # by most callers the same is asked again and again
            self._target = split_target(self.url)
            self._url_before = self.url
        path, query = self._target
        if path in self._asgi_paths:
            self._have_asgi_answer()
            return
        self._in_head = False
        parser, before = self.parser, self.cycle
        request = Request(
            self,
            path,
            query,
            self.headers,
            parser.get_method() == b"HEAD",
            parser.should_keep_alive() and parser.get_http_version() != "1.0",
        )
        self.cycle = request
        if before is not None and not before.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((request, self.app))
        elif self.flow.write_paused:
            self._ask_later(request)
        else:
            self._direct(request)

    def _have_asgi_answer(self) -> None:
        url, headers = self.url, self.headers
        super().on_message_begin()
        super().on_url(url)
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not isinstance(self.cycle, Request):
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not isinstance(self.cycle, Request):
            super().on_message_complete()

    def _ask_later(self, request: Request) -> None:
        """It is out of the pipeline, from within the answer before it, or the caller does not read: not in this step."""
        task = self.loop.create_task(self._asked_later(request))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    async def _asked_later(self, request: Request) -> None:
        await self.flow.drain()
        if not self.transport.is_closing():
            self._direct(request)

    # -- and is answered

    def answer(self, head: bytes, body: bytes, keep_alive: bool) -> None:
        """Send what the request whose turn it is replied."""
        transport = self.transport
        if transport.is_closing():
            return
        defaults = self.server_state.default_headers
        if defaults is not self._defaults:  # another list each second, because of `date`
            self._defaults = defaults
            self._ending = b"".join([name + b": " + value + b"\r\n" for name, value in defaults]) + b"\r\n"
        if keep_alive:
            transport.write(head + self._ending + body)
        else:
            transport.write(head + _CLOSE + self._ending + body)
            transport.close()
        self.on_response_complete()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if isinstance(cycle, Request):
                self._ask_later(cycle)
            else:
                self._start_asgi_task(cycle, app)
        else:
            self._idle_since_s = self.loop.time()
            if self.timeout_keep_alive_task is None:
                self._look_after(self.timeout_keep_alive)

    # -- nothing comes. uvicorn sets and cancels a timer for each request; here one looks how long nothing has come.

    def _look_after(self, delay_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(delay_s, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since_s = None

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since_s is None:
            return  # the next answer has it look again
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._look_after(left_s)
        else:
            super().timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()


def split_target(url: bytes) -> tuple[str, bytes]:
    """Path and query string of a request's target. Raises HttpParserInvalidURLError or UnicodeDecodeError for what is none."""
    parsed = httptools.parse_url(url)
    return unquote(parsed.path.decode("ascii")), parsed.query or b""
