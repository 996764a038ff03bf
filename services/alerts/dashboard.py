"""The KV bucket `notifications`: what a dashboard sees of an application's notifications, now. Pure."""

from __future__ import annotations

from typing import Final

BUCKET: Final = "notifications"
OF_ACCOUNT: Final = "account"
"""Stands in a key for what is not about one application; a Client ID is longer."""


def key_of(account: str, client_id: str) -> str:
    """The key of a value: `<account>.<client_id>`, for client_id "" `<account>.account`."""
    return f"{account}.{client_id or OF_ACCOUNT}"


def split_key(key: str) -> tuple[str, str]:
    """(account, client_id) of a key; client_id "": the account's own."""
    account, client_id = key.split(".")
    return account, "" if client_id == OF_ACCOUNT else client_id
