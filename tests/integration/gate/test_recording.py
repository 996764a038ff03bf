"""That what USAGE counts is what the gate let through, whatever happens to NATS, to callers and to the gate."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import httpx
import pytest
from nats.aio.client import Client

from services.gate.commit import Committer
from services.gate.metrics import Metrics
from shared.clock import SystemClock
from shared.events.usage import UsageBatch, UsageRecord
from shared.streams.declare import delete_stream, ensure_stream, usage_stream
from tests.support.gates import Gate, Issued, Registry, counted, declare, running_gate, stored_batches, until
from tests.support.servers import NatsProcess, connect_nats


@pytest.fixture
async def own_nc(private_nats: NatsProcess) -> AsyncIterator[Client]:
    connection = await connect_nats(private_nats.url)
    await declare(connection)
    yield connection
    await connection.close()


async def known(gate: Gate, *applications: Issued) -> None:
    for issued in applications:

        async def passes(issued: Issued = issued) -> bool:
            return (await gate.call(issued)).status_code == 200

        await until(passes, "the application to be known")


async def test_every_pass_is_recorded_once_and_nothing_else(gate: Gate, registry: Registry, nc: Client) -> None:
    applications = [await registry.registers() for _ in range(5)]
    await known(gate, *applications)
    stranger = Issued("z" * 20, "z" * 40)
    await asyncio.gather(*(gate.call(issued) for _ in range(60) for issued in [*applications, stranger]))
    assert len(gate.passed) >= 300
    batches = await stored_batches(nc)
    assert counted(batches) == Counter(gate.passed)
    assert len({batch.publisher for batch in batches}) == 1
    assert len(batches) < len(gate.passed)


async def test_a_caller_that_goes_away_while_it_waits_stays_counted(private_nats: NatsProcess, own_nc: Client) -> None:
    issued = await Registry(own_nc).registers()
    async with running_gate(private_nats.url, commit_timeout_s=10) as gate:
        await known(gate, issued)
        lines = [f"{name}: {value}" for name, value in issued.headers.items()]
        with stopped(private_nats):
            _, writer = await asyncio.open_connection("127.0.0.1", gate.port)
            writer.write("\r\n".join(["GET /authorize/csr HTTP/1.1", "Host: g", *lines, "", ""]).encode())

            async def waits() -> bool:
                return "tollbook_gate_in_flight 1.0" in (await gate.http.get("/metrics")).text

            await until(waits, "the call to wait")
            writer.transport.abort()
        await known(gate, issued)
        assert counted(await stored_batches(own_nc)) == {issued.client_id: len(gate.passed) + 1}


async def test_a_commit_that_arrives_after_its_callers_were_refused(private_nats: NatsProcess, own_nc: Client) -> None:
    issued = await Registry(own_nc).registers()
    async with running_gate(private_nats.url, commit_timeout_s=0.3) as gate:
        await known(gate, issued)
        with stopped(private_nats):
            responses = await asyncio.gather(*(gate.call(issued) for _ in range(5)))
            assert {response.status_code for response in responses} == {503}
        await until(gate.ready, "the gate to recover alone")
        await known(gate, issued)
        batches = await stored_batches(own_nc)
        assert any(batch.retracted for batch in batches)
        assert counted(batches) == Counter(gate.passed)


@contextmanager
def stopped(server: NatsProcess) -> Iterator[None]:
    """The server holds its breath: what is sent to it arrives later."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_nats_killed_under_load_and_started_again(private_nats: NatsProcess, own_nc: Client) -> None:
    registry = Registry(own_nc)
    applications = [await registry.registers() for _ in range(3)]
    async with running_gate(private_nats.url, commit_timeout_s=0.5) as gate:
        await known(gate, *applications)
        statuses: Counter[int] = Counter()
        stop = asyncio.Event()

        async def caller(issued: Issued) -> None:
            while not stop.is_set():
                response = await gate.call(issued)
                statuses[response.status_code] += 1
                if response.status_code == 503:
                    assert response.json()["error"]["errorCode"] == "500"
                    assert response.headers["retry-after"]
                    await asyncio.sleep(0.02)

        callers = [asyncio.create_task(caller(issued)) for issued in applications for _ in range(8)]
        for _ in range(2):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(private_nats.kill)

            async def refused() -> bool:
                return (await gate.call(applications[0])).status_code == 503

            await until(refused, "a refusal")
            readiness = await gate.http.get("/readyz")
            assert readiness.status_code == 503
            assert "usage cannot be recorded" in readiness.json()["parts"]["usage"]["detail"]
            await asyncio.to_thread(private_nats.start)
            await until(gate.ready, "the gate to recover alone", timeout_s=30)
            await known(gate, applications[0])
        stop.set()
        await asyncio.gather(*callers)
        assert set(statuses) == {200, 503}
        await until(lambda: _connected(own_nc), "the test's connection")
        assert counted(await stored_batches(own_nc)) == Counter(gate.passed)


async def _connected(nc: Client) -> bool:
    return nc.is_connected


async def test_usage_has_no_stream_for_a_while(gate: Gate, registry: Registry, nc: Client) -> None:
    issued = await registry.registers()
    await known(gate, issued)
    await delete_stream(nc, "USAGE")
    gate.passed.clear()
    assert (await gate.call(issued)).status_code == 503
    assert not await gate.ready()
    began = asyncio.get_running_loop().time()
    assert (await gate.call(issued)).status_code == 503
    assert asyncio.get_running_loop().time() - began < 1
    await ensure_stream(nc, usage_stream())
    await until(gate.ready, "the gate to recover alone")
    await known(gate, issued)
    batches = await stored_batches(nc)
    assert batches[0].retracted
    assert counted(batches) == Counter(gate.passed)


async def recorded(committer: Committer, record: UsageRecord) -> bool:
    """What became of a record."""
    told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    committer.record(record, told.set_result)
    return await told


class LateCommitter(Committer):
    """Its first commits reach the stream, but their acknowledgements are lost."""

    losses = 1

    async def _publish(self, batch: UsageBatch) -> None:
        await super()._publish(batch)
        if self.losses:
            self.losses -= 1
            raise TimeoutError


@pytest.mark.parametrize("losses", [1, 2, 3])
async def test_a_commit_that_arrived_unacknowledged_is_taken_back_once(nc: Client, losses: int) -> None:
    await declare(nc)
    committer = LateCommitter(lambda: nc, "gate-1", 4, SystemClock(), Metrics(), timeout_s=2, waiting_max=100)
    committer.losses = losses
    running = asyncio.create_task(committer.run())
    records = [UsageRecord(letter * 20, "csr", 1, 1, "s") for letter in "abcdefgh"]
    assert not any(await asyncio.gather(*(recorded(committer, record) for record in records)))

    async def recovered() -> bool:
        return committer.readiness().ready

    await until(recovered, "the committer to recover")
    assert counted(await stored_batches(nc)) == {}
    assert all(await asyncio.gather(*(recorded(committer, record) for record in records)))
    assert counted(await stored_batches(nc)) == {record.client_id: 1 for record in records}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class SlowCommitter(Committer):
    """Its commits wait until they are let go."""

    let_go: asyncio.Event

    async def _publish(self, batch: UsageBatch) -> None:
        await self.let_go.wait()
        await super()._publish(batch)


def slow_committer(nc: Client, waiting_max: int = 100) -> SlowCommitter:
    committer = SlowCommitter(lambda: nc, "gate-1", 4, SystemClock(), Metrics(), timeout_s=2, waiting_max=waiting_max)
    committer.let_go = asyncio.Event()
    return committer


async def test_the_queue_is_bounded(nc: Client) -> None:
    await declare(nc)
    committer = slow_committer(nc, waiting_max=10)
    running = asyncio.create_task(committer.run())
    record = UsageRecord("a" * 20, "csr", 1, 1, "s")
    waiting = [asyncio.create_task(recorded(committer, record)) for _ in range(10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (committer.full, committer.waiting, committer.blocked) == (True, 10, False)
    assert await recorded(committer, record) is False
    committer.let_go.set()
    assert all(await asyncio.gather(*waiting))
    assert committer.waiting == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert counted(await stored_batches(nc)) == {record.client_id: 10}


async def test_being_stopped_finishes_what_waits(nc: Client) -> None:
    await declare(nc)
    committer = slow_committer(nc)
    running = asyncio.create_task(committer.run())
    record = UsageRecord("a" * 20, "csr", 1, 1, "s")
    first = asyncio.create_task(recorded(committer, record))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(recorded(committer, record))
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.sleep(0.05)
    assert await recorded(committer, record) is False
    committer.let_go.set()
    assert await first
    assert await second
    await asyncio.gather(running, return_exceptions=True)
    assert counted(await stored_batches(nc)) == {record.client_id: 2}


class BrokenCommitter(Committer):
    async def _publish(self, batch: UsageBatch) -> None:
        raise RuntimeError("a mistake in the program")


async def test_the_death_of_the_committer_refuses_who_waits_and_is_noticed(nc: Client) -> None:
    committer = BrokenCommitter(lambda: nc, "gate-1", 4, SystemClock(), Metrics(), timeout_s=2, waiting_max=10)
    running = asyncio.create_task(committer.run())
    record = UsageRecord("a" * 20, "csr", 1, 1, "s")
    assert await recorded(committer, record) is False
    with pytest.raises(RuntimeError, match="a mistake"):
        await running
    assert committer.blocked
    assert await recorded(committer, record) is False


async def test_a_big_burst_is_cut_to_what_a_message_holds(nc: Client) -> None:
    await declare(nc)
    committer = Committer(lambda: nc, "gate-1", 1, SystemClock(), Metrics(), timeout_s=10, waiting_max=20_000)
    running = asyncio.create_task(committer.run())
    record = UsageRecord("a" * 20, "s" * 32, 2**60, 1_000_000_000, "i" * 64, "l" * 64)
    assert all(await asyncio.gather(*(recorded(committer, record) for _ in range(12_000))))
    sizes = [len(batch.records) for batch in await stored_batches(nc)]
    assert sum(sizes) == 12_000
    assert len(sizes) > 2
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_overload_is_answered_at_once(nats_url: str, registry: Registry) -> None:
    issued = await registry.registers()
    async with running_gate(nats_url, in_flight_max=2) as gate:
        await known(gate, issued)
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(base_url=gate.http.base_url, limits=limits, timeout=20) as many:
            responses = await asyncio.gather(*(many.get("/authorize/csr", headers=issued.headers) for _ in range(200)))
        statuses = Counter(response.status_code for response in responses)
        assert set(statuses) == {200, 503}
        details = {r.json()["error"]["details"] for r in responses if r.status_code == 503}
        assert details == {"Too many calls are being decided at once. Try again in a moment."}


async def test_stopping_the_gate_answers_who_waits(nats_url: str, registry: Registry, nc: Client) -> None:
    issued = await registry.registers()
    async with running_gate(nats_url) as gate:
        await known(gate, issued)
        calls = [asyncio.create_task(gate.call(issued)) for _ in range(20)]
        await asyncio.sleep(0.005)
        await gate.stop()
        answered = [r for r in await asyncio.gather(*calls, return_exceptions=True) if isinstance(r, httpx.Response)]
        assert {response.status_code for response in answered} <= {200, 503}
        assert counted(await stored_batches(nc)) == Counter(gate.passed)
