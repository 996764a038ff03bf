"""Workers side by side, workers that die, servers that go away, streams that are lost: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.events.usage import UsageRecord
from shared.streams.declare import delete_stream, ensure_stream, stream_state, usage_stream
from tests.support.metering_process import (
    PARTITIONS,
    Meter,
    MeteringProcess,
    RegistryFeed,
    dead_letters,
    eventually,
    now_us,
    rows,
    usage,
    used,
)
from tests.support.servers import NatsProcess, PostgresDatabase, connect_nats

A, B = "a" * 20, "b" * 20
SOURCES = {f"usage.records.{partition}" for partition in range(PARTITIONS)} | {"usage.cloudevents"}
APPS = [f"{number:020d}" for number in range(24)]


async def test_two_workers_share_and_the_death_of_one_moves_everything_to_the_other(
    nc: Client, nats_url: str, schema: ServiceDsn, registry: RegistryFeed, worker: MeteringProcess, tmp_path: Path
) -> None:
    for client_id in APPS:
        await registry.register(client_id)
    meters = [Meter(nc, f"gate-{number}") for number in range(3)]
    sent = dict.fromkeys(APPS, 0)

    async def publish(times: int) -> None:
        for _ in range(times):
            client_id = random.choice(APPS)
            sent[client_id] += 3
            await random.choice(meters).count(
                UsageRecord(client_id, "csr", now_us(), 1), UsageRecord(client_id, "csr", now_us(), 2)
            )

    other = MeteringProcess(nats_url, schema, tmp_path, "two")
    try:
        await publish(50)
        await other.start()

        async def shared_out() -> bool:
            mine, theirs = await worker.follows(), await other.follows()
            return mine | theirs == SOURCES and not mine & theirs and len(theirs) >= 2

        await eventually(shared_out, True)
        await publish(100)
        publishing = asyncio.create_task(publish(200))
        await asyncio.sleep(0.2)
        worker.kill()
        await publishing
        await eventually(other.follows, SOURCES)
        await publish(20)
        for client_id in APPS:
            await eventually(lambda client_id=client_id: used(nc, client_id), sent[client_id])  # type: ignore[misc]
        assert await dead_letters(nc) == []
    finally:
        other.kill()


OTHERS = 5
"""Parts that are shared out, too, and no source of usage: registry, dead letters, housekeeping, keeper, retries."""


async def test_sixteen_partitions_move_between_one_two_and_four_workers_while_records_flow(
    nc: Client, nats_url: str, schema: ServiceDsn, registry: RegistryFeed, tmp_path: Path
) -> None:
    for client_id in APPS:
        await registry.register(client_id)
    sources = {f"usage.records.{partition}" for partition in range(16)} | {"usage.cloudevents"}
    workers = [MeteringProcess(nats_url, schema, tmp_path, f"w{number}", TOLLBOOK_PARTITIONS="16") for number in range(4)]
    meters = [Meter(nc, f"gate-{number}", 16) for number in range(3)]
    acknowledged = dict.fromkeys(APPS, 0)
    flowing = asyncio.Event()

    async def publish() -> None:
        while flowing.is_set():
            for client_id in APPS:
                await random.choice(meters).count(UsageRecord(client_id, "csr", now_us(), 1))
                acknowledged[client_id] += 1
            await asyncio.sleep(0.01)

    async def share(alive: list[MeteringProcess]) -> list[int]:
        """How many sources each of them follows, when together they follow all, and none twice; else nothing."""
        held = [await worker.follows() for worker in alive]
        whole = set().union(*held) == sources and sum(map(len, held)) == len(sources)
        return sorted(map(len, held)) if whole else []

    async def shared(alive: list[MeteringProcess]) -> bool:
        shares = await share(alive)
        return bool(shares) and shares[-1] <= -(-(len(sources) + OTHERS) // len(shares))

    publishing = None
    try:
        await workers[0].start()
        flowing.set()
        publishing = asyncio.create_task(publish())
        await eventually(lambda: shared(workers[:1]), True)
        await workers[1].start()
        await eventually(lambda: shared(workers[:2]), True)
        await asyncio.gather(workers[2].start(), workers[3].start())
        await eventually(lambda: shared(workers), True)
        workers[1].kill()
        await eventually(lambda: shared([workers[0], *workers[2:]]), True)
        workers[0].stop()
        await eventually(lambda: shared(workers[2:]), True)
        workers[3].kill()
        await eventually(lambda: shared(workers[2:3]), True)
        flowing.clear()
        await publishing
        assert min(acknowledged.values()) > 0
        units = "SELECT client_id, sum(units)::int, sum(calls)::int FROM counter WHERE period = $1 GROUP BY 1 ORDER BY 1"
        for period in "hdm":
            wanted = [(client_id, count, count) for client_id, count in sorted(acknowledged.items())]
            await eventually(lambda period=period: rows(schema, units, period), wanted)  # type: ignore[misc]
        assert await dead_letters(nc) == []
    finally:
        flowing.clear()
        if publishing is not None:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
        for worker in workers:
            worker.kill()


async def test_a_worker_that_stops_gives_its_sources_back_at_once(
    nc: Client, nats_url: str, schema: ServiceDsn, worker: MeteringProcess, tmp_path: Path
) -> None:
    worker.stop()
    held = await rows(schema, "SELECT source FROM lease WHERE worker IS NOT NULL")
    assert held == []
    assert await rows(schema, "SELECT worker FROM worker") == []


async def test_nothing_is_counted_twice_after_kill_9_at_any_moment(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    total = 0
    for _ in range(2):
        for _ in range(60):
            await meter.count(UsageRecord(A, "csr", now_us(), 1))
            total += 1
        worker.kill()
        await worker.start()
    await eventually(lambda: used(nc, A), total)
    assert (await usage(nc, A)).calls == total


async def test_a_rebuild_counts_all_again_to_the_same(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    numbers = "calls, units, late_units, after_close_units"
    counters = f"SELECT client_id, service, period, window_start, {numbers} FROM counter ORDER BY 1, 2, 3, 4"
    record = UsageRecord(B, "csr", now_us(), 9)
    await meter.count(UsageRecord(A, "csr", now_us(), 2), UsageRecord(A, "nope", now_us()))
    await meter.count(record)
    await meter.count(record, retracted=True)
    await meter.count(UsageRecord(B, "clova-voice", now_us() - 3 * 86_400_000_000, 4))
    stored = await meter.count(UsageRecord(B, "csr", now_us(), 1))
    await eventually(lambda: used(nc, B), 1)
    before = await rows(schema, counters)
    letters = await dead_letters(nc)
    assert len(letters) == 1
    done = worker.run("--rebuild")
    assert done.returncode == 0, done.stderr
    assert f"{stored} messages".encode() in done.stdout

    async def counted() -> list[tuple[object, ...]]:
        return [row for row in await rows(schema, counters) if any(row[4:])]

    assert {row[2] for row in before if row[7]} >= {"h", "d"}, "three days late"
    await eventually(counted, [row for row in before if any(row[4:])])
    await eventually(lambda: used(nc, B), 1)
    assert await dead_letters(nc) == letters, "dead letters are published once"
    await meter.count(UsageRecord(B, "csr", now_us(), 1))
    await eventually(lambda: used(nc, B), 2)


async def test_a_lost_usage_stream_is_made_again_and_what_was_counted_stays(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    last = 0
    for _ in range(5):
        last = await meter.count(UsageRecord(A, "csr", now_us(), 1))
        await meter.count(UsageRecord(B, "csr", now_us(), 1))
    await eventually(lambda: used(nc, A), 5)
    await eventually(lambda: used(nc, B), 5)
    await delete_stream(nc, "USAGE")

    async def first() -> int | None:
        state = await stream_state(nc, "USAGE")
        return None if state is None else state.first

    await eventually(first, last + 2)
    assert await meter.count(UsageRecord(A, "csr", now_us(), 1)) == last + 2
    await meter.count(UsageRecord(B, "csr", now_us(), 1))
    await eventually(lambda: used(nc, A), 6)
    await eventually(lambda: used(nc, B), 6)
    done = worker.run("--rebuild")
    assert done.returncode != 0
    assert b"would be lost" in done.stderr
    assert await used(nc, A) == 6


async def test_a_rebuild_follows_a_registry_that_has_another_history_now(
    nc: Client, worker: MeteringProcess, meter: Meter, schema: ServiceDsn
) -> None:
    await meter.count(UsageRecord(A, "csr", now_us(), 2))
    await meter.count(UsageRecord(B, "csr", now_us(), 1))
    await eventually(lambda: used(nc, A), 2)
    await eventually(lambda: used(nc, B), 1)
    await delete_stream(nc, "REGISTRY")
    other = RegistryFeed(nc)
    await other.open_account()
    await other.register(A)

    async def refuses() -> bool:
        part = (await worker.readiness())["parts"]["registry"]
        return not part["ready"] and "restored from an older copy" in part["detail"]

    await eventually(refuses, True)
    done = worker.run("--rebuild")
    assert done.returncode == 0, done.stderr
    assert b"read again from 2 events" in done.stdout
    assert await rows(schema, "SELECT client_id FROM app") == [(A,)]
    await eventually(lambda: used(nc, A), 2)
    await meter.count(UsageRecord(B, "csr", now_us(), 1))

    async def rejected() -> list[str]:
        return [headers["tollbook-why"] for headers, _ in await dead_letters(nc)]

    await eventually(rejected, ["unknown_application"] * 2)
    await eventually(refuses, False)


async def test_a_usage_stream_that_is_older_than_what_was_counted_is_refused(
    nc: Client, worker: MeteringProcess, meter: Meter
) -> None:
    for _ in range(5):
        await meter.count(UsageRecord(A, "csr", now_us(), 1))
    await eventually(lambda: used(nc, A), 5)
    worker.kill()
    await delete_stream(nc, "USAGE")
    config = usage_stream()
    config.subjects = sorted(SOURCES)
    await ensure_stream(nc, config)
    await meter.count(UsageRecord(A, "csr", now_us(), 1))
    worker.launch()

    async def says() -> bool:
        try:
            part = (await worker.readiness())["parts"]["usage"]
        except (httpx.TransportError, KeyError):
            return False
        return not part["ready"] and "restore" in part["detail"]

    await eventually(says, True, lambda: worker.log.read_text())
    assert await used(nc, A) == 5


async def test_nats_away_and_back(private_nats: NatsProcess, postgres: PostgresDatabase, tmp_path: Path) -> None:
    nc = await connect_nats(private_nats.url)
    registry = RegistryFeed(nc)
    await registry.open_account()
    await registry.register(A)
    schema = await postgres.service_schema("metering")
    worker = MeteringProcess(private_nats.url, schema, tmp_path)
    meter = Meter(nc)
    try:
        await worker.start()
        for _ in range(3):
            await meter.count(UsageRecord(A, "csr", now_us(), 1))
        private_nats.kill()

        async def ready() -> bool:
            return bool((await worker.readiness())["ready"])

        await eventually(ready, False)
        private_nats.start()
        await eventually(ready, True)

        async def counted() -> bool:
            try:
                await meter.count(UsageRecord(A, "csr", now_us(), 1))
            except Exception:
                return False
            return True

        await eventually(counted, True)
        await eventually(lambda: used(nc, A), 4)
    finally:
        worker.kill()
        await nc.close()
