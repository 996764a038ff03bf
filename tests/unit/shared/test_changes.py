"""Changes are arranged into few runs, with the effect that they have in their order."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from shared.eventlog.changes import Bound, Change, Write, arrange, one_will_do

CHANGES = st.lists(st.tuples(st.sampled_from("RIMX"), st.sampled_from(["", "a", "b", "c"])), max_size=40).map(
    lambda pairs: [Change(statement, (number, about), about) for number, (statement, about) in enumerate(pairs)]
)


def test_what_is_about_different_things_goes_together() -> None:
    changes = [Change(statement, (about,), about) for about in "abc" for statement in ("register", "issue", "mark")]
    assert arrange(changes) == [(name, [("a",), ("b",), ("c",)], True) for name in ("register", "issue", "mark")]


def test_the_same_before_and_after_another_is_three_runs_however_many_things() -> None:
    changes = [Change(statement, (number,), str(number)) for number in range(9) for statement in ("mark", "edit", "mark")]
    assert [run.statement for run in arrange(changes)] == ["mark", "edit", "mark"]


def test_two_changes_of_one_thing_never_go_together() -> None:
    changes = [Change("edit", (1,), "a"), Change("edit", (2,), "b"), Change("edit", (3,), "a")]
    assert arrange(changes) == [("edit", [(1,), (2,)], True), ("edit", [(3,)], True)]


def test_a_change_about_nothing_keeps_its_place() -> None:
    changes = [Change("edit", (1,), "a"), Change("open", (2,)), Change("open", (3,)), Change("edit", (4,), "b")]
    assert arrange(changes) == [("edit", [(1,)], True), ("open", [(2,), (3,)], False), ("edit", [(4,)], True)]


@given(CHANGES)
def test_nothing_is_lost_and_order_is_kept_where_it_matters(changes: list[Change]) -> None:
    done = [(place, row) for place, run in enumerate(arrange(changes)) for row in run.rows]
    assert sorted(row for _, row in done) == sorted(change.args for change in changes)
    place_of = {row[0]: (place, index) for index, (place, row) in enumerate(done)}
    order: dict[str, list[tuple[int, int]]] = defaultdict(list)
    barriers = []
    for number, change in enumerate(changes):
        order[change.about].append(place_of[number])
        if not change.about:
            barriers.append((number, place_of[number]))
    for about, places in order.items():
        assert places == sorted(places)
        if about:
            assert len({place for place, _ in places}) == len(places), "an upsert cannot touch a row twice"
    for number, place in barriers:
        assert all((place_of[other] < place) == (other < number) for other in range(len(changes)) if other != number)


def test_one_statement_does_writes_of_different_tables_and_nothing_else() -> None:
    a, b, also_a = Write("a", "edit a"), Write("b", "edit b"), Write("a", "empty a")
    runs = arrange([Change(a, (1,), "x"), Change(b, (1,), "x")])
    assert one_will_do(runs, [Bound(Write("c", "move"), (1,))])
    assert not one_will_do(runs, [Bound(also_a, (1,))])
    assert not one_will_do(arrange([Change(a, (1,), "x"), Change(also_a, (1,), "x")]), [])
    assert not one_will_do(arrange([Change("edit d", (1,), "x")]), [])
