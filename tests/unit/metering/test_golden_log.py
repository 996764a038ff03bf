"""Every event of metering's own log, in every schema version that was ever written, byte for byte, can be read for ever.

As in tests/unit/registry/test_golden.py.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared.events.metering import CODEC

GOLDEN = Path(__file__).parents[2] / "golden" / "metering"
FILES = sorted(path for path in GOLDEN.glob("*.json") if not path.name.endswith(".lifted.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_event_is_read_and_written_the_same(path: Path) -> None:
    named = re.fullmatch(r"(\w+)\.v(\d+)\.json", path.name)
    assert named is not None
    type_, schema = named[1], int(named[2])
    written = path.read_bytes().removesuffix(b"\n")
    event = CODEC.decode(type_, schema, written)
    today = written if schema == event.schema else path.with_suffix(".lifted.json").read_bytes().removesuffix(b"\n")
    assert CODEC.encode(event) == today


def test_there_is_one_of_every_version_of_every_event() -> None:
    needed = {f"{name}.v{schema}.json" for name, cls in CODEC.classes.items() for schema in range(1, cls.schema + 1)}
    assert {path.name for path in FILES} == needed
