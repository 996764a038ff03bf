"""What NAVER Cloud's SENS checks of a request to send text messages, and what is kept of one. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

CLOCKS_APART_MAX: Final = timedelta(minutes=5)
TEXT_BYTES_MAX: Final = {"SMS": 90, "LMS": 2000}
"""By type; Korean letters are two bytes each."""


class Account(NamedTuple):
    """Who may send."""

    service_id: str
    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """As the process is told."""
        return {f"TOLLBOOK_SENS_{name.upper()}": value for name, value in self._asdict().items()}

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Account:
        """Taken from there. Raises KeyError."""
        return cls(*(environment[f"TOLLBOOK_SENS_{name.upper()}"] for name in cls._fields))


class Recipient(msgspec.Struct):
    """One message: to whom, and what, if it is not what all get."""

    to: Annotated[str, msgspec.Meta(pattern="^[0-9]{4,20}$")]
    content: str | None = None


class Sending(msgspec.Struct):
    """The body of a request."""

    type: Literal["SMS", "LMS"]
    sender: Annotated[str, msgspec.Meta(pattern="^[0-9]{4,20}$")] = msgspec.field(name="from")
    content: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[Recipient], msgspec.Meta(min_length=1, max_length=100)]
    content_type: Literal["COMM", "AD"] = msgspec.field(name="contentType", default="COMM")
    country: Annotated[str, msgspec.Meta(pattern="^[0-9]{1,4}$")] = msgspec.field(name="countryCode", default="82")


class Refused(Exception):
    """The status of the answer, and why."""

    def __init__(self, status: int, message: str, details: str) -> None:
        super().__init__(details)
        self.status = status
        self.answer = {"error": {"errorCode": str(status), "message": message, "details": details}}


def signature(account: Account, method: str, target: str, timestamp: str) -> str:
    """What x-ncp-apigw-signature-v2 must be. `target` is path and query, `timestamp` as in its header."""
    signed = f"{method} {target}\n{timestamp}\n{account.access_key}".encode()
    return base64.b64encode(hmac.digest(account.secret_key.encode(), signed, hashlib.sha256)).decode()


def authenticate(account: Account, method: str, target: str, headers: Mapping[str, str], now: datetime) -> None:
    """Raises Refused (401) unless the request was signed by the account within the last minutes. Header names in lower case."""

    def refuse(details: str) -> Refused:
        return Refused(401, "Authentication Failed", details)

    timestamp = headers.get("x-ncp-apigw-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 15:
        raise refuse("x-ncp-apigw-timestamp is not in milliseconds since 1970")
    if abs(int(timestamp) / 1000 - now.timestamp()) > CLOCKS_APART_MAX.total_seconds():
        raise refuse("x-ncp-apigw-timestamp is more than 5 minutes from now")
    if not hmac.compare_digest(headers.get("x-ncp-iam-access-key", "").encode(), account.access_key.encode()):
        raise refuse("x-ncp-iam-access-key is not known")
    right = signature(account, method, target, timestamp)
    if not hmac.compare_digest(headers.get("x-ncp-apigw-signature-v2", "").encode(), right.encode()):
        raise refuse("x-ncp-apigw-signature-v2 is not the signature of this request")


def read_sending(body: bytes) -> Sending:
    """What is to be sent. Raises Refused (400)."""
    try:
        sending = msgspec.json.decode(body, type=Sending)
    except msgspec.DecodeError as error:
        raise Refused(400, "Bad Request", str(error)) from None
    longest = max(len((one.content or sending.content).encode("cp949", "replace")) for one in sending.messages)
    if longest > TEXT_BYTES_MAX[sending.type]:
        raise Refused(400, "Bad Request", f"{longest} bytes are too many for {sending.type}: {TEXT_BYTES_MAX[sending.type]}")
    return sending


def records(sending: Sending, request_id: str, now: datetime) -> list[str]:
    """What is kept of each message, as JSON."""
    common = {
        "requestId": request_id,
        "requestTime": now.isoformat(),
        "type": sending.type,
        "contentType": sending.content_type,
        "countryCode": sending.country,
        "from": sending.sender,
    }
    return [
        json.dumps({**common, "to": one.to, "content": one.content or sending.content}, ensure_ascii=False, indent=2) + "\n"
        for one in sending.messages
    ]
