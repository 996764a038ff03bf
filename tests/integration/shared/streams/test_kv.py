"""KV buckets kept like rows, on real servers, watched as any NATS client would."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping

import pytest
from nats.aio.client import Client
from nats.js.errors import BucketNotFoundError, KeyNotFoundError
from nats.js.kv import KeyValue

from shared.clock import SystemClock
from shared.eventlog.changes import Change, apply
from shared.postgres import Connection, Pool
from shared.streams.declare import delete_stream, kv_keys
from shared.streams.kv import KEYS_MAX, KvProjection
from shared.streams.marks import mark_dirty
from tests.support.crashes import Tripwire, TripwireClient, TripwirePool, killed, until
from tests.support.servers import NatsProcess, connect_nats

PUT = "INSERT INTO item (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value"


async def values(connection: Connection, keys: list[str]) -> Mapping[str, bytes | None]:
    rows = await connection.fetch("SELECT key, value FROM item WHERE key = ANY($1)", keys)
    return {row["key"]: row["value"].encode() for row in rows}


async def keys(connection: Connection) -> list[str]:
    return [row["key"] for row in await connection.fetch("SELECT key FROM item")]


class Stage:
    def __init__(self, pool: Pool, nc: Client) -> None:
        self.pool = pool
        self.nc = nc
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, wire: Tripwire | None = None, interval_s: float = 0.02) -> tuple[KvProjection, asyncio.Task[None]]:
        pool = self.pool if wire is None else TripwirePool(self.pool, wire)
        nc = self.nc if wire is None else TripwireClient(self.nc, wire)
        projection = KvProjection(
            "items",
            pool,  # type: ignore[arg-type]
            lambda: nc,  # type: ignore[arg-type,return-value]
            values,
            SystemClock(),
            interval_s,
            all_keys=keys,
        )
        task = asyncio.create_task(projection.run())
        self.tasks.append(task)
        return projection, task

    async def put(self, items: Mapping[str, str]) -> None:
        changes = [change for key, value in items.items() for change in (Change(PUT, (key, value)), mark_dirty("items", key))]
        async with self.pool.acquire() as connection, connection.transaction():
            await apply(connection, changes)

    async def drop(self, key: str) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            await apply(connection, [Change("DELETE FROM item WHERE key = $1", (key,)), mark_dirty("items", key)])

    async def bucket(self) -> dict[str, str]:
        """What a client gets that asks for each key. (nats-py's watch can say that the state is complete before it came.)"""
        try:
            bucket = await self.nc.jetstream().key_value("items")
        except BucketNotFoundError:
            return {}
        found = {}
        for key in sorted(await kv_keys(self.nc, "items")):
            try:
                found[key] = ((await bucket.get(key)).value or b"").decode()
            except KeyNotFoundError:
                continue  # deleted
        return found

    async def settled(self) -> None:
        async def same() -> bool:
            async with self.pool.acquire() as connection:
                rows = {row["key"]: row["value"] for row in await connection.fetch("SELECT key, value FROM item")}
            return await self.bucket() == rows

        await until(same, "the bucket to be like the rows")


@pytest.fixture
async def stage(pool: Pool, nc: Client) -> AsyncIterator[Stage]:
    stage = Stage(pool, nc)
    yield stage
    for task in stage.tasks:
        await killed(task)


async def test_keys_that_change_all_the_time_do_not_hold_up_the_others(pool: Pool, nc: Client) -> None:
    """What is marked again while a batch is written has its turn later; the rest of what was marked is written now."""
    stage = Stage(pool, nc)
    items = {f"acme.{number:04}": str(number) for number in range(KEYS_MAX + 100)}
    await stage.put(items)
    read: list[int] = []

    async def busy_values(connection: Connection, asked: list[str]) -> Mapping[str, bytes | None]:
        read.append(len(asked))
        await stage.put({asked[0]: f"{len(read)} again"})
        return await values(connection, asked)

    projection = KvProjection("items", pool, lambda: nc, busy_values, SystemClock(), all_keys=keys)
    assert await projection.write_dirty() == len(items)
    assert read == [KEYS_MAX, 100]
    assert await projection.write_dirty() == 2, "those that were marked again, and nothing else"
    assert (await stage.bucket()).keys() == items.keys()


async def test_a_watcher_gets_the_state_and_then_each_change(stage: Stage) -> None:
    await stage.put({"acme.a": "1", "acme.b": "2", "other.c": "3"})
    projection, _ = stage.start()
    await stage.settled()
    bucket = await stage.nc.jetstream().key_value("items")
    watcher = await bucket.watch("acme.*")
    state = {entry.key: entry.value for entry in (await shown(watcher), await shown(watcher))}
    assert state == {"acme.a": b"1", "acme.b": b"2"}
    await stage.put({"acme.a": "5"})
    projection.wake()
    entry = await shown(watcher)
    assert (entry.key, entry.value, entry.operation) == ("acme.a", b"5", None)
    await stage.drop("acme.b")
    entry = await shown(watcher)
    assert (entry.key, entry.operation) == ("acme.b", "DEL")
    await watcher.stop()
    assert (await bucket.get("acme.a")).value == b"5"
    with pytest.raises(KeyNotFoundError):
        await bucket.get("acme.b")
    assert projection.readiness().ready
    async with stage.pool.acquire() as connection:
        await until(lambda: clean(connection), "nothing to be marked")


async def shown(watcher: KeyValue.KeyWatcher) -> KeyValue.Entry:
    """The next entry. None ends the state, and may come before it: nats-py asks how much is pending while it is on its way."""
    while True:
        entry: KeyValue.Entry | None = await watcher.updates(timeout=5)
        if entry is not None:
            return entry


async def clean(connection: Connection) -> bool:
    return await connection.fetchval("SELECT count(*) FROM kv_dirty") == 0


async def test_many_changes_of_a_key_become_few_writes(stage: Stage) -> None:
    stage.start(interval_s=0.25)
    await stage.put({"a.b": "start"})
    await stage.settled()
    written: list[bytes] = []

    async def note(msg: object) -> None:
        written.append(getattr(msg, "data"))  # noqa: B009 - nats-py's Msg

    subscription = await stage.nc.subscribe("$KV.items.>", cb=note)
    for n in range(60):
        await stage.put({"a.b": str(n)})
        await asyncio.sleep(0.005)
    await stage.settled()
    assert 1 <= len(written) <= 20
    assert written[-1] == b"59"
    await subscription.unsubscribe()


async def test_more_keys_than_fit_one_batch(stage: Stage) -> None:
    await stage.put({f"a.{n}": str(n) for n in range(1234)})
    stage.start()
    await stage.settled()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("hang", [False, True], ids=["error", "kill"])
@pytest.mark.parametrize("lost", [False, True], ids=["", "lost"])
async def test_a_crash_at_every_await(stage: Stage, after: bool, hang: bool, lost: bool) -> None:
    at = 1
    await stage.put({"kept.x": "kept", "kept.y": "kept too"})
    while True:
        await stage.put({"a.b": str(at), f"a.{at % 3}": str(at)})
        if lost:
            await delete_stream(stage.nc, "KV_items")
        else:
            await stage.drop(f"a.{(at + 1) % 3}")
        wire = Tripwire(at, after=after, hang=hang)
        _, task = stage.start(wire)
        settling = asyncio.create_task(stage.settled())
        tripping = asyncio.create_task(wire.tripped.wait())
        await asyncio.wait({settling, tripping}, return_when=asyncio.FIRST_COMPLETED)
        if wire.tripped.is_set() and hang:
            await killed(task)
            _, task = stage.start()
        await settling
        tripping.cancel()
        wire.at = 0
        await killed(task)
        if not wire.tripped.is_set():
            break
        at += 1
    assert at > 8, "the wire must have been in the way"


async def test_writers_at_once_never_put_an_older_value_over_a_newer_one(stage: Stage) -> None:
    for _ in range(4):
        stage.start(interval_s=0.001)
    await until(lambda: bucket_there(stage.nc), "the bucket")
    newest: dict[str, int] = {}
    backwards: list[str] = []

    async def check(msg: object) -> None:
        key, value = msg.subject, int(msg.data)  # type: ignore[attr-defined]
        if value < newest.get(key, 0):
            backwards.append(f"{key}: {value} after {newest[key]}")
        newest[key] = value

    js = stage.nc.jetstream()
    await js.subscribe("$KV.items.>", ordered_consumer=True, cb=check)
    for n in range(150):
        await stage.put({f"a.{n % 5}": str(n)})
    await stage.settled()
    assert backwards == []
    await until(lambda: max(newest.values(), default=0) == 149, "the last value to be seen")


async def bucket_there(nc: Client) -> bool:
    try:
        await nc.jetstream().key_value("items")
    except Exception:
        return False
    return True


async def test_a_bucket_that_is_lost_is_filled_again(stage: Stage) -> None:
    await stage.put({"a.1": "1", "a.2": "2"})
    projection, _ = stage.start()
    await stage.settled()
    await delete_stream(stage.nc, "KV_items")
    await stage.settled()
    assert projection.readiness().ready


@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
async def test_a_bucket_from_an_older_copy_is_filled_again(pool: Pool, private_nats: NatsProcess, running: bool) -> None:
    """What was changed since the copy is written again, and what was deleted since is deleted again, with nothing marked."""
    nc = await connect_nats(private_nats.url)
    stage = Stage(pool, nc)
    try:
        await stage.put({"a.changed": "1", "a.deleted": "1", "a.same": "1"})
        task = stage.start()[1]
        await stage.settled()
        await asyncio.to_thread(private_nats.stop)
        shutil.copytree(private_nats.store, older := private_nats.store.with_name("older"))
        await asyncio.to_thread(private_nats.start)
        await stage.put({"a.changed": "2", "a.new": "1"})
        await stage.drop("a.deleted")
        await stage.settled()
        async with pool.acquire() as connection:
            await until(lambda: clean(connection), "nothing to be marked")
        if not running:
            await killed(task)
        await asyncio.to_thread(private_nats.stop)
        shutil.rmtree(private_nats.store)
        shutil.copytree(older, private_nats.store)
        await asyncio.to_thread(private_nats.start)
        if not running:
            task = stage.start()[1]
        await stage.settled()
        await killed(task)
    finally:
        await nc.close()


async def test_every_key_of_a_bucket_is_listed(stage: Stage) -> None:
    await stage.put({"a.kept": "1", "a.dropped": "1"})
    stage.start()
    await stage.settled()
    await stage.drop("a.dropped")
    await stage.settled()
    assert await kv_keys(stage.nc, "items") == {"a.kept", "a.dropped"}
