"""Changes of read tables as data: what a projection returns, so that it stays pure and many of them can be done at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from shared.postgres import Connection


class Change(NamedTuple):
    """One SQL statement with its arguments ($1, $2, ...).

    `about` names the thing whose rows it changes (a Client ID, say). Changes about different things may be done in any order, and
    the statement is written for many at once: it takes arrays, one element per change, never two about the same thing. Without
    `about` the arguments are plain values, and the change keeps its place between all others.
    """

    statement: str
    args: tuple[object, ...] = ()
    about: str = ""


class Run(NamedTuple):
    """Changes that go to the server as one. `together`: as arrays."""

    statement: str
    rows: list[tuple[object, ...]]
    together: bool


def arrange(changes: Iterable[Change]) -> list[Run]:
    """The same effect in few runs: a change joins the first run of its statement that comes after everything that was done to the
    same thing before."""
    runs: list[Run] = []
    places: dict[str, list[int]] = {}
    touched: dict[str, int] = {}
    barrier = -1
    for statement, args, about in changes:
        if not about:
            if barrier < 0 or barrier != len(runs) - 1 or runs[barrier].statement != statement:
                barrier = len(runs)
                runs.append(Run(statement, [], False))
            runs[barrier].rows.append(args)
            continue
        after = max(barrier, touched.get(about, -1))
        own = places.setdefault(statement, [])
        index = bisect_right(own, after)
        if index == len(own):
            own.append(len(runs))
            runs.append(Run(statement, [], True))
        touched[about] = own[index]
        runs[own[index]].rows.append(args)
    return runs


async def apply(connection: Connection, changes: Iterable[Change]) -> None:
    """Do the changes, with the effect that they have in their order."""
    for statement, rows, together in arrange(changes):
        if together:
            await connection.execute(statement, *zip(*rows, strict=True))
        elif len(rows) == 1:
            await connection.execute(statement, *rows[0])
        else:
            await connection.executemany(statement, rows)
