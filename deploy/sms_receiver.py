"""A stand-in for NAVER Cloud's SENS, which keeps all text messages and sends none: `python -m deploy.sms_receiver PORT FOLDER`.

`POST /sms/v2/services/{serviceId}/messages` is checked and answered as SENS does, signature included; each message is then a file
FOLDER/<time>-<id>.json. Of too many messages the oldest go. The account is told by the environment: TOLLBOOK_SENS_SERVICE_ID,
TOLLBOOK_SENS_ACCESS_KEY and TOLLBOOK_SENS_SECRET_KEY. It listens on this machine only.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvicorn

from deploy.asgi import Receive, Scope, Send, TooLong, answer_json, read_body
from deploy.kept import KeptFiles
from deploy.sens import Account, Refused, authenticate, read_sending, records
from shared.clock import Clock, SystemClock
from shared.ids import new_id

BODY_BYTES_MAX: Final = 256 * 1024


def receiver(account: Account, files: KeptFiles, clock: Clock) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The ASGI application."""
    path = f"/sms/v2/services/{account.service_id}/messages"

    async def accept(scope: Scope, receive: Receive) -> dict[str, Any]:
        if scope["path"] != path or scope["method"] != "POST":
            raise Refused(404, "Not Found", f"there is only POST {path}")
        body = await read_body(receive, BODY_BYTES_MAX)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        now = clock.now()
        authenticate(account, scope["method"], target, headers, now)
        request_id = new_id()
        for record in records(read_sending(body), request_id, now):
            await asyncio.to_thread(files.keep, record)
        return {"requestId": request_id, "requestTime": now.isoformat(), "statusCode": "202", "statusName": "success"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/healthz":
            await answer_json(send, 200, {"alive": True})
            return
        try:
            await answer_json(send, 202, await accept(scope, receive))
        except Refused as refused:
            await answer_json(send, refused.status, refused.answer)
        except TooLong:
            await answer_json(send, 413, Refused(413, "Payload Too Large", f"at most {BODY_BYTES_MAX} bytes").answer)
        except OSError as error:
            await answer_json(send, 500, Refused(500, "Internal Server Error", f"it cannot be written: {error.strerror}").answer)

    return app


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> None:
    clock = SystemClock()
    app = receiver(Account.of(os.environ), KeptFiles(Path(arguments[1]), ".json", clock, _say), clock)
    uvicorn.run(app, host="127.0.0.1", port=int(arguments[0]), log_level="warning", access_log=False, lifespan="off", ws="none")


if __name__ == "__main__":
    main(sys.argv[1:])
