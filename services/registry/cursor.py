"""The opaque cursor of a list: where the next page begins, sealed against tampering and against use in another account."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from shared.errors import FieldProblem, InvalidInput

_POSITION_BYTES: Final = 8
_SEAL_BYTES: Final = 16


def write_cursor(key: bytes, account: str, position: int) -> str:
    """A cursor for the page after the application registered at `position`."""
    place = position.to_bytes(_POSITION_BYTES)
    return base64.urlsafe_b64encode(place + _seal(key, account, place)).decode().rstrip("=")


def read_cursor(key: bytes, account: str, cursor: str) -> int:
    """The position in a cursor that `write_cursor` gave out for this account. Raises InvalidInput for any other text."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    place, seal = raw[:_POSITION_BYTES], raw[_POSITION_BYTES:]
    if not hmac.compare_digest(seal, _seal(key, account, place)) or write_cursor(key, account, int.from_bytes(place)) != cursor:
        problem = FieldProblem("cursor", "This cursor was not given out for this list.", "Use next_cursor of the page before.")
        raise InvalidInput("The cursor cannot be read.", [problem])
    return int.from_bytes(place)


def _seal(key: bytes, account: str, place: bytes) -> bytes:
    return hmac.digest(key, b"registry cursor\x00" + account.encode() + b"\x00" + place, hashlib.sha256)[:_SEAL_BYTES]
