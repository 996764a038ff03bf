"""Cursors come back as they were given out, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.cursor import Cursors
from shared.errors import InvalidInput

KEY = b"k" * 32
CURSORS = Cursors(KEY, "things")
PAIRS = Cursors(KEY, "pairs", parts=2)
NUMBERS = st.integers(0, 2**63 - 1)


@given(NUMBERS, NUMBERS)
def test_a_cursor_is_read_as_it_was_written(first: int, second: int) -> None:
    assert CURSORS.read("acme", CURSORS.write("acme", first)) == (first,)
    assert PAIRS.read("acme", PAIRS.write("acme", first, second)) == (first, second)


@given(st.integers(0, 31), st.sampled_from("AB_-=x ü\ud800"))
def test_a_changed_cursor_is_refused(place: int, character: str) -> None:
    cursor = CURSORS.write("acme", 4711)
    assert len(cursor) == 32
    changed = cursor[:place] + character + cursor[place + 1 :]
    if changed != cursor:
        with pytest.raises(InvalidInput):
            CURSORS.read("acme", changed)


@pytest.mark.parametrize(
    "cursor",
    ["", "=", "AAAA", "x" * 200, CURSORS.write("acme", 5) + "=", CURSORS.write("acme", 5) + "A", PAIRS.write("acme", 5, 6)],
)
def test_another_text_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        CURSORS.read("acme", cursor)
    assert refused.value.fields[0].field == "cursor"


@pytest.mark.parametrize(
    ("cursors", "account"), [(CURSORS, "other"), (Cursors(b"j" * 32, "things"), "acme"), (Cursors(KEY, "others"), "acme")]
)
def test_another_accounts_another_keys_or_another_lists_cursor_is_refused(cursors: Cursors, account: str) -> None:
    with pytest.raises(InvalidInput):
        cursors.read(account, CURSORS.write("acme", 5))
