"""Every event in every schema version that was ever written, byte for byte, can be read for ever.

`tests/golden/<folder>/<Event>.v<n>.json` is what release n wrote. When an event gets schema n + 1: keep its file, add one of the
new version, and for each older one `<Event>.v<n>.lifted.json`, what the upcasters make of it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from shared.events.codec import Codec

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_events(folder: str) -> list[Path]:
    """The files of events as they were written."""
    return sorted(path for path in (GOLDEN / folder).glob("*.v*.json") if not path.name.endswith(".lifted.json"))


def check_golden(codec: Codec[Any], path: Path) -> None:
    """What was written is read, and written again as today's release writes it."""
    named = re.fullmatch(r"(\w+)\.v(\d+)\.json", path.name)
    assert named is not None
    type_, schema = named[1], int(named[2])
    written = path.read_bytes().removesuffix(b"\n")
    event = codec.decode(type_, schema, written)
    today = written if schema == event.schema else path.with_suffix(".lifted.json").read_bytes().removesuffix(b"\n")
    assert codec.encode(event) == today


def check_none_is_missing(codec: Codec[Any], paths: list[Path]) -> None:
    """There is one of every version of every event."""
    needed = {f"{name}.v{schema}.json" for name, cls in codec.classes.items() for schema in range(1, cls.schema + 1)}
    assert {path.name for path in paths} == needed
