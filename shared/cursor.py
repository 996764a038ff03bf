"""The opaque cursor of a list: where the next page begins, sealed against tampering and use in another list or account."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

from shared.errors import FieldProblem, InvalidInput

_PART_BYTES: Final = 8
_SEAL_BYTES: Final = 16


class Cursors:
    """Cursors of one list. A place in it is `parts` whole numbers, 0 to 2**63 - 1: what the list is ordered by."""

    def __init__(self, key: bytes, list_: str, parts: int = 1) -> None:
        self._key = key
        self._label = f"{list_} cursor".encode()
        self._parts = parts

    def write(self, account: str, *place: int) -> str:
        """A cursor for the page after the item at `place`."""
        raw = b"".join(part.to_bytes(_PART_BYTES) for part in place)
        return base64.urlsafe_b64encode(raw + self._seal(account, raw)).decode().rstrip("=")

    def read(self, account: str, cursor: str) -> tuple[int, ...]:
        """The place in a cursor that `write` gave out for this account. Raises InvalidInput for any other text."""
        try:
            raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            raw = b""
        size = self._parts * _PART_BYTES
        parts = tuple(int.from_bytes(raw[start : start + _PART_BYTES]) for start in range(0, size, _PART_BYTES))
        if not hmac.compare_digest(raw[size:], self._seal(account, raw[:size])) or self.write(account, *parts) != cursor:
            problem = FieldProblem(
                "cursor", "This cursor was not given out for this list.", "Use next_cursor of the page before."
            )
            raise InvalidInput("The cursor cannot be read.", [problem])
        return parts

    def _seal(self, account: str, raw: bytes) -> bytes:
        return hmac.digest(self._key, b"\x00".join((self._label, account.encode(), raw)), hashlib.sha256)[:_SEAL_BYTES]
