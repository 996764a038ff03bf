"""Corrections of single records, from the stream to the answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.corrections import CorrectionPage, ListCorrections
from shared.commands.requester import ask
from shared.errors import NotFound
from shared.streams.cloudevents import cloudevent_headers
from shared.streams.publish import Outgoing
from shared.windows import civil
from tests.support.metering_process import Meter, MeteringProcess, dead_letters, eventually, rows, usage, used

A, B = "a" * 20, "b" * 20


def event(id_: str, type_: str, data: dict[str, Any], source: str = "/jobs") -> Outgoing:
    headers = cloudevent_headers(id_=id_, source=source, type_=f"tollbook.usage.{type_}.v1")
    return Outgoing("usage.cloudevents", msgspec.json.encode(data), headers)


def record(id_: str, quantity: int, client_id: str = A, at: datetime | None = None) -> Outgoing:
    occurred = {} if at is None else {"occurred_at": at.isoformat()}
    return event(id_, "UsageRecorded", {"client_id": client_id, "service": "csr", "quantity": quantity, **occurred})


def void(id_: str, record_id: str, quantity: int | None = None, source: str = "/jobs") -> Outgoing:
    return event(id_, "UsageVoided", {"record_id": record_id, "reason": "wrong", "quantity": quantity}, source)


async def corrections(nc: Client, client_id: str = A, account: str = "acme", **fields: Any) -> CorrectionPage:
    query = ListCorrections(account=account, client_id=client_id, **fields)
    return await ask(nc, "metering", query, CorrectionPage, 10)


async def listed(schema: ServiceDsn) -> list[tuple[Any, ...]]:
    return await rows(schema, "SELECT sequence, old_quantity, new_quantity, hour, day, month FROM correction ORDER BY 1")


async def test_corrections_count_once_and_are_listed(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    sent = [record("r1", 5), record("r2", 7), record("r3", 1), void("v1", "r1"), void("v2", "r2", 2), void("v2", "r2", 2)]
    *_, by_v1, by_v2, _ = [await meter.send(outgoing) for outgoing in sent]
    await eventually(lambda: used(nc, A), 3)
    answer = await usage(nc, A)
    assert (answer.calls, answer.corrected, answer.history[-1].corrected) == (2, -10, -10)
    assert (await usage(nc, A, period="monthly")).corrected == -10
    page = await corrections(nc)
    found = [(one.position, one.record_id, one.old, one.new) for one in page.corrections]
    assert found == [(by_v2, "r2", 7, 2), (by_v1, "r1", 5, None)]
    assert {"day", "month"} <= set(page.corrections[0].counted_in) | set(page.corrections[0].closed)
    first = await corrections(nc, limit=1)
    assert (first.next_before, first.corrections) == (by_v2, page.corrections[:1])
    assert (await corrections(nc, limit=1, before=by_v2)).corrections == page.corrections[1:]
    today = datetime.now(civil("Asia/Seoul").tz).date()
    assert len((await corrections(nc, from_=today - timedelta(days=1), to=today, service="csr")).corrections) == 2
    assert (await corrections(nc, to=today - timedelta(days=2))).corrections == ()
    assert (await corrections(nc, service="clova-voice")).corrections == ()
    with pytest.raises(NotFound):
        await corrections(nc, account="globex")
    assert "tollbook_metering_corrections_total 2.0" in await worker.metrics()

    await meter.send(void("v1", "r1", 3))
    await meter.send(void("v3", "never"))
    await meter.send(void("v4", "r3", source="/other"))
    await meter.send(record("last", 1, B))
    await eventually(lambda: used(nc, B), 1)
    assert [headers["tollbook-why"] for headers, _ in await dead_letters(nc)] == ["conflict", "unknown_record", "unknown_record"]
    assert await used(nc, A) == 3


async def test_what_has_closed_stays_and_a_rebuild_gives_the_same_rows(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    old = civil("Asia/Seoul").before("month", datetime.now(UTC), 1).end - timedelta(minutes=1)
    late = max(old, datetime.now(UTC) - timedelta(days=34))
    await meter.send(record("old", 9, at=late))
    await meter.send(record("new", 4))
    await meter.send(void("v1", "old", 1))
    await meter.send(void("v2", "new", 6))
    await eventually(lambda: used(nc, A), 6)
    counters = "SELECT period, window_start, calls, units, late_units, corrected_units FROM counter ORDER BY 1, 2"
    before, made = await rows(schema, counters), await listed(schema)
    assert [(old, new) for _, old, new, *_ in made] == [(9, 1), (4, 6)]
    assert [row[3:6] for row in made] != [(True, True, True)] * 2, "at least a day of the old one had closed"
    assert worker.run("--rebuild").returncode == 0
    await eventually(lambda: rows(schema, counters), before)
    assert await listed(schema) == made
    assert await dead_letters(nc) == []


async def test_a_record_that_was_counted_by_an_older_release_cannot_be_corrected(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    await meter.send(record("r1", 5))
    await eventually(lambda: used(nc, A), 5)
    await rows(schema, "UPDATE counted_event SET record = NULL")
    await meter.send(void("v1", "r1"))
    await meter.send(record("r1", 5))
    await meter.send(record("last", 1, B))
    await eventually(lambda: used(nc, B), 1)
    assert [headers["tollbook-why"] for headers, _ in await dead_letters(nc)] == ["unknown_record"]
    assert await used(nc, A) == 5


async def test_no_counter_falls_below_zero(schema: ServiceDsn, nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    await meter.send(record("r1", 5))
    await eventually(lambda: used(nc, A), 5)
    for column in ("units", "calls", "late_units"):
        with pytest.raises(asyncpg.CheckViolationError):
            await rows(schema, f"UPDATE counter SET {column} = -1")
