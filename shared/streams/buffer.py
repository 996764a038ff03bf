"""Messages read ahead: bounded by number and by bytes, filled by any number of pullers, emptied by one taker."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final, NamedTuple, Protocol

from shared.streams.message import Message

HEADER_BYTES: Final = 64
"""What one header is reckoned at: an estimate is enough to bound memory."""

LEAST_PART: Final = 4
"""A filler has at least this part of its share of messages, even while all is lent: what was asked for may be long in coming."""


class Filler(Protocol):
    """Whoever puts messages in; `wake` tells it that there is room again."""

    def wake(self) -> None: ...

    def asked(self) -> Share:
        """What it has asked for that has not come yet."""
        ...

    def resting(self) -> bool:
        """Whether it has caught up, and needs no more room than it has asked for."""
        ...


class Held(NamedTuple):
    """A message that waits, who put it in, and the bytes that it is reckoned at."""

    filler: Filler
    message: Message
    bytes: int


class Share(NamedTuple):
    """An amount of room."""

    messages: int
    bytes: int


def weight(message: Message) -> int:
    """Bytes that a message is reckoned at."""
    return len(message.data) + len(message.subject) + HEADER_BYTES * len(message.headers)


class _Count:
    """What one filler has waiting."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0


class Buffer:
    """Room is shared out evenly among those that need it: one that rests lends its share to the others. What all have asked for
    and waiting stays in bounds.

    A filler that has nothing here may always ask for one message of the largest size (`bytes_min`, told by the puller), else it
    would never pass; with very many fillers the bound is that many largest messages.
    """

    def __init__(self, messages_max: int = 1000, bytes_max: int = 64 * 1024 * 1024) -> None:
        if messages_max < 1 or bytes_max < 1:
            raise ValueError("a buffer holds at least one message of at least one byte")
        self._max = Share(messages_max, bytes_max)
        self._waiting: deque[Held] = deque()
        self._held: dict[Filler, _Count] = {}
        self._bytes = 0
        self._wanted = 1
        self._enough = asyncio.Event()

    def open(self, filler: Filler) -> None:
        """Give `filler` a share."""
        self._held.setdefault(filler, _Count())

    def close(self, filler: Filler) -> None:
        """Take its share back and forget what it put in."""
        gone = self._held.pop(filler, None)
        if gone is None:
            return
        self._bytes -= gone.bytes
        self._waiting = deque(held for held in self._waiting if held.filler is not filler)
        for other in self._held:
            other.wake()

    def room(self, filler: Filler) -> Share:
        """How much more `filler` may have asked for in all, besides what waits here already. Zero when it has no share."""
        held = self._held.get(filler)
        if held is None:
            return Share(0, 0)
        shares = len(self._held)
        messages, bytes_ = self._max
        for other, count in self._held.items():
            if other is not filler:
                asked, resting = other.asked(), other.resting()
                messages -= max(count.messages + asked.messages, 0 if resting else self._max.messages // shares)
                bytes_ -= max(count.bytes + asked.bytes, 0 if resting else self._max.bytes // shares)
        least = max(1, self._max.messages // (shares * LEAST_PART))
        return Share(max(least, messages) - held.messages, bytes_ - held.bytes)

    def held(self, filler: Filler) -> int:
        """Messages of `filler` that wait here."""
        count = self._held.get(filler)
        return 0 if count is None else count.messages

    def put(self, filler: Filler, message: Message) -> None:
        """Add a message; one of a filler without a share is forgotten. Never waits: the filler asked only for what fits."""
        count = self._held.get(filler)
        if count is None:
            return
        size = weight(message)
        count.messages += 1
        count.bytes += size
        self._bytes += size
        self._waiting.append(Held(filler, message, size))
        if self._there_are(self._wanted):
            self._enough.set()

    async def take(self, messages_max: int, linger_s: float = 0.0) -> list[Held]:
        """1 to `messages_max` messages in the order they came; waits for the first, then up to `linger_s` for the rest, but not
        once half of the room is taken: fillers may wait then."""
        await self._until_there_are(1)
        if linger_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(linger_s):
                    await self._until_there_are(messages_max)
            await self._until_there_are(1)  # a filler that was closed meanwhile has taken its messages away
        taken = [self._waiting.popleft() for _ in range(min(messages_max, len(self._waiting)))]
        for held in taken:
            count = self._held[held.filler]
            count.messages -= 1
            count.bytes -= held.bytes
            self._bytes -= held.bytes
        for filler in {held.filler for held in taken}:
            filler.wake()
        return taken

    async def _until_there_are(self, messages: int) -> None:
        self._wanted = messages
        while not self._there_are(messages):
            self._enough.clear()
            await self._enough.wait()

    def _there_are(self, messages: int) -> bool:
        return len(self._waiting) >= messages or 2 * self._bytes >= self._max.bytes
