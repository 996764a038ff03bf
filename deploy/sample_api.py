"""A small stand-in for the APIs that a company sells, so that there is a real call to make: `python -m deploy.sample_api PORT`.

`POST /recog/v1/stt?lang=Kor|Eng|Jpn|Chn` with audio answers as CLOVA Speech Recognition does, without listening very well. The
other paths of the catalog answer with what arrived: path and query, length and SHA-256 of the body, what the gate told, the names
of all headers. Each answer hands on what is left of a limit, X-Tollbook-Remaining: an API may, if its callers are to see it.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any, Final
from urllib.parse import parse_qs

import uvicorn

from deploy.asgi import Receive, Scope, Send, TooLong, answer_json, read_body

SPEECH_PATH: Final = "/recog/v1/stt"
REMAINING: Final = b"x-tollbook-remaining"
AUDIO_BYTES_MAX: Final = 3 * 1024 * 1024
HEARD: Final = {
    "Kor": "안녕하세요",
    "Eng": "Hello",
    "Jpn": "こんにちは",
    "Chn": "你好",
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/healthz":
        await answer_json(send, 200, {"alive": True})
        return
    try:
        body = await read_body(receive, AUDIO_BYTES_MAX)
    except TooLong:
        await answer_json(send, 413, _error("STT001", "Exceed Sound Data length (3 MB)"))
        return
    if scope["path"] == SPEECH_PATH:
        status, answer = recognise(scope["method"], scope["query_string"].decode("ascii", "replace"), body)
    else:
        status, answer = 200, arrived(scope, body)
    left = [(name, value) for name, value in scope["headers"] if name == REMAINING]
    await answer_json(send, status, answer, left)


def recognise(method: str, query: str, audio: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer of one call of the speech API."""
    language = parse_qs(query).get("lang", [""])[0]
    if method != "POST":
        return 405, _error("STT405", "Use POST.")
    if language not in HEARD:
        return 400, _error("STT004", f"Language code is required: lang={'|'.join(HEARD)}")
    if not audio:
        return 400, _error("STT003", "Empty Sound Data")
    return 200, {"text": HEARD[language]}


def arrived(scope: Scope, body: bytes) -> dict[str, Any]:
    """What of a call reached the API; of its headers' values only X-Tollbook-*, which are no secret."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    return {
        "method": scope["method"],
        "path": scope["path"],
        "query": scope["query_string"].decode("latin-1"),
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "told": {name: value for name, value in headers if name.startswith("x-tollbook-")},
        "headers": sorted(name for name, _ in headers),
    }


def _error(code: str, message: str) -> dict[str, Any]:
    return {"errorCode": code, "errorMessage": message}


def main() -> None:
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off", ws="none")


if __name__ == "__main__":
    main()
