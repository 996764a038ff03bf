"""Changes of read tables as data: what a projection returns, so that it stays pure and many of them can be done at once."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import msgspec

if TYPE_CHECKING:
    from shared.postgres import Connection

_PARAMETER: Final = re.compile(r"\$(\d+)")


class Write(str):
    """A statement that reads and writes the rows of `table` and of no other, and takes arrays: one element per change.

    Such statements on different tables have the same effect in any order, so they go to the server as one.
    """

    table: str

    def __new__(cls, table: str, sql: str) -> Self:
        made = super().__new__(cls, sql)
        made.table = table
        return made


class RowWrite(Write):
    """A Write whose effect on rows can be told without a database: a rebuild has it in memory (`shared.eventlog.folding`).

    Its arguments are the values of `columns`; the first `keys` of them say which rows.
    """

    columns: tuple[str, ...]
    keys: int

    @classmethod
    def of(cls, table: str, sql: str, columns: Iterable[str], keys: int) -> Self:
        made = cls.__new__(cls, table, sql)
        made.columns, made.keys = tuple(columns), keys
        return made


class Insert(RowWrite):
    """New rows."""


class Update(RowWrite):
    """Other values in the rows whose keys are these."""


class Delete(RowWrite):
    """The rows whose keys are these are no more."""


def insert(table: str, columns: Mapping[str, str]) -> Insert:
    """New rows of `columns` (names to PostgreSQL types): all columns of the table that an `update` sets, too."""
    return Insert.of(table, f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {_unnest(columns)}", columns, 0)  # noqa: S608 - constants


def update(table: str, where: Mapping[str, str], to: Mapping[str, str]) -> Update:
    """New values for the columns `to`, in the rows where the columns `where` are equal."""
    columns = {**where, **to}
    values = ", ".join(f"{column} = n.{column}" for column in to)
    source = f"{_unnest(columns)} AS n({', '.join(columns)})"
    sql = f"UPDATE {table} SET {values} FROM {source} WHERE {_equal(table, where)}"  # noqa: S608 - constants
    return Update.of(table, sql, columns, len(where))


def delete(table: str, where: Mapping[str, str]) -> Delete:
    """Remove the rows where the columns `where` are equal."""
    source = f"{_unnest(where)} AS n({', '.join(where)})"
    return Delete.of(table, f"DELETE FROM {table} USING {source} WHERE {_equal(table, where)}", where, len(where))  # noqa: S608 - constants


class Idempotent(Write):
    """A Write that may as well be done once as several times with the same arguments, and at any time in the transaction."""


def _unnest(columns: Mapping[str, str]) -> str:
    return f"unnest({', '.join(f'${number}::{type_}[]' for number, type_ in enumerate(columns.values(), 1))})"


def _equal(table: str, where: Iterable[str]) -> str:
    return " AND ".join(f"{table}.{column} = n.{column}" for column in where)


class Change(msgspec.Struct, frozen=True, gc=False):
    """One SQL statement with its arguments ($1, $2, ...).

    `about` names the thing whose rows it changes (a Client ID, say). Changes about different things may be done in any order, and
    the statement is written for many at once: it takes arrays, one element per change, never two about the same thing. Without
    `about` the arguments are plain values, and the change keeps its place between all others.

    A statement that is a `Write` (always `about` something) spares round trips; a `RowWrite` is also quick to build again.
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
    for change in changes:
        statement, args, about = change.statement, change.args, change.about
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


class Bound(NamedTuple):
    """A statement and its arguments as the server takes them."""

    statement: str
    args: Sequence[object]


async def apply(connection: Connection, changes: Iterable[Change]) -> None:
    """Do the changes, with the effect that they have in their order."""
    await perform(connection, arrange(changes))


def one_will_do(runs: Iterable[Run], also: Iterable[Bound]) -> bool:
    """Whether `perform` does all of it with one statement."""
    statements = [*(one.statement for one in also), *(run.statement for run in runs)]
    tables = [_table(statement) for statement in statements]
    return all(tables) and len(set(tables)) == len(tables)


async def perform(connection: Connection, runs: Iterable[Run], also: Sequence[Bound] = ()) -> None:
    """Do the runs in their order. `also`: Writes of other tables, to go with the first."""
    together = list(also)
    for statement, rows, as_arrays in runs:
        alone = not isinstance(statement, Write)
        if alone or any(_table(statement) == _table(other.statement) for other in together):
            await execute(connection, together)
            together.clear()
        if as_arrays and alone:
            await connection.execute(statement, *zip(*rows, strict=True))
        elif as_arrays:
            together.append(Bound(statement, tuple(zip(*rows, strict=True))))
        elif len(rows) == 1:
            await connection.execute(statement, *rows[0])
        else:
            await connection.executemany(statement, rows)
    await execute(connection, together)


async def execute(connection: Connection, together: Sequence[Bound]) -> None:
    """Do all of these at once: Writes of different tables."""
    if together:
        statement = _joined(tuple(one.statement for one in together))
        await connection.execute(statement, *(arg for one in together for arg in one.args))


def _table(statement: str) -> str:
    return statement.table if isinstance(statement, Write) else ""


def renumbered(statement: str, by: int) -> str:
    """The statement with its parameters numbered on."""
    return _PARAMETER.sub(lambda found: f"${int(found[1]) + by}", statement)


@lru_cache(maxsize=1_000)
def _joined(statements: tuple[str, ...]) -> str:
    """One statement that does all of them, its parameters numbered on. PostgreSQL does the first one first, and so takes the lock
    of the log's head before those of other rows, like everybody does: the others are mere additions (WITH) to it."""
    numbered, taken = [], 0
    for statement in statements:
        numbered.append(renumbered(statement, taken))
        taken += max(int(number) for number in _PARAMETER.findall(statement))
    first, *others = numbered
    if not others:
        return first
    return f"WITH {', '.join(f'w{number} AS ({statement})' for number, statement in enumerate(others))} {first}"
