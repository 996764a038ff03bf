"""Notification rules: what is refused, what is recorded, and what is warned of."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.alerts.contacts import Standing
from services.alerts.rules import Rule, RuleFacts, evolve, rule_view, set_notifications, shown, stream_of
from shared.commands.notifications import SetNotifications
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events.alerts import NotificationRuleChanged, Recipient, RecipientsChanged
from tests.support.alerts_examples import ACCOUNT, CLIENT_ID, GROUP, KIM, LEE, NOW, SERVICES, command, people, rule_facts
from tests.support.scenario import Outcome, Scenario

RULES: Scenario[Rule] = Scenario(Rule(), evolve)
CATALOG = (*SERVICES, "studio")
TO_KIM = {"contact_id": KIM, "methods": ["email"]}
TO_GROUP = {"group_id": GROUP, "methods": ["sms"]}


def wish(*past: Any, facts: RuleFacts | None = None, **fields: Any) -> Outcome[Rule]:
    asked = command(SetNotifications, **{"client_id": CLIENT_ID, "service": "csr", **fields})
    known = rule_facts() if facts is None else facts
    return RULES.given(*past).when(lambda state: set_notifications(state, known, asked, CATALOG))


def changed(version: int = 1, **fields: Any) -> NotificationRuleChanged:
    shape: dict[str, Any] = {"client_id": CLIENT_ID, "daily": None, "monthly": 70, **fields}
    return NotificationRuleChanged(account=ACCOUNT, service="csr", version=version, **shape)


def told(*recipients: Recipient, version: int = 1, client_id: str = CLIENT_ID) -> RecipientsChanged:
    return RecipientsChanged(account=ACCOUNT, client_id=client_id, service="csr", version=version, recipients=recipients)


EMAIL_KIM = Recipient(KIM, "", ("email",))


def test_rule_and_recipients_are_set_under_one_version() -> None:
    decision = wish(monthly=70, monthly_custom=[95, 5], recipients=[TO_KIM]).then(
        changed(monthly_custom=(5, 95)), told(EMAIL_KIM)
    )
    reply = decision.reply
    assert (reply.version, reply.changed_at, decision.at) == (1, NOW, NOW)
    assert (reply.daily_percentages, reply.monthly_percentages) == ((), (5, 70, 80, 90, 95, 100))
    assert [(one.contact_id, one.name) for one in reply.recipients] == [(KIM, None)]


def test_only_what_changes_is_recorded() -> None:
    past = [changed(), told(EMAIL_KIM)]
    wish(*past, monthly=80, recipients=[TO_KIM]).then(changed(2, monthly=80))
    wish(*past, monthly=70).then(told(version=2))
    wish(*past, changed(2, monthly=80), monthly=80, recipients=[TO_KIM]).then_nothing()
    wish().then_nothing()


def test_a_recipient_that_was_removed_is_no_change_by_itself() -> None:
    past = [changed(), told(Recipient(LEE, "", ("sms",)), EMAIL_KIM)]
    wish(*past, monthly=70, recipients=[TO_KIM]).then_nothing()


def test_a_rule_is_changed_from_the_version_that_it_was_read_at() -> None:
    wish(changed(), monthly=80, expected_version=1).then(changed(2, monthly=80))
    wish(changed(), monthly=80, expected_version=0).refused(Conflict, says="version 1")


def test_everything_that_is_wrong_is_named_at_once_with_its_place() -> None:
    half = {"email": Standing(verified=True, unsubscribed=True), "sms": Standing()}
    facts = rule_facts(people({KIM: half}, **{GROUP: (KIM,)}))
    wish(
        facts=facts,
        service="studio",
        recipients=[
            {"contact_id": KIM, "methods": ["email", "sms", "webhook"]},
            {"contact_id": LEE, "methods": ["email"]},
            {"group_id": "8" * 32, "methods": ["email"]},
            {"group_id": GROUP, "methods": ["webhook"]},
            {"group_id": GROUP, "methods": ["email"]},
        ],
    ).refused(
        InvalidInput,
        fields=(
            "service",
            "recipients[0].methods[0]",
            "recipients[0].methods[1]",
            "recipients[0].methods[2]",
            "recipients[1].contact_id",
            "recipients[2].group_id",
            "recipients[4].group_id",
        ),
    )


def test_the_service_is_one_that_the_application_has_selected() -> None:
    assert "has not selected" in wish(service="studio").refused(InvalidInput, fields=("service",)).fields[0].problem
    assert "no service" in wish(service="nothing").refused(InvalidInput, fields=("service",)).fields[0].problem
    wish(facts=rule_facts(selected=None), recipients=[{"contact_id": LEE, "methods": ["email"]}]).refused(NotFound)


def test_an_accounts_own_limit_is_of_the_month() -> None:
    wish(client_id=None, monthly=70).then(changed(client_id=""))
    wish(client_id=None, daily=70, daily_custom=[5], monthly=70).refused(InvalidInput, fields=("daily", "daily_custom"))
    wish(client_id=None, facts=rule_facts(selected=None)).refused(NotFound, says="not open")
    assert stream_of(ACCOUNT, "", "csr") != stream_of(ACCOUNT, CLIENT_ID, "csr")


def codes(*recipients: Recipient, monthly: int | None = 70, **groups: tuple[str, ...]) -> list[tuple[str, str]]:
    telling = RULES.given(changed(monthly=monthly), told(*recipients)).state
    whom = people({KIM: {"email": Standing(verified=True), "sms": Standing()}, LEE: {"sms": Standing(True, True)}}, **groups)
    view = shown(rule_view(CLIENT_ID, "csr", telling, NOW), whom, {KIM: "Kim", GROUP: "On call"})
    return [(one.code, one.detail.partition(":")[0]) for one in view.warnings]


def test_a_rule_that_tells_nobody_is_warned_of() -> None:
    assert codes() == [("no_recipients", "Nobody is told")]
    assert codes(monthly=None) == []
    assert codes(EMAIL_KIM) == []
    assert codes(Recipient("c" * 32, "", ("email",))) == [("no_recipients", "Nobody is told")]


def test_a_recipient_that_cannot_be_reached_is_warned_of() -> None:
    to_both = Recipient("", GROUP, ("email", "sms"))
    assert codes(EMAIL_KIM, Recipient(LEE, "", ("sms",))) == [("unreachable", "recipients[1]")]
    assert codes(to_both, **{GROUP: (KIM, LEE)}) == [("unreachable", "recipients[0]")]
    assert codes(to_both, **{GROUP: ()}) == [("unreachable", "recipients[0]")]
    assert codes(Recipient("", GROUP, ("email",)), **{GROUP: (KIM, LEE)}) == []


def test_a_shown_rule_has_todays_names_and_only_who_is_there() -> None:
    state = RULES.given(changed(), told(EMAIL_KIM, Recipient("c" * 32, "", ("sms",)), Recipient("", GROUP, ("sms",)))).state
    view = shown(rule_view(CLIENT_ID, "csr", state, NOW), people(**{GROUP: (KIM,)}), {KIM: "Kim", GROUP: "On call"})
    assert [(one.name, one.unreachable) for one in view.recipients] == [("Kim", ()), ("On call", ())]


@pytest.mark.parametrize(
    "fields",
    [
        {"daily": 75},
        {"monthly": 0},
        {"monthly": 110},
        {"monthly": True},
        {"daily_custom": [5, 5]},
        {"daily_custom": [0]},
        {"daily_custom": list(range(1, 12))},
        {"recipients": [{"methods": ["email"]}]},
        {"recipients": [{**TO_KIM, **TO_GROUP}]},
        {"recipients": [{"contact_id": KIM, "methods": []}]},
        {"recipients": [{"contact_id": KIM, "methods": ["email", "email"]}]},
        {"recipients": [{"contact_id": KIM, "methods": ["fax"]}]},
        {"recipients": [TO_KIM] * 51},
    ],
)
def test_what_no_rule_can_say_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        command(SetNotifications, client_id=CLIENT_ID, service="csr", **fields)
