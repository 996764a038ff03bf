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
Fold: TypeAlias = Callable[[str, Row], None]
"""Takes what a change is about, and its arguments."""


class Folding:
    """Changes of tables that are empty to begin with. `write` has the effect that all of them have in their order.

    Rows live here from their insertion on. What a change cannot do here is kept for the server, and so is, to keep the order,
    everything that follows about the same thing; after a change that is about nothing, everything that follows.
    """

    def __init__(self) -> None:
        self.held = 0
        self._tables: dict[str, _Table] = {}
        self._once: dict[Idempotent, _Once] = {}
        self._folds: dict[str, Fold] = {}
        self._for_server: list[Change] = []
        self._on_server: set[str] = set()
        self._all_for_server = False

    def add(self, changes: Sequence[Change]) -> None:
        """Take more changes."""
        self.held += len(changes)
        for change in changes:
            about = change.about
            if self._all_for_server or about in self._on_server:
                self._for_server.append(change)
                continue
            statement = change.statement
            fold = self._folds.get(statement) or self._fold_of(statement)
            if fold is not None:
                fold(about, change.args)
            else:
                self._for_server.append(change)
                self._on_server.add(about)
                self._all_for_server = not about

    def _fold_of(self, statement: str) -> Fold | None:
        """What has the effect of such changes here; None: only the server can do them."""
        fold: Fold
        if isinstance(statement, Insert):
            fold = self._tables.setdefault(statement.table, _Table(statement.columns)).insert
        elif isinstance(statement, RowWrite):
            table = self._tables.get(statement.table)
            if table is None:
                return _no_rows  # until there are some: not remembered
            fold = table.updating(statement) if isinstance(statement, Update) else table.deleting(statement)
        elif isinstance(statement, Idempotent):
            fold = self._once.setdefault(statement, _Once()).add
        else:
            return None
        self._folds[statement] = fold
        return fold

    async def write(self, connection: Connection) -> None:
        """Write what is held, and hold it no longer: whatever was written is changed on the server from now on."""
        for name, table in self._tables.items():
            records = chain.from_iterable(table.rows.values())
            await connection.copy_records_to_table(name, records=records, columns=table.columns)
            self._on_server.update(table.rows)
        await apply(connection, self._for_server)
        for statement, several in self._once.items():
            await execute(connection, [Bound(statement, tuple(zip(*several.args, strict=True)))])
        self.held, self._all_for_server = 0, False
        self._tables, self._once, self._folds, self._for_server = {}, {}, {}, []


class _Once:
    """What an Idempotent is to be done with."""

    def __init__(self) -> None:
        self.args: set[Row] = set()

    def add(self, _: str, args: Row) -> None:
        self.args.add(args)


class _Table:
    """The rows of one table, by what they are about, as tuples of `columns`."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = columns
        self.rows: dict[str, list[Row]] = {}

    def insert(self, about: str, args: Row) -> None:
        rows = self.rows.get(about)
        if rows is None:
            self.rows[about] = [args]
        else:
            rows.append(args)

    def updating(self, statement: RowWrite) -> Fold:
        """Gives the rows whose keys are the arguments' their other values."""
        keys_of, meant = self._keys(statement)
        given = {self.columns.index(column): place for place, column in enumerate(statement.columns, len(self.columns))}
        changed: Callable[[Row], Row] = itemgetter(*(given.get(place, place) for place in range(len(self.columns))))

        def update(about: str, args: Row) -> None:
            rows = self.rows.get(about)
            if rows:
                keys = meant(args)
                for place, row in enumerate(rows):
                    if keys_of(row) == keys:
                        rows[place] = changed(row + args)

        return update

    def deleting(self, statement: RowWrite) -> Fold:
        """Removes the rows whose keys are the arguments."""
        keys_of, meant = self._keys(statement)

        def delete(about: str, args: Row) -> None:
            rows = self.rows.get(about)
            if rows:
                keys = meant(args)
                rows[:] = [row for row in rows if keys_of(row) != keys]

        return delete

    def _keys(self, statement: RowWrite) -> tuple[Callable[[Row], object], Callable[[Row], object]]:
        """Pick the keys from a row, and from the arguments."""
        places = [self.columns.index(column) for column in statement.columns[: statement.keys]]
        return itemgetter(*places), itemgetter(*range(statement.keys))


def _no_rows(_about: str, _args: Row) -> None:
    """Changes nothing."""
