"""Usage by hour, day and month over a time: of an application, of the account, of each of its applications."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.metering import current, history
from shared.commands.metering import (
    HISTORY_ROWS_MAX,
    GetUsageHistory,
    GetUsageOfApps,
    UsageHistory,
    UsageOfApps,
    UsageSeries,
)
from shared.commands.requester import ask
from shared.errors import InvalidInput, NotFound
from shared.events.usage import UsageRecord
from shared.postgres import Connection
from shared.windows import Window, civil, from_us, to_us
from tests.support.metering_process import Meter, MeteringProcess, RegistryFeed, eventually, now_us, rows, usage, used

A, B, N = "a" * 20, "b" * 20, "n" * 20


async def usage_history(nc: Client, account: str = "acme", **fields: Any) -> UsageHistory:
    return await ask(nc, "metering", GetUsageHistory(account=account, **fields), UsageHistory, timeout_s=10)


async def count(schema: ServiceDsn, *counters: tuple[str, str, str, str, int]) -> None:
    """Counters (client_id, service, period, window_start, units), of one call each."""
    columns = "client_id, service, period, window_start, calls, units, late_units"
    for client_id, service, period, start, units in counters:
        at = datetime.fromisoformat(start)
        await rows(schema, "SELECT make_shelf($1, $2)", period, at)
        await rows(schema, f"INSERT INTO counter ({columns}) VALUES ($1,$2,$3,$4,1,$5,0)", client_id, service, period, at, units)


def told(series: UsageSeries, starts: tuple[datetime, ...], zone: str) -> dict[str, int]:
    """What is not zero, by civil time."""
    civil_times = [at.astimezone(civil(zone).tz).isoformat() for at in starts]
    return {at: used for at, used in zip(civil_times, series.used, strict=True) if used}


@pytest.mark.parametrize(
    ("zone", "day", "hours", "starts"),
    [
        ("Europe/Berlin", "2026-10-25", 25, ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00"]),
        ("Europe/Berlin", "2026-03-29", 23, ["2026-03-29T01:00:00+01:00", "2026-03-29T03:00:00+02:00"]),
        ("Australia/Lord_Howe", "2026-04-05", 25, ["2026-04-05T01:00:00+11:00", "2026-04-05T01:30:00+10:30"]),
        ("Australia/Lord_Howe", "2026-10-04", 24, ["2026-10-04T01:00:00+10:30", "2026-10-04T02:30:00+11:00"]),
        ("America/Sao_Paulo", "2018-11-04", 23, ["2018-11-04T01:00:00-02:00", "2018-11-04T23:00:00-02:00"]),
        ("America/Sao_Paulo", "2018-02-17", 25, ["2018-02-17T23:00:00-02:00", "2018-02-17T23:00:00-03:00"]),
    ],
)
async def test_every_hour_of_a_day_with_a_change_of_clocks(
    nc: Client,
    worker: MeteringProcess,
    registry: RegistryFeed,
    schema: ServiceDsn,
    zone: str,
    day: str,
    hours: int,
    starts: list[str],
) -> None:
    client_id = "z" * 20
    await registry.open_account("zoned", zone)
    await registry.register(client_id, account="zoned")
    await usage(nc, client_id, account="zoned")
    windows = civil(zone)
    whole = windows.day(datetime.fromisoformat(starts[0]))
    for number, start in enumerate(starts, 1):
        assert windows.hour(datetime.fromisoformat(start)).start == datetime.fromisoformat(start)
        await count(schema, (client_id, "csr", "h", start, number))
    await count(schema, (client_id, "csr", "d", whole.start.isoformat(), 3))
    found = await usage_history(nc, "zoned", client_id=client_id, interval="hour", from_=day, to=day)
    assert (found.zone, len(found.window_starts), found.window_starts[0], found.until) == (zone, hours, *whole)
    assert told(found.series[0], found.window_starts, zone) == {start: number for number, start in enumerate(starts, 1)}
    days = await usage_history(nc, "zoned", interval="day", from_=day, to=day)
    assert [(one.client_id, one.service, one.used) for one in days.series] == [(None, "csr", (3,))]


async def test_of_an_app_by_service_and_what_was_late(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    at = now_us()
    yesterday = civil("Asia/Seoul").previous("day", civil("Asia/Seoul").day(from_us(at)))
    stored = await meter.count(
        UsageRecord(B, "csr", at, 2), UsageRecord(B, "csr", to_us(yesterday.start), 5), UsageRecord(B, "papago-nmt", at, 7)
    )
    await eventually(lambda: used(nc, B, "papago-nmt"), 7)
    found = await usage_history(nc, client_id=B, from_=yesterday.start)
    assert found.window_starts == (yesterday.start, yesterday.end)
    assert [(one.client_id, one.service, one.used, one.calls, one.late) for one in found.series] == [
        (B, "clova-voice", (0, 0), (0, 0), (0, 0)),  # selected
        (B, "csr", (5, 2), (1, 1), (5, 0)),
        (B, "papago-nmt", (0, 7), (0, 1), (0, 0)),  # used
    ]
    assert (found.as_of > from_us(at), found.position) == (True, stored)
    answer = await usage(nc, B, from_=yesterday.start)
    assert [(window.used, window.late) for window in answer.history] == [(5, 5), (2, 0)]
    assert (answer.late, answer.late_share) == (0, 0.0)
    only = await usage_history(nc, client_id=B, service="captcha-image", interval="month")
    assert [(one.service, one.used) for one in only.series] == [("captcha-image", (0,) * 12)]


async def test_of_an_account_together_and_by_application_with_the_deleted_ones(
    nc: Client, worker: MeteringProcess, meter: Meter, registry: RegistryFeed
) -> None:
    at = now_us()
    await meter.count(UsageRecord(A, "csr", at, 1))
    await meter.count(UsageRecord(B, "csr", at, 10), UsageRecord(B, "clova-voice", at, 100))
    await meter.count(UsageRecord(N, "csr", at, 1_000))
    await eventually(lambda: used(nc, N, account="globex"), 1_000)
    await eventually(lambda: used(nc, A), 1)
    await eventually(lambda: used(nc, B, "clova-voice"), 100)
    await registry.delete(A)
    now = from_us(at)
    together = await usage_history(nc, from_=now, to=now)
    assert [(one.client_id, one.service, one.used) for one in together.series] == [
        (None, "clova-voice", (100,)),
        (None, "csr", (11,)),
    ]
    each = await usage_history(nc, from_=now, to=now, by_app=True)
    assert [(one.client_id, one.service, one.used) for one in each.series] == [
        (A, "csr", (1,)),
        (B, "clova-voice", (100,)),
        (B, "csr", (10,)),
    ]
    assert each.next_after is None
    first = await usage_history(nc, from_=now, to=now, by_app=True, apps_max=1, service="csr")
    assert ([one.client_id for one in first.series], first.next_after) == ([A], A)
    second = await usage_history(nc, from_=now, to=now, by_app=True, apps_max=1, service="csr", after=A)
    assert ([one.client_id for one in second.series], second.next_after) == ([B], None)


async def test_nobody_sees_another_accounts(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    at = now_us()
    await meter.count(UsageRecord(A, "csr", at, 5))
    await eventually(lambda: used(nc, A), 5)
    now = from_us(at)
    with pytest.raises(NotFound):
        await usage_history(nc, "globex", client_id=A)
    with pytest.raises(NotFound):
        await usage_history(nc, "nobody")
    assert (await usage_history(nc, "globex", from_=now, to=now)).series[0].used == (0,)
    assert (await usage_history(nc, "globex", from_=now, to=now, by_app=True)).series == ()
    query = GetUsageOfApps(account="globex", client_ids=(A, N))
    assert {one.client_id for one in (await ask(nc, "metering", query, UsageOfApps)).usage} == {N}


async def test_many_applications_at_once(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    at = now_us()
    last = await meter.count(UsageRecord(B, "csr", at, 5), UsageRecord(B, "csr", at, 6))
    await eventually(lambda: used(nc, B), 11)
    query = GetUsageOfApps(account="acme", client_ids=(B, A, "x" * 20))
    found = await ask(nc, "metering", query, UsageOfApps)
    assert [(one.client_id, one.service, one.daily.used, one.monthly.used, one.monthly.calls) for one in found.usage] == [
        (A, "csr", 0, 0, 0),
        (B, "csr", 11, 11, 2),
        (B, "clova-voice", 0, 0, 0),
    ]
    assert (found.usage[0].daily.window_start, found.usage[0].daily.resets_at) == civil("Asia/Seoul").day(from_us(at))
    assert (found.position, found.as_of > from_us(at)) == (last, True)


async def test_the_limit_and_when_it_will_be_reached(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    await meter.count(UsageRecord(A, "csr", now_us(), 50))
    await eventually(lambda: used(nc, A), 50)
    assert (await usage(nc, A)).forecast is None
    limit = "INSERT INTO app_limit VALUES ($1, 'csr', 'acme', 1, 50, 5000, '{100}', '{100}', now())"
    await rows(schema, limit, A)
    # Registered a while ago, so that there is something to go by.
    await rows(schema, "UPDATE app SET registered_at = registered_at - interval '1 year'")
    day, month = await usage(nc, A), await usage(nc, A, period="monthly")
    assert (day.limit, month.limit) == (50, 5000)
    assert day.forecast is not None
    assert day.forecast.reached_at == day.forecast.until == day.as_of
    assert timedelta(hours=3) <= day.forecast.until - day.forecast.since <= timedelta(hours=4)
    assert month.forecast is not None
    assert timedelta(days=7) <= month.forecast.until - month.forecast.since <= timedelta(days=8)
    assert month.forecast.units_per_hour > 0
    [one] = (await ask(nc, "metering", GetUsageOfApps(account="acme", client_ids=(A,)), UsageOfApps)).usage
    assert (one.daily.limit, one.monthly.limit) == (50, 5000)


async def test_bounds_and_what_is_refused(nc: Client, worker: MeteringProcess) -> None:
    whole = await usage_history(nc, client_id=A, interval="hour", from_="2025-01-01", to="2026-02-20")
    assert len(whole.window_starts) == len(whole.series[0].used) == 416 * 24 < HISTORY_ROWS_MAX
    for fields in (
        {"client_id": A, "from_": "2026-03-07", "to": "2026-03-01"},
        {"client_id": A, "interval": "hour", "from_": "2025-01-01", "to": "2026-03-01"},
        {"client_id": B, "interval": "hour", "from_": "2025-01-01", "to": "2026-02-20"},  # of two services
        {"interval": "hour", "from_": "2025-01-01", "to": "2026-02-20"},
    ):
        with pytest.raises(InvalidInput) as error:
            await usage_history(nc, **fields)
        assert [problem.field for problem in error.value.fields] == ["from"]
    with pytest.raises(InvalidInput) as error:
        await usage_history(nc, client_id=A, service="nonsense")
    assert [problem.field for problem in error.value.fields] == ["service"]


@pytest.fixture
async def crowded(schema: ServiceDsn) -> AsyncIterator[Connection]:
    """3,000 accounts of two applications each, every one with 30 days at two services."""
    connection = await asyncpg.connect(schema.owner_dsn)
    await connection.execute("SET search_path = metering; SET plan_cache_mode = force_custom_plan; SET jit = off")
    await connection.execute(
        """
        INSERT INTO account SELECT 'a' || n, 'UTC' FROM generate_series(1, 3000) AS n;
        INSERT INTO app (client_id, account, services, registered_at, position)
        SELECT lpad(n || s, 20, '0'), 'a' || n, '{csr}', now(), n
        FROM generate_series(1, 3000) AS n, unnest('{x,y}'::text[]) AS s;
        SELECT make_shelf('d', '2026-01-01Z'), make_shelf('m', '2026-01-01Z');
        INSERT INTO counter (client_id, service, period, window_start, calls, units, late_units)
        SELECT client_id, service, 'd', '2026-01-01Z'::timestamptz + day * interval '1 day', 1, 1, 0
        FROM app, unnest('{captcha-image,csr}'::text[]) AS service, generate_series(1, 30) AS day;
        INSERT INTO counter (client_id, service, period, window_start, calls, units, late_units)
        SELECT client_id, service, 'm', '2026-01-01Z', 30, 30, 0 FROM app, unnest('{captcha-image,csr}'::text[]) AS service;
        ANALYZE;
        """
    )
    yield connection
    await connection.close()


async def test_reads_touch_only_what_is_asked_for(crowded: Connection) -> None:
    async def touched(statement: str, *args: object) -> tuple[str, int]:
        plan = "\n".join(row[0] for row in await crowded.fetch(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {statement}", *args))
        first = plan.split("shared hit=")[1] if "shared hit=" in plan else "0"
        return plan, int(first.split()[0])

    client_id = "7x".rjust(20, "0")
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
    reads: list[tuple[str, tuple[object, ...]]] = [
        (current._USAGE, (client_id, "csr", "d", start, end, "h", start, end)),
        (current._OPEN, ([client_id, "8y".rjust(20, "0")], ["csr"], start, start)),
        (history._OF_APPS, ([client_id], ["csr", "captcha-image"], "d", start, end, 10)),
        (history._OF_ACCOUNT, ("a7", ["csr", "captcha-image"], "d", start, end, 10)),
        (history._APPS_AFTER, ("a7", "", 10)),
        (history._SERVICES_OF_ACCOUNT, ("a7",)),
    ]
    for statement, args in reads:
        plan, pages = await touched(statement, *args)
        assert "Seq Scan on counter" not in plan, plan
        assert "Seq Scan on app" not in plan, plan
        assert pages < 60, plan
    windows = [Window(start, end)]
    assert len(await history.rows_of_account(crowded, "a7", ["csr", "captcha-image"], "d", [*windows, Window(end, end)])) == 60
