"""The JWTs that nats-server speaks: claims signed by an Ed25519 NKEY (algorithm `ed25519-nkey`), version 2."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any, Final

import msgspec
import nkeys
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_HEADER: Final = b'{"typ":"JWT","alg":"ed25519-nkey"}'
_ALGORITHM: Final = "ed25519-nkey"
_LENGTH_MAX: Final = 256 * 1024
_PUBLIC_KEY_BYTES: Final = 35
"""One byte of prefix, 32 of key, 2 of CRC-16."""


class BadJwt(ValueError):
    """Not a JWT of nats-server, or not signed by who it says."""


def encode(claims: dict[str, Any], signer: nkeys.KeyPair) -> str:
    """The claims as a JWT of `signer`, who becomes `iss`; `jti` is the hash of the rest, as nats-server's library makes it."""
    claims = {**claims, "iss": signer.public_key.decode(), "jti": ""}
    digest = hashlib.new("sha512_256", msgspec.json.encode(claims)).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    signed = f"{_to_base64url(_HEADER)}.{_to_base64url(msgspec.json.encode(claims))}"
    return f"{signed}.{_to_base64url(signer.sign(signed.encode()))}"


def decode(token: bytes | str, issuer_prefix: int) -> dict[str, Any]:
    """The claims of a JWT that its own `iss` has signed, which must be a key of the kind `issuer_prefix`. Raises BadJwt."""
    text = token.decode("ascii", "replace") if isinstance(token, bytes) else token
    parts = text.split(".")
    if len(text) > _LENGTH_MAX or len(parts) != 3:
        raise BadJwt("not three parts")
    try:
        header = msgspec.json.decode(_from_base64url(parts[0]), type=dict[str, Any])
        claims = msgspec.json.decode(_from_base64url(parts[1]), type=dict[str, Any])
        if header.get("alg") != _ALGORITHM:
            raise BadJwt("another algorithm")
        key = Ed25519PublicKey.from_public_bytes(_public_key(str(claims.get("iss")), issuer_prefix))
        key.verify(_from_base64url(parts[2]), f"{parts[0]}.{parts[1]}".encode())
    except InvalidSignature:
        raise BadJwt("its signature is not its issuer's") from None
    except (msgspec.MsgspecError, binascii.Error, UnicodeEncodeError) as error:
        raise BadJwt(f"not readable: {type(error).__name__}") from None
    return claims


def _public_key(text: str, prefix: int) -> bytes:
    raw = base64.b32decode(text + "=" * (-len(text) % 8))
    if len(raw) != _PUBLIC_KEY_BYTES or raw[0] != prefix:
        raise BadJwt("its issuer is of another kind")
    if nkeys.crc16(bytearray(raw[:-2])).to_bytes(2, "little") != raw[-2:]:
        raise BadJwt("its issuer's key is damaged")
    return raw[1:-2]


def _to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _from_base64url(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
