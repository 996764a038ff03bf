"""The events of review can be read for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.events.review import CODEC
from tests.support.golden import check_golden, check_none_is_missing, golden_events

FILES = golden_events("review")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_event_is_read_and_written_the_same(path: Path) -> None:
    check_golden(CODEC, path)


def test_there_is_one_of_every_version_of_every_event() -> None:
    check_none_is_missing(CODEC, FILES)
