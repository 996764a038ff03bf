"""Tokens of the links that unsubscribe: sealed, so that only alerts can issue one, and nobody reads in it whose it is."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from shared.errors import NotFound
from shared.eventlog.vault import Vault, VaultKeyUnknown
from shared.events.alerts import Method

_CONTEXT: Final = "alerts:unsubscribe"


class Unsubscribing(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: whose address of which method wants nothing more."""

    account: str
    contact_id: str
    method: Method


def make_token(vault: Vault, account: str, contact_id: str, method: Method) -> str:
    """A token for a URL, about 170 characters; another one each time. It is good for as long as a key of the vault opens it."""
    sealed = vault.seal(_CONTEXT, msgspec.json.encode(Unsubscribing(account, contact_id, method)))
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def read_token(vault: Vault, token: str) -> Unsubscribing:
    """What `make_token` put into it. Raises NotFound for any other text."""
    try:
        sealed = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(vault.open(_CONTEXT, sealed), type=Unsubscribing)
    except (UnicodeEncodeError, binascii.Error, VaultKeyUnknown, ValueError) as error:
        raise NotFound("This link was not issued here. Follow the one in the newest message.") from error
