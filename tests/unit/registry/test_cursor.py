"""Cursors come back as they were given out, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.cursor import read_cursor, write_cursor
from shared.errors import InvalidInput

KEY = b"k" * 32


@given(st.integers(0, 2**63 - 1))
def test_a_cursor_is_read_as_it_was_written(position: int) -> None:
    assert read_cursor(KEY, "acme", write_cursor(KEY, "acme", position)) == position


@given(st.integers(0, 31), st.sampled_from("AB_-=x ü\ud800"))
def test_a_changed_cursor_is_refused(place: int, character: str) -> None:
    cursor = write_cursor(KEY, "acme", 4711)
    assert len(cursor) == 32
    changed = cursor[:place] + character + cursor[place + 1 :]
    if changed != cursor:
        with pytest.raises(InvalidInput):
            read_cursor(KEY, "acme", changed)


@pytest.mark.parametrize(
    "cursor", ["", "=", "AAAA", "x" * 200, write_cursor(KEY, "acme", 5) + "=", write_cursor(KEY, "acme", 5) + "A"]
)
def test_another_text_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_cursor(KEY, "acme", cursor)
    assert refused.value.fields[0].field == "cursor"


def test_another_accounts_or_another_keys_cursor_is_refused() -> None:
    cursor = write_cursor(KEY, "acme", 5)
    for key, account in ((KEY, "other"), (b"j" * 32, "acme")):
        with pytest.raises(InvalidInput):
            read_cursor(key, account, cursor)
