"""Events of alerts can be read for ever."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shared.events.alerts import CODEC, KINDS, About
from tests.support.golden import GOLDEN, check_golden, check_none_is_missing, golden_events

FILES = golden_events("alerts")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_event_is_read_and_written_the_same(path: Path) -> None:
    check_golden(CODEC, path)


def test_there_is_one_of_every_version_of_every_event() -> None:
    check_none_is_missing(CODEC, FILES)


def test_everything_that_a_request_can_be_about_is_read_and_written_the_same() -> None:
    lines = (GOLDEN / "alerts" / "about.json").read_bytes().splitlines()
    read = [msgspec.json.decode(line, type=About) for line in lines]
    assert [msgspec.json.encode(one) for one in read] == lines
    assert {one.__struct_config__.tag for one in read} == set(KINDS)
