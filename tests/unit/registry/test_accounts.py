"""Accounts and the terms of service."""

from __future__ import annotations

from services.registry.domain import AccountFacts, accept_terms, evolve_account, open_account
from shared.commands.registry import AcceptTerms, OpenAccount
from shared.errors import Conflict, NotFound
from shared.events.registry import AccountOpened, TermsAccepted
from tests.support.registry_examples import ACCOUNT, BEFORE, NOW, RULES, TERMS, account_facts, command
from tests.support.scenario import Scenario

ACCOUNTS = Scenario(None, evolve_account)
OPENED = AccountOpened(account=ACCOUNT, zone="Asia/Seoul")
ACCEPTED = TermsAccepted(account=ACCOUNT, terms_version=TERMS, accepted_by="token:t1")
OLDER = TermsAccepted(account=ACCOUNT, terms_version="2020-01-01", accepted_by="token:t1")


def test_an_account_is_opened_with_its_zone() -> None:
    nothing = AccountFacts(NOW, None)
    decision = ACCOUNTS.given().when(lambda state: open_account(state, nothing, command(OpenAccount))).then(OPENED)
    assert decision.reply.opened_at == NOW
    assert decision.at == NOW


def test_opening_it_again_changes_nothing() -> None:
    decision = ACCOUNTS.given(OPENED).when(lambda s: open_account(s, account_facts(), command(OpenAccount))).then_nothing()
    assert decision.reply.opened_at == BEFORE


def test_its_zone_stays() -> None:
    in_tokyo = command(OpenAccount, zone="Asia/Tokyo")
    ACCOUNTS.given(OPENED).when(lambda s: open_account(s, account_facts(), in_tokyo)).refused(Conflict, says="Asia/Seoul")


def test_the_terms_of_today_are_accepted() -> None:
    accept = command(AcceptTerms, version=TERMS)
    outcome = ACCOUNTS.given(OPENED).when(lambda s: accept_terms(s, account_facts(None), accept, RULES)).then(ACCEPTED)
    assert outcome.reply.accepted_at == NOW


def test_accepting_them_again_changes_nothing() -> None:
    accept = command(AcceptTerms, version=TERMS)
    outcome = ACCOUNTS.given(OPENED, ACCEPTED).when(lambda s: accept_terms(s, account_facts(), accept, RULES)).then_nothing()
    assert outcome.reply.accepted_at == BEFORE


def test_a_new_version_is_accepted_anew() -> None:
    accept = command(AcceptTerms, version=TERMS)
    ACCOUNTS.given(OPENED, OLDER).when(lambda s: accept_terms(s, account_facts("2020-01-01"), accept, RULES)).then(ACCEPTED)


def test_only_the_terms_of_today_can_be_accepted() -> None:
    accept = command(AcceptTerms, version="2020-01-01")
    refused = ACCOUNTS.given(OPENED).when(lambda s: accept_terms(s, account_facts(None), accept, RULES))
    refused.refused(Conflict, says="not the current one", fields=("version",))


def test_terms_are_accepted_by_an_open_account() -> None:
    accept = command(AcceptTerms, version=TERMS)
    ACCOUNTS.given().when(lambda s: accept_terms(s, AccountFacts(NOW, None), accept, RULES)).refused(NotFound, says=ACCOUNT)
