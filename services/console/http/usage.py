"""/v1/apps/{client_id}/usage, and the usage that the list of applications shows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, TypeVar

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from services.console.http.asking import ask_about
from services.console.http.request import Behind, ClientIdInPath, Member, Notice, Services
from shared.commands import base, metering, registry
from shared.commands.base import Command, Message, Reply
from shared.errors import Unavailable

router = APIRouter(prefix="/v1/apps", tags=["usage"])

USAGE_TIMEOUT_S: Final = 1.5
"""How long an answer waits for usage that it can do without."""

R = TypeVar("R", bound=Reply)


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
    return await ask_metering(behind, query, metering.Usage, client_id)


async def ask_metering(behind: Services, message: Command | base.Query, reply: type[R], client_id: str | None) -> R:
    """What metering replies about that application, or (None) about the account. See ask_about."""
    return await ask_about(behind, metering.SERVICE, message, reply, client_id)


def metering_away(what: str) -> Notice:
    """The notice that `what` could not be told."""
    return Notice(code="metering_unavailable", detail=f"The service metering does not answer now, so {what} is not known.")


async def usage_of_apps(
    behind: Services, account: str, apps: Sequence[registry.AppView]
) -> tuple[dict[str, tuple[AppUsage, ...]], list[Notice]]:
    """The usage of each app at each of its services by client_id, as far as metering tells it within USAGE_TIMEOUT_S."""
    found: dict[tuple[str, str], AppUsage] = {}
    warnings: list[Notice] = []
    if apps:
        query = metering.GetUsageOfApps(account=account, client_ids=tuple(app.client_id for app in apps))
        try:
            usage = await behind.ask(metering.SERVICE, query, metering.UsageOfApps, USAGE_TIMEOUT_S)
        except Unavailable:
            warnings.append(metering_away("usage"))
        else:
            found = {(one.client_id, one.service): _app_usage(one, usage.as_of) for one in usage.usage}
    told = {
        app.client_id: tuple(
            found.get((app.client_id, selected.service), AppUsage(service=selected.service, daily=None, monthly=None))
            for selected in app.services
        )
        for app in apps
    }
    return told, warnings


def _app_usage(one: metering.OpenWindows, as_of: datetime) -> AppUsage:
    daily, monthly = (WindowNow(**window.model_dump(), as_of=as_of) for window in (one.daily, one.monthly))
    return AppUsage(service=one.service, daily=daily, monthly=monthly)
