"""Which calls need units of a limit, and whose leases end when something changes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.gate.domain import Apps, Contradiction, Pass
from services.gate.limits import Limits, fold_registry
from shared.events.metering import AccountLimitChanged, LimitChanged, ThresholdCrossed
from shared.events.registry import (
    AccountOpened,
    AppDeleted,
    AppEdited,
    AppRegistered,
    Environments,
    RegistryEvent,
    SecretIssued,
    SecretReissued,
    SecretRevoked,
    SelectedService,
    ServiceActivated,
    ServiceResumed,
    ServiceSuspended,
    Tier,
)

ID = "k" * 20
Scope = tuple[str, str, str]
REGISTERED = AppRegistered(
    account="acme",
    client_id=ID,
    name="app",
    services=(SelectedService("csr"), SelectedService("studio", "test")),
    environments=Environments(),
    secret=SecretIssued("s", "0" * 64),
)


def call(client_id: str = ID, account: str = "acme", service: str = "csr", tier: Tier = "live") -> Pass:
    return Pass(client_id, account, service, tier, "s", 1)


def of_app(daily: int | None, monthly: int | None, service: str = "csr") -> LimitChanged:
    return LimitChanged(account="acme", client_id=ID, service=service, version=1, daily=daily, monthly=monthly)


@pytest.fixture
def revoked() -> list[Scope]:
    return []


@pytest.fixture
def limits(revoked: list[Scope]) -> Limits:
    return Limits(frozenset(["studio"]), lambda *scope: revoked.append(scope))


@pytest.mark.parametrize(("daily", "monthly", "limited"), [(1, None, True), (None, 1, True), (0, 0, True), (None, None, False)])
def test_an_applications_limit(limits: Limits, revoked: list[Scope], daily: int, monthly: int, limited: bool) -> None:
    assert not limits.apply_to(call())
    limits.apply(of_app(daily, monthly))
    assert limits.apply_to(call()) is limited
    assert not limits.apply_to(call(service="papago-nmt"))
    assert not limits.apply_to(call(client_id="z" * 20))
    limits.apply(of_app(None, None))
    assert not limits.apply_to(call())
    assert len(limits) == 0
    assert revoked == [("acme", ID, "csr")] * 2


def test_an_accounts_limit(limits: Limits, revoked: list[Scope]) -> None:
    limits.apply(AccountLimitChanged(account="acme", service="csr", version=1, monthly=0))
    assert limits.apply_to(call())
    assert limits.apply_to(call(client_id="z" * 20))
    assert not limits.apply_to(call(account="other"))
    assert not limits.apply_to(call(service="papago-nmt"))
    limits.apply(AccountLimitChanged(account="acme", service="csr", version=2, monthly=None))
    assert not limits.apply_to(call())
    assert revoked == [("acme", "", "csr")] * 2


def test_the_test_quota(limits: Limits) -> None:
    assert limits.apply_to(call(service="studio", tier="test"))
    assert not limits.apply_to(call(service="studio", tier="live"))
    assert not limits.apply_to(call(service="csr", tier="test"))


def test_what_is_not_a_limit_changes_nothing(limits: Limits, revoked: list[Scope]) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    limits.apply(
        ThresholdCrossed(
            account="acme",
            client_id=ID,
            service="csr",
            period="daily",
            window_start=at,
            window_end=at,
            percent=10,
            used=1,
            limit=10,
            limit_version=1,
        )
    )
    assert (len(limits), revoked) == (0, [])


def edited(*services: SelectedService) -> AppEdited:
    return AppEdited(account="acme", client_id=ID, name="app", services=services, environments=Environments())


@pytest.mark.parametrize(
    ("event", "services"),
    [
        (AppDeleted(account="acme", client_id=ID), ["csr", "studio"]),
        (SecretRevoked(account="acme", client_id=ID, secret_id="s"), ["csr", "studio"]),
        (
            SecretReissued(account="acme", client_id=ID, secret=SecretIssued("t", "1" * 64), previous_valid_until=None),
            ["csr", "studio"],
        ),
        (ServiceActivated(account="acme", client_id=ID, service="studio"), ["studio"]),
        (ServiceSuspended(account="acme", client_id=ID, service="csr", review_id="r"), ["csr"]),
        (ServiceResumed(account="acme", client_id=ID, service="csr", review_id="r"), []),
        (edited(SelectedService("csr")), ["studio"]),
        (edited(SelectedService("csr"), SelectedService("studio", "test"), SelectedService("captcha")), []),
        (edited(), ["csr", "studio"]),
        (AccountOpened(account="acme", zone="UTC"), []),
    ],
)
def test_what_the_registry_changes_ends_leases(revoked: list[Scope], event: RegistryEvent, services: list[str]) -> None:
    apps = Apps()
    fold_registry(apps, lambda *scope: revoked.append(scope), REGISTERED)
    assert revoked == []
    fold_registry(apps, lambda *scope: revoked.append(scope), event)
    assert revoked == [("acme", ID, service) for service in services]


def test_an_event_of_an_unknown_application_is_a_contradiction(revoked: list[Scope]) -> None:
    with pytest.raises(Contradiction):
        fold_registry(Apps(), lambda *scope: revoked.append(scope), AppDeleted(account="acme", client_id=ID))
    assert revoked == []
