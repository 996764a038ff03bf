"""KV buckets for dashboards: rows of this service, written to JetStream whenever they have changed, never an older value over
a newer one, however many writers there are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from shared.clock import Clock
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.rounds import Rounds
from shared.streams.declare import ensure_stream, kv_keys, kv_stream
from shared.streams.jetstream import Connected
from shared.streams.marks import mark_dirty as mark_dirty
from shared.streams.publish import Outgoing, WrongLastSequence, publish_batch, split_batches

KEYS_MAX: Final = 250
"""Keys in one batch: few enough that a value is out some milliseconds after it was read."""
PAUSE_FACTOR: Final = 2.0
"""How much longer than it wrote it waits while others need the time more."""
PAUSE_MIN_S: Final = 0.02
ACQUIRE_S: Final = 10.0

ReadValues = Callable[[Connection, list[str]], Awaitable[Mapping[str, bytes | None]]]
"""The present values of keys, from this service's rows, in one statement; None, or no entry: the key is to be deleted."""
AllKeys = Callable[[Connection], Awaitable[list[str]]]
"""Every key that the bucket should hold."""

_MARK_ALL: Final = """
    INSERT INTO kv_dirty (bucket, key) SELECT $1, k FROM unnest($2::text[]) AS k ORDER BY k
    ON CONFLICT (bucket, key) DO UPDATE SET token = nextval('kv_dirty_token')
"""
_DIRTY: Final = "SELECT key, token FROM kv_dirty WHERE bucket = $1 AND key > $2 ORDER BY key LIMIT $3"
# A row that is locked is being marked again just now: it must stay anyway. A mark that comes back with a crash of the server does
# no harm, so nothing waits for the disk.
_CLEAN: Final = """
    WITH unwaited AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    DELETE FROM kv_dirty WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM unwaited, kv_dirty AS d JOIN unnest($2::text[], $3::bigint[]) AS w(key, token) USING (key, token)
        WHERE d.bucket = $1 FOR UPDATE OF d SKIP LOCKED))
"""
_KNOWN: Final = "SELECT incarnation, written FROM kv_bucket WHERE bucket = $1 FOR UPDATE"
_REMEMBER: Final = """
    INSERT INTO kv_bucket (bucket, incarnation, written) VALUES ($1, $2, $3)
    ON CONFLICT (bucket) DO UPDATE SET incarnation = excluded.incarnation, written = excluded.written
"""
_WRITTEN: Final = """
    UPDATE kv_bucket SET written = greatest(written, $3) WHERE bucket = $1 AND incarnation = $2 RETURNING written
"""


class Dirty(NamedTuple):
    """What is to be written: tokens, and values that are as new at least."""

    tokens: dict[str, int]
    values: Mapping[str, bytes | None]


class KvProjection:
    """Keeps the bucket like the rows. One key is written at most once in `interval_s`; several changes become one write.
    While `busy` says so, writing has a third of the time at most: what is shown comes after what it is made of.

    Order: the bucket's last sequence is read first, then keys, then their values, then all of it is published as one batch that
    expects that sequence. So a writer that was overtaken, or a zombie, can only fail and look again.
    """

    def __init__(
        self,
        bucket: str,
        pool: Pool,
        nc: Connected,
        read_values: ReadValues,
        clock: Clock,
        interval_s: float = 0.25,
        *,
        all_keys: AllKeys | None = None,
        replicas: int = 1,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.bucket = bucket
        self._pool = pool
        self._nc = nc
        self._read_values = read_values
        self._clock = clock
        self._interval_s = interval_s
        self._all_keys = all_keys
        self._replicas = replicas
        self._busy = busy
        self._rounds = Rounds(f"bucket {bucket}", self._round, interval_s)
        self._known = ("", -1)
        self._written = 0

    def wake(self) -> None:
        """Something was marked and committed: look now, not at the next poll."""
        self._rounds.wake()

    def readiness(self) -> Readiness:
        """Ready while changes reach the bucket."""
        return self._rounds.readiness()

    async def run(self) -> None:
        """Write until cancelled."""
        await self._rounds.run()

    async def _round(self) -> float | None:
        began = self._clock.monotonic()
        wrote = await self.write_dirty()
        # Not everybody who marks a key wakes this: while there is something to write, it looks again when its turn comes.
        self._rounds.every_s = 0.0 if wrote else self._interval_s
        if not wrote:
            return None
        # From one beginning to the next, so that a write is not waited for twice.
        took_s = self._clock.monotonic() - began
        pause_s = self._interval_s - took_s
        return max(pause_s, took_s * PAUSE_FACTOR) if self._busy() else max(pause_s, PAUSE_MIN_S)

    async def _declare(self) -> int:
        """Have the bucket there, and everything marked if it is not the bucket that was written before; its last sequence."""
        # A bucket that is made again begins above every sequence that the lost one can have had, so that a batch meant for the
        # lost one never fits the new one.
        first_seq = int(self._clock.now().timestamp() * 1000)
        nc, config = self._nc(), kv_stream(self.bucket, self._replicas, first_seq)
        state = await ensure_stream(nc, config)
        # A NATS that was restored from an older copy was started anew: whoever is connected to it is so once more.
        if (state.created, nc.stats["reconnects"]) == self._known and state.last >= self._written:
            return state.last
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection, connection.transaction():
            row = await connection.fetchrow(_KNOWN, self.bucket)
            state = await ensure_stream(nc, config)  # again: what is known to have been written is in it by now
            if row is None or row["incarnation"] != state.created or state.last < row["written"]:
                await self._mark_all(connection)
                await connection.execute(_REMEMBER, self.bucket, state.created, state.last)
        self._known, self._written = (state.created, nc.stats["reconnects"]), state.last
        return state.last

    async def _mark_all(self, connection: Connection) -> None:
        """Have every key written again: those that the bucket should hold, and those that it holds and should not."""
        if self._all_keys is not None:
            held = await kv_keys(self._nc(), self.bucket)
            await connection.execute(_MARK_ALL, self.bucket, sorted(held.union(await self._all_keys(connection))))

    async def write_dirty(self) -> int:
        """Write every key that is marked, in their order, each at most once; how many keys that were.

        Keys that are marked again behind the writer's back have their turn the next time.
        """
        last_sequence = await self._declare()
        wrote, done = 0, ""
        while True:
            dirty = await self._read(done)
            if not dirty.tokens:
                return wrote
            outgoing = [self._outgoing(key, dirty.values.get(key)) for key in dirty.tokens]
            batch = next(split_batches(outgoing, KEYS_MAX))
            try:
                # Where one's own batch has ended is as good as asking where the bucket ends: what is read next is newer.
                last_sequence = await publish_batch(self._nc(), batch, expected_last_sequence=last_sequence)
            except WrongLastSequence:
                last_sequence = await self._declare()
                continue  # another writer was faster: its values may be newer than these
            written = list(dirty.tokens.items())[: len(batch)]
            async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
                # Remembered first: a crash in between leaves the keys marked, never a bucket that is thought to be shorter.
                self._written = await connection.fetchval(_WRITTEN, self.bucket, self._known[0], last_sequence) or self._written
                await connection.execute(_CLEAN, self.bucket, [key for key, _ in written], [token for _, token in written])
            wrote += len(batch)
            done = written[-1][0]
            if len(batch) == len(outgoing) < KEYS_MAX:
                return wrote

    async def _read(self, done: str) -> Dirty:
        """The next keys after `done`, and their values. What changes between the two is marked anew, and stays marked."""
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            tokens = {row["key"]: row["token"] for row in await connection.fetch(_DIRTY, self.bucket, done, KEYS_MAX)}
            values = await self._read_values(connection, list(tokens)) if tokens else {}
        return Dirty(tokens, values)

    def _outgoing(self, key: str, value: bytes | None) -> Outgoing:
        subject = f"$KV.{self.bucket}.{key}"
        return Outgoing(subject, b"", {"KV-Operation": "DEL"}) if value is None else Outgoing(subject, value, {})
