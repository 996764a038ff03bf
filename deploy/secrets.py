"""Passwords, keys and tokens of the stack: one file each under HOME/secrets, made when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nkeys

from deploy.errors import StackError
from deploy.files import write_private
from shared.ids import new_client_secret, new_vault_key


class Secrets:
    """The folder of secrets: mode 0700, its files 0600."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)

    def path(self, name: str) -> Path:
        return self._folder / name

    def read(self, name: str) -> str | None:
        """The secret, or None when it was never made. Raises StackError when its file is there but empty or unreadable."""
        try:
            text = self.path(name).read_text("ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            raise StackError(f"{self.path(name)} cannot be read: restore it from a backup of {self._folder}.") from None
        if not text:
            raise StackError(f"{self.path(name)} is empty: restore it from a backup of {self._folder}.")
        return text

    def keep(self, name: str, value: str) -> str:
        """Store a secret that was made elsewhere, instead of the one that may be there."""
        write_private(self.path(name), value + "\n")
        return value

    def get(self, name: str, make: Callable[[], str], data: Path | None = None) -> str:
        """The secret, made now if there is none. With `data`, it must not be made anew when that folder is there already."""
        kept = self.read(name)
        if kept is not None:
            return kept
        if data is not None and data.exists():
            raise StackError(
                f"{self.path(name)} is missing, and {data} cannot be used without it: restore it, or move {data.parent} away."
            )
        return self.keep(name, make())


def new_password() -> str:
    """40 characters a-zA-Z0-9, nothing that an address or SQL would have to escape."""
    return new_client_secret()


def new_key() -> str:
    """32 random bytes as 64 hexadecimal digits."""
    return new_vault_key()


def new_user_seed() -> str:
    """The seed (SU...) of a NATS user's NKEY."""
    return _seed(nkeys.PREFIX_BYTE_USER)


def new_account_seed() -> str:
    """The seed (SA...) of a NATS account's NKEY."""
    return _seed(nkeys.PREFIX_BYTE_ACCOUNT)


def _seed(prefix: int) -> str:
    seed: bytes = nkeys.encode_seed(bytes.fromhex(new_vault_key()), prefix)
    return seed.decode()


def public_key(seed: str) -> str:
    """The public NKEY (U... or A...) of a seed. Raises StackError when the text is no seed."""
    try:
        key: bytes = nkeys.from_seed(seed.encode()).public_key
    except Exception:
        raise StackError("A NATS key under secrets/ is broken: restore it from a backup.") from None
    return key.decode()
