"""Fingerprints of what must not be kept in the clear, not even as a hash that can be tried."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import SecretStr

from shared.eventlog.vault import Vault, VaultKeyUnknown

OLD, NEW = "11" * 32, "22" * 32


def test_a_fingerprint_tells_the_same_from_everything_else() -> None:
    vault = Vault(SecretStr(OLD))
    kept = vault.fingerprint(b"kim@example.com")
    assert vault.is_fingerprint(kept, b"kim@example.com")
    assert not vault.is_fingerprint(kept, b"lee@example.com")
    assert not vault.is_fingerprint(kept[:-1], b"kim@example.com")


def test_it_cannot_be_tried_without_the_key_and_outlives_its_rotation() -> None:
    kept = Vault(SecretStr(OLD)).fingerprint(b"kim@example.com")
    assert hashlib.sha256(b"kim@example.com").digest() not in kept
    assert Vault(SecretStr(f"{NEW},{OLD}")).is_fingerprint(kept, b"kim@example.com")
    with pytest.raises(VaultKeyUnknown):
        Vault(SecretStr(NEW)).is_fingerprint(kept, b"kim@example.com")
    assert Vault(SecretStr(f"{NEW},{NEW}")).fingerprint(b"x") == Vault(SecretStr(NEW)).fingerprint(b"x")


def test_a_plain_one_of_an_earlier_release_is_still_known() -> None:
    vault = Vault(SecretStr(OLD))
    assert vault.is_fingerprint(hashlib.sha256(b"x").digest(), b"x")
    assert not vault.is_fingerprint(hashlib.sha256(b"x").digest(), b"y")


def test_a_derived_key_is_another_one_for_each_purpose_and_each_key() -> None:
    vault = Vault(SecretStr(OLD))
    derived = {vault.derived("cursors"), vault.derived("other"), Vault(SecretStr(NEW)).derived("cursors")}
    assert len(derived) == 3
    assert Vault(SecretStr(f"{OLD},{NEW}")).derived("cursors") == vault.derived("cursors")
    assert all(len(key) == 32 and key != bytes.fromhex(OLD) for key in derived)
