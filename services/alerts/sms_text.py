"""Text messages of exactly one segment, whatever provider carries them. Pure.

Every text holds both budgets, so that it costs one message and arrives in one piece either way:

- Korean carriers (SENS): at most 90 bytes of CP949, the EUC-KR of phones: 1 for ASCII, 2 for everything else. Nothing is in it
  that CP949 has no code for.
- Others (Twilio): at most 160 septets of GSM 03.38, if the text has only characters of that alphabet, of which those of the
  extension count 2; else at most 70 UTF-16 units. CP949 has nothing outside the BMP, so a unit is a character.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from services.alerts.plain import plain

KOREAN_BYTES_MAX: Final = 90
GSM_SEPTETS_MAX: Final = 160
UCS2_UNITS_MAX: Final = 70
NAME_BYTES_MIN: Final = 12
"""What names keep, if they have as much, before figures that can be looked up are left out."""

_GSM_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_EXTENSION: Final = frozenset("\f^{}\\[~]|€")
_CUT: Final = ".."
"""Not "…", which GSM 03.38 has not: it would make 70 of 160."""


def korean_bytes(text: str) -> int | None:
    """How long it is in CP949; None: it has a character that CP949 has not."""
    try:
        return len(text.encode("cp949"))
    except UnicodeEncodeError:
        return None


def gsm_septets(text: str) -> int | None:
    """How long it is in GSM 03.38; None: it has a character of another alphabet."""
    if not _GSM_BASIC.issuperset(text.translate(_WITHOUT_EXTENSION)):
        return None
    return len(text) + sum(char in _GSM_EXTENSION for char in text)


_WITHOUT_EXTENSION: Final = {ord(char): None for char in _GSM_EXTENSION}


def one_segment(text: str) -> bool:
    """It holds both budgets, see above."""
    length = korean_bytes(text)
    if length is None or length > KOREAN_BYTES_MAX:
        return False
    septets = gsm_septets(text)
    return len(text) <= UCS2_UNITS_MAX if septets is None else septets <= GSM_SEPTETS_MAX


@lru_cache(maxsize=4096)
def carried(text: str) -> str:
    """What of `text` a phone can show: accents that CP949 has not are taken off, emoji and signs that it has not are left out.

    "" if a letter or digit would be lost: half of a Thai name is no name, and the caller has something better (an id).
    """
    shown = ""
    for char in unicodedata.normalize("NFKC", plain(text)):
        bare = char if korean_bytes(char) else unicodedata.normalize("NFD", char)[0]
        if korean_bytes(bare):
            shown += bare
        elif unicodedata.category(bare)[0] in "LN":
            return ""
    return plain(shown)


def fitting(write: Callable[[Sequence[str], bool], str], names: Sequence[str]) -> str | None:
    """The text of `write(names, figures)` with the names shortened, the longest first and alike, until it is one segment.

    `names` are `carried` ones. `figures`: whether those that are only good to know are written too; they go before a name
    becomes shorter than NAME_BYTES_MIN. None: not even without names does it fit.
    """
    longest = max((_bytes(name) for name in names), default=0)
    least = min(longest, NAME_BYTES_MIN)
    for figures, lowest in ((True, least), (False, 0)):

        def written(most: int, figures: bool = figures) -> str:
            return write([_shortened(name, most) for name in names], figures)

        if not one_segment(written(lowest)):
            continue
        fits, too_long = lowest, longest + 1
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if one_segment(written(middle)):
                fits = middle
            else:
                too_long = middle
        return written(fits)
    return None


def _shortened(name: str, most: int) -> str:
    """At most `most` bytes of CP949, the last two of them ".." if something was cut off; "" if there is no room for that."""
    if _bytes(name) <= most:
        return name
    room, kept = most - len(_CUT), ""
    for char in name:
        room -= _bytes(char)
        if room < 0:
            break
        kept += char
    return kept.rstrip() + _CUT if kept.rstrip() else ""


def _bytes(carried_text: str) -> int:
    return len(carried_text.encode("cp949"))
