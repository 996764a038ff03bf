"""Client Secrets: how one is verified without being known. Used by the registry that issues and by the gate that checks."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import Final

from pydantic import SecretStr

PEPPER_LENGTH_MIN: Final = 32
PEPPERS_REMEMBERED: Final = 4
BLOCK_BYTES: Final = 64
"""Of SHA-256."""


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
    inner, outer = _keyed(pepper)
    inner, outer = inner.copy(), outer.copy()
    inner.update(f"{client_id}:{secret}".encode("utf-8", "surrogatepass"))
    outer.update(inner.digest())
    return outer.hexdigest()


@lru_cache(PEPPERS_REMEMBERED)
def _keyed(pepper: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC's inner and outer hash (RFC 2104) with the pepper in them: taking it in costs more than what is then hashed, and
    Python's own HMAC objects take twice as long to copy."""
    key = pepper if len(pepper) <= BLOCK_BYTES else hashlib.sha256(pepper).digest()
    key = key.ljust(BLOCK_BYTES, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in key)), hashlib.sha256(bytes(byte ^ 0x5C for byte in key))


def verified(expected: str, computed: str) -> bool:
    """Whether two verifiers are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(expected.encode(), computed.encode())
