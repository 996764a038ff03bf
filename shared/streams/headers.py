"""Headers of NATS messages, read from their bytes."""

from __future__ import annotations

from typing import Final

NAMES_MAX: Final = 1_000
_SPACE: Final = " \t\r\n\v\f"
_NAMES: dict[str, str] = {}
"""Names as they come, and as they are given out; "" for one that may not be. Few differ; too many are forgotten at once."""


def parse_headers(raw: bytes) -> dict[str, str]:
    """The headers of a block (`NATS/1.0` and maybe a status, then `Name: value` lines), names in lower case; the last of several
    counts.

    As nats-py reads them otherwise: what is no header is passed over, and so are names that are not ASCII or have space inside.
    """
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, separator, value = line.partition(":")
        if separator:
            key = _NAMES.get(name)
            if key is None:
                key = _remember(name)
            if key or not name.strip(_SPACE):
                found[key] = value.strip(_SPACE)
    return found


def parse_status(raw: bytes) -> tuple[str, str]:
    """Status and description of a block that has them in its first line: `NATS/1.0 404 No Messages`; else two empty texts."""
    _, _, line = raw.partition(b"\r\n")[0].decode("ascii", "replace").partition(" ")
    status, _, description = line.partition(" ")
    return status, description.strip()


def _remember(name: str) -> str:
    if len(_NAMES) >= NAMES_MAX:
        _NAMES.clear()
    stripped = name.strip(_SPACE)
    allowed = stripped.isascii() and not any(character.isspace() for character in stripped)
    key = _NAMES[name] = stripped.lower() if allowed else ""
    return key
