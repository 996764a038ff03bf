"""The id and stream of a request: what is asked for twice has the same ones, so that it is asked for once. Pure."""

from __future__ import annotations

import hashlib
from typing import Final

from shared.events.alerts import Method

_ID_LENGTH: Final = 32


def request_id(cause: str, contact_id: str, method: Method) -> str:
    """32 hexadecimal digits, the same for the same three. `cause` names what is told: `verification/<vault_id>`, say."""
    parts = (cause, contact_id, method)
    unambiguous = "".join(f"{len(part.encode())}:{part}" for part in parts)
    return hashlib.sha256(unambiguous.encode()).hexdigest()[:_ID_LENGTH]


def request_stream(request_id: str) -> str:
    """The stream of the log in which the request and its fate are."""
    return f"notification/{request_id}"
