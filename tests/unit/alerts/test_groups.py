"""Groups of contacts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.alerts.groups import Group, GroupFacts, add_group, edit_group, evolve, remove_group
from shared.commands.contacts import GROUPS_MAX, AddGroup, EditGroup, RemoveGroup
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events.alerts import GroupChanged, GroupRemoved
from tests.support.alerts_examples import ACCOUNT, GROUP, KIM, LEE, command
from tests.support.scenario import Outcome, Scenario

GROUPS: Scenario[Group | None] = Scenario(None, evolve)
REMOVED = GroupRemoved(account=ACCOUNT, group_id=GROUP)


def changed(name: str = "On call", contacts: tuple[str, ...] = (KIM, LEE)) -> GroupChanged:
    return GroupChanged(account=ACCOUNT, group_id=GROUP, name=name, contacts=contacts)


def facts(*contacts: str, **groups: str) -> GroupFacts:
    return GroupFacts(frozenset(contacts), groups)


def add(known: GroupFacts, **fields: Any) -> Outcome[Group | None]:
    wish = command(AddGroup, **{"name": "On call", "contacts": (KIM, LEE), **fields})
    return GROUPS.given().when(lambda state: add_group(state, known, wish, GROUP))


def edit(*past: Any, known: GroupFacts, account: str = ACCOUNT, **fields: Any) -> Outcome[Group | None]:
    wish = command(EditGroup, group_id=GROUP, **fields).model_copy(update={"account": account})
    return GROUPS.given(*past).when(lambda state: edit_group(state, known, wish))


def test_a_group_is_added_and_its_kept_reply_has_no_names_of_people() -> None:
    decision = add(facts(KIM, LEE)).then(changed())
    assert [(one.contact_id, one.name) for one in decision.reply.contacts] == [(KIM, ""), (LEE, "")]
    add(facts(), contacts=()).then(changed(contacts=()))


def test_every_contact_that_the_account_does_not_have_is_named() -> None:
    add(facts(KIM), contacts=(LEE, KIM, "c" * 32)).refused(InvalidInput, fields=("contacts[0]", "contacts[2]"))


def test_names_are_unique_and_groups_are_bounded() -> None:
    refusal = add(facts(KIM, LEE, other="On call")).refused(Conflict)
    assert [problem.field for problem in refusal.fields] == ["name"]
    add(facts(KIM, LEE, **{str(number): str(number) for number in range(GROUPS_MAX)})).refused(Conflict, says=str(GROUPS_MAX))


def test_an_edit_changes_what_is_given() -> None:
    known = facts(KIM, LEE, **{GROUP: "On call", "other": "Board"})
    edit(changed(), known=known, name="Night").then(changed(name="Night"))
    edit(changed(), known=known, contacts=(LEE,)).then(changed(contacts=(LEE,)))
    edit(changed(), known=known, name="On call", contacts=(LEE, KIM)).then_nothing()
    edit(changed(), known=known, name="Board").refused(Conflict)
    edit(changed(), known=known, contacts=("c" * 32,)).refused(InvalidInput, fields=("contacts[0]",))


def test_a_contact_that_was_removed_is_in_no_later_version_and_by_itself_no_change() -> None:
    edit(changed(), known=facts(LEE), contacts=(LEE,)).then_nothing()
    edit(changed(), known=facts(LEE), name="Night").then(changed(name="Night", contacts=(LEE,)))


def test_a_group_is_removed_once() -> None:
    wish = command(RemoveGroup, group_id=GROUP)
    GROUPS.given(changed()).when(lambda state: remove_group(state, wish)).then(REMOVED)
    GROUPS.given(changed(), REMOVED).when(lambda state: remove_group(state, wish)).then_nothing()
    GROUPS.given().when(lambda state: remove_group(state, wish)).refused(NotFound)


def test_a_group_that_is_not_there_and_one_of_another_account_are_the_same() -> None:
    edit(known=facts(), name="x").refused(NotFound)
    edit(changed(), known=facts(), account="globex", name="x").refused(NotFound)
    edit(changed(), REMOVED, known=facts(), name="x").refused(NotFound)


def test_a_contact_is_in_a_group_once() -> None:
    with pytest.raises(ValidationError, match="twice"):
        command(AddGroup, name="On call", contacts=(KIM, KIM))
