"""Changes folded in memory come to the rows that a database would have; the others reach it in their order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from shared.eventlog.changes import Bound, Change, Idempotent, Write, delete, execute, insert, update
from shared.eventlog.folding import Folding
from shared.postgres import Connection

KEY = {"bowl": "text"}
NEW = insert("bowl", {**KEY, "colour": "text", "pebbles": "int"})
PAINT = update("bowl", KEY, {"colour": "text"})
PUT = update("bowl", {"bowl": "text", "colour": "text"}, {"pebbles": "int"})
BREAK = delete("bowl", KEY)
DOUBLE = Write("bowl", "UPDATE bowl SET pebbles = pebbles * 2 WHERE bowl = ANY($1::text[])")
TELL = Idempotent("told", "INSERT INTO told SELECT unnest($1::text[]) ON CONFLICT DO NOTHING")


class Server:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.copied: list[tuple[str, tuple[str, ...], list[tuple[object, ...]]]] = []
        self.executed: list[tuple[str, tuple[object, ...]]] = []

    async def copy_records_to_table(self, table: str, *, records: Iterable[Any], columns: tuple[str, ...]) -> None:
        self.copied.append((table, columns, [tuple(record) for record in records]))

    async def execute(self, statement: str, *args: object) -> None:
        self.executed.append((statement, args))


async def written(folding: Folding) -> Server:
    server = Server()
    await folding.write(cast("Connection", server))
    return server


def change(statement: str, *args: object) -> Change:
    return Change(statement, args, str(args[0]))


async def test_only_the_rows_of_the_end_are_written() -> None:
    folding = Folding()
    folding.add([change(NEW, "a", "blue", 1), change(NEW, "b", "blue", 2), change(TELL, "a"), change(NEW, "c", "blue", 3)])
    folding.add([change(PAINT, "a", "red"), change(PUT, "a", "blue", 9), change(PUT, "b", "blue", 7), change(TELL, "a")])
    folding.add([change(BREAK, "c"), change(PAINT, "c", "red"), change(PAINT, "never", "red")])
    server = await written(folding)
    assert server.copied == [("bowl", ("bowl", "colour", "pebbles"), [("a", "red", 1), ("b", "blue", 7)])]
    assert server.executed == [(TELL, (("a",),))]
    assert folding.held == 0


async def test_rows_are_found_by_all_of_their_keys_and_in_any_order_of_columns() -> None:
    coloured = {"colour": "text", "bowl": "text"}
    put, take = update("bowl", coloured, {"pebbles": "int"}), delete("bowl", coloured)
    folding = Folding()
    folding.add([Change(put, ("blue", "a", 7), "a")])  # of no row yet
    folding.add([Change(NEW, ("a", colour, 1), "a") for colour in ("blue", "red", "green", "red")])
    folding.add([Change(put, ("red", "a", 5), "a"), Change(take, ("green", "a"), "a"), Change(take, ("blue", "b"), "a")])
    server = await written(folding)
    assert server.copied == [("bowl", ("bowl", "colour", "pebbles"), [("a", "blue", 1), ("a", "red", 5), ("a", "red", 5)])]


async def test_what_only_the_server_can_do_keeps_its_place_and_so_does_what_follows_about_the_same() -> None:
    folding = Folding()
    folding.add([change(NEW, "a", "blue", 1), change(NEW, "b", "blue", 2), change(DOUBLE, "a"), change(PUT, "a", "blue", 5)])
    folding.add([change(PUT, "b", "blue", 6)])
    server = await written(folding)
    assert server.copied[0][2] == [("a", "blue", 1), ("b", "blue", 6)]
    assert server.executed == [(DOUBLE, (("a",),)), (PUT, (("a",), ("blue",), (5,)))]


async def test_after_a_change_about_nothing_all_keep_their_place() -> None:
    folding = Folding()
    folding.add([change(NEW, "a", "blue", 1), Change("CLEAR", ()), change(NEW, "b", "blue", 2)])
    server = await written(folding)
    assert server.copied[0][2] == [("a", "blue", 1)]
    assert server.executed == [("CLEAR", ()), (NEW, (("b",), ("blue",), (2,)))]


async def test_rows_that_were_written_are_changed_where_they_are() -> None:
    folding = Folding()
    folding.add([change(NEW, "a", "blue", 1)])
    await written(folding)
    folding.add([change(PAINT, "a", "red"), change(NEW, "b", "blue", 2)])
    server = await written(folding)
    assert server.copied[0][2] == [("b", "blue", 2)]
    assert server.executed == [(PAINT, (("a",), ("red",)))]


async def test_writes_of_different_tables_go_as_one_statement_with_parameters_numbered_on() -> None:
    server = Server()
    first, second = Write("a", "UPDATE a SET n = $1, m = $2"), Write("b", "DELETE FROM b WHERE k = $1")
    await execute(cast("Connection", server), [Bound(first, (1, 2)), Bound(second, (3,))])
    assert server.executed == [("WITH w0 AS (DELETE FROM b WHERE k = $3) UPDATE a SET n = $1, m = $2", (1, 2, 3))]
