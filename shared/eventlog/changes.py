"""Changes of read tables as data: what a projection returns, so that it stays pure and a replay can batch."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from shared.postgres import Connection


class Change(NamedTuple):
    """One SQL statement with its arguments ($1, $2, ...)."""

    statement: str
    args: tuple[object, ...] = ()


async def apply(connection: Connection, changes: Iterable[Change]) -> None:
    """Run the changes in their order; neighbours with the same statement go to the server as one batch."""
    for statement, group in groupby(changes, key=attrgetter("statement")):
        rows = [change.args for change in group]
        if len(rows) == 1:
            await connection.execute(statement, *rows[0])
        else:
            await connection.executemany(statement, rows)
