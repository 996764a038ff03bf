"""What the fields of a usage record may hold. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from services.metering.decoding import decode_row
from shared.events.usage import QUANTITY_MAX, UsageRecord

ROWS_READ_MAX: Final = 16_384
"""Rows that are remembered as they were read, some 10 MB: gates write the same ones for as long as a lease lasts."""
LEASE: Final = re.compile(r"[a-z0-9]{1,32}", re.ASCII)
CLIENT_ID: Final = re.compile(r"[a-z0-9]{20}", re.ASCII)
_SERVICE_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_SECRET_ID: Final = re.compile(r"[\x21-\x7e]{0,64}", re.ASCII)


def invalid_field(record: UsageRecord) -> str:
    """The first field of the record that breaks a rule, in words; "" if none does."""
    if CLIENT_ID.fullmatch(record.client_id) is None:
        return "client_id: 20 characters a-z and 0-9 are allowed"
    if _SERVICE_ID.fullmatch(record.service) is None:
        return "service: 1 to 32 characters a-z, 0-9 and dash are allowed"
    if _SECRET_ID.fullmatch(record.secret_id) is None:
        return "secret_id: at most 64 printable ASCII characters without space are allowed"
    if not 1 <= record.quantity <= QUANTITY_MAX:
        return f"quantity: 1 to {QUANTITY_MAX} is allowed"
    return ""


@lru_cache(ROWS_READ_MAX)
def read_row(row: bytes) -> UsageRecord | None:
    """What a row of a Packed says of all its records, but for when they occurred (0); None if that breaks a rule."""
    record = decode_row(row)
    return None if record is None or invalid_field(record) else record
