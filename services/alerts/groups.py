"""Groups of contacts: what has been decided about one, and what follows from a wish to change it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from shared.commands.contacts import (
    GROUPS_MAX,
    AddGroup,
    EditGroup,
    GroupMember,
    GroupRemovedReply,
    GroupView,
    RemoveGroup,
)
from shared.errors import Conflict, FieldProblem, InvalidInput, NotFound
from shared.eventlog.decision import Decision
from shared.events.alerts import AlertsEvent, GroupChanged, GroupRemoved


class Group(msgspec.Struct, frozen=True):
    """A group. Some of its `contacts` may have been removed since."""

    account: str
    group_id: str
    name: str
    contacts: tuple[str, ...]
    removed: bool = False


class GroupFacts(NamedTuple):
    """The account's contacts (ids), and the names of its groups by id."""

    contacts: Collection[str]
    groups: Mapping[str, str]


def group_stream(group_id: str) -> str:
    """The stream of a group."""
    return f"group/{group_id}"


def evolve(state: Group | None, event: AlertsEvent) -> Group | None:
    """The group after one more event of its stream."""
    match event:
        case GroupChanged():
            return Group(event.account, event.group_id, event.name, event.contacts)
        case GroupRemoved():
            assert state is not None, "a group is added first"
            return msgspec.structs.replace(state, contacts=(), removed=True)
        case _:  # of other streams
            return state


def add_group(state: Group | None, facts: GroupFacts, command: AddGroup, group_id: str) -> Decision[AlertsEvent, GroupView]:
    """A new group."""
    if state is not None:
        raise Conflict("A group with this new id exists already. Ask again.")
    if len(facts.groups) >= GROUPS_MAX:
        raise Conflict(f"The account has {len(facts.groups)} groups; at most {GROUPS_MAX} are possible. Remove one first.")
    _check(facts, command.name, command.contacts, group_id)
    added = GroupChanged(account=command.account, group_id=group_id, name=command.name, contacts=command.contacts)
    return Decision([added], _view(group_id, command.name, command.contacts))


def edit_group(state: Group | None, facts: GroupFacts, command: EditGroup) -> Decision[AlertsEvent, GroupView]:
    """The group with what was given changed. Contacts that were removed since are left out of it for good."""
    group = _own(state, command.account)
    there = tuple(contact for contact in group.contacts if contact in facts.contacts)
    name = group.name if command.name is None else command.name
    contacts = there if command.contacts is None else command.contacts
    _check(facts, name, contacts, group.group_id)
    if name == group.name and set(contacts) == set(there):
        return Decision([], _view(group.group_id, name, there))
    changed = GroupChanged(account=group.account, group_id=group.group_id, name=name, contacts=contacts)
    return Decision([changed], _view(group.group_id, name, contacts))


def remove_group(state: Group | None, command: RemoveGroup) -> Decision[AlertsEvent, GroupRemovedReply]:
    """Remove it; its contacts stay. Removing it again changes nothing."""
    reply = GroupRemovedReply(group_id=command.group_id)
    if state is not None and state.removed and state.account == command.account:
        return Decision([], reply)
    group = _own(state, command.account)
    return Decision([GroupRemoved(account=group.account, group_id=group.group_id)], reply)


def no_group() -> NotFound:
    """What is said about a group that is not there, and about another account's."""
    return NotFound("There is no such group.")


def _own(state: Group | None, account: str) -> Group:
    if state is None or state.account != account or state.removed:
        raise no_group()
    return state


def _check(facts: GroupFacts, name: str, contacts: Sequence[str], group_id: str) -> None:
    unknown = [
        FieldProblem(f"contacts[{place}]", "The account has no such contact.", "Choose from the account's contacts.")
        for place, contact in enumerate(contacts)
        if contact not in facts.contacts
    ]
    if unknown:
        raise InvalidInput("A group has contacts of its account only.", unknown)
    if any(other == name and id_ != group_id for id_, other in facts.groups.items()):
        raise Conflict(
            "Another group has this name.", [FieldProblem("name", "Another group has this name.", "Choose another one.")]
        )


def _view(group_id: str, name: str, contacts: Sequence[str]) -> GroupView:
    """As it is kept for a repeated command: without names, which are put in by whoever answers."""
    return GroupView(group_id=group_id, name=name, contacts=tuple(GroupMember(contact_id=one, name="") for one in contacts))
