"""Metering's side of shared/commands/limits.py, in memory: what the console may rely on, whoever answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import ValidationError

from shared.commands.base import ERROR_HEADER, Command, Query, Refusal, RefusedField, Reply, field_problems
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
    ScheduledView,
    ScheduleLimits,
    SetAccountLimit,
    SetLimits,
)
from shared.commands.metering import SERVICE
from shared.commands.registry import AppView, GetApp
from shared.commands.requester import ask, subject_of
from shared.errors import CommandReused, Conflict, FieldProblem, InvalidInput, NotFound, TollbookError
from shared.ids import new_id

MESSAGES: Final[tuple[type[Command] | type[Query], ...]] = (
    SetLimits,
    SetAccountLimit,
    ScheduleLimits,
    ScheduleAccountLimit,
    CancelSchedule,
    GetLimits,
    GetAccountLimit,
    ListLimitChanges,
)
SERVICES: Final = ("csr", "clova-voice")
Scope = tuple[str, str | None, str]
Answer = Callable[[Any, Scope], Reply]


class LimitsContract:
    """The limits of every scope (account, client_id or None, service). Which applications there are, the registry says."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._changes: dict[Scope, list[LimitChange]] = {}
        self._scheduled: dict[Scope, list[ScheduledView]] = {}
        self._over: set[str] = set()
        self._cancelled: set[str] = set()
        self._replies: dict[tuple[str, str], tuple[str, Reply]] = {}
        self._answers: dict[type[Any], Answer] = {
            SetLimits: self._set,
            SetAccountLimit: self._set,
            ScheduleLimits: self._schedule,
            ScheduleAccountLimit: self._schedule,
            CancelSchedule: self._cancel,
            GetLimits: lambda _, scope: self._view(scope),
            GetAccountLimit: lambda _, scope: self._view(scope),
            ListLimitChanges: self._list,
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LimitsContract]:
        subscriptions = [await self._nc.subscribe(subject_of(SERVICE, one), SERVICE, self._handler(one)) for one in MESSAGES]
        await self._nc.flush()
        yield self
        for subscription in subscriptions:
            await subscription.unsubscribe()

    def take_effect(self, schedule_id: str) -> None:
        """As if the change's time had come."""
        self._over.add(schedule_id)
        for waiting in self._scheduled.values():
            waiting[:] = [one for one in waiting if one.schedule_id != schedule_id]

    def _handler(self, model: type[Command] | type[Query]) -> Callable[[Msg], Awaitable[None]]:
        async def handle(message: Msg) -> None:
            try:
                reply = await self._reply(model.model_validate_json(message.data))
                await message.respond(reply.model_dump_json().encode())
            except ValidationError as error:
                await _refuse(
                    message, InvalidInput("The message breaks the rules named in `fields`.", field_problems(error.errors()))
                )
            except TollbookError as error:
                await _refuse(message, error)

        return handle

    async def _reply(self, asked: Any) -> Reply:
        client_id = getattr(asked, "client_id", None)
        if client_id is not None:
            await ask(self._nc, "registry", GetApp(account=asked.account, client_id=client_id), AppView)
        if asked.service not in SERVICES:
            raise InvalidInput(
                "The command breaks the rules.", [FieldProblem("service", f"there is no {asked.service}", "Another.")]
            )
        answer, scope = self._answers[type(asked)], (asked.account, client_id, asked.service)
        if not isinstance(asked, Command):
            return answer(asked, scope)
        body = asked.model_dump_json(exclude={"command_id", "actor"})
        key = asked.account, asked.command_id
        if key in self._replies and self._replies[key][0] != body:
            raise CommandReused("This Idempotency-Key was used for another command.")
        if key not in self._replies:
            self._replies[key] = body, answer(asked, scope)
        return self._replies[key][1]

    def _set(self, command: SetLimits | SetAccountLimit, scope: Scope) -> Reply:
        changes = self._changes.setdefault(scope, [])
        if command.expected_version not in (None, len(changes)):
            raise Conflict(f"The limits are at version {len(changes)}, not {command.expected_version}.")
        amounts = _amounts(command).model_dump(mode="json")
        if not changes or changes[-1].new != amounts:
            changes.append(
                LimitChange(
                    version=len(changes) + 1,
                    changed_at=datetime.now(UTC),
                    changed_by=command.actor,
                    old=changes[-1].new if changes else None,
                    new=amounts,
                    reason=command.reason,
                )
            )
        return self._view(scope)

    def _schedule(self, command: ScheduleLimits | ScheduleAccountLimit, scope: Scope) -> Reply:
        if command.effective_at.tzinfo is None:
            problem = FieldProblem("effective_at", "it has no offset from UTC", "Give one, as in 2026-01-31T09:00:00Z.")
            raise InvalidInput("The command breaks the rules.", [problem])
        if not datetime.now(UTC) < command.effective_at <= datetime.now(UTC) + timedelta(days=366):
            problem = FieldProblem("effective_at", "it is not within the next year", "Give an instant in the future.")
            raise InvalidInput("The command breaks the rules.", [problem])
        scheduled = ScheduledView(
            **_amounts(command).model_dump(),
            schedule_id=new_id(),
            effective_at=command.effective_at,
            reason=command.reason,
            requested_by=command.actor,
            requested_at=datetime.now(UTC),
        )
        self._scheduled.setdefault(scope, []).append(scheduled)
        return self._view(scope)

    def _cancel(self, command: CancelSchedule, scope: Scope) -> Reply:
        if command.schedule_id in self._over:
            raise Conflict("It has taken effect.")
        waiting = self._scheduled.get(scope, [])
        if command.schedule_id not in {one.schedule_id for one in waiting} | self._cancelled:
            raise NotFound("There is no such scheduled change.")
        self._cancelled.add(command.schedule_id)
        waiting[:] = [one for one in waiting if one.schedule_id != command.schedule_id]
        return ScheduleCancelled(schedule_id=command.schedule_id)

    def _list(self, query: ListLimitChanges, scope: Scope) -> Reply:
        below = [one for one in reversed(self._changes.get(scope, [])) if query.before is None or one.version < query.before]
        page = tuple(below[: query.limit])
        return LimitChanges(changes=page, next_before=page[-1].version if len(below) > query.limit else None)

    def _view(self, scope: Scope) -> Reply:
        _, client_id, service = scope
        changes = self._changes.get(scope, [])
        told: dict[str, Any] = {
            **(changes[-1].new if changes else {}),
            "service": service,
            "version": len(changes),
            "changed_at": changes[-1].changed_at if changes else None,
            "scheduled": tuple(sorted(self._scheduled.get(scope, []), key=lambda one: one.effective_at)),
        }
        return AccountLimitView(**told) if client_id is None else LimitsView(**told, client_id=client_id)


def _amounts(command: Any) -> Amounts | AccountAmount:
    model = AccountAmount if isinstance(command, SetAccountLimit | ScheduleAccountLimit) else Amounts
    return model.model_validate({name: getattr(command, name) for name in model.model_fields})


async def _refuse(message: Msg, error: TollbookError) -> None:
    fields = tuple(RefusedField(field=one.field, problem=one.problem, hint=one.hint) for one in error.fields)
    refusal = Refusal(code=error.code, detail=error.detail, fields=fields).model_dump_json().encode()
    await message._client.publish(message.reply, refusal, headers={ERROR_HEADER: error.code})
