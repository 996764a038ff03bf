"""That one commit always fits into one NATS message, and who is answered when."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import msgspec

from services.gate.commit import BATCH_BYTES_MAX, HEADERS, RECORD_BYTES_MAX, Committer, Recorded
from services.gate.metrics import Metrics
from shared.clock import SystemClock
from shared.events.usage import QUANTITY_MAX, UsageBatch, UsageRecord
from tests.support.crashes import until

LONGEST = UsageRecord("c" * 20, "s" * 32, 2**63 - 1, QUANTITY_MAX, "i" * 64, "l" * 64)


def test_the_longest_record_fits_its_bound() -> None:
    assert len(msgspec.msgpack.encode(LONGEST)) <= RECORD_BYTES_MAX


def test_an_empty_batch_fits_its_bound() -> None:
    batch = UsageBatch(publisher="p" * 64, seq=2**62, records=[], retracted=True)
    headers = sum(len(name) + len(value) + 4 for name, value in HEADERS.items())
    assert len(msgspec.msgpack.encode(batch)) + headers + 300 <= BATCH_BYTES_MAX


class ToldCommitter(Committer):
    """Its commits are acknowledged when `acknowledged` has one for them; `told` is all that happened, in order."""

    def __init__(self) -> None:
        nc = SimpleNamespace(is_connected=True, max_payload=1_000_000)
        super().__init__(lambda: nc, "gate-1", 4, SystemClock(), Metrics(), timeout_s=2, waiting_max=100)  # type: ignore[arg-type,return-value]
        self.told: list[str] = []
        self.acknowledged = asyncio.Semaphore(0)

    async def _publish(self, batch: UsageBatch) -> None:
        self.told.append(f"commit {batch.seq} of {len(batch.records)}")
        await self.acknowledged.acquire()

    def call(self, name: str) -> None:
        self.record(LONGEST, self.teller(name))

    def teller(self, name: str) -> Recorded:
        return lambda recorded: self.told.append(f"{name} {'passes' if recorded else 'is refused'}")

    async def has_told(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.told) >= count

        await until(enough, f"{count} to be told")


async def test_the_next_commit_is_on_its_way_before_the_last_one_is_answered() -> None:
    committer = ToldCommitter()
    running = asyncio.create_task(committer.run())
    committer.call("a")
    await committer.has_told(1)
    committer.call("b")
    committer.call("c")
    assert committer.waiting == 3
    committer.acknowledged.release()
    await committer.has_told(3)
    assert committer.told == ["commit 1 of 1", "commit 2 of 2", "a passes"]
    assert committer.waiting == 2
    committer.acknowledged.release()
    await committer.has_told(5)
    assert committer.told[3:] == ["b passes", "c passes"], "nothing else waits, so they need not"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_answer_that_fails_keeps_nobody_from_theirs() -> None:
    committer = ToldCommitter()
    running = asyncio.create_task(committer.run())

    def fail(recorded: bool) -> None:
        raise RuntimeError("a mistake in the program")

    committer.record(LONGEST, fail)
    committer.call("a")
    committer.acknowledged.release()
    await committer.has_told(2)
    assert committer.told == ["commit 1 of 2", "a passes"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
