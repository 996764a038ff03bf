"""Limits as customers set and ask for them. Subjects metering.commands.<Name>, metering.queries.<Name>."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from services.metering import limit_queries, limits, queries
from services.metering.limit_queries import Changed
from services.metering.serving import Started, awaited
from shared.answering import Answering, Answers, reading
from shared.catalog import Catalog
from shared.clock import Clock
from shared.commands.limits import (
    AccountAmount,
    AccountLimitView,
    Amounts,
    CancelSchedule,
    GetAccountLimit,
    GetLimits,
    LimitChange,
    LimitChanges,
    LimitsView,
    ListLimitChanges,
    ScheduleAccountLimit,
    ScheduleCancelled,
    ScheduleLimits,
    SetAccountLimit,
    SetLimits,
)
from shared.commands.metering import SERVICE
from shared.errors import NotFound
from shared.events.metering import LimitChanged
from shared.ids import new_id
from shared.postgres import Connection


class LimitHandlers(Answering[Started]):
    """Everything that metering does about limits."""

    service = SERVICE

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        super().__init__()
        self._catalog = catalog
        self._clock = clock

    @property
    def answers(self) -> Answers:
        return {
            SetLimits: self.set_limits,
            SetAccountLimit: self.set_account_limit,
            ScheduleLimits: self.schedule_limits,
            ScheduleAccountLimit: self.schedule_account_limit,
            CancelSchedule: self.cancel_schedule,
            GetLimits: self.get_limits,
            GetAccountLimit: self.get_account_limit,
            ListLimitChanges: self.list_changes,
        }

    async def set_limits(self, command: SetLimits) -> LimitsView:
        await self._await_app(command.account, command.client_id)
        return await self.running.transactor.run(
            command,
            limits.limit_stream(command.client_id, command.service),
            limits.Scope(),
            limits.evolve,
            lambda state, facts: limits.set_limits(state, facts, command, self._catalog),
            LimitsView,
            self._app_facts(command.account, command.client_id, command.service),
        )

    async def set_account_limit(self, command: SetAccountLimit) -> AccountLimitView:
        await self._await_account(command.account)
        return await self.running.transactor.run(
            command,
            limits.account_limit_stream(command.account, command.service),
            limits.Scope(),
            limits.evolve,
            lambda state, facts: limits.set_account_limit(state, facts, command, self._catalog),
            AccountLimitView,
            self._account_facts(command.account, command.service),
        )

    async def schedule_limits(self, command: ScheduleLimits) -> LimitsView:
        await self._await_app(command.account, command.client_id)
        schedule_id = new_id()
        return await self.running.transactor.run(
            command,
            limits.limit_stream(command.client_id, command.service),
            limits.Scope(),
            limits.evolve,
            lambda state, facts: limits.schedule_limits(state, facts, command, self._catalog, schedule_id),
            LimitsView,
            self._app_facts(command.account, command.client_id, command.service),
        )

    async def schedule_account_limit(self, command: ScheduleAccountLimit) -> AccountLimitView:
        await self._await_account(command.account)
        schedule_id = new_id()
        return await self.running.transactor.run(
            command,
            limits.account_limit_stream(command.account, command.service),
            limits.Scope(),
            limits.evolve,
            lambda state, facts: limits.schedule_account_limit(state, facts, command, self._catalog, schedule_id),
            AccountLimitView,
            self._account_facts(command.account, command.service),
        )

    async def cancel_schedule(self, command: CancelSchedule) -> ScheduleCancelled:
        return await self.running.transactor.run(
            command,
            limits.stream_of(command.account, command.client_id or "", command.service),
            limits.Scope(),
            limits.evolve,
            lambda state, _: limits.cancel_schedule(state, command),
            ScheduleCancelled,
        )

    async def get_limits(self, query: GetLimits) -> LimitsView:
        """Answer GetLimits."""
        async with reading(self.running.pool) as connection:
            app = await self._find_app(connection, query.account, query.client_id)
            if app is None:
                raise limits.no_app(query.client_id)
            limits.check_selected(app.services, query.service, self._catalog)
            return await limit_queries.app_view(connection, query.account, query.client_id, query.service, self._catalog)

    async def get_account_limit(self, query: GetAccountLimit) -> AccountLimitView:
        """Answer GetAccountLimit."""
        async with reading(self.running.pool) as connection:
            if await self._find_zone(connection, query.account) is None:
                raise NotFound(f"The account {query.account} is not open.")
            view = await limit_queries.account_view(connection, query.account, query.service, self._catalog)
        if not view.version:
            limits.check_service(query.service, self._catalog)
        return view

    async def list_changes(self, query: ListLimitChanges) -> LimitChanges:
        """Answer ListLimitChanges. A service that is not selected any more keeps its history."""
        async with reading(self.running.pool) as connection:
            if query.client_id is None:
                if await self._find_zone(connection, query.account) is None:
                    raise NotFound(f"The account {query.account} is not open.")
            elif await self._find_app(connection, query.account, query.client_id) is None:
                raise limits.no_app(query.client_id)
            stream = limits.stream_of(query.account, query.client_id or "", query.service)
            found = await limit_queries.changes_of(connection, stream, query.before, query.limit + 1)
        if not found and query.before is None:
            limits.check_service(query.service, self._catalog)
        return page_of(found, query.limit)

    def _app_facts(self, account: str, client_id: str, service: str) -> Callable[[Connection], Awaitable[limits.AppFacts]]:
        scope = (account, client_id, service)
        return lambda connection: limit_queries.app_facts(connection, scope, self._clock.now(), self._catalog)

    def _account_facts(self, account: str, service: str) -> Callable[[Connection], Awaitable[limits.AccountFacts]]:
        scope = (account, "", service)
        return lambda connection: limit_queries.account_facts(connection, scope, self._clock.now(), self._catalog)

    async def _await_app(self, account: str, client_id: str) -> None:
        """Wait for an application that may be on its way here. Whether it is there is the decision's to say: a command that was
        done before is answered even when it is gone."""
        async with reading(self.running.pool) as connection:
            await self._find_app(connection, account, client_id)

    async def _await_account(self, account: str) -> None:
        async with reading(self.running.pool) as connection:
            await self._find_zone(connection, account)

    async def _find_app(self, connection: Connection, account: str, client_id: str) -> queries.AppRow | None:
        return await awaited(connection, self.running.directory, lambda: queries.find_app(connection, account, client_id))

    async def _find_zone(self, connection: Connection, account: str) -> str | None:
        return await awaited(connection, self.running.directory, lambda: limit_queries.find_zone(connection, account))


def page_of(found: list[Changed], limit: int) -> LimitChanges:
    """A page of up to `limit` changes, of `found`, which has one more if there is one, and for `old` at that."""
    shown = found[:limit]
    older: list[Changed | None] = [*found[1:], None]
    changes = tuple(_change(one, before) for one, before in zip(shown, older, strict=False))
    next_before = shown[-1].event.version if len(found) > limit else None
    return LimitChanges(changes=changes, next_before=next_before)


def _change(one: Changed, before: Changed | None) -> LimitChange:
    return LimitChange(
        version=one.event.version,
        changed_at=one.changed_at,
        changed_by=one.changed_by,
        old=None if before is None else _amounts(before),
        new=_amounts(one),
        reason=one.event.reason,
        schedule_id=one.event.schedule_id or None,
    )


def _amounts(changed: Changed) -> dict[str, Any]:
    event = changed.event
    shown: Mapping[str, Any]
    if isinstance(event, LimitChanged):
        amounts = limits.Limit(event.daily, event.monthly, event.daily_rungs, event.monthly_rungs)
        shown = Amounts(**limits.amounts_of(amounts)).model_dump(mode="json")
    else:
        shown = AccountAmount(monthly=event.monthly, monthly_thresholds=event.monthly_rungs).model_dump(mode="json")
    return dict(shown)
