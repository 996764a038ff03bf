"""Answers without ASGI, for an edge that decides in a step: a task, two messages and their checks for each request would cost
more than the decision (docs/decisions/0014)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from shared.http_head import BoundedHttpProtocol

Reply = Callable[[bytes, bytes], None]
"""Sends the one answer: its status line and header lines, each with its CRLF, and its body. The server adds `date`, `connection`
and the empty line. May be called at any later time, also for a caller that has gone; a second answer is ignored."""
DirectEdge = Callable[[Any, Reply], None]
"""Is asked once for each request, with ASGI's HTTP scope; never raises, and never sees the body."""

_CLOSE: Final = b"connection: close\r\n"


class DirectHttpProtocol(BoundedHttpProtocol):
    """Asks `config.app.direct`, if there is one, for every path that is not in `config.app.asgi_paths`; ASGI has the rest.

    Which request is whose turn, keep-alive, pipelining and shutting down are uvicorn's, as they were.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        service = self.config.app
        self._direct: DirectEdge | None = getattr(service, "direct", None)
        self._asgi_paths = getattr(service, "asgi_paths", ())
        self._defaults: list[tuple[bytes, bytes]] | None = None
        self._ending = b"\r\n"

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        direct = self._direct
        if direct is None or cycle.scope["path"] in self._asgi_paths:
            super()._start_asgi_task(cycle, app)
        elif cycle is self.cycle and not self.flow.write_paused:
            direct(cycle.scope, partial(self._answer, cycle))
        else:
            # It is out of the pipeline, from within the answer before it, or the caller does not read: not in this step.
            task = self.loop.create_task(self._ask_later(direct, cycle))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    async def _ask_later(self, direct: DirectEdge, cycle: RequestResponseCycle) -> None:
        await self.flow.drain()
        if not self.transport.is_closing():
            direct(cycle.scope, partial(self._answer, cycle))

    def _answer(self, cycle: RequestResponseCycle, head: bytes, body: bytes) -> None:
        if cycle.response_complete or cycle.disconnected or self.transport.is_closing():
            return
        cycle.response_started = cycle.response_complete = True
        if cycle.scope["method"] == "HEAD":
            body = b""
        defaults = self.server_state.default_headers
        if defaults is not self._defaults:  # another list each second, because of `date`
            self._defaults = defaults
            self._ending = b"".join([name + b": " + value + b"\r\n" for name, value in defaults]) + b"\r\n"
        if cycle.keep_alive:
            self.transport.write(head + self._ending + body)
        else:
            self.transport.write(head + _CLOSE + self._ending + body)
            self.transport.close()
        self.on_response_complete()
