"""What a call presents, read from the raw header list of ASGI. Pure, and never raises: whatever comes is a Call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from services.gate.domain import Call, Credentials, Reason
from shared.events.usage import QUANTITY_MAX
from shared.ids import CLIENT_ID_LENGTH, CLIENT_SECRET_LENGTH

Headers = Iterable[tuple[bytes, bytes]]

ID_NAME: Final = b"x-ncp-apigw-api-key-id"
SECRET_NAME: Final = b"x-ncp-apigw-api-key"

_WEB, _ANDROID, _IOS, _QUANTITY = b"origin", b"x-android-package", b"x-ios-bundle-identifier", b"x-tollbook-quantity"
_REFERER, _FORWARDED_URI, _ORIGINAL_URI = b"referer", b"x-forwarded-uri", b"x-original-uri"
_READ: Final = frozenset(
    (ID_NAME, SECRET_NAME, _WEB, _REFERER, _ANDROID, _IOS, _QUANTITY, _FORWARDED_URI, _ORIGINAL_URI),
)
_CREDENTIALS: Final = frozenset((ID_NAME, SECRET_NAME))
_QUANTITY_DIGITS: Final = len(str(QUANTITY_MAX))
_CONTRADICTION: Final = b"\x00"
"""Stands for a header that came twice with different values. No header value can be this, nothing registered equals it."""


def read_call(headers: Headers, query: bytes) -> Call:
    """The Call that `headers` (names in lower case) and the query string of the request itself present.

    Credentials in headers come before those in a query string; the query string is the original request's, as the proxy tells it,
    or the request's own when there is no proxy that tells one.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ and found.setdefault(name, value) != value:
            found[name] = _CONTRADICTION
    credentials = _credentials(found, query)
    if found.keys() <= _CREDENTIALS:
        return Call(credentials)  # a server that counts each call as one: by far the most
    return Call(
        credentials,
        _web(found),
        found.get(_ANDROID, b"").decode("latin-1"),
        found.get(_IOS, b"").decode("latin-1"),
        _quantity(found),
    )


def _credentials(found: dict[bytes, bytes], query: bytes) -> Credentials | Reason:
    client_id, secret = found.get(ID_NAME), found.get(SECRET_NAME)
    if not client_id or not secret:
        uri = found.get(_FORWARDED_URI) or found.get(_ORIGINAL_URI)
        in_query = _from_query(query if uri is None else uri.partition(b"#")[0].partition(b"?")[2])
        client_id = client_id or in_query.get(ID_NAME)
        secret = secret or in_query.get(SECRET_NAME)
    if not client_id or not secret:
        return Reason.CREDENTIALS_MISSING
    if _CONTRADICTION in (client_id, secret):
        return Reason.CREDENTIALS_TWICE
    if len(client_id) != CLIENT_ID_LENGTH or len(secret) != CLIENT_SECRET_LENGTH:
        return Reason.CREDENTIALS_WRONG
    return Credentials(client_id.decode("latin-1"), secret.decode("latin-1"))


def _from_query(query: bytes) -> dict[bytes, bytes]:
    """Both credentials, as far as the query string has them, percent-decoded, their names in any case."""
    found: dict[bytes, bytes] = {}
    for pair in query.split(b"&"):
        if len(pair) <= len(SECRET_NAME):
            continue
        name, _, value = pair.partition(b"=")
        name = unquote_to_bytes(name).lower()
        if name in (ID_NAME, SECRET_NAME):
            value = unquote_to_bytes(value)
            if found.setdefault(name, value) != value:
                found[name] = _CONTRADICTION
    return found


def _web(found: dict[bytes, bytes]) -> str:
    """The page that calls. An Origin of `null` says nothing when there is a Referer that does."""
    origin, referer = found.get(_WEB, b""), found.get(_REFERER, b"")
    return ((referer or origin) if origin in (b"", b"null") else origin).decode("latin-1")


def _quantity(found: dict[bytes, bytes]) -> int:
    """Units that the call counts as: 1 when it does not say; 0 when it says anything but a whole number in range."""
    text = found.get(_QUANTITY)
    if text is None:
        return 1
    if not text.isdigit() or len(text) > _QUANTITY_DIGITS:
        return 0
    quantity = int(text)
    return quantity if quantity <= QUANTITY_MAX else 0
