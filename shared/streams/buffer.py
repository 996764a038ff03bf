"""Messages read ahead: bounded by number and by bytes, filled by any number of pullers, emptied by one taker."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, NamedTuple, Protocol

from shared.streams.message import Message

HEADER_BYTES: Final = 64
"""What one header is reckoned at: an estimate is enough to bound memory."""


class Filler(Protocol):
    """Whoever puts messages in; `wake` tells it that there is room again."""

    def wake(self) -> None: ...


class Held(NamedTuple):
    """A message that waits, and who put it in."""

    filler: Filler
    message: Message


class Share(NamedTuple):
    """An amount of room."""

    messages: int
    bytes: int


def weight(message: Message) -> int:
    """Bytes that a message is reckoned at."""
    return len(message.data) + len(message.subject) + HEADER_BYTES * len(message.headers)


class Buffer:
    """Room is shared out evenly: each filler never has more asked for and waiting than its share, so the whole stays in bounds.

    A share of bytes is never less than one message of the largest size needs (`bytes_min`, told by the puller), else it would
    never pass; with very many fillers the bound is that many largest messages.
    """

    def __init__(self, messages_max: int = 1000, bytes_max: int = 64 * 1024 * 1024) -> None:
        if messages_max < 1 or bytes_max < 1:
            raise ValueError("a buffer holds at least one message of at least one byte")
        self._max = Share(messages_max, bytes_max)
        self._waiting: deque[Held] = deque()
        self._held: dict[Filler, Share] = {}
        self._filled = asyncio.Event()

    def open(self, filler: Filler) -> None:
        """Give `filler` a share."""
        self._held.setdefault(filler, Share(0, 0))

    def close(self, filler: Filler) -> None:
        """Take its share back and forget what it put in."""
        if self._held.pop(filler, None) is None:
            return
        self._waiting = deque(held for held in self._waiting if held.filler is not filler)
        if not self._waiting:
            self._filled.clear()
        for other in self._held:
            other.wake()

    def room(self, filler: Filler) -> Share:
        """How much more `filler` may have asked for in all, besides what waits here already. Zero when it has no share."""
        held = self._held.get(filler)
        if held is None:
            return Share(0, 0)
        shares = len(self._held)
        return Share(max(1, self._max.messages // shares) - held.messages, self._max.bytes // shares - held.bytes)

    def held(self, filler: Filler) -> int:
        """Messages of `filler` that wait here."""
        return self._held.get(filler, Share(0, 0)).messages

    def put(self, filler: Filler, message: Message) -> None:
        """Add a message; one of a filler without a share is forgotten. Never waits: the filler asked only for what fits."""
        held = self._held.get(filler)
        if held is None:
            return
        self._held[filler] = Share(held.messages + 1, held.bytes + weight(message))
        self._waiting.append(Held(filler, message))
        self._filled.set()

    async def take(self, messages_max: int, linger_s: float = 0.0) -> list[Held]:
        """1 to `messages_max` messages in the order they came; waits for the first, then up to `linger_s` for more."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        if linger_s > 0 and len(self._waiting) < messages_max:
            await asyncio.sleep(linger_s)
        taken = [self._waiting.popleft() for _ in range(min(messages_max, len(self._waiting)))]
        for held in taken:
            left = self._held[held.filler]
            self._held[held.filler] = Share(left.messages - 1, left.bytes - weight(held.message))
        for filler in {held.filler for held in taken}:
            filler.wake()
        return taken or await self.take(messages_max, linger_s)
