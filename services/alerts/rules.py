"""Notification rules: at which percentages of a scope's limits who is told. Pure.

A scope is an application at a service, or an account's own limit at a service (client_id ""). Each has a stream of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from services.alerts.contacts import Standing
from shared.commands.notifications import NotificationsView, RecipientEntered, RecipientView, SetNotifications, Warned
from shared.errors import Conflict, FieldProblem, InvalidInput, NotFound
from shared.eventlog.decision import Decision
from shared.events.alerts import (
    AlertsEvent,
    Method,
    NotificationRuleChanged,
    Recipient,
    RecipientsChanged,
    rungs_of,
)

NO_RECIPIENTS: Final = "no_recipients"
UNREACHABLE: Final = "unreachable"


class Telling(msgspec.Struct, frozen=True):
    """At which percentages: thresholds and custom ones, of the day and of the month."""

    daily: int | None = None
    monthly: int | None = None
    daily_custom: tuple[int, ...] = ()
    monthly_custom: tuple[int, ...] = ()


class Rule(msgspec.Struct, frozen=True):
    """What was decided about one scope. `version` 0: nothing was yet."""

    version: int = 0
    telling: Telling = Telling()
    recipients: tuple[Recipient, ...] = ()


class People(NamedTuple):
    """Whom an account has: its contacts with the addresses of each, and its groups with those of their contacts that exist."""

    contacts: Mapping[str, Mapping[Method, Standing]]
    groups: Mapping[str, Collection[str]]


class RuleFacts(NamedTuple):
    """What a decision about a rule needs besides its stream.

    `selected` are the services that the application has selected, None when the account has no such application; for an account's
    own limit the services of the catalog, None when there is no such account. `changed_at` is of the last change.
    """

    now: datetime
    selected: Collection[str] | None
    changed_at: datetime | None
    people: People


def stream_of(account: str, client_id: str, service: str) -> str:
    """The stream of a scope; client_id "": of the account's own limit."""
    return f"rule/{client_id}/{service}" if client_id else f"account-rule/{account}/{service}"


def evolve(state: Rule, event: AlertsEvent) -> Rule:
    """The rule after one more event of its stream."""
    match event:
        case NotificationRuleChanged():
            telling = Telling(event.daily, event.monthly, event.daily_custom, event.monthly_custom)
            return msgspec.structs.replace(state, version=event.version, telling=telling)
        case RecipientsChanged():
            return msgspec.structs.replace(state, version=event.version, recipients=event.recipients)
        case _:  # of other streams
            return state


def set_notifications(
    state: Rule, facts: RuleFacts, command: SetNotifications, services: Collection[str]
) -> Decision[AlertsEvent, NotificationsView]:
    """The rule as wished. `services` are the ids of the catalog."""
    if facts.selected is None:
        raise no_scope(command.account, command.client_id)
    problems = [*_wrong_scope(facts.selected, command, services), *_wrong_recipients(command.recipients, facts.people)]
    if problems:
        raise InvalidInput("The request breaks the rules named in `fields`.", problems)
    if command.expected_version is not None and command.expected_version != state.version:
        raise Conflict(f"The rule is at version {state.version}, not {command.expected_version}: read it again and decide anew.")
    telling = Telling(command.daily, command.monthly, command.daily_custom, command.monthly_custom)
    recipients = tuple(Recipient(one.contact_id or "", one.group_id or "", one.methods) for one in command.recipients)
    client_id = command.client_id or ""
    version = state.version + 1
    events: list[AlertsEvent] = []
    if telling != state.telling:
        events.append(
            NotificationRuleChanged(
                account=command.account,
                client_id=client_id,
                service=command.service,
                version=version,
                daily=telling.daily,
                monthly=telling.monthly,
                daily_custom=telling.daily_custom,
                monthly_custom=telling.monthly_custom,
            )
        )
    if recipients != there(state.recipients, facts.people):
        events.append(
            RecipientsChanged(
                account=command.account, client_id=client_id, service=command.service, version=version, recipients=recipients
            )
        )
    rule = Rule(version if events else state.version, telling, recipients)
    changed_at = facts.now if events else facts.changed_at
    return Decision(events, rule_view(client_id, command.service, rule, changed_at), at=facts.now)


def there(recipients: Iterable[Recipient], people: People) -> tuple[Recipient, ...]:
    """Those of the recipients that have not been removed."""
    return tuple(one for one in recipients if one.contact_id in people.contacts or one.group_id in people.groups)


def no_scope(account: str, client_id: str | None) -> NotFound:
    """What is said about an application that is not there, about another account's, and about an account that is not open."""
    return NotFound(f"There is no application {client_id}." if client_id else f"The account {account} is not open.")


def wrong_service(selected: Collection[str], of_app: bool, service: str, services: Collection[str]) -> FieldProblem | None:
    """What is wrong with asking about the service, if something is."""
    if service in selected:
        return None
    if of_app and service in services:
        return FieldProblem("service", f"The application has not selected {service}.", "Select it for the application first.")
    return FieldProblem("service", f"There is no service {service}.", f"Give one of: {', '.join(sorted(services))}.")


def _wrong_scope(selected: Collection[str], command: SetNotifications, services: Collection[str]) -> Iterator[FieldProblem]:
    of_app = command.client_id is not None
    service = wrong_service(selected, of_app, command.service, services)
    if service is not None:
        yield service
    for field, entered in (("daily", command.daily), ("daily_custom", command.daily_custom)):
        if entered and not of_app:
            yield FieldProblem(field, "An account's own limit is of the month.", "Leave it out.")


def _wrong_recipients(recipients: Sequence[RecipientEntered], people: People) -> Iterator[FieldProblem]:
    seen: set[str] = set()
    for place, one in enumerate(recipients):
        path = f"recipients[{place}]"
        field, id_ = ("contact_id", one.contact_id) if one.contact_id is not None else ("group_id", one.group_id or "")
        if id_ in seen:
            yield FieldProblem(f"{path}.{field}", "This recipient is there already.", "Name each once, with all of its methods.")
        seen.add(id_)
        if one.contact_id is None:
            if id_ not in people.groups:
                yield FieldProblem(f"{path}.group_id", "The account has no such group.", "Choose from the account's groups.")
        elif id_ not in people.contacts:
            yield FieldProblem(f"{path}.contact_id", "The account has no such contact.", "Choose from the account's contacts.")
        else:
            yield from _wrong_methods(path, one.methods, people.contacts[id_])


def _wrong_methods(path: str, methods: Sequence[Method], has: Mapping[Method, Standing]) -> Iterator[FieldProblem]:
    for place, method in enumerate(methods):
        field = f"{path}.methods[{place}]"
        standing = has.get(method)
        if standing is None:
            yield FieldProblem(field, "The contact has no such address.", "Enter it for the contact first, and verify it.")
        elif standing.unsubscribed:
            yield FieldProblem(field, "Who reads this address has unsubscribed.", "Leave it out, or verify it again first.")
        elif not standing.verified:
            yield FieldProblem(field, "This address is not verified.", "Verify it first.")


# -- how a rule is shown


def rule_view(client_id: str, service: str, rule: Rule, changed_at: datetime | None) -> NotificationsView:
    """The rule as it is kept for a repeated command: without names and what is said about today, see `shown`."""
    telling = rule.telling
    return NotificationsView(
        client_id=client_id or None,
        service=service,
        version=rule.version,
        changed_at=changed_at,
        **msgspec.structs.asdict(telling),
        daily_percentages=rungs_of(telling.daily, telling.daily_custom),
        monthly_percentages=rungs_of(telling.monthly, telling.monthly_custom),
        recipients=tuple(recipient_view(one) for one in rule.recipients),
    )


def recipient_view(recipient: Recipient, names: Mapping[str, str] | None = None) -> RecipientView:
    """A recipient with the name that its id has in `names`, if it has one."""
    id_ = recipient.contact_id or recipient.group_id
    return RecipientView(
        contact_id=recipient.contact_id or None,
        group_id=recipient.group_id or None,
        name=(names or {}).get(id_),
        methods=recipient.methods,
    )


def shown(view: NotificationsView, people: People, names: Mapping[str, str]) -> NotificationsView:
    """The view with names (by id) and warnings, as things are now. Recipients that are no longer there are left out."""
    recipients = tuple(
        one.model_copy(update={"name": names.get(one.contact_id or one.group_id or ""), "unreachable": unreachable(one, people)})
        for one in view.recipients
        if one.contact_id in people.contacts or one.group_id in people.groups
    )
    there = view.model_copy(update={"recipients": recipients})
    return there.model_copy(update={"warnings": tuple(_warnings(there))})


def unreachable(recipient: RecipientView, people: People) -> tuple[Method, ...]:
    """By which of its methods nobody can be told now: the contact, or anybody in the group."""
    contacts = [recipient.contact_id] if recipient.contact_id else people.groups.get(recipient.group_id or "", ())
    usable = {
        method for contact in contacts for method, standing in people.contacts.get(contact or "", {}).items() if standing.usable
    }
    return tuple(method for method in recipient.methods if method not in usable)


def _warnings(view: NotificationsView) -> Iterator[Warned]:
    if (view.daily_percentages or view.monthly_percentages) and not view.recipients:
        yield Warned(code=NO_RECIPIENTS, detail="Nobody is told: the rule has no recipients.")
    for place, one in enumerate(view.recipients):
        if one.unreachable:
            who = "The contact cannot" if one.contact_id else "Nobody in the group can"
            detail = f"recipients[{place}]: {who} be told by {', '.join(one.unreachable)} now: not verified, or unsubscribed."
            yield Warned(code=UNREACHABLE, detail=detail)
