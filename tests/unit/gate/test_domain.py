"""Whether a call may pass, as given events / when a call / then the decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from services.gate.domain import App, Apps, Call, Contradiction, Credentials, Pass, Reason, Rules, decide, evolve
from shared.credentials import verifier
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
    TermsAccepted,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PEPPER = bytes(range(32))
RULES = Rules(frozenset({"csr", "clova-studio", "papago-nmt"}), PEPPER)
ID = "k3v9aaaaaaaaaaaaaaaa"
FIRST, SECOND, THIRD = "A" * 40, "B" * 40, "C" * 40
MOBILE = Environments(web=("naver.com",), android=("com.example.app",), ios=("com.example.App",))
SERVER = Call(Credentials(ID, FIRST))


def issued(secret: str, client_id: str = ID) -> SecretIssued:
    return SecretIssued(f"secret-{secret[0]}", verifier(PEPPER, client_id, secret))


def registered(*services: SelectedService, environments: Environments = MOBILE, client_id: str = ID) -> AppRegistered:
    return AppRegistered(
        account="acme",
        client_id=client_id,
        name="app",
        services=services or (SelectedService("csr"),),
        environments=environments,
        secret=issued(FIRST, client_id),
    )


def edited(*services: SelectedService, environments: Environments = MOBILE) -> AppEdited:
    return AppEdited(account="acme", client_id=ID, name="other", services=services, environments=environments)


def reissued(secret: str, until: datetime | None = None) -> SecretReissued:
    return SecretReissued(account="acme", client_id=ID, secret=issued(secret), previous_valid_until=until)


def given(*events: RegistryEvent) -> Apps:
    apps = Apps()
    for event in events:
        apps.apply(event)
    return apps


def when(apps: Apps, call: Call = SERVER, service: str = "csr", now: datetime = NOW) -> Pass | Reason:
    return decide(apps, RULES, service, call, now)


def with_secret(secret: str) -> Call:
    return Call(Credentials(ID, secret))


def suspended(service: str = "clova-studio") -> ServiceSuspended:
    return ServiceSuspended(account="acme", client_id=ID, service=service, review_id="r1")


def resumed(service: str = "clova-studio") -> ServiceResumed:
    return ServiceResumed(account="acme", client_id=ID, service=service, review_id="r1")


def passes(secret: str = FIRST, service: str = "csr", tier: str = "live", quantity: int = 1) -> Pass:
    return Pass(ID, "acme", service, tier, f"secret-{secret[0]}", quantity)  # type: ignore[arg-type]


def test_a_registered_application_passes() -> None:
    assert when(given(registered())) == passes()


def test_accounts_and_terms_change_nothing() -> None:
    apps = given(
        AccountOpened(account="acme", zone="Asia/Seoul"),
        TermsAccepted(account="acme", terms_version="1", accepted_by="member:1"),
    )
    assert len(apps) == 0
    assert evolve(None, AccountOpened(account="acme", zone="Asia/Seoul")) is None


def test_the_order_of_checks_is_service_credentials_selection_suspension_environment_quantity() -> None:
    apps = given(registered())
    wrong_all = Call(Credentials(ID, SECOND), web="https://other.example", quantity=0)
    right_credentials = replace(wrong_all, credentials=Credentials(ID, FIRST))
    assert when(apps, wrong_all, "no-such-service") == Reason.UNKNOWN_SERVICE
    assert when(apps, wrong_all, "papago-nmt") == Reason.CREDENTIALS_WRONG
    assert when(apps, right_credentials, "papago-nmt") == Reason.SERVICE_NOT_SELECTED
    assert when(apps, right_credentials) == Reason.WEB_NOT_REGISTERED
    assert when(apps, replace(right_credentials, web="")) == Reason.QUANTITY_INVALID
    apps.apply(suspended("csr"))
    assert when(apps, wrong_all) == Reason.CREDENTIALS_WRONG
    assert when(apps, right_credentials) == Reason.SERVICE_SUSPENDED


@pytest.mark.parametrize("reason", [Reason.CREDENTIALS_MISSING, Reason.CREDENTIALS_TWICE, Reason.CREDENTIALS_WRONG])
def test_credentials_that_could_not_be_read_are_refused_as_such(reason: Reason) -> None:
    assert when(given(registered()), Call(reason)) == reason


@pytest.mark.parametrize(
    "credentials",
    [Credentials(ID, SECOND), Credentials("x" * 20, FIRST), Credentials(ID, FIRST[:-1] + "b"), Credentials("é" * 20, "é" * 40)],
)
def test_an_unknown_id_and_a_wrong_secret_are_the_same_refusal(credentials: Credentials) -> None:
    assert when(given(registered()), Call(credentials)) == Reason.CREDENTIALS_WRONG


def test_a_secret_of_another_application_does_not_work() -> None:
    other = "o" * 20
    apps = given(registered(), registered(client_id=other))
    assert when(apps, Call(Credentials(other, FIRST))) == replace(passes(), client_id=other)
    assert verifier(PEPPER, ID, FIRST) != verifier(PEPPER, other, FIRST)


def test_a_reissued_secret_replaces_the_earlier_one_at_once() -> None:
    apps = given(registered(), reissued(SECOND))
    assert when(apps, with_secret(SECOND)) == passes(SECOND)
    assert when(apps, with_secret(FIRST)) == Reason.CREDENTIALS_WRONG


def test_within_the_grace_period_both_secrets_work_and_afterwards_one() -> None:
    end = NOW + timedelta(hours=1)
    apps = given(registered(), reissued(SECOND, end))
    assert when(apps, with_secret(FIRST)) == passes(FIRST)
    assert when(apps, with_secret(SECOND)) == passes(SECOND)
    assert when(apps, with_secret(FIRST), now=end - timedelta(microseconds=1)) == passes(FIRST)
    assert when(apps, with_secret(FIRST), now=end) == Reason.CREDENTIALS_WRONG
    assert when(apps, with_secret(SECOND), now=end) == passes(SECOND)


def test_a_second_reissue_does_not_prolong_the_first_secret() -> None:
    soon, later = NOW + timedelta(hours=1), NOW + timedelta(hours=9)
    apps = given(registered(), reissued(SECOND, soon), reissued(THIRD, later))
    assert when(apps, with_secret(FIRST), now=soon) == Reason.CREDENTIALS_WRONG
    assert when(apps, with_secret(SECOND), now=soon) == passes(SECOND)
    assert when(apps, with_secret(SECOND), now=later) == Reason.CREDENTIALS_WRONG


def test_a_revoked_secret_stops_working_and_the_other_goes_on() -> None:
    apps = given(registered(), reissued(SECOND, NOW + timedelta(hours=1)))
    apps.apply(SecretRevoked(account="acme", client_id=ID, secret_id="secret-A"))
    assert when(apps, with_secret(FIRST)) == Reason.CREDENTIALS_WRONG
    assert when(apps, with_secret(SECOND)) == passes(SECOND)


def test_without_any_secret_nobody_passes() -> None:
    apps = given(registered(), SecretRevoked(account="acme", client_id=ID, secret_id="secret-A"))
    assert when(apps) == Reason.CREDENTIALS_WRONG


def test_a_deleted_application_is_as_one_that_never_was() -> None:
    apps = given(registered(), AppDeleted(account="acme", client_id=ID))
    assert len(apps) == 0
    assert when(apps) == Reason.CREDENTIALS_WRONG


def test_an_edit_replaces_services_and_environments_and_keeps_secrets() -> None:
    apps = given(registered(), edited(SelectedService("papago-nmt"), environments=Environments(web=("daum.net",))))
    assert when(apps) == Reason.SERVICE_NOT_SELECTED
    assert when(apps, replace(SERVER, web="https://naver.com"), "papago-nmt") == Reason.WEB_NOT_REGISTERED
    assert when(apps, replace(SERVER, web="https://www.daum.net/x"), "papago-nmt") == passes(service="papago-nmt")


def test_a_service_is_in_tier_test_until_it_is_activated() -> None:
    apps = given(registered(SelectedService("clova-studio", "test"), SelectedService("csr")))
    assert when(apps, service="clova-studio") == passes(service="clova-studio", tier="test")
    apps.apply(ServiceActivated(account="acme", client_id=ID, service="clova-studio"))
    assert when(apps, service="clova-studio") == passes(service="clova-studio", tier="live")
    assert when(apps) == passes()


STUDIO, CSR = SelectedService("clova-studio"), SelectedService("csr")


def test_a_suspended_service_is_refused_until_it_is_resumed_and_no_other_is() -> None:
    apps = given(registered(STUDIO, CSR), suspended())
    assert when(apps, service="clova-studio") == Reason.SERVICE_SUSPENDED
    assert when(apps) == passes()
    apps.apply(resumed())
    assert when(apps, service="clova-studio") == passes(service="clova-studio")
    assert apps.get(ID) == given(registered(STUDIO, CSR)).get(ID)


def test_a_suspension_stays_when_secrets_and_other_services_change() -> None:
    apps = given(registered(STUDIO, CSR), suspended(), reissued(SECOND))
    apps.apply(ServiceActivated(account="acme", client_id=ID, service="csr"))
    assert when(apps, with_secret(SECOND), service="clova-studio") == Reason.SERVICE_SUSPENDED


def test_an_edit_says_itself_what_is_suspended() -> None:
    apps = given(registered(STUDIO, CSR), suspended(), edited(replace(STUDIO, suspended=True)))
    assert when(apps, service="clova-studio") == Reason.SERVICE_SUSPENDED
    apps.apply(edited(SelectedService("clova-studio", "test")))
    assert when(apps, service="clova-studio") == passes(service="clova-studio", tier="test")


@pytest.mark.parametrize(
    ("presented", "refused"),
    [
        ({}, None),
        ({"web": "https://naver.com"}, None),
        ({"web": "http://www.dev.naver.com:8443/path?q"}, None),
        ({"web": "https://notnaver.com"}, Reason.WEB_NOT_REGISTERED),
        ({"web": "https://naver.com.evil.example"}, Reason.WEB_NOT_REGISTERED),
        ({"web": "null"}, Reason.WEB_NOT_REGISTERED),
        ({"web": "\x00"}, Reason.WEB_NOT_REGISTERED),
        ({"android": "com.example.app"}, None),
        ({"android": "com.example.App"}, Reason.ANDROID_NOT_REGISTERED),
        ({"android": "\x00"}, Reason.ANDROID_NOT_REGISTERED),
        ({"ios": "com.example.app"}, None),
        ({"ios": "com.example.other"}, Reason.IOS_NOT_REGISTERED),
        ({"web": "https://naver.com", "ios": "com.example.other"}, Reason.IOS_NOT_REGISTERED),
        ({"android": "com.example.app", "web": "https://evil.example"}, Reason.WEB_NOT_REGISTERED),
    ],
)
def test_an_environment_that_is_presented_must_be_registered(presented: dict[str, str], refused: Reason | None) -> None:
    assert when(given(registered()), replace(SERVER, **presented)) == (refused or passes())


@pytest.mark.parametrize("presented", [{"web": "https://naver.com"}, {"android": "com.example.app"}, {"ios": "com.example.app"}])
def test_an_application_without_environments_is_for_servers_only(presented: dict[str, str]) -> None:
    apps = given(registered(environments=Environments()))
    assert when(apps) == passes()
    assert isinstance(when(apps, replace(SERVER, **presented)), Reason)


def test_a_page_from_a_file_matches_a_registered_file_environment() -> None:
    apps = given(registered(environments=Environments(web=("file:",))))
    assert when(apps, replace(SERVER, web="null")) == passes()
    assert when(apps, replace(SERVER, web="file:///android_asset/index.html")) == passes()


def test_the_quantity_is_what_the_record_will_say() -> None:
    assert when(given(registered()), replace(SERVER, quantity=7)) == passes(quantity=7)


@pytest.mark.parametrize(
    "event",
    [
        edited(SelectedService("csr")),
        reissued(SECOND),
        SecretRevoked(account="acme", client_id=ID, secret_id="s"),
        ServiceActivated(account="acme", client_id=ID, service="csr"),
        suspended("csr"),
        resumed("csr"),
        AppDeleted(account="acme", client_id=ID),
    ],
)
def test_an_event_of_an_application_that_is_not_there_is_a_contradiction(event: RegistryEvent) -> None:
    with pytest.raises(Contradiction, match=ID):
        Apps().apply(event)


def test_repeating_an_activation_or_a_revocation_changes_nothing() -> None:
    app = evolve(None, registered())
    assert isinstance(app, App)
    assert evolve(app, ServiceActivated(account="acme", client_id=ID, service="csr")) == app
    assert evolve(app, SecretRevoked(account="acme", client_id=ID, secret_id="another")) == app
    assert evolve(app, suspended("not-selected")) == app
    assert evolve(app, resumed("csr")) == app
