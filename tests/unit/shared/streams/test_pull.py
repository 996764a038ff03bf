"""What a puller tells the buffer that it shares with others."""

from __future__ import annotations

from datetime import UTC, datetime

from nats.aio.client import Client

from shared.streams.buffer import Buffer
from shared.streams.message import Message
from shared.streams.pull import Puller


def puller(buffer: Buffer) -> Puller:
    one = Puller(Client, "S", subjects=(), after=0, buffer=buffer, name="test")
    buffer.open(one)
    return one


def message(sequence: int, pending: int) -> Message:
    return Message("S", "", sequence, {}, bytes(10), datetime(2026, 1, 1, tzinfo=UTC), pending)


async def test_a_source_lends_its_share_as_soon_as_its_last_message_is_here_not_only_when_it_is_taken() -> None:
    buffer = Buffer(100, 1000)
    one, two = puller(buffer), puller(buffer)
    one.received(message(1, pending=1))
    assert not one.resting()
    assert buffer.room(two) == (50, 500)
    one.received(message(2, pending=0))
    assert one.resting()
    assert buffer.room(two) == (98, 980), "what it holds is in nobody else's"
    assert one.lag() == 2
