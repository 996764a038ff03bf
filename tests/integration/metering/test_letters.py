"""Dead letters as operators see and settle them, on real NATS and PostgreSQL."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from shared.commands.deadletters import (
    CountDeadLetters,
    DeadLetterContent,
    DeadLetterCounts,
    DeadLetterPage,
    DeadLetterView,
    DiscardDeadLetter,
    GetDeadLetter,
    ListDeadLetters,
    RetryDeadLetter,
)
from shared.commands.requester import ask
from shared.errors import CommandReused, Conflict, NotFound
from shared.events.usage import UsageRecord
from shared.ids import new_id
from shared.streams.declare import delete_stream
from tests.integration.metering.test_corrections import event, record, void
from tests.support.metering_process import (
    Meter,
    MeteringProcess,
    RegistryFeed,
    dead_letters,
    eventually,
    now_us,
    rows,
    used,
)

A, B, C = "a" * 20, "b" * 20, "c" * 20


async def listed(nc: Client, **fields: Any) -> tuple[DeadLetterView, ...]:
    return (await ask(nc, "metering", ListDeadLetters(account="ops", **fields), DeadLetterPage, 10)).letters


async def letters(nc: Client, count: int, **fields: Any) -> tuple[DeadLetterView, ...]:
    """So many dead letters, as soon as they are listed; the newest first."""

    async def look() -> int:
        return len(await listed(nc, **fields))

    await eventually(look, count)
    return await listed(nc, **fields)


async def shown(nc: Client, letter: int) -> DeadLetterContent:
    return await ask(nc, "metering", GetDeadLetter(account="ops", letter=letter), DeadLetterContent, 10)


async def retry(nc: Client, letter: int, command_id: str = "", note: str = "seen") -> DeadLetterView:
    command = RetryDeadLetter(command_id=command_id or new_id(), account="ops", actor="token:t1", letter=letter, note=note)
    return await ask(nc, "metering", command, DeadLetterView, 10)


async def discard(nc: Client, letter: int, note: str = "a test") -> DeadLetterView:
    command = DiscardDeadLetter(command_id=new_id(), account="ops", actor="token:t1", letter=letter, note=note)
    return await ask(nc, "metering", command, DeadLetterView, 10)


async def sent(nc: Client, letter: int) -> bool:
    return (await shown(nc, letter)).sent_as is not None


async def test_letters_are_listed_counted_and_shown_with_their_bytes(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    bad = UsageRecord(A, "nope", now_us(), 3)
    sequence = await meter.count(UsageRecord(A, "csr", now_us()), bad, UsageRecord(C, "csr", now_us()))
    await meter.send(event("1", "UsageRecorded", {"client_id": A, "service": "csr", "quantity": 0}))
    found = await letters(nc, 3)
    assert [(one.why, one.sender, one.client_id, one.account, one.state) for one in found] == [
        ("invalid_record", "/jobs", A, "acme", "open"),
        ("unknown_application", "gate-1", C, None, "open"),
        ("unknown_service", "gate-1", A, "acme", "open"),
    ]
    one = await shown(nc, found[2].letter)
    assert base64.b64decode(one.data or "") == msgspec.msgpack.encode(bad)
    assert (one.original_sequence, one.record, one.retry_refused) == (sequence, 1, None)
    assert msgspec.json.decode(one.decoded or "")[:2] == [A, "nope"]
    assert one.headers == {"content-type": "application/msgpack"}
    assert [one.why for one in await listed(nc, sender="/jobs")] == ["invalid_record"]
    assert len(await listed(nc, why="unknown_service", state="open")) == 1
    assert await listed(nc, state="retried") == ()
    assert [one.letter for one in await listed(nc, limit=1, before=3)] == [2]
    assert await listed(nc, from_=found[0].recorded_at, to=found[0].recorded_at) == found[:1]
    counts = (await ask(nc, "metering", CountDeadLetters(account="ops"), DeadLetterCounts, 10)).counts
    assert [(one.why, one.open) for one in counts] == [("invalid_record", 1), ("unknown_application", 1), ("unknown_service", 1)]
    with pytest.raises(NotFound):
        await shown(nc, 99)


async def test_a_retry_counts_once_whatever_crashes(
    nc: Client, worker: MeteringProcess, meter: Meter, registry: RegistryFeed, schema: ServiceDsn
) -> None:
    await meter.count(UsageRecord(C, "csr", now_us(), 5))
    await meter.send(record("r1", 7, C))
    batch, single = sorted(one.letter for one in await letters(nc, 2))
    await registry.register(C)
    first = await retry(nc, batch, "c1", "registered now")
    assert (first.state, first.note, first.settled_by) == ("retried", "registered now", "token:t1")
    assert await retry(nc, batch, "c1", "registered now") == first
    with pytest.raises(CommandReused):
        await retry(nc, batch, "c1", "another note")
    with pytest.raises(Conflict, match="retried before"):
        await retry(nc, batch)
    with pytest.raises(Conflict, match="retried before"):
        await discard(nc, batch)
    await retry(nc, single)
    await eventually(lambda: used(nc, C), 12)
    await eventually(lambda: sent(nc, single), True)

    # A crash after it was sent and before that was noted: it is sent again, and counts no more.
    end = (await nc.jetstream().stream_info("USAGE")).state.last_seq
    await rows(schema, "DELETE FROM dead_letter_sent")

    async def sent_again() -> int:
        return (await nc.jetstream().stream_info("USAGE")).state.last_seq - end

    await eventually(sent_again, 2)
    await eventually(lambda: sent(nc, single), True)
    await meter.count(UsageRecord(A, "csr", now_us(), 1))
    await meter.send(record("last", 1, B))
    await eventually(lambda: used(nc, B), 1)
    assert await used(nc, C) == 12
    assert len(await dead_letters(nc)) == 2


async def test_a_retry_is_done_by_the_next_worker_when_this_one_dies(
    nc: Client, worker: MeteringProcess, meter: Meter, registry: RegistryFeed, schema: ServiceDsn
) -> None:
    await meter.send(record("r1", 7, C))
    [letter] = await letters(nc, 1)
    await registry.register(C)
    await retry(nc, letter.letter)
    worker.kill()
    await worker.start()
    await eventually(lambda: used(nc, C), 7)
    await eventually(lambda: sent(nc, letter.letter), True)


async def test_what_is_bad_again_is_a_new_letter_that_names_the_former(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    await meter.count(UsageRecord(C, "csr", now_us(), 5))
    [former] = await letters(nc, 1)
    await retry(nc, former.letter)
    found = await letters(nc, 2)
    assert (found[0].retry_of, found[0].sender, found[0].why) == (former.letter, f"retry-{former.letter}", "unknown_application")
    assert (await discard(nc, found[0].letter, "given up")).state == "discarded"
    assert [(one.state, one.note) for one in await listed(nc)] == [("discarded", "given up"), ("retried", "seen")]


async def test_a_correction_that_overtook_its_record_can_be_retried(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    await meter.send(void("v1", "r1"))
    await meter.send(record("r1", 5))
    await meter.send(record("r2", 1))
    await eventually(lambda: used(nc, A), 6)
    [letter] = await letters(nc, 1)
    await retry(nc, letter.letter)
    await eventually(lambda: used(nc, A), 1)


async def test_what_cannot_be_sent_again_is_refused_and_may_be_discarded(
    nc: Client, worker: MeteringProcess, meter: Meter
) -> None:
    await meter.send(event("1", "UsageRecorded", {})._replace(headers={"X": "y"}))
    [letter] = await letters(nc, 1)
    with pytest.raises(Conflict, match="not a CloudEvent"):
        await retry(nc, letter.letter)
    assert "not a CloudEvent" in ((await shown(nc, letter.letter)).retry_refused or "")
    await discard(nc, letter.letter)
    with pytest.raises(NotFound):
        await discard(nc, 99)


async def test_a_rebuild_lists_and_settles_the_same_and_sends_nothing(
    nc: Client, worker: MeteringProcess, meter: Meter, registry: RegistryFeed, schema: ServiceDsn
) -> None:
    await meter.count(UsageRecord(C, "csr", now_us(), 5), UsageRecord(A, "nope", now_us(), 5))
    second, first = await letters(nc, 2)
    await registry.register(C)
    await retry(nc, first.letter)
    await discard(nc, second.letter)
    await eventually(lambda: used(nc, C), 5)
    await eventually(lambda: sent(nc, first.letter), True)
    before = await listed(nc)
    end = (await nc.jetstream().stream_info("USAGE")).state.last_seq
    assert worker.run("--rebuild").returncode == 0
    assert await letters(nc, 2) == before
    await eventually(lambda: used(nc, C), 5)
    assert (await nc.jetstream().stream_info("USAGE")).state.last_seq == end
    assert len(await rows(schema, "SELECT FROM event WHERE type LIKE 'DeadLetter%'")) == 2


async def test_a_lost_stream_of_dead_letters_is_made_again_above_what_was_listed(
    nc: Client, worker: MeteringProcess, meter: Meter
) -> None:
    await meter.count(UsageRecord(C, "csr", now_us(), 5))
    [first] = await letters(nc, 1)
    await delete_stream(nc, "DEADLETTER")

    async def begins_at() -> int:
        try:
            return (await nc.jetstream().stream_info("DEADLETTER")).config.first_seq or 0
        except Exception:
            return 0

    await eventually(begins_at, first.letter + 1)
    await meter.count(UsageRecord(C, "csr", now_us(), 6))
    assert [one.letter for one in await letters(nc, 2)] == [2, 1]
    lost = await shown(nc, first.letter)
    assert (lost.data, lost.decoded) == (None, None)
    with pytest.raises(Conflict, match="lost"):
        await retry(nc, first.letter)


async def test_open_letters_are_a_gauge(nc: Client, worker: MeteringProcess, meter: Meter) -> None:
    await meter.count(UsageRecord(C, "csr", now_us(), 5), UsageRecord(C, "csr", now_us(), 5))
    await letters(nc, 2)

    async def gauge() -> bool:
        return 'tollbook_metering_dead_letters_open{why="unknown_application"} 2.0' in await worker.metrics()

    await eventually(gauge, True)
