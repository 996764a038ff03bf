"""/v1/apps/{client_id}/usage/history and /v1/usage/history: usage by hour, day or month, as JSON or CSV."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from services.console.http.request import Behind, ClientIdInPath, Member, NeverNull, Services
from services.console.http.tables import CSV, as_csv, wants_csv
from services.console.http.usage import ask_metering
from shared.commands import metering, registry
from shared.commands.base import Message

router = APIRouter(prefix="/v1", tags=["usage"])

COLUMNS: Final = ("client_id", "name", "service", "window_start", "window_end", "used", "calls", "late", "corrected")
_AS_CSV: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {CSV: {"schema": {"type": "string"}, "example": f"{','.join(COLUMNS)}\r\n"}},
        "headers": {
            "X-Tollbook-As-Of": {"description": "With CSV: `as_of`", "schema": {"type": "string", "format": "date-time"}},
            "X-Tollbook-Position": {"description": "With CSV: `position`", "schema": {"type": "integer"}},
            "X-Tollbook-Next-Cursor": {"description": "With CSV: `next_cursor`, if there is one", "schema": {"type": "string"}},
        },
    }
}


class HistoryQuery(Message):
    """Which windows: `from` and `to` are civil dates in the account's zone, or instants; the windows of both are included.

    Without `service`: every service. `format` is csv or json; without it, `Accept: text/csv` asks for CSV.
    """

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=False)

    interval: metering.Interval = "day"
    from_: Annotated[metering.Moment, Field(alias="from")] = None
    to: metering.Moment = None
    service: Annotated[metering.ServiceId | None, NeverNull()] = None
    format: Annotated[Literal["json", "csv"] | None, NeverNull()] = None


class AccountHistoryQuery(HistoryQuery):
    """The same; with `group_by=app` for each application instead of all together, `limit` applications a page."""

    group_by: Annotated[Literal["app"] | None, NeverNull()] = None
    limit: Annotated[int, Field(ge=1, le=metering.APPS_MAX, description="Applications at most, with group_by=app")] = (
        metering.APPS_MAX
    )
    cursor: Annotated[
        metering.ClientId | None, NeverNull(), Field(description="`next_cursor` of the page before, with group_by=app")
    ] = None

    @model_validator(mode="after")
    def _pages_are_of_applications(self) -> Self:
        if self.cursor is not None and self.group_by is None:
            hint = "Add group_by=app, or leave `cursor` out."
            raise PydanticCustomError("cursor_alone", "There is nothing to page through", {"hint": hint, "fields": ["cursor"]})
        return self


class Series(BaseModel):
    """Usage at one service, window by window in the order of time, zeros included.

    `client_id` is null when all applications of the account are added up; `name` also when the application is deleted.
    """

    client_id: str | None
    name: str | None
    service: str
    history: tuple[metering.WindowUsage, ...]


class History(BaseModel):
    """Usage by civil hour, day or month of `zone`. Each window ends where the next one starts, the last one at `until`.

    Everything recorded up to `as_of` is counted. `next_cursor` leads to the next applications; null: these were the last.
    """

    zone: str
    interval: metering.Interval
    until: datetime
    as_of: datetime
    position: int
    series: tuple[Series, ...]
    next_cursor: str | None = None


@router.get("/apps/{client_id}/usage/history", operation_id="getUsageHistory", response_model=History, responses=_AS_CSV)
async def get_usage_history(
    principal: Member, behind: Behind, client_id: ClientIdInPath, asked: Annotated[HistoryQuery, Query()], request: Request
) -> Response | History:
    """What the application used, service by service, by hour, day or month."""
    query = metering.GetUsageHistory(
        account=principal.account,
        client_id=client_id,
        service=asked.service,
        interval=asked.interval,
        from_=asked.from_,
        to=asked.to,
    )
    return await _answer(behind, query, asked, request)


@router.get("/usage/history", operation_id="getAccountUsageHistory", response_model=History, responses=_AS_CSV)
async def get_account_usage_history(
    principal: Member, behind: Behind, asked: Annotated[AccountHistoryQuery, Query()], request: Request
) -> Response | History:
    """What the account used, service by service, by hour, day or month: all of its applications together, or each of them.

    Applications that are deleted by now are in it. With `group_by=app` those without any usage are left out, so a page can be
    short, or empty: go on while there is a `next_cursor`.
    """
    query = metering.GetUsageHistory(
        account=principal.account,
        service=asked.service,
        interval=asked.interval,
        from_=asked.from_,
        to=asked.to,
        by_app=asked.group_by == "app",
        apps_max=asked.limit,
        after=asked.cursor,
    )
    return await _answer(behind, query, asked, request)


async def _answer(behind: Services, query: metering.GetUsageHistory, asked: HistoryQuery, request: Request) -> Response | History:
    found = await ask_metering(behind, query, metering.UsageHistory, query.client_id)
    client_ids = sorted({series.client_id for series in found.series if series.client_id is not None})
    names: dict[str, str] = {}
    if client_ids:
        of_these = registry.GetAppNames(account=query.account, client_ids=tuple(client_ids))
        names = (await behind.ask("registry", of_these, registry.AppNames)).names
    if wants_csv(asked.format, request.headers.get("accept", "")):
        return _csv(found, names, query.interval)
    return History(
        zone=found.zone,
        interval=query.interval,
        until=found.until,
        as_of=found.as_of,
        position=found.position,
        series=tuple(_series(series, found, names) for series in found.series),
        next_cursor=found.next_after,
    )


def _series(series: metering.UsageSeries, found: metering.UsageHistory, names: dict[str, str]) -> Series:
    columns = zip(found.window_starts, series.used, series.calls, series.late, series.corrected, strict=True)
    return Series(
        client_id=series.client_id,
        name=names.get(series.client_id or ""),
        service=series.service,
        history=tuple(
            metering.WindowUsage(window_start=start, used=used, calls=calls, late=late, corrected=corrected)
            for start, used, calls, late, corrected in columns
        ),
    )


def _csv(found: metering.UsageHistory, names: dict[str, str], interval: str) -> Response:
    headers = {
        "Content-Disposition": f'attachment; filename="usage-by-{interval}.csv"',
        "X-Tollbook-As-Of": found.as_of.isoformat(),
        "X-Tollbook-Position": str(found.position),
    }
    if found.next_after is not None:
        headers["X-Tollbook-Next-Cursor"] = found.next_after
    return Response(as_csv(COLUMNS, _rows(found, names)), 200, headers, CSV)


def _rows(found: metering.UsageHistory, names: dict[str, str]) -> Iterator[tuple[str | int, ...]]:
    """Times are the account's, with their offset: the hour that comes twice has two."""
    zone = ZoneInfo(found.zone)
    ends = [at.astimezone(zone).isoformat() for at in (*found.window_starts, found.until)]
    for series in found.series:
        whose = series.client_id or "", names.get(series.client_id or "", ""), series.service
        columns = zip(ends, ends[1:], series.used, series.calls, series.late, series.corrected, strict=False)
        yield from ((*whose, *row) for row in columns)
