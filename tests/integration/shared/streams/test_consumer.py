"""Consumers on real servers: every message takes effect once and in order, whatever crashes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shared.errors import Unavailable
from shared.postgres import Connection, Pool
from shared.streams.checkpoints import Source
from shared.streams.consumer import Poison
from shared.streams.declare import delete_stream, ensure_stream, log_stream, usage_stream
from shared.streams.jetstream import api
from shared.streams.message import Message
from shared.streams.publish import Outgoing, publish_batch
from shared.streams.pull import OVERHEAD_BYTES
from tests.support.crashes import Tripwire, killed, until
from tests.support.servers import NatsProcess, connect_nats
from tests.support.stage import FIRST, LEDGER, SECOND, SEE, Stage, ready, said, see


async def test_messages_old_and_new_and_after_a_restart(stage: Stage) -> None:
    await stage.publish(5)
    consumer, task = await stage.consumer(LEDGER)
    await stage.settled()
    await ready(consumer)
    last = await stage.publish(3)
    await consumer.caught_up("LEDGER", last, 10)
    await stage.settled()
    assert await stage.checkpoint() == 8
    assert consumer.lag() == {"LEDGER": 0}
    await killed(task)
    await stage.publish(4)
    consumer, _ = await stage.consumer(LEDGER)
    await stage.settled()


async def test_thousands_through_a_small_buffer(stage: Stage) -> None:
    for subject in ("usage.records.1", "usage.records.2", "ledger.events.Thing"):
        await stage.publish(3000, subject)

    async def sometimes_slow(connection: Connection, batch: Sequence[Message]) -> None:
        assert len(batch) <= 70
        if batch[0].sequence % 7 == 0:
            await asyncio.sleep(0.01)
        await see(connection, batch)

    consumer, _ = await stage.consumer(LEDGER, FIRST, SECOND, handle=sometimes_slow, batch_max=70, buffer_messages=100)
    await stage.settled()
    assert set(consumer.lag().values()) == {0}


async def test_large_messages_stay_within_the_buffers_bytes(stage: Stage) -> None:
    data = [Outgoing("ledger.events.Thing", bytes([65 + n]) * 900_000, {}) for n in range(24)]
    for n in range(0, 24, 4):
        await publish_batch(stage.nc, data[n : n + 4], expected_last_sequence=None)
    gate = asyncio.Event()

    async def wait(connection: Connection, batch: Sequence[Message]) -> None:
        await gate.wait()
        await connection.executemany(SEE, [(m.stream, m.subject, m.sequence, m.data[:1].decode()) for m in batch])

    consumer, _ = await stage.consumer(LEDGER, handle=wait, batch_max=2, buffer_bytes=4_000_000)
    await asyncio.sleep(0.5)
    held = sum(len(one.message.data) for one in consumer._buffer._waiting)
    assert 0 < held <= 4_000_000 + 2 * 1_200_000
    gate.set()
    stage.published["ledger.events.Thing"] = [chr(65 + n) for n in range(24)]
    await stage.settled()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("hang", [False, True], ids=["error", "kill"])
async def test_a_crash_at_every_await(stage: Stage, after: bool, hang: bool) -> None:
    at = 1
    while True:
        await stage.publish(3)
        await stage.publish(3, "usage.records.1")
        wire = Tripwire(at, after=after, hang=hang)
        _, task = await stage.consumer(LEDGER, FIRST, wire=wire, batch_max=4)
        settling = asyncio.create_task(stage.settled())
        tripping = asyncio.create_task(wire.tripped.wait())
        await asyncio.wait({settling, tripping}, return_when=asyncio.FIRST_COMPLETED)
        if wire.tripped.is_set() and hang:
            await killed(task)
            _, task = await stage.consumer(LEDGER, FIRST)
        await settling
        tripping.cancel()
        wire.at = 0
        await killed(task)
        if not wire.tripped.is_set():
            break
        at += 1
    assert at > 15, "the wire must have been in the way"


async def test_two_workers_fence_each_other_and_nothing_counts_twice(stage: Stage) -> None:
    async def yielding(connection: Connection, batch: Sequence[Message]) -> None:
        await see(connection, batch)
        await asyncio.sleep(0.002)

    for _ in range(2):
        await stage.consumer(LEDGER, FIRST, SECOND, handle=yielding, batch_max=20)
    for _ in range(5):
        for subject in ("usage.records.1", "usage.records.2", "ledger.events.Thing"):
            await stage.publish(100, subject)
        await asyncio.sleep(0.1)
    await stage.settled()


async def test_a_zombie_writes_nothing(stage: Stage) -> None:
    stuck, go_on = asyncio.Event(), asyncio.Event()

    async def pause(connection: Connection, batch: Sequence[Message]) -> None:
        raise AssertionError("the fence comes first")

    zombie, _ = await stage.consumer(LEDGER, handle=pause)
    await ready(zombie)
    commit = zombie._commit

    async def paused(batch):
        stuck.set()
        await go_on.wait()
        await commit(batch)

    zombie._commit = paused  # type: ignore[method-assign]
    await stage.publish(5)
    await stuck.wait()
    await stage.consumer(LEDGER)
    await stage.settled()
    go_on.set()
    await asyncio.sleep(0.3)
    await stage.settled()
    assert await stage.checkpoint() == 5
    await ready(zombie)


async def test_a_source_that_is_removed_commits_nothing_more(stage: Stage) -> None:
    async def slow(connection: Connection, batch: Sequence[Message]) -> None:
        await asyncio.sleep(0.01)  # so that there is something left to remove
        await see(connection, batch)

    for _ in range(20):
        await stage.publish(50, "usage.records.1")
    await stage.publish(50, "usage.records.2")
    consumer, _ = await stage.consumer(FIRST, SECOND, handle=slow, batch_max=5)
    await until(lambda: stage.nc.is_connected and consumer.committed_at is not None, "a first batch")
    await consumer.remove(FIRST)
    then = len((await stage.seen())["usage.records.1"])
    await consumer.caught_up("USAGE", 1050, 10)
    assert len((await stage.seen())["usage.records.1"]) == then < 1000
    assert (await stage.seen())["usage.records.2"] == stage.published["usage.records.2"]
    await consumer.add(FIRST)
    await consumer.add(FIRST)
    await stage.settled()
    await consumer.remove(FIRST)
    await consumer.remove(FIRST)


async def test_poison_stops_after_what_came_before_it(stage: Stage) -> None:
    async def picky(connection: Connection, batch: Sequence[Message]) -> None:
        for message in batch:
            if message.sequence == 7:
                raise Poison(message, "it is the seventh")
        await see(connection, batch)

    await stage.publish(10)
    consumer, task = await stage.consumer(LEDGER, handle=picky)
    await said(consumer, "LEDGER message 7 (ledger.events.Thing): it is the seventh")
    assert len((await stage.seen())["ledger.events.Thing"]) == 6
    assert await stage.checkpoint() == 6
    assert not task.done()
    with pytest.raises(Unavailable, match="has not come to LEDGER message 7"):
        await consumer.caught_up("LEDGER", 7, 0.1)


async def test_an_unexpected_failure_is_tried_thrice_then_stops_at_its_message(stage: Stage) -> None:
    tries: list[int] = []

    async def faulty(connection: Connection, batch: Sequence[Message]) -> None:
        await see(connection, batch)
        if any(message.sequence == 3 for message in batch):
            tries.append(len(batch))
            raise KeyError("nobody thought of this")

    await stage.publish(5)
    consumer, _ = await stage.consumer(LEDGER, handle=faulty)
    await said(consumer, "LEDGER message 3 (ledger.events.Thing) failed 3 times: KeyError")
    assert tries[-3:] == [1, 1, 1]
    assert len((await stage.seen())["ledger.events.Thing"]) == 2


async def test_failures_that_may_pass_are_tried_again_for_long(stage: Stage) -> None:
    failures = 6

    async def away(connection: Connection, batch: Sequence[Message]) -> None:
        nonlocal failures
        failures -= 1
        if failures > 0:
            raise Unavailable("not now")
        await see(connection, batch)

    await stage.publish(5)
    consumer, _ = await stage.consumer(LEDGER, handle=away)
    await said(consumer, "the last batch failed and is tried again: not now")
    await stage.settled()
    await ready(consumer)


async def test_a_database_that_goes_away_and_comes_back(stage: Stage) -> None:
    consumer, _ = await stage.consumer(LEDGER)
    for _ in range(3):
        await stage.publish(20)
        async with stage.pool.acquire() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND datname = current_database() AND usename = current_user"
            )
    await stage.settled()
    await ready(consumer)


async def test_a_truncated_stream_is_refused_until_it_is_whole_again(stage: Stage) -> None:
    await stage.publish(6)
    consumer, task = await stage.consumer(LEDGER)
    await stage.settled()
    for running in (True, False):
        if not running:
            await killed(task)
        await delete_stream(stage.nc, "LEDGER")
        await ensure_stream(stage.nc, log_stream("ledger"))
        rewritten = [Outgoing("ledger.events.Thing", text.encode(), {}) for text in stage.published["ledger.events.Thing"]]
        await publish_batch(stage.nc, rewritten[:4], expected_last_sequence=0)
        if not running:
            consumer, task = await stage.consumer(LEDGER)
        await said(consumer, f"ends at 4, but test has read up to {len(rewritten)}")
        await publish_batch(stage.nc, rewritten[4:], expected_last_sequence=4)
        await stage.publish(1)
        await stage.settled()
        await ready(consumer)


@pytest.mark.parametrize("running", [True, False], ids=["running", "at-start"])
async def test_a_stream_with_another_past_is_refused(stage: Stage, running: bool) -> None:
    await stage.publish(3)
    consumer, task = await stage.consumer(LEDGER)
    await stage.settled()
    if not running:
        await killed(task)
    await delete_stream(stage.nc, "LEDGER")
    await ensure_stream(stage.nc, log_stream("ledger"))
    await publish_batch(stage.nc, [Outgoing("ledger.events.Thing", b"other", {})] * 9, expected_last_sequence=0)
    if not running:
        consumer, task = await stage.consumer(LEDGER)
    await said(consumer, "holds another message than the one that was read at sequence 3")
    assert await stage.checkpoint() == 3


async def test_an_emptied_log_is_not_skipped(stage: Stage) -> None:
    await delete_stream(stage.nc, "LEDGER")
    config = {"name": "LEDGER", "subjects": ["ledger.events.>"], "allow_atomic": True}
    await api(stage.nc, "STREAM.CREATE.LEDGER", config)
    await stage.publish(3)
    _, task = await stage.consumer(LEDGER)
    await stage.settled()
    await killed(task)
    await stage.publish(3)
    await api(stage.nc, "STREAM.PURGE.LEDGER")
    consumer, _ = await stage.consumer(LEDGER)
    await said(consumer, "begins at 7, but test needs 4: it was emptied")
    await publish_batch(stage.nc, [Outgoing("ledger.events.Thing", b"later", {})], expected_last_sequence=6)
    await asyncio.sleep(0.3)
    assert await stage.checkpoint() == 3


async def test_usage_that_was_lost_goes_on_above_the_checkpoint(stage: Stage) -> None:
    await stage.publish(5, "usage.records.1")
    consumer, _ = await stage.consumer(FIRST)
    await stage.settled()
    await delete_stream(stage.nc, "USAGE")
    await said(consumer, "does not exist yet")
    await ensure_stream(stage.nc, usage_stream(1, first_seq=1001))
    await stage.publish(2, "usage.records.1")
    await stage.settled()
    await ready(consumer)
    assert await stage.checkpoint(FIRST) == 1002


async def test_caught_up_with_a_filter_that_matches_nothing_at_the_end(stage: Stage) -> None:
    await stage.publish(3, "usage.records.1")
    last = await stage.publish(3, "usage.records.2")
    consumer, _ = await stage.consumer(FIRST, Source("USAGE", "usage.records.9"))
    await consumer.caught_up("USAGE", last, 10)
    assert await stage.checkpoint(FIRST) == 3
    await consumer.caught_up("LEDGER", 99, 1)


async def test_a_stream_that_comes_later(stage: Stage) -> None:
    await delete_stream(stage.nc, "LEDGER")
    consumer, _ = await stage.consumer(LEDGER)
    await said(consumer, "The stream LEDGER does not exist yet")
    await ensure_stream(stage.nc, log_stream("ledger"))
    await stage.publish(2)
    await stage.settled()
    await ready(consumer)


async def test_nats_killed_in_the_middle(pool: Pool, private_nats: NatsProcess) -> None:
    nc = await connect_nats(private_nats.url)
    stage = Stage(pool, nc)
    await ensure_stream(nc, log_stream("ledger"))
    consumer, task = await stage.consumer(LEDGER, batch_max=10)
    try:
        for _ in range(3):
            await stage.publish(300)
            await asyncio.to_thread(private_nats.kill)
            await said(consumer, "LEDGER")
            await asyncio.to_thread(private_nats.start)
            await until(lambda: nc.is_connected, "the connection")
            await stage.settled()
            await ready(consumer)
    finally:
        await killed(task)
        await nc.close()


async def test_a_stream_that_need_not_exist_is_waited_for_and_no_reason_not_to_be_ready(stage: Stage) -> None:
    await delete_stream(stage.nc, "LEDGER")
    consumer, _ = await stage.consumer(Source("LEDGER", optional=True), FIRST)
    await ready(consumer)
    assert consumer.readiness().detail == "waiting for LEDGER"
    await stage.publish(2, "usage.records.1")
    await stage.settled()
    await ensure_stream(stage.nc, log_stream("ledger"))
    await stage.publish(2)
    await stage.settled()
    await until(lambda: consumer.readiness().detail == "", "it to wait no longer")
    assert consumer.readiness().ready


async def test_once_something_was_read_of_it_an_optional_stream_has_to_be_there(stage: Stage) -> None:
    consumer, task = await stage.consumer(Source("LEDGER", optional=True))
    await stage.publish(2)
    await stage.settled()
    await delete_stream(stage.nc, "LEDGER")
    await said(consumer, "The stream LEDGER does not exist yet")
    await killed(task)
    consumer, _ = await stage.consumer(Source("LEDGER", optional=True))
    await said(consumer, "The stream LEDGER does not exist yet")


async def test_whatever_else_is_wrong_with_an_optional_stream_is_said(stage: Stage) -> None:
    await stage.publish(3)
    consumer, task = await stage.consumer(Source("LEDGER", optional=True))
    await stage.settled()
    await killed(task)
    await delete_stream(stage.nc, "LEDGER")
    await ensure_stream(stage.nc, log_stream("ledger"))
    consumer, _ = await stage.consumer(Source("LEDGER", optional=True))
    await said(consumer, "The stream LEDGER ends at 0")


async def test_what_a_source_has_is_asked_for_and_what_it_has_not_keeps_no_room_from_the_others(stage: Stage) -> None:
    for number in range(5):
        await stage.publish(1, f"usage.records.{number}")
    sources = [Source("USAGE", f"usage.records.{number}") for number in range(5)]
    consumer, _ = await stage.consumer(*sources)
    await stage.settled()
    await ready(consumer)
    asked = [puller.asked() for puller in consumer._by_puller]
    assert [share.messages > 0 for share in asked] == [True] * 5
    assert max(share.bytes for share in asked) <= stage.nc.max_payload + OVERHEAD_BYTES
