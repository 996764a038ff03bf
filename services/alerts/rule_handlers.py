"""Notification rules as accounts set and ask for them. Subjects alerts.commands.<Name>, alerts.queries.<Name>."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

from services.alerts import people_queries, rule_queries, rules
from services.alerts.serving import REGISTRY_CONSUMER, Started
from shared.answering import Answering, reading, snapshot
from shared.catalog import Catalog
from shared.clock import Clock
from shared.commands.base import Command, Query
from shared.commands.contacts import SERVICE
from shared.commands.notifications import (
    GetNotifications,
    ListNotificationChanges,
    NotificationChange,
    NotificationChanges,
    NotificationsView,
    RecipientView,
    SetNotifications,
)
from shared.errors import InvalidInput
from shared.events.registry import STREAM as REGISTRY
from shared.postgres import Connection
from shared.streams.awaiting import await_applied, awaited
from shared.streams.jetstream import Connected

REGISTRY_WAIT_S: Final = 0.5


class RuleHandlers(Answering[Started]):
    """Everything that is asked about notification rules."""

    service = SERVICE

    def __init__(self, catalog: Catalog, nc: Connected, clock: Clock) -> None:
        super().__init__()
        self._catalog = catalog
        self._nc = nc
        self._clock = clock

    @property
    def answers(self) -> Mapping[type[Command | Query], Callable[..., Awaitable[Any]]]:
        """By command or query."""
        return {
            SetNotifications: self.set_notifications,
            GetNotifications: self.get_notifications,
            ListNotificationChanges: self.list_changes,
        }

    async def set_notifications(self, command: SetNotifications) -> NotificationsView:
        """Answer SetNotifications: with the names and warnings of today, also where the command was done before."""
        scope = (command.account, command.client_id or "", command.service)
        # Whether it is there is the decision's to say: a command that was done before is answered even when it is gone.
        await self._selected(*scope)
        view = await self.running.transactor.run(
            command,
            rules.stream_of(*scope),
            rules.Rule(),
            rules.evolve,
            lambda state, facts: rules.set_notifications(state, facts, command, self._catalog),
            NotificationsView,
            lambda connection: rule_queries.facts_of(connection, scope, self._clock.now(), self._catalog),
        )
        async with snapshot(self.running.pool) as connection:
            return await self._shown(connection, command.account, view)

    async def get_notifications(self, query: GetNotifications) -> NotificationsView:
        """Answer GetNotifications. What was ruled once is shown, also where the service is not selected any more."""
        client_id = query.client_id or ""
        selected = await self._selected(query.account, client_id, query.service)
        if selected is None:
            raise rules.no_scope(query.account, query.client_id)
        async with snapshot(self.running.pool) as connection:
            view = await rule_queries.rule_of(connection, (query.account, client_id, query.service))
            if not view.version:
                self._check_service(selected, query)
            return await self._shown(connection, query.account, view)

    async def list_changes(self, query: ListNotificationChanges) -> NotificationChanges:
        """Answer ListNotificationChanges. A service that is not selected any more keeps its history."""
        client_id = query.client_id or ""
        selected = await self._selected(query.account, client_id, query.service)
        if selected is None:
            raise rules.no_scope(query.account, query.client_id)
        async with snapshot(self.running.pool) as connection:
            stream = rules.stream_of(query.account, client_id, query.service)
            changes = await rule_queries.changes_of(connection, stream)
            if not changes:
                self._check_service(selected, query)
            below = [one for one in reversed(changes) if query.before is None or one.rule.version < query.before]
            page = below[: query.limit]
            who = {(one.contact_id, one.group_id) for changed in page for one in changed.rule.recipients}
            names = await rule_queries.names_of(connection, self.running.vault, query.account, who)
        next_before = page[-1].rule.version if len(below) > query.limit else None
        return NotificationChanges(changes=tuple(_change(one, names) for one in page), next_before=next_before)

    async def _shown(self, connection: Connection, account: str, view: NotificationsView) -> NotificationsView:
        people = await people_queries.people_of(connection, account)
        who = {(one.contact_id, one.group_id) for one in view.recipients}
        return rules.shown(view, people, await rule_queries.names_of(connection, self.running.vault, account, who))

    def _check_service(self, selected: Collection[str], query: GetNotifications | ListNotificationChanges) -> None:
        wrong = rules.wrong_service(selected, query.client_id is not None, query.service, self._catalog)
        if wrong is not None:
            raise InvalidInput("The request breaks the rules named in `fields`.", [wrong])

    async def _selected(self, account: str, client_id: str, service: str) -> Collection[str] | None:
        """The services that can be asked about, None when there is no such application or account.

        What the registry decided a moment ago, an application or that it has selected `service`, is waited for.
        """
        async with reading(self.running.pool) as connection:
            selected: Collection[str] | None = None

            async def find() -> bool | None:
                nonlocal selected
                if client_id:
                    selected = await rule_queries.selected_by(connection, account, client_id)
                else:
                    selected = self._catalog if await rule_queries.opened(connection, account) else None
                return True if selected is not None and service in selected else None

            async def applied() -> None:
                await await_applied(connection, self._nc, REGISTRY_CONSUMER, REGISTRY, REGISTRY_WAIT_S, self._clock)

            await awaited(find, applied)
            return selected


def _change(one: rule_queries.Changed, names: Mapping[str, str]) -> NotificationChange:
    rule = one.rule
    recipients: tuple[RecipientView, ...] = tuple(rules.recipient_view(recipient, names) for recipient in rule.recipients)
    return NotificationChange(
        version=rule.version,
        changed_at=one.changed_at,
        changed_by=one.changed_by,
        daily=rule.telling.daily,
        monthly=rule.telling.monthly,
        daily_custom=rule.telling.daily_custom,
        monthly_custom=rule.telling.monthly_custom,
        recipients=recipients,
    )
