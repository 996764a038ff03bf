"""Changes done in memory: what a rebuild writes is the rows as they are in the end, not all that happened to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from shared.eventlog.changes import Bound, Change, Idempotent, Insert, RowWrite, Update, apply, execute

if TYPE_CHECKING:
    from shared.postgres import Connection

Row: TypeAlias = tuple[Any, ...]


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
            statement, about = change.statement, change.about
            if self._all_for_server or about in self._on_server:
                self._for_server.append(change)
            elif isinstance(statement, RowWrite):
                table = tables.get(statement.table) or tables.setdefault(statement.table, _Table())
                table.change(statement, change.args, about)
            elif isinstance(statement, Idempotent):
                self._once.setdefault(statement, set()).add(change.args)
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
    """The rows of one table, by what they are about, as tuples of `columns`."""

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()
        self.rows: dict[str, list[Row]] = {}
        self._plans: dict[RowWrite, _Plan] = {}

    def change(self, statement: RowWrite, args: tuple[object, ...], about: str) -> None:
        rows = self.rows.get(about)
        if isinstance(statement, Insert):
            self.columns = statement.columns
            if rows is None:
                self.rows[about] = [args]
            else:
                rows.append(args)
        elif rows:
            plan = self._plans.get(statement) or self._plans.setdefault(statement, _Plan(statement, self.columns))
            keys_of, meant = plan.keys_of, plan.meant(args)
            if isinstance(statement, Update):
                for place, row in enumerate(rows):
                    if keys_of(row) == meant:
                        rows[place] = plan.changed(row + args)
            else:
                rows[:] = [row for row in rows if keys_of(row) != meant]


class _Plan:
    """How a statement finds and changes rows of `columns`. All three pick values by their places, as C does it."""

    def __init__(self, statement: RowWrite, columns: Sequence[str]) -> None:
        places = [columns.index(column) for column in statement.columns]
        given = {place: len(columns) + number for number, place in enumerate(places)}
        self.keys_of: Callable[[Row], object] = itemgetter(*places[: statement.keys])
        """The keys of a row, ..."""
        self.meant: Callable[[Row], object] = itemgetter(*range(statement.keys))
        """... to be equal to those among the arguments."""
        self.changed: Callable[[Row], Row] = itemgetter(*(given.get(place, place) for place in range(len(columns))))
        """The row as it is then, from the row and the arguments after it."""
