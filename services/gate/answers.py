"""What the gate answers. Refusals have the body of NAVER's API Gateway, because its clients parse it, and are made once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Final, assert_never

import msgspec

from services.gate.domain import Pass, Reason
from shared.commands.quota import Short
from shared.events.usage import QUANTITY_MAX

RETRY_AFTER_S: Final = 1
REFUSAL_HEADER: Final = b"x-tollbook-refusal"
"""Has a refusal's body once more: nginx's auth_request shows its configuration the headers of an answer, never the body."""


class Answer:
    """A whole HTTP answer. `head` is its status line and header lines as they go over the wire, without the empty line.

    `outcome` is its name in the metrics.
    """

    __slots__ = ("body", "head", "headers", "outcome", "status")

    def __init__(self, outcome: str, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.outcome = outcome
        self.status = status
        self.body = body
        self.headers = [(b"content-length", b"%d" % len(body)), *headers]
        self.head = head(status, self.headers)


def head(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Status line and header lines. Raises ValueError for what would end a line early."""
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode()), *(name + b": " + value for name, value in headers)]
    if any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines):
        raise ValueError("a header has a line break in it")
    return b"\r\n".join(lines) + b"\r\n"


def refusal(outcome: str, status: int, code: str, message: str, details: str, **fields: str | int | datetime) -> Answer:
    """A refusal with NAVER's body; `fields` follow `details` in it (for a limit: limit, used, resets_at)."""
    return _refusal(outcome, status, code, message, details, fields, RETRY_AFTER_S if status == 503 else None)


def _refusal(
    outcome: str,
    status: int,
    code: str,
    message: str,
    details: str,
    fields: Mapping[str, str | int | datetime],
    retry_after_s: int | None,
) -> Answer:
    body = msgspec.json.encode({"error": {"errorCode": code, "message": message, "details": details, **fields}})
    assert body.isascii(), "it is sent as a header too"
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), (REFUSAL_HEADER, body)]
    if status == 401:
        headers.append((b"www-authenticate", b'Tollbook realm="X-NCP-APIGW-API-KEY-ID"'))
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    return Answer(outcome, status, body, headers)


def authentication_failed(outcome: str, details: str) -> Answer:
    return refusal(outcome, 401, "200", "Authentication Failed", details)


def permission_denied(outcome: str, details: str) -> Answer:
    return refusal(outcome, 401, "210", "Permission Denied", details)


def quota_exceeded(outcome: str, details: str) -> Answer:
    return refusal(outcome, 429, "400", "Quota Exceeded", details)


def endpoint_error(outcome: str, details: str) -> Answer:
    return refusal(outcome, 503, "500", "Endpoint Error", details)


def not_found(outcome: str, details: str) -> Answer:
    return refusal(outcome, 404, "300", "Not Found", details)


NOT_FOUND: Final = not_found("not_found", "There is nothing at this path. Calls are asked about at /authorize/{service}.")
HEADERS_TOO_LARGE: Final = refusal(
    "headers_too_large", 413, "430", "Request Entity Too Large", "The request's headers are larger than 64 KiB."
)
NOT_HTTP: Final = refusal(
    "not_http", 400, "100", "Bad Request", "This is not HTTP/1.1: a character where none may be, or a wrong length."
)
OVERLOADED: Final = endpoint_error("overloaded", "Too many calls are being decided at once. Try again in a moment.")
STARTING: Final = endpoint_error("starting", "The gate does not know all applications now. Try again in a moment.")
NOT_RECORDED: Final = endpoint_error("not_recorded", "Usage cannot be recorded now, so no call passes. Try again in a moment.")
LEASE_ENDED: Final = endpoint_error(
    "lease_ended", "Recording the call took longer than its units were set aside for, so it does not pass. Try again in a moment."
)
QUOTA_UNDECIDED: Final = endpoint_error("quota_undecided", "The quota cannot be decided now. Try again in a moment.")
UNEXPECTED: Final = refusal(
    "unexpected", 500, "900", "Unexpected Error", "Something went wrong in the gate; the call did not pass."
)

_DETAILS: Final[dict[Reason, str]] = {
    Reason.UNKNOWN_SERVICE: "The catalog has no service of this name.",
    Reason.CREDENTIALS_MISSING: (
        "Give the Client ID as X-NCP-APIGW-API-KEY-ID and the Client Secret as X-NCP-APIGW-API-KEY, in headers or query string."
    ),
    Reason.CREDENTIALS_TWICE: "X-NCP-APIGW-API-KEY-ID or X-NCP-APIGW-API-KEY was given more than once, with different values.",
    Reason.CREDENTIALS_WRONG: "No application has this Client ID with this Client Secret.",
    Reason.SERVICE_NOT_SELECTED: "The application has not selected this service. Select it with Edit in the console.",
    Reason.SERVICE_SUSPENDED: "The service app is suspended.",
    Reason.WEB_NOT_REGISTERED: "The Origin or Referer is of no web service URL that is registered for the application.",
    Reason.ANDROID_NOT_REGISTERED: "X-Android-Package is no Android package name that is registered for the application.",
    Reason.IOS_NOT_REGISTERED: "X-Ios-Bundle-Identifier is no iOS bundle ID that is registered for the application.",
    Reason.QUANTITY_INVALID: f"X-Tollbook-Quantity is not a whole number from 1 to {QUANTITY_MAX}.",
}


def refusals(*, naver_unselected_answer: bool) -> dict[Reason, Answer]:
    """The answer for each Reason. `naver_unselected_answer`: 429/400 for a service that was not selected, as NAVER has it."""
    return {reason: _answer_for(reason, naver_unselected_answer) for reason in Reason}


def _answer_for(reason: Reason, naver_unselected_answer: bool) -> Answer:
    details = _DETAILS[reason]
    match reason:
        case Reason.UNKNOWN_SERVICE:
            return not_found(reason, details)
        case Reason.CREDENTIALS_MISSING | Reason.CREDENTIALS_TWICE | Reason.CREDENTIALS_WRONG:
            return authentication_failed(reason, details)
        case Reason.SERVICE_NOT_SELECTED:
            return (quota_exceeded if naver_unselected_answer else permission_denied)(reason, details)
        case Reason.SERVICE_SUSPENDED:
            return permission_denied(reason, details)
        case Reason.WEB_NOT_REGISTERED | Reason.ANDROID_NOT_REGISTERED | Reason.IOS_NOT_REGISTERED:
            return permission_denied(reason, details)
        case Reason.QUANTITY_INVALID:
            return refusal(reason, 400, "100", "Bad Request", details)
        case _:
            assert_never(reason)


REFUSED_CALLS_REMEMBERED: Final = 1024


def quota_short(short: Short, quantity: int, now: datetime) -> Answer:
    """The answer to a call of `quantity` units at `now` for which there were not enough."""
    until_reset_s = math.ceil((short.resets_at - now).total_seconds())
    return _quota_short(short, quantity, 1 if short.recallable else max(1, until_reset_s))


@lru_cache(REFUSED_CALLS_REMEMBERED)
def _quota_short(short: Short, quantity: int, retry_after_s: int) -> Answer:
    fields: dict[str, str | int | datetime] = {"limit": short.limit, "used": short.used, "resets_at": short.resets_at}
    return _refusal("quota_exceeded", 429, "400", "Quota Exceeded", _short_in_words(short, quantity), fields, retry_after_s)


def _short_in_words(short: Short, quantity: int) -> str:
    match short.whose:
        case "application":
            limit = f"the application's {short.period} limit of {short.limit} at this service"
        case "account":
            limit = f"the account's {short.period} limit of {short.limit} at this service (all of its applications together)"
        case "test":
            limit = f"the test quota of {short.limit} a month (until this service is activated for the application)"
        case _:
            assert_never(short.whose)
    if short.limit == 0:
        return f"No call passes under {limit}."
    if quantity > short.limit:
        return f"The call counts as {quantity}, more than the whole of {limit}: it never passes."
    if short.recallable:
        return f"What is left of {limit} is set aside for calls that are being made now. Try again in a moment."
    if quantity > 1 and short.limit > short.used:
        return f"The call counts as {quantity}, more than what is left of {limit}."
    return f"All of {limit} is used."


def as_bytes(answer: Answer) -> bytes:
    """The answer as it goes over the wire, for when the request could not even be read; it ends the connection."""
    return answer.head + b"connection: close\r\n\r\n" + answer.body


PASSES_REMEMBERED: Final = 4096


def passed(decision: Pass, remaining: int | None = None) -> bytes:
    """The head of a 200, which tells the API whose call it is. `remaining`: units left of the tightest limit; None: no limit."""
    told = _passed(decision.account, decision.service, decision.tier)
    told += b"x-tollbook-client-id: %b\r\n" % decision.client_id.encode()
    return told if remaining is None else told + b"x-tollbook-remaining: %d\r\n" % remaining


@lru_cache(PASSES_REMEMBERED)
def _passed(account: str, service: str, tier: str) -> bytes:
    return head(
        200,
        [
            (b"content-length", b"0"),
            (b"x-tollbook-account", account.encode()),
            (b"x-tollbook-service", service.encode()),
            (b"x-tollbook-tier", tier.encode()),
        ],
    )
