"""The only place that makes random identifiers and secrets, always from the operating system's generator."""

from __future__ import annotations

import base64
import secrets
import string
import uuid
from typing import Final

from shared import webhooks

LOWER_ALNUM: Final = string.ascii_lowercase + string.digits
ALNUM: Final = string.ascii_letters + string.digits

CLIENT_ID_LENGTH: Final = 20
CLIENT_SECRET_LENGTH: Final = 40
TOKEN_ID_LENGTH: Final = 12
LEASE_ID_LENGTH: Final = 12
CODE_LENGTH: Final = 6


def _random_text(alphabet: str, length: int) -> str:
    """Each character as likely as any other: bytes above the last whole multiple of the alphabet are thrown away."""
    fair = 256 - 256 % len(alphabet)
    text = ""
    while len(text) < length:  # one question to the operating system is nearly always enough; one a character was slow
        text += "".join(alphabet[byte % len(alphabet)] for byte in secrets.token_bytes(2 * length) if byte < fair)
    return text[:length]


def new_client_id() -> str:
    """A Client ID: 20 characters a-z0-9, about 103 bits, so two never meet."""
    return _random_text(LOWER_ALNUM, CLIENT_ID_LENGTH)


def new_client_secret() -> str:
    """A Client Secret: 40 characters a-zA-Z0-9, about 238 bits."""
    return _random_text(ALNUM, CLIENT_SECRET_LENGTH)


def new_id() -> str:
    """A random identifier for anything else: 32 hexadecimal characters (a version 4 UUID without its dashes)."""
    return uuid.uuid4().hex


def new_nonce() -> bytes:
    """Twelve random bytes: the nonce of one AES-GCM encryption."""
    return secrets.token_bytes(12)


def new_lease_id() -> str:
    """A quota lease: 12 characters a-z0-9, about 62 bits; it is in every record that is spent from it, so it is short."""
    return _random_text(LOWER_ALNUM, LEASE_ID_LENGTH)


def new_token_id() -> str:
    """The public part of an API token: 12 characters a-z0-9."""
    return _random_text(LOWER_ALNUM, TOKEN_ID_LENGTH)


def new_token_secret() -> str:
    """The secret part of an API token: 40 characters a-zA-Z0-9, about 238 bits."""
    return _random_text(ALNUM, CLIENT_SECRET_LENGTH)


def new_vault_key() -> str:
    """A key for the vault: 64 hexadecimal digits."""
    return secrets.token_hex(32)


def new_code() -> str:
    """A code that somebody is sent and types in: 6 digits, so it must expire and bear few attempts."""
    return _random_text(string.digits, CODE_LENGTH)


def new_webhook_secret() -> str:
    """What a webhook's receiver checks signatures with: "whsec_" and 32 random bytes in base64, as Standard Webhooks has it."""
    return webhooks.PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
