"""What the gate is compared with: an ASGI function that answers 200 at once, on the same server with the same settings."""

from __future__ import annotations

import os

import uvicorn

from shared.http_head import BoundedHttpProtocol
from shared.service import Receive, Scope, Send

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
BODY = {"type": "http.response.body", "body": b""}


async def edge(scope: Scope, receive: Receive, send: Send) -> None:
    """Nothing else."""
    await send(START)
    await send(BODY)


def main() -> None:
    """As `Service.server` has it, without a lifespan."""
    uvicorn.run(
        edge,
        host="127.0.0.1",
        port=int(os.environ["TOLLBOOK_HTTP_PORT"]),
        log_config=None,
        access_log=False,
        loop="uvloop",
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=65536,
    )


if __name__ == "__main__":
    main()
