"""What a decision needs to know besides its stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from shared.postgres import Connection

Facts = TypeVar("Facts")


async def no_facts(_: Connection) -> None:
    """For commands that are decided on their stream alone."""


@dataclass(frozen=True)
class FactsOf(Generic[Facts]):
    """Facts by `key`, read for all the commands of a group at once, in the statement that reads the log.

    `statement` takes keys ($1::text[]) and gives a row for each of them that there is something of, the key first. It reads
    tables that are made of this service's log and nothing else: they do not change without the log, so they need no lock.
    `make` makes facts of one such row (None: nothing) when the command is decided.
    """

    statement: str
    key: str
    make: Callable[[Sequence[Any] | None], Facts]

    async def __call__(self, connection: Connection) -> Facts:
        """The facts of this one command."""
        row = await connection.fetchrow(self.statement, [self.key])
        return self.make(None if row is None else tuple(row))
