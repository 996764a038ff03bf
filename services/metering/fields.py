"""What the fields of a usage record may hold. Pure."""

from __future__ import annotations

import re
from typing import Final

from shared.events.usage import QUANTITY_MAX, UsageRecord

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
