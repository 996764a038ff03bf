"""Webhooks as https://www.standardwebhooks.com has them: what may be one's URL, and how a request is signed. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final
from urllib.parse import urlsplit

URL_LENGTH_MAX: Final = 2048
PREFIX: Final = "whsec_"
KEY_BYTES: Final = (24, 64)
"""How long a secret may be, in bytes, by the standard."""

_UNWANTED = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]")
_HOST = re.compile(r"\[[0-9a-f:.]+\]|[^\x00-\x20\[\]:/?#@%]{1,253}", re.IGNORECASE)
_EXAMPLE: Final = "Enter the whole URL, for example https://hooks.example.com/tollbook."


class WebhookUrlProblem(ValueError):
    """A URL that cannot be a webhook: `problem` says what is wrong with it, `hint` the way out."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint


def webhook_url(entered: str) -> str:
    """The URL as it is kept, without spaces around it. Raises WebhookUrlProblem.

    Says nothing of where the host's name leads: that can change at any time, so it is judged when a connection is made, on the
    address that is connected to. Any port may be named: customers' systems listen where they like, and which addresses are
    reached is what protects.
    """
    text = entered.strip(" ")
    if not text:
        raise WebhookUrlProblem("The URL is empty.", _EXAMPLE)
    if len(text) > URL_LENGTH_MAX:
        raise WebhookUrlProblem(f"The URL is longer than {URL_LENGTH_MAX} characters.", "Register a shorter one.")
    if _UNWANTED.search(text):
        raise WebhookUrlProblem("The URL has a space, a backslash or a control character in it.", _EXAMPLE)
    try:
        parts = urlsplit(text)
        host, port = parts.netloc, parts.port
    except ValueError as error:
        raise WebhookUrlProblem("This is not a URL: its host or port cannot be read.", _EXAMPLE) from error
    if parts.scheme not in ("http", "https"):
        raise WebhookUrlProblem("A webhook's URL begins with https:// or http://.", _EXAMPLE)
    if "@" in host:
        raise WebhookUrlProblem("The URL has a user name or password in it.", "Leave it out: requests are signed instead.")
    if "#" in text:
        raise WebhookUrlProblem("The URL has a fragment (#...), which servers never see.", "Leave out # and what follows.")
    if port == 0 or _HOST.fullmatch(re.sub(r":\d*$", "", host)) is None:
        raise WebhookUrlProblem("This is not a URL: its host or port cannot be read.", _EXAMPLE)
    return text


def webhook_id(message_id: str) -> str:
    """A message's id for its receiver: the same however often it is tried, so that it knows a repetition."""
    return f"msg_{message_id}"


def sign(secret: str, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`: HMAC-SHA256 over "id.timestamp.body". `timestamp_s`: of this try, in Unix seconds.

    Raises ValueError (which never shows the secret) when it is not "whsec_" and base64 of 24 to 64 bytes.
    """
    signed = b".".join((webhook_id.encode(), str(timestamp_s).encode(), body))
    return "v1," + base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(PREFIX) or not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise ValueError("a webhook's secret is whsec_ and base64 of 24 to 64 bytes")
    return key
