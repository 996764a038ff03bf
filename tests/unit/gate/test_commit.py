"""That one commit always fits into one NATS message, and who is answered when."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

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


async def test_callers_who_ask_again_at_once_come_to_be_two_groups_of_equal_size() -> None:
    committer = ToldCommitter()

    def ask_again(recorded: bool) -> None:
        if recorded and len(committer.told) < 5:
            committer.record(LONGEST, ask_again)

    for _ in range(64):
        committer.record(LONGEST, ask_again)
    running = asyncio.create_task(committer.run())
    await committer.has_told(1)
    for commits in range(2, 6):
        committer.acknowledged.release()
        await committer.has_told(commits)
    assert committer.told == [f"commit {seq} of 32" for seq in range(1, 6)]
    for _ in range(2):
        committer.acknowledged.release()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_of_many_calls_at_once_half_go_first_and_of_few_all() -> None:
    committer = ToldCommitter()
    for number in range(64):
        committer.call(str(number))
    running = asyncio.create_task(committer.run())
    for _ in range(4):
        committer.acknowledged.release()
    await committer.has_told(64 + 2)
    assert [one for one in committer.told if one.startswith("commit")] == ["commit 1 of 32", "commit 2 of 32"]
    committer.told.clear()
    for number in range(16):
        committer.call(str(number))
    await committer.has_told(16 + 1)
    assert committer.told[0] == "commit 3 of 16"
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


class VoidingCommitter(ToldCommitter):
    """Leases named `over` are over when the acknowledgement comes."""

    def __init__(self) -> None:
        super().__init__()
        self._still_good = lambda lease, now_s: lease != "over"
        self.published: list[UsageBatch] = []
        self.failures = 0

    async def _publish(self, batch: UsageBatch) -> None:
        self.published.append(batch)
        await super()._publish(batch)
        if batch.voided and self.failures:
            self.failures -= 1
            raise TimeoutError

    def call_with(self, lease: str, name: str) -> None:
        self.record(msgspec.structs.replace(LONGEST, lease=lease), self.teller(name))


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_records_whose_lease_is_over_are_taken_back_before_anything_newer(failures: int) -> None:
    committer = VoidingCommitter()
    committer.failures = failures
    running = asyncio.create_task(committer.run())
    for lease, name in (("", "a"), ("over", "b"), ("good", "c"), ("over", "d")):
        committer.call_with(lease, name)
    await committer.has_told(1)
    committer.call_with("", "e")
    for _ in range(3 + failures):
        committer.acknowledged.release()

    async def newer() -> bool:
        return committer.published[-1].seq == 2 or (failures > 0 and len(committer.published) == 2 + failures)

    await until(newer, "the last commit")
    assert committer.told[:6] == ["commit 1 of 4", "a passes", "c passes", "b is refused", "d is refused", "commit 1 of 4"]
    taken_back = committer.published[1 : 2 + failures]
    assert {(batch.seq, batch.retracted, batch.voided) for batch in taken_back} == {(1, True, (1, 3))}
    assert all(batch.records == committer.published[0].records for batch in taken_back)
    if failures:
        assert "e is refused" in committer.told, "nothing newer goes out meanwhile"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert committer.drained.is_set()


def test_the_longest_retraction_fits_its_bound() -> None:
    records = [LONGEST] * 1_000
    batch = UsageBatch(publisher="p" * 64, seq=2**62, records=records, retracted=True, voided=tuple(range(9_000, 10_000)))
    assert len(msgspec.msgpack.encode(batch)) <= len(records) * RECORD_BYTES_MAX + BATCH_BYTES_MAX
