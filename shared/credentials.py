"""Client Secrets: how one is verified without being known. Used by the registry that issues and by the gate that checks."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from pydantic import SecretStr

PEPPER_LENGTH_MIN: Final = 32


def read_pepper(setting: SecretStr) -> bytes:
    """The pepper from its setting, 64 or more hexadecimal digits. Raises ValueError, which does not show it."""
    try:
        pepper = bytes.fromhex(setting.get_secret_value())
    except ValueError:
        pepper = b""
    if len(pepper) < PEPPER_LENGTH_MIN:
        raise ValueError("TOLLBOOK_PEPPER: must be 64 hexadecimal digits (make one with: openssl rand -hex 32)")
    return pepper


def verifier(pepper: bytes, client_id: str, secret: str) -> str:
    """hex(HMAC-SHA-256(pepper, client_id ":" secret)): 64 characters that tell nothing about the secret.

    One fast hash is enough, because a secret has 238 random bits: there is nothing to guess.
    """
    return hmac.digest(pepper, f"{client_id}:{secret}".encode("utf-8", "surrogatepass"), hashlib.sha256).hex()


def verified(expected: str, computed: str) -> bool:
    """Whether two verifiers are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(expected.encode(), computed.encode())
