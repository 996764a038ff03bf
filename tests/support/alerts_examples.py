"""One account, one contact of it, one group and one rule: what the tests of alerts talk about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from services.alerts.cards import Card
from services.alerts.contacts import CODE_VALID, CardFacts, Kept, New, Standing
from services.alerts.rules import People, RuleFacts
from shared.commands.base import Command
from shared.events.alerts import ContactAdded, ContactVerified, Method, VerificationRequested

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)
BEFORE = NOW - timedelta(days=3)
ACCOUNT = "acme"
CLIENT_ID = "k3v9x2m1q8w7e5r4t6y0"
KIM, LEE, GROUP = "a" * 32, "b" * 32, "9" * 32
VAULT, NEXT_VAULT, CODE_VAULT = "1" * 32, "2" * 32, "3" * 32
SECRET, NEXT_SECRET = "whsec_MTIz", "whsec_NDU2"
CODE = "042137"
CARD = Card(name="Kim", email="kim@example.com", phone="+821012345678")
NEW = New(NEXT_VAULT, NEXT_SECRET)
SERVICES = ("csr", "papago")

C = TypeVar("C", bound=Command)


def command(cls: type[C], **fields: Any) -> C:
    return cls(**{"command_id": "c1", "account": ACCOUNT, "actor": "token:t1", **fields})


def added(**extra: Any) -> ContactAdded:
    shape: dict[str, Any] = {"vault_id": VAULT, "methods": ("email", "sms"), "locale": "ko", "zone": "Asia/Seoul"}
    return ContactAdded(account=ACCOUNT, contact_id=KIM, **{**shape, **extra})


def asked(sent_at: datetime = NOW, method: Method = "email", vault_id: str = CODE_VAULT) -> VerificationRequested:
    """A code was sent then."""
    return VerificationRequested(
        account=ACCOUNT, contact_id=KIM, method=method, vault_id=vault_id, expires_at=sent_at + CODE_VALID
    )


def verified(method: Method = "email") -> ContactVerified:
    return ContactVerified(account=ACCOUNT, contact_id=KIM, method=method)


def card_facts(card: Card = CARD) -> CardFacts:
    return CardFacts(NOW, Kept(card, BEFORE, BEFORE))


def people(contacts: Mapping[str, Mapping[Method, Standing]] | None = None, **groups: tuple[str, ...]) -> People:
    """Kim with both addresses verified unless told otherwise; groups by id."""
    usable = Standing(verified=True)
    return People({KIM: {"email": usable, "sms": usable}} if contacts is None else contacts, groups)


def rule_facts(whom: People | None = None, **extra: Any) -> RuleFacts:
    return RuleFacts(NOW, SERVICES, None, people() if whom is None else whom)._replace(**extra)
