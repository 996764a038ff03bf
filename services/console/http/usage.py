"""/v1/apps/{client_id}/usage, and the usage that the list of applications shows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from services.console.http.request import Behind, ClientIdInPath, Member, Notice, Services
from shared.commands import metering, registry
from shared.commands.base import Message
from shared.errors import InvalidInput, NotFound, Unavailable

router = APIRouter(prefix="/v1/apps", tags=["usage"])

USAGE_TIMEOUT_S: Final = 1.5
"""How long an answer waits for usage that it can do without."""
ASKED_AT_ONCE: Final = 16
"""Questions to metering that one list has open at a time."""


class UsageQuery(Message):
    """Which usage: `from` and `to` are civil dates in the account's zone, or instants; both are included in the history."""

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=False)

    service: metering.ServiceId
    period: metering.Period = "daily"
    from_: Annotated[metering.Moment, Field(alias="from")] = None
    to: metering.Moment = None


class WindowNow(BaseModel):
    """The day or month that is open now."""

    used: int
    calls: int
    limit: int | None
    window_start: datetime
    resets_at: datetime
    as_of: datetime


class AppUsage(BaseModel):
    """What an application used at one service. null: not known now (see `warnings`)."""

    service: str
    daily: WindowNow | None
    monthly: WindowNow | None


@router.get("/{client_id}/usage", operation_id="getUsage")
async def get_usage(
    principal: Member, behind: Behind, client_id: ClientIdInPath, asked: Annotated[UsageQuery, Query()]
) -> metering.Usage:
    """How much the application used: in the window that is open now, and window by window in `history`."""
    query = metering.GetUsage(
        account=principal.account,
        client_id=client_id,
        service=asked.service,
        period=asked.period,
        from_=asked.from_,
        to=asked.to,
    )
    try:
        return await behind.ask(metering.SERVICE, query, metering.Usage)
    except NotFound:
        # Metering hears of a new application a moment after the registry has answered: that is no reason to deny it.
        app = registry.GetApp(account=principal.account, client_id=client_id)
        await behind.ask("registry", app, registry.AppView, USAGE_TIMEOUT_S / 2)
        raise Unavailable("The service metering has not heard of this application yet. Ask again in a second.") from None


def metering_away(what: str) -> Notice:
    """The notice that `what` could not be told."""
    return Notice(code="metering_unavailable", detail=f"The service metering does not answer now, so {what} is not known.")


async def usage_of_apps(
    behind: Services, account: str, apps: Sequence[registry.AppView]
) -> tuple[dict[str, tuple[AppUsage, ...]], list[Notice]]:
    """The usage of each app at each of its services by client_id, as far as metering tells it within USAGE_TIMEOUT_S."""
    periods: tuple[metering.Period, ...] = ("daily", "monthly")
    wanted = [(app.client_id, selected.service, period) for app in apps for selected in app.services for period in periods]
    found: dict[tuple[str, str, metering.Period], WindowNow] = {}
    waiting = iter(wanted)
    away = False

    async def ask_in_turn() -> None:
        nonlocal away
        for client_id, service, period in waiting:
            if away:
                return
            query = metering.GetUsage(account=account, client_id=client_id, service=service, period=period)
            try:
                usage = await behind.ask(metering.SERVICE, query, metering.Usage, USAGE_TIMEOUT_S)
            except Unavailable:
                away = True
            except (NotFound, InvalidInput):  # too new for metering to have heard of it
                continue
            else:
                found[client_id, service, period] = WindowNow.model_validate(usage.model_dump(exclude={"history"}))

    try:
        async with asyncio.timeout(USAGE_TIMEOUT_S), asyncio.TaskGroup() as group:
            for _ in range(min(ASKED_AT_ONCE, len(wanted))):
                group.create_task(ask_in_turn())
    except TimeoutError:
        away = True
    usage = {
        app.client_id: tuple(
            AppUsage(
                service=selected.service,
                daily=found.get((app.client_id, selected.service, "daily")),
                monthly=found.get((app.client_id, selected.service, "monthly")),
            )
            for selected in app.services
        )
        for app in apps
    }
    return usage, [metering_away("some usage")] if away else []
