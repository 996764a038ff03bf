"""Changes done in memory: what a rebuild writes is the rows as they are in the end, not all that happened to them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from shared.eventlog.changes import Bound, Change, Idempotent, Insert, RowWrite, Update, apply, execute

if TYPE_CHECKING:
    from shared.postgres import Connection

Row: TypeAlias = list[Any]


class Folding:
    """Changes of tables that are empty to begin with. `write` has the effect that all of them have in their order.

    Rows live here from their insertion on. What a change cannot do here is kept for the server, and so is, to keep the order,
    everything that follows about the same thing; after a change that is about nothing, everything that follows.
    """

    def __init__(self) -> None:
        self.held = 0
        self._tables: dict[str, _Table] = {}
        self._once: dict[Idempotent, set[tuple[object, ...]]] = {}
        self._for_server: list[Change] = []
        self._on_server: set[str] = set()
        self._all_for_server = False

    def add(self, changes: Sequence[Change]) -> None:
        """Take more changes."""
        self.held += len(changes)
        tables = self._tables
        for change in changes:
            statement, args, about = change
            if self._all_for_server or about in self._on_server:
                self._for_server.append(change)
            elif isinstance(statement, RowWrite):
                table = tables.get(statement.table) or tables.setdefault(statement.table, _Table())
                table.change(statement, args, about)
            elif isinstance(statement, Idempotent):
                self._once.setdefault(statement, set()).add(args)
            else:
                self._for_server.append(change)
                self._on_server.add(about)
                self._all_for_server = not about

    async def write(self, connection: Connection) -> None:
        """Write what is held, and hold it no longer: whatever was written is changed on the server from now on."""
        for name, table in self._tables.items():
            records = chain.from_iterable(table.rows.values())
            await connection.copy_records_to_table(name, records=records, columns=table.columns)
            self._on_server.update(table.rows)
        await apply(connection, self._for_server)
        for statement, several in self._once.items():
            await execute(connection, [Bound(statement, tuple(zip(*several, strict=True)))])
        self.held, self._all_for_server = 0, False
        self._tables, self._once, self._for_server = {}, {}, []


class _Table:
    """The rows of one table, by what they are about, as lists of `columns`."""

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.rows: dict[str, list[Row]] = {}
        self._places: dict[RowWrite, tuple[int, ...]] = {}

    def change(self, statement: RowWrite, args: tuple[object, ...], about: str) -> None:
        rows = self.rows.get(about)
        if isinstance(statement, Insert):
            self.columns = statement.columns
            if rows is None:
                self.rows[about] = [[*args]]
            else:
                rows.append([*args])
        elif rows:
            places = self._places.get(statement) or self._place(statement)
            meant = places[: statement.keys]
            if isinstance(statement, Update):
                for row in rows:
                    if _agree(row, meant, args):
                        for place, value in zip(places, args, strict=True):
                            row[place] = value
            else:
                rows[:] = [row for row in rows if not _agree(row, meant, args)]

    def _place(self, statement: RowWrite) -> tuple[int, ...]:
        """Where the statement's columns are in a row."""
        places = self._places[statement] = tuple(self.columns.index(column) for column in statement.columns)
        return places


def _agree(row: Row, places: Sequence[int], args: Sequence[object]) -> bool:
    """Whether the row has these arguments at these places."""
    for place, arg in zip(places, args, strict=False):  # noqa: SIM110 - all() takes twice the time of a loop of one round
        if row[place] != arg:
            return False
    return True
