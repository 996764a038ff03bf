"""/v1/apps/{client_id}/services/{service}/limits, and /v1/services/{service}/limits: the account's own, over all applications."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.console.http.bodies import AsBody, addressed, example
from services.console.http.request import (
    Behind,
    ClientIdInPath,
    CommandId,
    Member,
    NeverNull,
    NothingAsked,
    ScheduleIdInPath,
    ServiceInPath,
    Services,
)
from services.console.http.usage import ask_metering
from services.console.tokens import Principal
from shared.commands import limits, metering

router = APIRouter(prefix="/v1", tags=["limits"])

OF_APP: Final = "/apps/{client_id}/services/{service}/limits"
OF_ACCOUNT: Final = "/services/{service}/limits"
SET: Final = example(
    "1,000 a day and 20,000 a month, told at half and at the end",
    daily=1000,
    monthly=20000,
    daily_thresholds=[50, 100],
    expected_version=0,
    reason="Budget of the first quarter",
)
SET_OF_ACCOUNT: Final = example("All applications together", monthly=100000, expected_version=0, reason="Budget of the year")
SCHEDULE: Final = example("More from March on", effective_at="2027-03-01T00:00:00+09:00", daily=2000, monthly=40000)
SCHEDULE_OF_ACCOUNT: Final = example("More from March on", effective_at="2027-03-01T00:00:00+09:00", monthly=200000)


class ChangesQuery(BaseModel):
    """How the history of a limit pages: at most `limit` changes, from where `cursor` points."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=limits.PAGE_MAX, description="How many at most")] = limits.PAGE_DEFAULT
    cursor: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")] | None,
        NeverNull(),
        Field(description="`next_cursor` of the page before"),
    ] = None


class Changes(BaseModel):
    """One page, the newest first. `next_cursor` leads to the next page; null: this was the last."""

    changes: tuple[limits.LimitChange, ...]
    next_cursor: str | None


class Scheduled(BaseModel):
    """The changes that wait, the next one first."""

    scheduled: tuple[limits.ScheduledView, ...]


@router.get(OF_APP, operation_id="getLimits")
async def get_limits(
    principal: Member, behind: Behind, client_id: ClientIdInPath, service: ServiceInPath, _: NothingAsked
) -> limits.LimitsView:
    """The limits of the application at the service, and the changes that are scheduled. null: no limit."""
    query = limits.GetLimits(account=principal.account, client_id=client_id, service=service)
    return await ask_metering(behind, query, limits.LimitsView, client_id)


@router.put(OF_APP, operation_id="setLimits")
async def set_limits(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    client_id: ClientIdInPath,
    service: ServiceInPath,
    _: NothingAsked,
    body: Annotated[limits.SetLimits, AsBody(), Body(openapi_examples=SET)],
) -> limits.LimitsView:
    """Set the limits, whole: `daily` or `monthly` left out, or null, is no limit; 0 blocks. It holds within milliseconds.

    `expected_version` is the `version` that you saw: if somebody was faster, this is a 409 and nothing changes.
    """
    command = addressed(body, principal, command_id, client_id=client_id, service=service)
    return await ask_metering(behind, command, limits.LimitsView, client_id)


@router.get(f"{OF_APP}/history", operation_id="listLimitChanges")
async def list_limit_changes(
    principal: Member,
    behind: Behind,
    client_id: ClientIdInPath,
    service: ServiceInPath,
    page: Annotated[ChangesQuery, Query()],
) -> Changes:
    """Every change of the limits, the newest first: who, when, from what, to what, why."""
    return await _changes(behind, principal, client_id, service, page)


@router.get(f"{OF_APP}/scheduled", operation_id="listScheduledLimits")
async def list_scheduled_limits(
    principal: Member, behind: Behind, client_id: ClientIdInPath, service: ServiceInPath, _: NothingAsked
) -> Scheduled:
    """The changes of the limits that wait for their time."""
    query = limits.GetLimits(account=principal.account, client_id=client_id, service=service)
    return Scheduled(scheduled=(await ask_metering(behind, query, limits.LimitsView, client_id)).scheduled)


@router.post(f"{OF_APP}/scheduled", operation_id="scheduleLimits", status_code=201)
async def schedule_limits(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    client_id: ClientIdInPath,
    service: ServiceInPath,
    _: NothingAsked,
    body: Annotated[limits.ScheduleLimits, AsBody(), Body(openapi_examples=SCHEDULE)],
) -> limits.ScheduledView:
    """Have the limits become these, whole, at `effective_at`: in the future, at most a year away."""
    command = addressed(body, principal, command_id, client_id=client_id, service=service)
    return _made(command, (await ask_metering(behind, command, limits.LimitsView, client_id)).scheduled)


@router.delete(f"{OF_APP}/scheduled/{{schedule_id}}", operation_id="cancelScheduledLimits", status_code=204)
async def cancel_scheduled_limits(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    client_id: ClientIdInPath,
    service: ServiceInPath,
    schedule_id: ScheduleIdInPath,
    _: NothingAsked,
) -> None:
    """Take a scheduled change back. 409 when it has taken effect already."""
    await _cancel(behind, principal, command_id, client_id, service, schedule_id)


@router.get(OF_ACCOUNT, operation_id="getAccountLimit")
async def get_account_limit(
    principal: Member, behind: Behind, service: ServiceInPath, _: NothingAsked
) -> limits.AccountLimitView:
    """The account's own limit at the service, over all of its applications. null: no limit."""
    query = limits.GetAccountLimit(account=principal.account, service=service)
    return await behind.ask(metering.SERVICE, query, limits.AccountLimitView)


@router.put(OF_ACCOUNT, operation_id="setAccountLimit")
async def set_account_limit(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    service: ServiceInPath,
    _: NothingAsked,
    body: Annotated[limits.SetAccountLimit, AsBody(), Body(openapi_examples=SET_OF_ACCOUNT)],
) -> limits.AccountLimitView:
    """Set the account's limit at the service: what all of its applications may use together in a month. `expected_version` as for
    an application's limits."""
    command = addressed(body, principal, command_id, service=service)
    return await behind.ask(metering.SERVICE, command, limits.AccountLimitView)


@router.get(f"{OF_ACCOUNT}/history", operation_id="listAccountLimitChanges")
async def list_account_limit_changes(
    principal: Member, behind: Behind, service: ServiceInPath, page: Annotated[ChangesQuery, Query()]
) -> Changes:
    """Every change of the account's limit, the newest first."""
    return await _changes(behind, principal, None, service, page)


@router.get(f"{OF_ACCOUNT}/scheduled", operation_id="listScheduledAccountLimits")
async def list_scheduled_account_limits(principal: Member, behind: Behind, service: ServiceInPath, _: NothingAsked) -> Scheduled:
    """The changes of the account's limit that wait for their time. `daily` says nothing here: an account has no daily limit."""
    query = limits.GetAccountLimit(account=principal.account, service=service)
    return Scheduled(scheduled=(await behind.ask(metering.SERVICE, query, limits.AccountLimitView)).scheduled)


@router.post(f"{OF_ACCOUNT}/scheduled", operation_id="scheduleAccountLimit", status_code=201)
async def schedule_account_limit(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    service: ServiceInPath,
    _: NothingAsked,
    body: Annotated[limits.ScheduleAccountLimit, AsBody(), Body(openapi_examples=SCHEDULE_OF_ACCOUNT)],
) -> limits.ScheduledView:
    """Have the account's limit become this at `effective_at`: in the future, at most a year away."""
    command = addressed(body, principal, command_id, service=service)
    return _made(command, (await behind.ask(metering.SERVICE, command, limits.AccountLimitView)).scheduled)


@router.delete(f"{OF_ACCOUNT}/scheduled/{{schedule_id}}", operation_id="cancelScheduledAccountLimit", status_code=204)
async def cancel_scheduled_account_limit(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    service: ServiceInPath,
    schedule_id: ScheduleIdInPath,
    _: NothingAsked,
) -> None:
    """Take a scheduled change of the account's limit back. 409 when it has taken effect already."""
    await _cancel(behind, principal, command_id, None, service, schedule_id)


def _made(
    command: limits.ScheduleLimits | limits.ScheduleAccountLimit, scheduled: Iterable[limits.ScheduledView]
) -> limits.ScheduledView:
    """Of the changes that wait after `command` the one that it has made."""
    wished = command.model_dump(include=set(limits.ScheduledView.model_fields))
    same = [one for one in scheduled if one.model_dump(include=set(wished)) == wished]
    return max(same, key=lambda one: one.requested_at)


async def _changes(behind: Services, principal: Principal, client_id: str | None, service: str, page: ChangesQuery) -> Changes:
    query = limits.ListLimitChanges(
        account=principal.account,
        client_id=client_id,
        service=service,
        limit=page.limit,
        before=None if page.cursor is None else int(page.cursor),
    )
    found = await ask_metering(behind, query, limits.LimitChanges, client_id)
    return Changes(changes=found.changes, next_cursor=None if found.next_before is None else str(found.next_before))


async def _cancel(
    behind: Services, principal: Principal, command_id: str, client_id: str | None, service: str, schedule_id: str
) -> None:
    command = limits.CancelSchedule(
        command_id=command_id,
        account=principal.account,
        actor=principal.actor,
        client_id=client_id,
        service=service,
        schedule_id=schedule_id,
    )
    await behind.ask(metering.SERVICE, command, limits.ScheduleCancelled)
