"""The relay on real servers: event N is message N, whatever crashes, is deleted, or runs twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client

from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.eventlog.log import EventLog, Meta
from shared.postgres import Pool
from shared.streams.declare import STORE_FAILED, delete_stream, ensure_stream, log_stream, stream_state
from shared.streams.jetstream import ApiError, api, stored_message
from shared.streams.publish import BATCH_MESSAGES_MAX, Outgoing, publish_batch
from shared.streams.relay import Relay
from tests.support.crashes import Tripwire, TripwireClient, TripwirePool, killed, until
from tests.support.ledger import LedgerEvent, PebblesAdded
from tests.support.servers import NatsProcess, connect_nats

Log = EventLog[LedgerEvent]


class Stage:
    """A log, and relays of it."""

    def __init__(self, pool: Pool, log: Log, nc: Client) -> None:
        self.pool = pool
        self.log = log
        self.nc = nc
        self.length = 0
        self.tasks: list[asyncio.Task[None]] = []

    def relay(self, wire: Tripwire | None = None) -> Relay:
        pool = self.pool if wire is None else TripwirePool(self.pool, wire)
        nc = self.nc if wire is None else TripwireClient(self.nc, wire)
        return Relay("ledger", pool, self.log, lambda: nc, 1, SystemClock())  # type: ignore[arg-type,return-value]

    def start(self, wire: Tripwire | None = None) -> tuple[Relay, asyncio.Task[None]]:
        relay = self.relay(wire)
        task = asyncio.create_task(relay.run())
        self.tasks.append(task)
        return relay, task

    async def append(self, count: int) -> None:
        async with self.pool.acquire() as connection:
            for _ in range(count):
                self.length += 1
                event = PebblesAdded(bowl="blue", count=self.length)
                await self.log.append(connection, f"bowl/{self.length}", 0, [event], Meta(command_id="c", actor="test"))

    async def settled(self) -> None:
        """The stream has as many messages as the log, and they are the log's events, one by one."""

        async def long_enough() -> bool:
            try:
                state = await stream_state(self.nc, "LEDGER")
            except Exception:
                return False
            return state is not None and state.last == self.length == state.messages

        await until(long_enough, f"{self.length} messages in the stream")
        async with self.pool.acquire() as connection:
            events = await self.log.read(connection, 0, self.length + 1)
        assert len(events) == self.length
        for event in events:
            answer = await api(self.nc, "STREAM.MSG.GET.LEDGER", {"seq": event.position})
            subject, sequence, headers, data = stored_message(answer)
            assert (sequence, headers["ce-id"]) == (event.position, f"ledger-{event.position}")
            assert headers["ce-hash"] == event.hash.hex()
            assert (subject, data) == (f"ledger.events.{event.type}", event.data)


async def emptied_stream(nc: Client, first: int) -> None:
    """A stream as a purge leaves it: no message, and the next one is not the first."""
    config = {"name": "LEDGER", "subjects": ["ledger.events.>"], "first_seq": first}

    async def made() -> bool:
        try:
            await api(nc, "STREAM.CREATE.LEDGER", config)
        except ApiError as error:
            if error.err_code == STORE_FAILED:  # the deleted one's files are still being removed
                return False
            return error.description.startswith("stream name already in use")  # a relay was faster
        return True

    await until(made, "the emptied stream")


@pytest.fixture
async def stage(pool: Pool, log: Log, nc: Client) -> AsyncIterator[Stage]:
    stage = Stage(pool, log, nc)
    yield stage
    for task in stage.tasks:
        await killed(task)


async def test_events_old_and_new_are_relayed_as_cloudevents(stage: Stage) -> None:
    meta = Meta(correlation_id="co 1", causation_id="ca", traceparent="00-aa-bb-01")
    async with stage.pool.acquire() as connection:
        (first,) = await stage.log.append(connection, "bowl/ä b", 0, [PebblesAdded(bowl="red", count=1)], meta)
    relay, _ = stage.start()
    stage.length = 1
    await stage.settled()
    _, _, headers, data = stored_message(await api(stage.nc, "STREAM.MSG.GET.LEDGER", {"seq": 1}))
    ours = {name: value for name, value in headers.items() if not name.startswith("nats-")}
    assert data == b'{"bowl":"red","count":1}'
    assert ours == {
        "ce-specversion": "1.0",
        "ce-id": "ledger-1",
        "ce-source": "/tollbook/ledger",
        "ce-type": "tollbook.ledger.PebblesAdded.v1",
        "ce-time": first.recorded_at.isoformat().replace("+00:00", "Z"),
        "ce-subject": "bowl/%C3%A4%20b",
        "ce-datacontenttype": "application/json",
        "ce-version": "1",
        "ce-hash": first.hash.hex(),
        "ce-correlationid": "co%201",
        "ce-causationid": "ca",
        "content-type": "application/json",
        "traceparent": "00-aa-bb-01",
    }
    await stage.append(3)
    relay.wake()
    await stage.settled()
    await stage.append(2)  # committed by another process: nobody wakes this relay
    await stage.settled()
    assert relay.readiness().ready
    await until(lambda: relay.readiness().lag == {"LEDGER": 0}, "the lag to be zero")


async def test_a_long_log_goes_in_batches(stage: Stage) -> None:
    async with stage.pool.acquire() as connection:
        events = [PebblesAdded(bowl="blue", count=n) for n in range(2300)]
        await stage.log.append(connection, "bowl/long", 0, events)
    stage.start()
    stage.length = 2300
    await stage.settled()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("hang", [False, True], ids=["error", "kill"])
@pytest.mark.parametrize("lost", ["", "deleted", "emptied"])
async def test_a_crash_at_every_await(stage: Stage, after: bool, hang: bool, lost: str) -> None:
    at = 1
    while True:
        if at == 1 or not lost:
            await stage.append(3)
        if lost:
            await delete_stream(stage.nc, "LEDGER")
        if lost == "emptied":
            await emptied_stream(stage.nc, 3)
        wire = Tripwire(at, after=after, hang=hang)
        _, task = stage.start(wire)
        settling = asyncio.create_task(stage.settled())
        tripping = asyncio.create_task(wire.tripped.wait())
        await asyncio.wait({settling, tripping}, return_when=asyncio.FIRST_COMPLETED)
        if wire.tripped.is_set() and hang:
            await killed(task)
            task = stage.start()[1]
        await settling
        tripping.cancel()
        wire.at = 0
        await killed(task)
        if not wire.tripped.is_set():
            break
        at += 1
    assert at > 6, "the wire must have been in the way"


async def test_two_relays_at_once_while_the_stream_is_deleted_again_and_again(stage: Stage) -> None:
    relays = [stage.start()[0], stage.start()[0], stage.start()[0]]
    for turn in range(8):
        await stage.append(20)
        for relay in relays[: 1 + turn % 3]:
            relay.wake()
        if turn % 2:
            await delete_stream(stage.nc, "LEDGER")
    await stage.settled()
    await until(lambda: all(relay.readiness().ready for relay in relays), "all relays to be ready")
    await stage.settled()


async def test_a_stream_lost_while_nothing_happens_is_written_again(stage: Stage) -> None:
    await stage.append(10)
    stage.start()
    await stage.settled()
    await delete_stream(stage.nc, "LEDGER")
    await stage.settled()
    await delete_stream(stage.nc, "LEDGER")
    await emptied_stream(stage.nc, 11)
    await stage.settled()


async def test_a_stream_ahead_of_the_log_is_refused_and_left_alone(stage: Stage) -> None:
    await stage.append(2)
    await ensure_stream(stage.nc, log_stream("ledger"))
    await publish_batch(stage.nc, [Outgoing("ledger.events.X", b"{}", {}) for _ in range(5)], expected_last_sequence=0)
    relay, _ = stage.start()
    await until(lambda: "ends at 5, but the log of ledger ends at 2" in relay.readiness().detail, "the refusal")
    assert not relay.readiness().ready
    await stage.append(1)
    await asyncio.sleep(0.5)
    state = await stream_state(stage.nc, "LEDGER")
    assert state is not None
    assert state.last == 5
    await delete_stream(stage.nc, "LEDGER")  # what the operator was told to do
    await stage.settled()
    await until(lambda: relay.readiness().ready, "the relay to be ready")


async def test_a_stream_with_other_events_is_refused_and_left_alone(stage: Stage) -> None:
    await stage.append(4)
    await ensure_stream(stage.nc, log_stream("ledger"))
    await publish_batch(stage.nc, [Outgoing("ledger.events.X", b"{}", {}) for _ in range(3)], expected_last_sequence=0)
    relay, _ = stage.start()
    await until(lambda: "Message 3 of the stream LEDGER is not event 3" in relay.readiness().detail, "the refusal")
    state = await stream_state(stage.nc, "LEDGER")
    assert state is not None
    assert state.last == 3


@pytest.mark.parametrize("lost", ["missing", "cut short", "emptied"])
async def test_a_stream_that_is_being_written_again_says_how_far_it_has_to_go(stage: Stage, lost: str) -> None:
    async with stage.pool.acquire() as connection:
        events = [PebblesAdded(bowl="blue", count=n) for n in range(2300)]
        await stage.log.append(connection, "bowl/long", 0, events)
    stage.length = 2300
    if lost == "cut short":
        await ensure_stream(stage.nc, log_stream("ledger"))
    if lost == "emptied":
        await emptied_stream(stage.nc, 2301)
    wire = Tripwire(BATCH_MESSAGES_MAX + 100, hang=True)  # each message is a step: it dies in its second batch
    _, task = stage.start(wire)
    await asyncio.wait_for(wire.tripped.wait(), 20)
    await killed(task)
    state = await stream_state(stage.nc, "LEDGER")
    assert state is not None
    assert state.last == BATCH_MESSAGES_MAX
    assert state.due == 2300
    stage.start()
    await stage.settled()


async def test_a_stream_that_is_owed_more_than_the_log_has_is_owed_what_it_has(stage: Stage) -> None:
    await stage.append(2)
    await ensure_stream(stage.nc, log_stream("ledger", due=9))
    relay, _ = stage.start()
    await stage.settled()
    await until(lambda: relay.readiness().ready, "the relay to be ready")
    state = await stream_state(stage.nc, "LEDGER")
    assert state is not None
    assert state.due == 2


async def test_nothing_is_decided_before_the_stream_was_looked_at_nor_while_it_differs(stage: Stage) -> None:
    async with stage.pool.acquire() as connection:
        empty = await stage.log.head(connection)
    await stage.append(2)
    async with stage.pool.acquire() as connection:
        head = await stage.log.head(connection)
    with pytest.raises(Unavailable, match="Nothing was done: ledger has just started"):
        stage.relay().guard(head)
    relay, _ = stage.start()
    await stage.settled()
    await until(lambda: relay.readiness().ready, "the relay to be ready")
    relay.guard(head)
    with pytest.raises(Unavailable, match="Nothing was done: the log ends at 0, but had reached 2"):
        relay.guard(empty)  # a database that was replaced while the relay runs, and not yet looked at
    await publish_batch(stage.nc, [Outgoing("ledger.events.X", b"{}", {})], expected_last_sequence=2)
    await until(lambda: not relay.readiness().ready, "the refusal")
    with pytest.raises(Unavailable, match=r"^Nothing was done\. The stream LEDGER ends at 3, but the log of ledger ends at 2"):
        relay.guard(head)
    await delete_stream(stage.nc, "LEDGER")
    await stage.settled()
    await until(lambda: relay.readiness().ready, "the relay to be ready")
    relay.guard(head)


async def test_an_event_too_big_for_nats_is_said(stage: Stage) -> None:
    await stage.append(1)
    async with stage.pool.acquire() as connection:
        await stage.log.append(connection, "bowl/big", 0, [PebblesAdded(bowl="x" * 1_100_000, count=1)])
    relay, _ = stage.start()
    await until(lambda: "too big for NATS" in relay.readiness().detail, "the refusal")
    state = await stream_state(stage.nc, "LEDGER")
    assert state is not None
    assert state.last == 1


async def test_nats_killed_in_the_middle(pool: Pool, log: Log, private_nats: NatsProcess) -> None:
    nc = await connect_nats(private_nats.url)
    stage = Stage(pool, log, nc)
    relay, task = stage.start()
    try:
        for _ in range(3):
            appending = asyncio.create_task(stage.append(60))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(private_nats.kill)
            await appending
            await until(lambda: not relay.readiness().ready, "the relay to notice")
            await asyncio.to_thread(private_nats.start)
            await stage.settled()
        await until(lambda: relay.readiness().ready, "the relay to be ready")
    finally:
        await killed(task)
        await nc.close()
