"""Atomic batches and declarations on a real JetStream."""

from __future__ import annotations

import asyncio

import pytest
from nats.aio.client import Client

from shared.errors import Unavailable
from shared.streams.declare import ensure_stream, kv_stream, log_stream, stream_state, usage_stream
from shared.streams.jetstream import StreamRefused, api, stored_message
from shared.streams.publish import Outgoing, TooBig, WrongLastSequence, publish_batch, split_batches


def outgoing(count: int, size: int = 3) -> list[Outgoing]:
    return [Outgoing("ledger.events.Thing", f"{n:0{size}}".encode(), {"n": str(n)}) for n in range(count)]


async def last(nc: Client, stream: str = "LEDGER") -> int:
    state = await stream_state(nc, stream)
    assert state is not None
    return state.last


async def test_a_batch_is_stored_whole_and_in_order(nc: Client) -> None:
    await ensure_stream(nc, log_stream("ledger"))
    assert await publish_batch(nc, outgoing(1), expected_last_sequence=0) == 1
    assert await publish_batch(nc, outgoing(1000), expected_last_sequence=1) == 1001
    assert await publish_batch(nc, outgoing(5), expected_last_sequence=None) == 1006
    subject, sequence, headers, data = stored_message(await api(nc, "STREAM.MSG.GET.LEDGER", {"seq": 1001}))
    assert (subject, sequence, headers["n"], data) == ("ledger.events.Thing", 1001, "999", b"999")


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("expected", [0, 2, 4, 99])
async def test_another_last_sequence_is_refused_and_named(nc: Client, count: int, expected: int) -> None:
    await ensure_stream(nc, log_stream("ledger"))
    await publish_batch(nc, outgoing(3), expected_last_sequence=0)
    with pytest.raises(WrongLastSequence) as refused:
        await publish_batch(nc, outgoing(count), expected_last_sequence=expected)
    assert refused.value.actual == 3
    assert await last(nc) == 3


async def test_a_batch_given_up_half_way_stores_nothing_and_disturbs_nobody(nc: Client) -> None:
    await ensure_stream(nc, log_stream("ledger"))
    for index in (1, 2):
        marks = {"Nats-Batch-Id": "left", "Nats-Batch-Sequence": str(index)}
        await nc.publish("ledger.events.Thing", b"", headers=marks)
    assert await publish_batch(nc, outgoing(3), expected_last_sequence=0) == 3
    assert await last(nc) == 3


async def test_of_batches_at_once_just_one_gets_in(nc: Client) -> None:
    await ensure_stream(nc, log_stream("ledger"))
    results = await asyncio.gather(
        *(publish_batch(nc, outgoing(20), expected_last_sequence=0) for _ in range(8)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["WrongLastSequence"] * 7 + ["int"]
    assert await last(nc) == 20


async def test_what_cannot_be_sent_is_said_before_it_is_sent(nc: Client) -> None:
    await ensure_stream(nc, log_stream("ledger"))
    with pytest.raises(ValueError, match="1 to 1000"):
        await publish_batch(nc, outgoing(1001), expected_last_sequence=0)
    with pytest.raises(ValueError, match="not 0"):
        await publish_batch(nc, [], expected_last_sequence=0)
    big = Outgoing("ledger.events.Thing", bytes(2 * 1024 * 1024), {})
    with pytest.raises(TooBig, match="max_payload"):
        await publish_batch(nc, [*outgoing(1), big], expected_last_sequence=0)
    assert await publish_batch(nc, outgoing(2, size=1_040_000), expected_last_sequence=0) == 2
    assert nc.is_connected


async def test_no_stream_and_no_connection_are_unavailable(nc: Client) -> None:
    for count in (1, 3):
        with pytest.raises(Unavailable, match="NoResponders"):
            await publish_batch(nc, outgoing(count), expected_last_sequence=0)
    await nc.close()
    with pytest.raises(Unavailable, match="not connected"):
        await publish_batch(nc, outgoing(1), expected_last_sequence=0)


async def test_splitting_by_count_and_bytes_keeps_order() -> None:
    messages = outgoing(2500)
    assert [len(batch) for batch in split_batches(messages)] == [1000, 1000, 500]
    assert [message for batch in split_batches(messages) for message in batch] == messages
    large = outgoing(9, size=1_000_000)
    assert [len(batch) for batch in split_batches(large)] == [4, 4, 1]
    assert list(split_batches([])) == []


async def test_declaring_makes_updates_and_keeps(nc: Client) -> None:
    made = await ensure_stream(nc, log_stream("ledger"))
    assert (made.first, made.last, made.messages, made.whole, made.may_begin_later) == (0, 0, 0, True, False)
    await publish_batch(nc, outgoing(3), expected_last_sequence=0)
    again = await ensure_stream(nc, log_stream("ledger"))
    assert (again.last, again.created, again.whole) == (3, made.created, True)
    wider = log_stream("ledger")
    wider.subjects = ["ledger.events.>", "ledger.more"]
    updated = await ensure_stream(nc, wider)
    assert (updated.last, updated.created) == (3, made.created)
    assert (await api(nc, "STREAM.INFO.LEDGER"))["config"]["subjects"] == ["ledger.events.>", "ledger.more"]


async def test_declaring_at_once_by_many(nc: Client) -> None:
    states = await asyncio.gather(*(ensure_stream(nc, log_stream("ledger")) for _ in range(10)))
    assert len({state.created for state in states}) == 1


async def test_a_log_stream_cannot_lose_messages(nc: Client) -> None:
    await ensure_stream(nc, log_stream("ledger"))
    await publish_batch(nc, outgoing(3), expected_last_sequence=0)
    for request, body in (("STREAM.PURGE.LEDGER", {}), ("STREAM.MSG.DELETE.LEDGER", {"seq": 2})):
        with pytest.raises(Exception, match="not permitted"):
            await api(nc, request, body)


async def test_a_stream_that_cannot_become_what_is_wanted_is_refused_in_words(nc: Client) -> None:
    await api(nc, "STREAM.CREATE.LEDGER", {"name": "LEDGER", "subjects": ["ledger.events.>"], "storage": "memory"})
    with pytest.raises(StreamRefused, match=r"exists with another configuration .*storage"):
        await ensure_stream(nc, log_stream("ledger"))
    await api(nc, "STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["usage.>"], "storage": "memory"})
    with pytest.raises(StreamRefused, match="overlap"):
        await ensure_stream(nc, usage_stream())


async def test_usage_may_begin_above_every_checkpoint(nc: Client) -> None:
    state = await ensure_stream(nc, usage_stream(1, first_seq=501))
    assert (state.last, state.may_begin_later) == (500, True)
    assert await publish_batch(nc, [Outgoing("usage.records.3", b"x", {})], expected_last_sequence=500) == 501
    assert (await ensure_stream(nc, usage_stream(1))).last == 501


async def test_a_bucket_takes_batches_and_keeps_one_value_a_key(nc: Client) -> None:
    await ensure_stream(nc, kv_stream("things", first_seq=1000))
    first = [Outgoing(f"$KV.things.a.{n}", b"1", {}) for n in range(10)]
    assert await publish_batch(nc, first, expected_last_sequence=999) == 1009
    assert await publish_batch(nc, first, expected_last_sequence=1009) == 1019
    state = await stream_state(nc, "KV_things")
    assert state is not None
    assert state.messages == 10
