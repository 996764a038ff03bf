"""The registry against a plain model: any commands in any order, and it is always what a few dictionaries say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.registry import domain
from services.registry.reactions import ACTOR, FollowReview, follow_review
from shared.commands.registry import (
    AcceptTerms,
    AccountView,
    AppView,
    DeleteApp,
    EditApp,
    EnvironmentsView,
    OpenAccount,
    RegisterApp,
    ReissueSecret,
    RevokeSecret,
    SelectedServiceView,
)
from shared.errors import Conflict, InvalidInput, NotFound, TollbookError
from shared.eventlog.decision import Decision
from shared.events.registry import CODEC
from tests.support.registry_examples import CATALOG, NOW, TERMS, command

SERVICES = (*CATALOG, *CATALOG, "nope")
RULES = domain.Rules(CATALOG, TERMS, apps_max=3)
PACKAGE = "com.example.app"

accounts = st.sampled_from(("acme", "acme", "acme", "acme", "acme", "other"))  # most do not try another's applications
names = st.sampled_from(["speech", "demo"])
services = st.lists(st.sampled_from(SERVICES), min_size=1, max_size=3, unique=True)
mobile = st.booleans()
picks = st.integers(0, 7)
verdicts = st.sampled_from(["approved", "suspended", "lifted"])
graces = st.sampled_from([0, 1, 3600, 3600, 604_800])


class Registry(RuleBasedStateMachine):
    """`streams` and `vault` are what the log and the vault would hold; `accounts` and `apps` are the model."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.made = 0
        self.streams: dict[str, list[Any]] = {}
        self.vault: dict[str, bytes] = {}
        self.accounts: dict[str, str | None] = {}
        self.apps: dict[str, dict[str, Any]] = {}

    def run(self, stream: str, evolve: Callable[[Any, Any], Any], decide: Callable[[Any], Decision[Any, Any]]) -> Any:
        state = self.fold(stream, evolve)
        decision = decide(state)
        again = decide(state)
        assert list(again.events) == list(decision.events), "decisions are pure"
        self.streams.setdefault(stream, []).extend(decision.events)
        for id_ in decision.shred:
            self.vault.pop(id_, None)
        assert not set(decision.seal) & set(self.vault), "nothing is sealed over something else"
        self.vault.update(decision.seal)
        return decision

    def fold(self, stream: str, evolve: Callable[[Any, Any], Any]) -> Any:
        state = None
        for event in self.streams.get(stream, []):
            state = evolve(state, event)
        return state

    def expect(self, error: type[TollbookError] | None, run: Callable[[], Any]) -> Any:
        if error is None:
            return run()
        with pytest.raises(error):
            run()
        return None

    def account_facts(self, account: str) -> domain.AccountFacts:
        if account not in self.accounts:
            return domain.AccountFacts(self.now, None)
        terms = self.accounts[account]
        view = AccountView(
            account=account, zone="Asia/Seoul", opened_at=NOW, terms_version=terms, terms_accepted_at=NOW if terms else None
        )
        return domain.AccountFacts(self.now, view, sum(app["account"] == account for app in self.live().values()))

    def app_facts(self, client_id: str) -> domain.AppFacts:
        app = self.apps.get(client_id)
        if app is None:
            return domain.AppFacts(self.now, None)
        shown = tuple(SelectedServiceView(service=service, tier=tier) for service, tier in app["services"].items())
        view = AppView(
            client_id=client_id,
            name=app["name"],
            services=shown,
            environments=EnvironmentsView(android=app["android"]),
            registered_at=NOW,
            edited_at=NOW,
        )
        return domain.AppFacts(self.now, view)

    def live(self) -> dict[str, dict[str, Any]]:
        return {client_id: app for client_id, app in self.apps.items() if not app["deleted"]}

    def pick(self, number: int) -> str:
        """One of the applications, deleted ones too, or one that never was."""
        known = [*self.apps, "0" * 20]
        return known[number % len(known)]

    def own(self, client_id: str, account: str) -> dict[str, Any] | None:
        app = self.apps.get(client_id)
        return app if app is not None and app["account"] == account and not app["deleted"] else None

    def new_secret(self) -> domain.NewSecret:
        self.made += 1
        return domain.NewSecret(f"{self.made:032x}", f"secret-{self.made}", f"{self.made:064x}")

    @initialize()
    def most_have_an_application(self) -> None:
        self.open_account("acme")
        self.accept_terms("acme", TERMS)
        self.register("acme", "speech", ["csr", "studio"], True)

    @rule(seconds=st.integers(0, 7200))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(account=accounts)
    def open_account(self, account: str) -> None:
        asked = command(OpenAccount).model_copy(update={"account": account})
        facts = self.account_facts(account)
        self.run(domain.account_stream(account), domain.evolve_account, lambda s: domain.open_account(s, facts, asked))
        self.accounts.setdefault(account, None)

    @rule(account=accounts, version=st.sampled_from([TERMS, "2020-01-01"]))
    def accept_terms(self, account: str, version: str) -> None:
        asked = command(AcceptTerms, version=version).model_copy(update={"account": account})
        error = NotFound if account not in self.accounts else Conflict if version != TERMS else None
        stream, facts = domain.account_stream(account), self.account_facts(account)
        self.expect(error, lambda: self.run(stream, domain.evolve_account, lambda s: domain.accept_terms(s, facts, asked, RULES)))
        if error is None:
            self.accounts[account] = TERMS

    def wrong_selection(self, chosen: list[str], android: tuple[str, ...]) -> type[TollbookError] | None:
        return InvalidInput if "nope" in chosen or ("csr" in chosen and not android) else None

    @rule(account=accounts, name=names, chosen=services, on_mobile=mobile)
    def register(self, account: str, name: str, chosen: list[str], on_mobile: bool) -> None:
        android = (PACKAGE,) if on_mobile else ()
        asked = command(RegisterApp, name=name, services=chosen, environments={"android": android})
        asked = asked.model_copy(update={"account": account})
        facts, new = self.account_facts(account), self.new_secret()
        client_id = f"{self.made:020d}"
        error: type[TollbookError] | None = self.wrong_selection(chosen, android)
        if self.accounts.get(account) != TERMS or facts.apps >= RULES.apps_max:
            error = Conflict
        if account not in self.accounts:
            error = NotFound
        stream = domain.app_stream(client_id)
        decide = lambda s: domain.register_app(s, facts, asked, RULES, client_id, new)  # noqa: E731
        decision = self.expect(error, lambda: self.run(stream, domain.evolve_app, decide))
        if decision is not None:
            self.apps[client_id] = {
                "account": account,
                "name": name,
                "services": {service: "test" if service == "studio" else "live" for service in chosen},
                "android": android,
                "secrets": {new.secret_id: None},
                "ended": set(),
                "suspended": set(),
                "deleted": False,
            }

    @rule(account=accounts, number=picks, name=st.none() | names, chosen=st.none() | services, on_mobile=st.none() | mobile)
    def edit(self, account: str, number: int, name: str | None, chosen: list[str] | None, on_mobile: bool | None) -> None:
        client_id = self.pick(number)
        android = None if on_mobile is None else (PACKAGE,) if on_mobile else ()
        environments = None if android is None else {"android": android}
        asked = command(EditApp, client_id=client_id, name=name, services=chosen, environments=environments)
        asked = asked.model_copy(update={"account": account})
        app = self.own(client_id, account)
        error: type[TollbookError] | None = NotFound
        if app is not None:
            after = list(app["services"]) if chosen is None else chosen
            error = self.wrong_selection(after, app["android"] if android is None else android)
        stream, facts = domain.app_stream(client_id), self.app_facts(client_id)
        self.expect(error, lambda: self.run(stream, domain.evolve_app, lambda s: domain.edit_app(s, facts, asked, RULES)))
        if app is not None and error is None:
            app["name"] = name or app["name"]
            app["android"] = app["android"] if android is None else android
            if chosen is not None:
                app["suspended"] &= set(chosen)
                app["services"] = {
                    service: app["services"].get(service, "test" if service == "studio" else "live") for service in chosen
                }

    @rule(account=accounts, number=picks, service=st.sampled_from(["studio", "studio", "studio", "csr"]), verdict=verdicts)
    def a_review_is_followed(self, account: str, number: int, service: str, verdict: Any) -> None:
        client_id = self.pick(number)
        asked = FollowReview(
            command_id="c", account=account, actor=ACTOR, client_id=client_id, service=service, review_id="r", verdict=verdict
        )
        stream = domain.app_stream(client_id)
        changed = [self.run(stream, domain.evolve_app, lambda s: follow_review(s, asked)).reply.changed for _ in range(2)]
        assert not changed[1], "it is so by now"
        app = self.own(client_id, account)
        tier = app["services"].get(service) if app is not None else None
        if app is None or tier is None:
            assert not changed[0]
            return
        was = service in app["suspended"]
        match verdict:
            case "approved":
                assert changed[0] == (tier == "test")
                app["services"][service] = "live"
            case "suspended":
                assert changed[0] == (tier == "live" and not was)
                app["suspended"] |= {service} if tier == "live" else set()
            case _:
                assert changed[0] == was
                app["suspended"] -= {service}

    @rule(account=accounts, number=picks, grace=graces)
    def reissue(self, account: str, number: int, grace: int) -> None:
        client_id = self.pick(number)
        asked = command(ReissueSecret, client_id=client_id, grace_seconds=grace).model_copy(update={"account": account})
        app, new = self.own(client_id, account), self.new_secret()
        stream, now = domain.app_stream(client_id), self.now
        decide = lambda s: domain.reissue_secret(s, now, asked, RULES, new)  # noqa: E731
        error = NotFound if app is None else None
        self.expect(error, lambda: self.run(stream, domain.evolve_app, decide))
        if app is None:
            return
        working = [id_ for id_, until in app["secrets"].items() if until is None or until > now]
        kept: dict[str, datetime | None] = {}
        if grace and working:
            end = now + timedelta(seconds=grace)
            kept[working[-1]] = min(end, app["secrets"][working[-1]] or end)
        app["ended"] |= set(app["secrets"]) - set(kept)
        app["secrets"] = {**kept, new.secret_id: None}

    @rule(account=accounts, number=picks, which=st.integers(0, 3))
    def revoke(self, account: str, number: int, which: int) -> None:
        client_id = self.pick(number)
        app = self.own(client_id, account)
        known = [*app["secrets"], *sorted(app["ended"])[:2]] if app else []
        secret_id = known[which] if which < len(known) else "f" * 32
        asked = command(RevokeSecret, client_id=client_id, secret_id=secret_id).model_copy(update={"account": account})
        error = None if which < len(known) else NotFound
        stream, now = domain.app_stream(client_id), self.now
        self.expect(error, lambda: self.run(stream, domain.evolve_app, lambda s: domain.revoke_secret(s, now, asked)))
        if app is not None and error is None and secret_id in app["secrets"]:
            del app["secrets"][secret_id]
            app["ended"].add(secret_id)

    @rule(account=accounts, number=picks)
    def delete(self, account: str, number: int) -> None:
        client_id = self.pick(number)
        asked = command(DeleteApp, client_id=client_id).model_copy(update={"account": account})
        app = self.apps.get(client_id)
        error = None if app is not None and app["account"] == account else NotFound
        self.expect(
            error, lambda: self.run(domain.app_stream(client_id), domain.evolve_app, lambda s: domain.delete_app(s, asked))
        )
        if app is not None and error is None:
            app["deleted"] = True
            app["secrets"] = {}

    @invariant()
    def the_state_is_what_the_model_says(self) -> None:
        for client_id, app in self.apps.items():
            state = self.fold(domain.app_stream(client_id), domain.evolve_app)
            assert state.deleted == app["deleted"]
            assert {secret.secret_id: secret.valid_until for secret in state.secrets} == app["secrets"]
            if not app["deleted"]:
                assert (state.account, state.name, state.environments.android) == (app["account"], app["name"], app["android"])
                assert {selected.service: selected.tier for selected in state.services} == app["services"]
                assert {selected.service for selected in state.services if selected.suspended} == app["suspended"]

    @invariant()
    def only_what_is_live_is_suspended(self) -> None:
        for app in self.apps.values():
            assert all(app["services"][service] == "live" for service in app["suspended"])

    @invariant()
    def at_most_two_secrets_work_and_one_is_current(self) -> None:
        for app in self.apps.values():
            assert sum(until is None or until > self.now for until in app["secrets"].values()) <= 2
            assert sum(until is None for until in app["secrets"].values()) <= 1

    @invariant()
    def just_the_secrets_that_were_not_ended_are_kept(self) -> None:
        kept = {domain.vault_id(client_id, secret_id) for client_id, app in self.apps.items() for secret_id in app["secrets"]}
        assert set(self.vault) == kept

    @invariant()
    def no_event_holds_a_secret(self) -> None:
        for events in self.streams.values():
            assert not any(b"secret-" in CODEC.encode(event) for event in events)


TestRegistry = Registry.TestCase
TestRegistry.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
