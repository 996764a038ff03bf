"""HTTP to our own services on this machine: blocking, for the health polls and the first start."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

TIMEOUT_S: Final = 3.0
BODY_BYTES_MAX: Final = 1 << 20


class Answer(NamedTuple):
    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)


def request(
    method: str,
    url: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """One request on a connection of its own; `body`, if given, goes as JSON. Raises OSError, also if the answer is no HTTP."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    all_headers = {"connection": "close", **(headers or {})}
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        all_headers["content-type"] = "application/json"
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target or "/", data, all_headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(BODY_BYTES_MAX))
    except http.client.HTTPException as error:
        raise OSError(f"not an HTTP answer: {type(error).__name__}") from None
    finally:
        connection.close()
