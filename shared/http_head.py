"""A bound on the head of a request: uvicorn with httptools would collect headers for as long as they come. And the service's own
words for what is not HTTP at all."""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 131_072
"""Bytes of request line and headers before the connection is given up. An edge may say no earlier, and go on with it."""
LINGER_S: Final = 1.0
"""How long what still comes is thrown away, so that the answer is read before the connection is reset."""

DEFAULT_REFUSAL: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


DEFAULT_NOT_HTTP: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedHttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose heads end within HEAD_BYTES_MAX. `config.app.head_refusal` is the whole answer to one that does not, and
    `config.app.not_http_refusal` to what cannot be read as HTTP."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._head_bytes = 0
        self._refused = False

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Not worth a log line: any caller may ask for an upgrade, and is answered as if it had not."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own text, for everybody the same
        self.transport.write(getattr(self.config.app, "not_http_refusal", DEFAULT_NOT_HTTP))
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self._refuse()

    def _refuse(self) -> None:
        self._refused = True
        self.headers.clear()
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(getattr(self.config.app, "head_refusal", DEFAULT_REFUSAL))
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)
