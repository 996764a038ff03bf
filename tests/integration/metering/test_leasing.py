"""Quota leases with a worker that runs: from the request over USAGE into the counters, and what comes too late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.base import ERROR_HEADER
from shared.commands.limits import LimitsView, SetLimits
from shared.commands.quota import SUBJECT, Answer, Leased, LeaseQuota, QuotaLeases, Returned, Undecided, Wish
from shared.commands.requester import ask as asked
from shared.events.usage import UsageBatch, UsageRecord, partition_of
from shared.streams.publish import Outgoing
from tests.support.metering_process import (
    PARTITIONS,
    Meter,
    MeteringProcess,
    RegistryFeed,
    dead_letters,
    eventually,
    now_us,
    rows,
    used,
)

A = "a" * 20
PARTITION = partition_of(A, PARTITIONS)
LEASE_S = 2.0


@pytest.fixture
async def worker(
    nats_url: str, nc: Client, schema: ServiceDsn, registry: RegistryFeed, tmp_path: Path
) -> AsyncIterator[MeteringProcess]:
    process = MeteringProcess(nats_url, schema, tmp_path, TOLLBOOK_LEASE_S=str(LEASE_S), TOLLBOOK_LEASE_MARGIN_S="0.1")
    try:
        await process.start()
        wanted = SetLimits(command_id="l1", account="acme", actor="token:t1", client_id=A, service="csr", monthly=1000)
        await asked(nc, "metering", wanted, LimitsView)
        yield process
    finally:
        process.kill()


async def ask(nc: Client, *wishes: Wish, returned: Sequence[Returned] = (), publisher: str = "gate-1") -> tuple[Answer, ...]:
    request = LeaseQuota(publisher=publisher, partition=PARTITION, wishes=wishes, returned=tuple(returned))
    reply = await nc.request(SUBJECT, msgspec.json.encode(request), timeout=10)
    assert ERROR_HEADER not in (reply.headers or {}), reply.data
    return msgspec.json.decode(reply.data, type=QuotaLeases).answers


def wish(units: int = 10, lease: str = "") -> Wish:
    return Wish(A, "csr", units, units, datetime.now(UTC), lease)


async def granted(nc: Client, units: int = 10) -> Leased:
    """A lease; a worker that has just begun may have to look around first."""

    async def look() -> bool:
        nonlocal answer
        [answer] = await ask(nc, wish(units))
        return isinstance(answer, Leased)

    answer: Answer = Undecided("")
    await eventually(look, True, lambda: str(answer))
    assert isinstance(answer, Leased)
    return answer


def record(lease: str, quantity: int = 1) -> UsageRecord:
    return UsageRecord(A, "csr", now_us(), quantity, "", lease)


async def lease_row(schema: ServiceDsn, lease: str) -> tuple[int, int, bool]:
    [row] = await rows(schema, "SELECT units, counted, closed_at IS NOT NULL FROM quota_lease WHERE lease = $1", lease)
    return row[0], row[1], row[2]


async def test_what_is_counted_from_a_lease_is_not_set_aside_any_more(
    worker: MeteringProcess, nc: Client, meter: Meter, schema: ServiceDsn
) -> None:
    lease = await granted(nc)
    assert (lease.lease_s, lease.margin_s, lease.remaining) == (LEASE_S, 0.1, 990)
    await meter.count(record(lease.lease, 4), record(lease.lease, 2), record("", 100), record("nobodys", 100))
    stranger = Meter(nc, "gate-2")
    await stranger.count(record(lease.lease, 50))
    await eventually(lambda: used(nc, A), 256)
    assert await lease_row(schema, lease.lease) == (10, 6, False)
    batch = UsageBatch(publisher="gate-1", seq=2, records=[record(lease.lease, 3), record(lease.lease, 1)])
    void = msgspec.structs.replace(batch, retracted=True, voided=(1,))
    for content in (batch, void, void):
        outgoing = meter.batch([record("")])
        await meter.send(Outgoing(outgoing.subject, msgspec.msgpack.encode(content), outgoing.headers))
    await eventually(lambda: lease_row(schema, lease.lease), (10, 9, False))
    [again] = await ask(nc, wish(1), returned=[Returned(lease.lease, 9)])
    assert isinstance(again, Leased)
    assert again.remaining == 1000 - 256 - 3 - 1


async def test_units_of_a_gate_that_died_come_back_and_what_it_says_later_does_not_count(
    worker: MeteringProcess, nc: Client, meter: Meter, schema: ServiceDsn, nats_url: str, tmp_path: Path
) -> None:
    lease = (await granted(nc)).lease
    await meter.count(record(lease, 4))
    await eventually(lambda: used(nc, A), 4)
    await eventually(lambda: lease_row(schema, lease), (10, 4, True))
    [answer] = await ask(nc, wish(996))
    assert isinstance(answer, Leased), "all that is not counted is there again"
    await ask(nc, returned=[Returned(answer.lease, 0)])
    await meter.count(record(lease, 5), record("", 7))  # a gate that was stopped and goes on: these calls were refused
    await eventually(lambda: used(nc, A), 11)
    [(headers, data)] = await dead_letters(nc)
    assert (headers["tollbook-why"], headers["tollbook-record"]) == ("lease_ended", "0")
    assert msgspec.msgpack.decode(data, type=UsageRecord).lease == lease
    assert await lease_row(schema, lease) == (10, 4, True)
    assert len(await rows(schema, "SELECT * FROM lapsed_record")) == 1
    for forgotten in (False, True):  # counting again decides the same, with and without the lease
        if forgotten:
            await rows(schema, "DELETE FROM quota_lease")
        assert worker.run("--rebuild").returncode == 0
        await eventually(lambda: progress_is_told(schema), True)
        assert await used(nc, A) == 11
        if not forgotten:
            assert await lease_row(schema, lease) == (10, 4, True)
    assert len(await dead_letters(nc)) == 1
    [answer] = await ask(nc, wish(989))
    assert isinstance(answer, Leased)


async def progress_is_told(schema: ServiceDsn) -> bool:
    found = await rows(schema, "SELECT bool_and(sequence >= told) AND sum(sequence) > 0 FROM progress")
    return bool(found[0][0])


async def test_a_worker_that_starts_grants_when_it_has_counted_what_was_there(
    worker: MeteringProcess, nc: Client, meter: Meter
) -> None:
    await granted(nc)
    assert worker.stop() == 0
    for _ in range(30):
        await meter.count(record("", 30))
    await worker.start()
    lease = await granted(nc, 1)
    assert lease.remaining <= 99


async def test_a_bad_request_is_refused_as_a_command_is(worker: MeteringProcess, nc: Client) -> None:
    for body, code in ((b"{", "malformed_request"), (b"{}", "invalid_input")):
        reply = await nc.request(SUBJECT, body, timeout=10)
        assert (reply.headers or {})[ERROR_HEADER] == code
        assert msgspec.json.decode(reply.data)["code"] == code
    assert 'quota_answers_total{outcome="' not in await worker.metrics()
