"""Client Secrets: how one is verified without being known. Used by the registry that issues and by the gate that checks."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import Final

from pydantic import SecretStr

PEPPER_LENGTH_MIN: Final = 32
PEPPERS_REMEMBERED: Final = 4


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
    keyed = _keyed(pepper).copy()
    keyed.update(f"{client_id}:{secret}".encode("utf-8", "surrogatepass"))
    return keyed.hexdigest()


@lru_cache(PEPPERS_REMEMBERED)
def _keyed(pepper: bytes) -> hmac.HMAC:
    """Ready for what is to be hashed: taking the pepper in costs more than the hash."""
    return hmac.new(pepper, digestmod=hashlib.sha256)


def verified(expected: str, computed: str) -> bool:
    """Whether two verifiers are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(expected.encode(), computed.encode())
