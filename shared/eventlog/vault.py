"""The vault: what is secret or personal, sealed, so that events can refer to it by id and forgetting is one deleted row."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from shared.errors import NotFound, TollbookError
from shared.eventlog.changes import Bound, execute, insert
from shared.ids import new_nonce
from shared.postgres import Connection

_KEY_ID_LENGTH: Final = 4
_NONCE_LENGTH: Final = 12
_KEY_LENGTH: Final = 32
_PRINTING: Final = b"tollbook fingerprint"
_DERIVING: Final = b"tollbook derived key"
_PLAIN_LENGTH: Final = 32
_PUT: Final = insert("vault", {"id": "text", "sealed": "bytea"})


class VaultKeyUnknown(TollbookError):
    """Something was sealed with a key that this service was not given."""

    code, title = "vault_key_unknown", "Vault key missing"


class Vault:
    """Seals with AES-256-GCM. What is sealed begins with the id of its key, so that keys can be changed without a rewrite.

    `keys` is a comma-separated list of keys of 64 hexadecimal digits: the first one seals, every one opens.
    """

    def __init__(self, keys: SecretStr) -> None:
        parsed = [_parse(text.strip()) for text in keys.get_secret_value().split(",")]
        self._ciphers = {_key_id(key): AESGCM(key) for key in parsed}
        self._printing = {_key_id(key): hmac.digest(key, _PRINTING, hashlib.sha256) for key in parsed}
        self._sealing = _key_id(parsed[0])
        self._deriving = hmac.digest(parsed[0], _DERIVING, hashlib.sha256)

    def seal(self, context: str, plaintext: bytes) -> bytes:
        """key id, nonce, ciphertext with tag. It opens only under the same `context`: a row copied to another id does not."""
        nonce = new_nonce()
        return self._sealing + nonce + self._ciphers[self._sealing].encrypt(nonce, plaintext, context.encode())

    def open(self, context: str, sealed: bytes) -> bytes:
        """The plaintext. Raises VaultKeyUnknown when it does not open."""
        key_id, nonce = sealed[:_KEY_ID_LENGTH], sealed[_KEY_ID_LENGTH : _KEY_ID_LENGTH + _NONCE_LENGTH]
        try:
            return self._ciphers[key_id].decrypt(nonce, sealed[_KEY_ID_LENGTH + _NONCE_LENGTH :], context.encode())
        except (KeyError, InvalidTag) as error:
            raise VaultKeyUnknown("A sealed value does not open: add its key to TOLLBOOK_VAULT_KEY.") from error

    def fingerprint(self, content: bytes) -> bytes:
        """Tells whether something else is the same. Without the key nobody finds the content by trying what it may have been."""
        return self._sealing + hmac.digest(self._printing[self._sealing], content, hashlib.sha256)

    def is_fingerprint(self, kept: bytes, content: bytes) -> bool:
        """Whether `kept` is of this content. Raises VaultKeyUnknown when it was made with a key that is gone."""
        if len(kept) == _PLAIN_LENGTH:  # of an earlier release
            return hmac.compare_digest(kept, hashlib.sha256(content).digest())
        try:
            key = self._printing[kept[:_KEY_ID_LENGTH]]
        except KeyError as error:
            raise VaultKeyUnknown("A fingerprint cannot be compared: add its key to TOLLBOOK_VAULT_KEY.") from error
        return hmac.compare_digest(kept[_KEY_ID_LENGTH:], hmac.digest(key, content, hashlib.sha256))

    def derived(self, purpose: str) -> bytes:
        """A key for something else that must not be forged, another one for each purpose. It changes with the key that seals."""
        return hmac.digest(self._deriving, purpose.encode(), hashlib.sha256)

    async def put(self, connection: Connection, id_: str, plaintext: bytes) -> None:
        """Keep `plaintext` under `id_`, which must be new."""
        await self.put_all(connection, {id_: plaintext})

    async def put_all(self, connection: Connection, plaintexts: Mapping[str, bytes]) -> None:
        """Keep each plaintext under its id; the ids must be new."""
        await execute(connection, [self.keeps(plaintexts)])

    def keeps(self, plaintexts: Mapping[str, bytes]) -> Bound:
        """What keeps them: to go to the server together with other writes."""
        return Bound(_PUT, (list(plaintexts), [self.seal(f"vault:{id_}", plaintext) for id_, plaintext in plaintexts.items()]))

    async def get(self, connection: Connection, id_: str) -> bytes:
        """What is kept under `id_`. Raises NotFound when it was shredded or never kept."""
        sealed = await connection.fetchval("SELECT sealed FROM vault WHERE id = $1", id_)
        if sealed is None:
            raise NotFound("This value is no longer kept.")
        return self.open_kept(id_, sealed)

    def open_kept(self, id_: str, sealed: bytes) -> bytes:
        """The plaintext of a row of the table `vault` that was read together with others. Raises VaultKeyUnknown."""
        return self.open(f"vault:{id_}", sealed)

    async def shred(self, connection: Connection, id_: str) -> None:
        """Forget it, and every stored reply that shows it. Shredding what is gone is no error."""
        await connection.execute("DELETE FROM vault WHERE id = $1", id_)
        await connection.execute("UPDATE command SET reply = NULL WHERE reveals = $1 AND reply IS NOT NULL", id_)


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_KEY_ID_LENGTH]


def _parse(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_LENGTH:
        raise ValueError("TOLLBOOK_VAULT_KEY: each key must be 64 hexadecimal digits (make one with: openssl rand -hex 32)")
    return key
