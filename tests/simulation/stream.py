"""USAGE as the simulation has it: what is stored stays, under one sequence for all subjects, with the bytes that were sent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from shared.streams.message import Message
from shared.windows import from_us, to_us
from tests.simulation.world import World

BEGAN_US: Final = to_us(datetime(2026, 3, 31, 14, 59, 40, tzinfo=UTC))
MIDNIGHT_S: Final = 20.0
"""Seconds from there to midnight in Seoul, which is a month's end."""


class Stream:
    """`stored` is called with the subject of each message that is stored."""

    def __init__(self, world: World) -> None:
        self.stored: Callable[[str], None] = lambda subject: None
        self.messages: list[Message] = []
        self._world = world
        self._of: dict[str, tuple[list[int], list[Message]]] = {}

    def store(self, subject: str, data: bytes, headers: Mapping[str, str]) -> int:
        """Store a message; its sequence."""
        recorded_at = from_us(BEGAN_US + int(self._world.now * 1_000_000))
        message = Message("USAGE", subject, len(self.messages) + 1, headers, data, recorded_at)
        self.messages.append(message)
        sequences, messages = self._of.setdefault(subject, ([], []))
        sequences.append(message.sequence)
        messages.append(message)
        self.stored(subject)
        return message.sequence

    def end(self, subject: str) -> int:
        """The sequence of a subject's last message; 0 when there is none."""
        found = self._of.get(subject)
        return found[0][-1] if found else 0

    def after(self, subject: str, sequence: int, most: int) -> Sequence[Message]:
        """The next messages of a subject, at most so many."""
        found = self._of.get(subject)
        if found is None or found[0][-1] <= sequence:
            return ()
        at = bisect_right(found[0], sequence)
        return found[1][at : at + most]
