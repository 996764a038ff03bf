"""The buffer's bounds and shares."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from shared.streams.buffer import Buffer, Share
from shared.streams.message import Message


class Filler:
    woken = 0
    share = Share(0, 0)
    rests = False

    def wake(self) -> None:
        self.woken += 1

    def asked(self) -> Share:
        return self.share

    def resting(self) -> bool:
        return self.rests


def message(sequence: int, size: int = 10) -> Message:
    return Message("S", "", sequence, {}, bytes(size), datetime(2026, 1, 1, tzinfo=UTC))


async def test_order_and_taking() -> None:
    buffer, one = Buffer(10, 1000), Filler()
    buffer.open(one)
    for n in range(5):
        buffer.put(one, message(n))
    assert [held.message.sequence for held in await buffer.take(3)] == [0, 1, 2]
    assert one.woken == 1
    assert [held.message.sequence for held in await buffer.take(3)] == [3, 4]
    assert buffer.held(one) == 0


async def test_room_is_shared_evenly() -> None:
    buffer, one, two = Buffer(10, 1000), Filler(), Filler()
    buffer.open(one)
    assert buffer.room(one) == (10, 1000)
    buffer.open(two)
    assert buffer.room(one) == (5, 500)
    buffer.put(one, message(1, 100))
    assert buffer.room(one) == (4, 400)
    assert buffer.room(two) == (5, 500)
    buffer.close(two)
    assert buffer.room(one) == (9, 900)
    assert one.woken == 1
    assert buffer.room(two) == (0, 0)


async def test_who_rests_lends_its_room_and_gets_it_back_when_the_others_have_used_up_theirs() -> None:
    buffer, one, two = Buffer(10, 1000), Filler(), Filler()
    buffer.open(one)
    buffer.open(two)
    two.rests, two.share = True, Share(1, 100)
    assert buffer.room(one) == (9, 900)
    one.share = Share(8, 800)
    two.rests = False
    assert buffer.room(two) == (2, 200), "never more than there is"
    one.share = Share(1, 100)
    assert buffer.room(two) == (5, 500)
    assert buffer.room(one) == (5, 500)


async def test_closing_forgets_what_waits_and_what_still_comes() -> None:
    buffer, one, two = Buffer(10, 1000), Filler(), Filler()
    buffer.open(one)
    buffer.open(two)
    buffer.put(one, message(1))
    buffer.put(two, message(2))
    buffer.close(one)
    buffer.put(one, message(3))
    assert [held.message.sequence for held in await buffer.take(9)] == [2]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await buffer.take(1)


async def test_taking_waits_for_the_first_and_lingers_for_more() -> None:
    buffer, one = Buffer(10, 1000), Filler()
    buffer.open(one)
    taking = asyncio.create_task(buffer.take(2, linger_s=5))
    await asyncio.sleep(0)
    assert not taking.done()
    buffer.put(one, message(1))
    await asyncio.sleep(0)
    buffer.put(one, message(2))
    assert len(await asyncio.wait_for(taking, 3)) == 2, "a full batch need not linger"
    buffer.put(one, message(3))
    assert len(await buffer.take(2, linger_s=0.01)) == 1


async def test_half_of_the_room_is_enough_to_end_lingering() -> None:
    buffer, one = Buffer(10, 1000), Filler()
    buffer.open(one)
    taking = asyncio.create_task(buffer.take(9, linger_s=30))
    await asyncio.sleep(0)
    buffer.put(one, message(1, size=400))
    await asyncio.sleep(0)
    assert not taking.done()
    buffer.put(one, message(2, size=400))
    assert len(await asyncio.wait_for(taking, 3)) == 2
    buffer.put(one, message(3))
    assert len(await buffer.take(2, linger_s=0.01)) == 1, "what was taken takes no room"


def test_a_buffer_has_room() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Buffer(0, 10)
