"""Plain requests to the JetStream API, and what its answers mean."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import nats.errors
from nats.aio.client import Client

from shared.errors import Unavailable
from shared.streams.headers import parse_headers

Connected: TypeAlias = Callable[[], Client]
"""Gives the service's one NATS connection; called each time, because it exists only after the start."""

TIMEOUT_S: Final = 5.0
TEMPORARY: Final = 503
"""The class of refusals that say nothing about what was asked, only that JetStream cannot do it now."""
STREAM_NOT_FOUND: Final = 10059
STREAM_NAME_TAKEN: Final = 10058
MESSAGE_NOT_FOUND: Final = 10037
CONSUMER_NOT_FOUND: Final = 10014
WRONG_LAST_SEQUENCE: Final = (10071, 10164)

NATS_FAILURES: Final = (nats.errors.Error, TimeoutError, ConnectionError, OSError)
"""What nats-py raises when the server is away, slow, or the connection is being made again."""


class ApiError(Exception):
    """JetStream refused a request: its own words, with `err_code` as nats-server's errors.json numbers them."""

    def __init__(self, request: str, err_code: int, description: str) -> None:
        super().__init__(f"JetStream answered {request} with: {description} ({err_code})")
        self.err_code = err_code
        self.description = description


class StreamRefused(Exception):
    """A stream does not hold what it must hold. The text says what was found and what an operator can do."""


def raise_if_cancelled() -> None:
    """Be cancelled, if somebody has asked for it.

    nats-py loses a cancellation that comes in the very moment when its answer does (asyncio.wait_for of Python 3.11), or while it
    flushes (it catches it): whoever waited for nats-py looks again with this.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def request(nc: Client, subject: str, data: bytes, timeout_s: float, headers: Mapping[str, str] | None = None) -> bytes:
    """The answer to a request. Raises one of NATS_FAILURES when there is none in time."""
    answer = await nc.request(subject, data, timeout=timeout_s, headers=None if headers is None else dict(headers))
    raise_if_cancelled()
    return answer.data


async def api(nc: Client, method: str, body: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Ask `$JS.API.<method>`; the decoded answer.

    Raises ApiError on a refusal, Unavailable when there is no answer, or when it says that there can be none now: no leader yet,
    no resources.
    """
    if not nc.is_connected:
        raise Unavailable("NATS is not connected.")
    try:
        answer = await request(nc, f"$JS.API.{method}", msgspec.json.encode(body or {}), timeout_s)
    except NATS_FAILURES as error:
        raise Unavailable(f"JetStream does not answer ({type(error).__name__}).") from error
    decoded: dict[str, Any] = msgspec.json.decode(answer)
    refusal = decoded.get("error")
    if refusal is not None:
        code, description = refusal.get("err_code", 0), refusal.get("description", "")
        if refusal.get("code") == TEMPORARY:
            raise Unavailable(f"JetStream cannot answer {method} now: {description} ({code}).")
        raise ApiError(method, code, description)
    return decoded


def stored_message(answer: Mapping[str, Any]) -> tuple[str, int, dict[str, str], bytes]:
    """(subject, sequence, headers, data) of a STREAM.MSG.GET answer."""
    message = answer["message"]
    headers = parse_headers(base64.b64decode(message["hdrs"])) if message.get("hdrs") else {}
    return message["subject"], message["seq"], headers, base64.b64decode(message.get("data") or "")
