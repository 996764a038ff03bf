"""What limits cost: gates that need leases for every call, and counting what came from leases, each beside the same without."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from shared.answering import WORKERS_MAX
from shared.commands.limits import LimitsView, SetLimits
from shared.commands.requester import ask
from shared.events.usage import RECORDS_SUBJECT, partition_of
from shared.events.usage import STREAM as USAGE
from shared.ids import new_id, new_lease_id
from shared.streams.declare import stream_state
from tests.bench.examples import ACCOUNT, Issued, issue
from tests.bench.gate import CONNECTIONS, Caller, gate_process, write_credentials
from tests.bench.ingest import APPS, GATE_NAMES, PARTITIONS, RECORDS, Worker, from_gates, running_worker
from tests.bench.measure import Aim, Row, interleaved, row, said
from tests.bench.place import Place, ServiceProcess, another_nats, until

SECONDS: Final = 3
BEFORE_S: Final = 1
"""Called for so long before each run: leases that were idle during the other's run were returned, and rates forgotten."""
HOT_GATES: Final = 4
BATCHES: Final = 4_000
REPETITIONS: Final = 2
"""Of what varies less than calls of many applications: there is more to measure than time."""
CROSSING: Final = 10
"""One in so many applications passes a threshold while its records are counted."""
LEASE_S: Final = 300
"""Of the leases that counted records name: longer than the benchmark, so that they stay open."""
FAR: Final = 1_000_000_000
"""A limit that is not reached."""

_QUIET: Final = "SELECT NOT EXISTS (SELECT FROM kv_dirty) AND (SELECT coalesce(max(sequence), 0) FROM progress) >= $1"
_LEASED: Final = "SELECT count(DISTINCT client_id) FROM quota_lease"
_HOLD: Final = """
    INSERT INTO quota_lease (lease, account, client_id, service, day_start, month_start, units, publisher, subject)
    SELECT lease, $1, client_id, 'csr', date_trunc('day', now(), 'Asia/Seoul'), date_trunc('month', now(), 'Asia/Seoul'),
        $2, $3, $4
    FROM unnest($5::text[], $6::text[]) AS n(client_id, lease)
"""
_TOLD: Final = "SELECT count(*) FROM told WHERE percent > 0"


async def gates(place: Place) -> list[Row]:
    """A gate with limits on every application and one without, each with a NATS and a metering worker of its own; then one
    application's calls to one gate and to four."""
    issued = issue(APPS)
    hot = issued[:1]
    caller = Caller(write_credentials(place, issued), SECONDS)
    hot_caller = Caller(write_credentials(place, hot, "hot.txt"), SECONDS)
    with another_nats(place) as elsewhere:
        async with running_worker(place, issued) as free, running_worker(elsewhere, issued) as limited:
            await set_limits(limited, issued, FAR, FAR)
            async with _gates(place, 1) as unlimited_ports, _gates(elsewhere, HOT_GATES) as ports:

                async def called(by: Caller, name: str, worker: Worker, ports: Sequence[int]) -> float:
                    await by.calls("", *ports, seconds=BEFORE_S)
                    found = await by.calls(name, *ports)
                    await _quiet(worker)
                    return found

                found = await interleaved(
                    {
                        "with limits": lambda: called(caller, "with limits", limited, ports[:1]),
                        "without": lambda: called(caller, "without", free, unlimited_ports),
                    }
                )
                hot_found = await interleaved(
                    {
                        "four gates": lambda: called(hot_caller, "four gates", limited, ports),
                        "one gate": lambda: called(hot_caller, "one gate", limited, ports[:1]),
                    },
                    REPETITIONS,
                )
            await _check_leased(limited, len(issued))
    note = f"gates, wrk, NATS, PostgreSQL and metering on {os.cpu_count()} cores"
    what = f"authorised calls of {APPS:,} apps, each with a limit, {CONNECTIONS} connections, while metering counts"
    hot_what = f"authorised calls of one app with a limit, {CONNECTIONS} connections to {HOT_GATES} gates"
    (ours, reference), (four, one) = found.values(), hot_found.values()
    return [
        row("limits", what, "calls/s", ours, reference, "the same without limits", Aim(0.9), note),
        row("limits", hot_what, "calls/s", four, one, "the same to one gate", Aim(1.0), note),
    ]


@asynccontextmanager
async def _gates(place: Place, count: int) -> AsyncIterator[list[int]]:
    """So many gates, ready: their ports."""
    running: list[ServiceProcess] = []
    try:
        for _ in range(count):
            running.append(gate_process(place))
        for gate in running:
            await gate.ready()
        yield [gate.port for gate in running]
    finally:
        for gate in running:
            gate.stop()


async def counting(place: Place) -> list[Row]:
    """Batches of 500 over 1,000 applications, all limited, each record with its lease; the same without limits and leases."""
    apps = issue(APPS)
    total = BATCHES * RECORDS
    with another_nats(place) as elsewhere:
        async with running_worker(place, apps) as free, running_worker(elsewhere, apps, LEASE_S=LEASE_S) as limited:
            calls = total // APPS
            await set_limits(limited, apps[::CROSSING], 8 * calls, FAR)
            await set_limits(limited, [app for number, app in enumerate(apps) if number % CROSSING], FAR, FAR)
            said(f"  filling two USAGE: {BATCHES:,} batches of {RECORDS}")
            await free.fill(from_gates(apps, BATCHES))
            await limited.fill(from_gates(apps, BATCHES, await _hold(limited, apps, calls)))

            async def counts_limited() -> float:
                await _run(limited, "DELETE FROM told")
                found = await limited.counts(total)
                await until(lambda: _all_told(limited), "every crossing to be told")
                return found

            found = await interleaved({"with limits": counts_limited, "without": lambda: free.counts(total)}, REPETITIONS)
    what = f"usage records counted, {APPS:,} apps with limits, {APPS // CROSSING} crossings, each record from a lease"
    ours, reference = found.values()
    return [row("limits", what, "records/s", ours, reference, "the same without limits and leases", Aim(0.9))]


async def set_limits(worker: Worker, apps: Sequence[Issued], daily: int, monthly: int) -> None:
    """SetLimits for each of them, as many under way as the worker takes."""
    said(f"  setting the limits of {len(apps):,} apps")
    turns = asyncio.Semaphore(WORKERS_MAX)

    async def set_one(app: Issued) -> None:
        async with turns:
            command = SetLimits(
                command_id=new_id(),
                account=ACCOUNT,
                actor="service:bench",
                client_id=app.client_id,
                service="csr",
                daily=daily,
                monthly=monthly,
            )
            await ask(worker.nc, "metering", command, LimitsView)

    await asyncio.gather(*(set_one(app) for app in apps))


async def _hold(worker: Worker, apps: Sequence[Issued], calls: int) -> Mapping[str, Mapping[str, str]]:
    """A lease of each gate for each application, enough for all of its calls."""
    held = {gate: {app.client_id: new_lease_id() for app in apps} for gate in GATE_NAMES}
    for gate, leases in held.items():
        subject = f"{RECORDS_SUBJECT}.{partition_of(gate, PARTITIONS)}"
        await _run(worker, _HOLD, ACCOUNT, calls, gate, subject, list(leases), list(leases.values()))
    return held


async def _quiet(worker: Worker) -> None:
    """Wait until all that was published is counted and shown."""
    state = await stream_state(worker.nc, USAGE)
    assert state is not None

    async def done() -> bool:
        return bool(await _run(worker, _QUIET, state.last))

    await until(done, "the worker to have counted and shown everything", pause_s=0.05)


async def _all_told(worker: Worker) -> bool:
    return bool(await _run(worker, _TOLD) == APPS // CROSSING)


async def _check_leased(worker: Worker, apps: int) -> None:
    """Raises RuntimeError unless every application's calls were spent from leases."""
    if (leased := await _run(worker, _LEASED)) != apps:
        raise RuntimeError(f"{leased} of {apps} applications have had leases")


async def _run(worker: Worker, statement: str, *arguments: object) -> object:
    """One statement on the worker's tables; the first value that it gives."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
        worker.dsn.owner_dsn, server_settings={"search_path": "metering"}
    )
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()
