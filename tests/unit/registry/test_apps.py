"""Registering, editing and deleting applications."""

from __future__ import annotations

from typing import Any

import pytest

from services.registry.domain import AccountFacts, App, delete_app, edit_app, evolve_app, register_app, vault_id
from shared.commands.registry import DeleteApp, EditApp, RegisterApp
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events.registry import (
    AppDeleted,
    AppEdited,
    Environments,
    SecretIssued,
    SecretReissued,
    SelectedService,
    ServiceActivated,
)
from tests.support.registry_examples import (
    ACCOUNT,
    BEFORE,
    CLIENT_ID,
    FIRST,
    NOW,
    RULES,
    SECOND,
    SECRET,
    TERMS,
    account_facts,
    app_facts,
    command,
    new_secret,
    registered,
)
from tests.support.scenario import Outcome, Scenario

APPS: Scenario[App | None] = Scenario(None, evolve_app)
ASKED: dict[str, Any] = {
    "name": "speech",
    "services": ["csr", "studio"],
    "environments": {"web": ["http://www.naver.com/x", "https://dev.naver.com"], "android": ["com.example.app"]},
}
DELETED = AppDeleted(account=ACCOUNT, client_id=CLIENT_ID)


def register(facts: AccountFacts | None = None, rules: Any = RULES, **extra: Any) -> Outcome[App | None]:
    asked = command(RegisterApp, **{**ASKED, **extra})
    facts = facts or account_facts()
    return APPS.given().when(lambda state: register_app(state, facts, asked, rules, CLIENT_ID, new_secret(FIRST)))


def edit(*past: Any, account: str = ACCOUNT, rules: Any = RULES, **fields: Any) -> Outcome[App | None]:
    asked = command(EditApp, client_id=CLIENT_ID, **fields).model_copy(update={"account": account})
    return APPS.given(*past).when(lambda state: edit_app(state, app_facts(), asked, rules))


def edited(**extra: Any) -> AppEdited:
    first = registered()
    shown = {"name": first.name, "services": first.services, "environments": first.environments, **extra}
    return AppEdited(account=ACCOUNT, client_id=CLIENT_ID, **shown)


def test_an_application_is_registered_with_its_first_secret() -> None:
    decision = register().then(registered(secret=SecretIssued(FIRST, "bb" * 32)))
    assert decision.seal == {vault_id(CLIENT_ID, FIRST): SECRET.encode()}
    assert decision.reveals == vault_id(CLIENT_ID, FIRST)
    assert decision.reply.client_secret == SECRET
    assert decision.reply.registered_at == decision.at == NOW
    assert decision.reply.hints == ()


def test_services_under_review_start_in_tier_test() -> None:
    decision = register(services=["studio", "papago"]).then(
        registered(services=(SelectedService("studio", "test"), SelectedService("papago")), secret=SecretIssued(FIRST, "bb" * 32))
    )
    assert [(s.service, s.tier) for s in decision.reply.services] == [("studio", "test"), ("papago", "live")]


def test_a_name_over_ten_characters_gets_a_hint() -> None:
    name = "elevenchars"
    decision = register(name=name).then(registered(name=name, secret=SecretIssued(FIRST, "bb" * 32)))
    assert "10 characters" in decision.reply.hints[0]


def test_a_secret_shown_once_is_not_sealed() -> None:
    rules = type(RULES)(RULES.catalog, TERMS, keep_secrets=False)
    assert register(rules=rules).then(registered(secret=SecretIssued(FIRST, "bb" * 32))).seal == {}


@pytest.mark.parametrize("accepted", [None, "2020-01-01"])
def test_the_terms_of_today_come_first(accepted: str | None) -> None:
    refusal = register(account_facts(accepted)).refused(Conflict, says="PUT /v1/terms/acceptance")
    assert TERMS in refusal.detail


def test_the_account_comes_before_all() -> None:
    register(AccountFacts(NOW, None)).refused(NotFound, says=ACCOUNT)


def test_an_account_has_a_bounded_number_of_applications() -> None:
    register(account_facts(apps=3)).refused(Conflict, says="at most 3")


def test_every_unknown_service_is_named() -> None:
    refusal = register(services=["nope", "csr", "neither"]).refused(InvalidInput, fields=("services[0]", "services[2]"))
    assert "papago" in refusal.fields[0].hint


def test_a_mobile_service_needs_a_mobile_environment() -> None:
    refusal = register(environments={"web": ["http://naver.com"]}).refused(InvalidInput, fields=("environments",))
    assert "CSR" in refusal.fields[0].problem


@pytest.mark.parametrize("kind", ["android", "ios"])
def test_either_mobile_environment_will_do(kind: str) -> None:
    environments = {kind: ["com.example.app"]}
    first = registered(environments=Environments(**{kind: ("com.example.app",)}), secret=SecretIssued(FIRST, "bb" * 32))
    register(environments=environments).then(first)


def test_an_application_that_exists_is_not_registered_again() -> None:
    asked = command(RegisterApp, **ASKED)
    again = APPS.given(registered()).when(lambda s: register_app(s, account_facts(), asked, RULES, CLIENT_ID, new_secret()))
    again.refused(Conflict)


def test_an_edit_changes_what_is_given() -> None:
    decision = edit(registered(), name="other").then(edited(name="other"))
    assert (decision.reply.registered_at, decision.reply.edited_at) == (BEFORE, NOW)


def test_an_edit_of_one_kind_of_environment_leaves_the_others() -> None:
    environments = Environments(("example.com",), ("com.example.app",), ())
    edit(registered(), environments={"web": ["http://example.com"]}).then(edited(environments=environments))


def test_nothing_changed_is_no_event() -> None:
    same = {"name": "speech", "services": ["studio", "csr"], "environments": {"web": ["https://naver.com:8443"]}}
    edit(registered(), **same).then_nothing()
    edit(registered()).then_nothing()


def test_services_that_stay_keep_their_tier() -> None:
    activated = ServiceActivated(account=ACCOUNT, client_id=CLIENT_ID, service="studio")
    services = (SelectedService("studio", "live"), SelectedService("papago"))
    edit(registered(), activated, services=["papago", "studio"]).then(edited(services=services))


def test_a_service_that_was_left_and_taken_again_starts_anew() -> None:
    activated = ServiceActivated(account=ACCOUNT, client_id=CLIENT_ID, service="studio")
    left = edited(services=(SelectedService("csr"),))
    again = edited(services=(SelectedService("csr"), SelectedService("studio", "test")))
    edit(registered(), activated, left, services=["csr", "studio"]).then(again)


def test_a_service_that_the_catalog_dropped_may_stay() -> None:
    rules = type(RULES)({"papago": RULES.catalog["papago"]}, TERMS)
    edit(registered(), rules=rules, services=["csr", "papago"]).then(
        edited(services=(SelectedService("csr"), SelectedService("papago")))
    )


def test_an_edit_cannot_take_the_last_mobile_environment() -> None:
    edit(registered(), environments={"android": []}).refused(InvalidInput, fields=("environments",))
    edit(registered(services=(SelectedService("papago"),), environments=Environments()), services=["csr"]).refused(InvalidInput)


@pytest.mark.parametrize("past", [(), (registered(account="other"),), (registered(), DELETED)])
def test_only_ones_own_application_is_there(past: tuple[Any, ...]) -> None:
    edit(*past, name="mine").refused(NotFound)


def test_deleting_shreds_every_secret() -> None:
    reissued = SecretReissued(
        account=ACCOUNT, client_id=CLIENT_ID, secret=SecretIssued(SECOND, "bb" * 32), previous_valid_until=NOW
    )
    asked = command(DeleteApp, client_id=CLIENT_ID)
    decision = APPS.given(registered(), reissued).when(lambda state: delete_app(state, asked)).then(DELETED)
    assert sorted(decision.shred) == [vault_id(CLIENT_ID, FIRST), vault_id(CLIENT_ID, SECOND)]


def test_deleting_again_changes_nothing() -> None:
    asked = command(DeleteApp, client_id=CLIENT_ID)
    APPS.given(registered(), DELETED).when(lambda state: delete_app(state, asked)).then_nothing()


@pytest.mark.parametrize("past", [(), (registered(account="other"),), (registered(account="other"), DELETED)])
def test_only_ones_own_application_is_deleted(past: tuple[Any, ...]) -> None:
    asked = command(DeleteApp, client_id=CLIENT_ID)
    APPS.given(*past).when(lambda state: delete_app(state, asked)).refused(NotFound)
