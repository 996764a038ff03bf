"""What a decision needs to know besides its stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from shared.postgres import Connection

Facts = TypeVar("Facts")
Row = TypeVar("Row")


async def no_facts(_: Connection) -> None:
    """For commands that are decided on their stream alone."""


@dataclass(frozen=True)
class FactsOf(Generic[Row, Facts]):
    """Facts by `key`, read for all the commands of a transaction in one query where that can be.

    `read` gives what the tables say of the keys; `make` makes facts of one such row (None: nothing) when the command is decided.
    Commands whose `read` is equal are read together.
    """

    read: Callable[[Connection, Sequence[str]], Awaitable[Mapping[str, Row]]]
    key: str
    make: Callable[[Row | None], Facts]

    async def __call__(self, connection: Connection) -> Facts:
        """The facts of this one command."""
        return self.make((await self.read(connection, [self.key])).get(self.key))
