"""One account, one application, one small catalog: what the tests of the registry talk about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from services.registry.domain import AccountFacts, AppFacts, NewSecret, Rules
from shared.catalog import Catalog, CatalogEntry
from shared.commands.registry import AccountView, AppView, EnvironmentsView, SelectedServiceView
from shared.events.registry import AppRegistered, Environments, SecretIssued, SelectedService

NOW = datetime(2026, 11, 21, 3, 0, 0, tzinfo=UTC)
BEFORE = datetime(2026, 11, 20, 3, 0, 0, tzinfo=UTC)
ACCOUNT = "acme"
CLIENT_ID = "k3v9x2m1q8w7e5r4t6y0"
FIRST, SECOND, THIRD = "1" * 32, "2" * 32, "3" * 32
TERMS = "2026-11-01"
SECRET = "S" * 40


def entry(id_: str, **extra: Any) -> CatalogEntry:
    return CatalogEntry.model_validate(
        {
            "id": id_,
            "name": {"en": id_.upper(), "ko": id_.upper()},
            "unit": "call",
            "docs": "https://docs.example.com",
            "pricing": "https://pricing.example.com",
            "proxy_path": f"/{id_}",
            "upstream": "sample",
            **extra,
        }
    )


CATALOG: Catalog = {
    found.id: found
    for found in (
        entry("csr", requires_mobile_environment=True),
        entry("papago"),
        entry("captcha"),
        entry("studio", review_required=True, test_quota=100),
    )
}
RULES = Rules(CATALOG, TERMS, apps_max=3)


def registered(**extra: Any) -> AppRegistered:
    fields: dict[str, Any] = {
        "account": ACCOUNT,
        "client_id": CLIENT_ID,
        "name": "speech",
        "services": (SelectedService("csr"), SelectedService("studio", "test")),
        "environments": Environments(("naver.com",), ("com.example.app",), ()),
        "secret": SecretIssued(FIRST, "aa" * 32),
    }
    return AppRegistered(**{**fields, **extra})


def new_secret(secret_id: str = SECOND) -> NewSecret:
    return NewSecret(secret_id, SECRET, "bb" * 32)


def account_facts(terms: str | None = TERMS, apps: int = 0, now: datetime = NOW) -> AccountFacts:
    view = AccountView(
        account=ACCOUNT,
        zone="Asia/Seoul",
        opened_at=BEFORE,
        terms_version=terms,
        terms_accepted_at=BEFORE if terms else None,
        terms_current=terms == TERMS,
    )
    return AccountFacts(now, view, apps)


def app_facts(now: datetime = NOW) -> AppFacts:
    view = AppView(
        client_id=CLIENT_ID,
        name="speech",
        services=(SelectedServiceView(service="csr", tier="live"),),
        environments=EnvironmentsView(),
        registered_at=BEFORE,
        edited_at=BEFORE,
    )
    return AppFacts(now, view)


def command(cls: type[Any], **fields: Any) -> Any:
    return cls(**{"command_id": "c1", "account": ACCOUNT, "actor": "token:t1", **fields})
