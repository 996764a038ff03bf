"""What is personal of a contact: it is in the vault and nowhere else. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shared.events.alerts import METHODS, Method


class Card(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Name and addresses of a contact; "": it has no such address. `webhook_secret` is there when `webhook_url` is."""

    name: str
    email: str = ""
    phone: str = ""
    webhook_url: str = ""
    webhook_secret: str = ""


def encode_card(card: Card) -> bytes:
    """As the vault keeps it: JSON."""
    return msgspec.json.encode(card)


def decode_card(kept: bytes) -> Card:
    """What `encode_card` made."""
    return msgspec.json.decode(kept, type=Card)


def addresses(card: Card) -> Mapping[Method, str]:
    """The addresses that there are, in the order of METHODS."""
    of: Mapping[Method, str] = {"email": card.email, "sms": card.phone, "webhook": card.webhook_url}
    return {method: of[method] for method in METHODS if of[method]}
