"""Makes a provider's answer fit for an event: short, one line, and free of whatever is somebody's. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

LENGTH_MAX: Final = 200
READ_MAX: Final = 4096
"""Characters of an answer that are looked at: what comes after them is left out."""
GONE: Final = "***"

_WORD = re.compile(r"""[^\s"'<>(),;{}\[\]|]+""")
_PHONE = re.compile(r"\+?\(?\d(?:[\s().\-/]{0,2}\d){6,}")
"""Seven digits or more, however they are set apart. Ids of digits and IP addresses go with them."""
_CODE = re.compile(r"\d{3}[ -]\d{3}|[a-z0-9]*\d[a-z0-9]*", re.IGNORECASE)
_CODE_MIN: Final = 4
_PATH = re.compile(r"[\w-]+(\.[\w-]+)+(:\d+)?[/?]\S*")
_LOOKS_LIKE_AN_ADDRESS = ("@", "%40", "://", "%3a%2f", "www.")
_PART_MIN: Final = 3
"""A part of the addressee's address that is shorter than this is in half of all words."""


def scrub(answer: str, address: str = "", sent: str = "") -> str:
    """`answer` on one line of 200 printable characters, *** where it had the addressee's `address` (mail, phone number or URL), a
    part of that by which one could guess it, or anything that looks like a mail address, a phone number or a URL; and where it
    quotes a word with a digit in it of what was `sent`, for that may be a code."""
    text = _plain(answer[:READ_MAX])
    for part in [*_parts_of(_plain(address)), *_codes_in(_plain(sent[:READ_MAX]))]:
        text = re.sub(part, GONE, text, flags=re.IGNORECASE)
    text = _WORD.sub(lambda word: GONE if _is_address(word[0]) else word[0], text)
    text = _PHONE.sub(GONE, text)
    return text if len(text) <= LENGTH_MAX else text[: LENGTH_MAX - 1] + "…"


def _plain(text: str) -> str:
    """One line of printable characters, full-width forms as plain ones: ＠ is an @, too."""
    narrow = unicodedata.normalize("NFKC", text)
    return " ".join("".join(char if char.isprintable() else " " for char in narrow).split())


def _is_address(word: str) -> bool:
    small = word.lower()
    return any(sign in small for sign in _LOOKS_LIKE_AN_ADDRESS) or _PATH.fullmatch(word) is not None


def _parts_of(address: str) -> list[str]:
    """Patterns of what says who it is, the longest first."""
    if not address:
        return []
    parts = [address]
    if "://" in address:
        parts += re.split(r"[/?#&=:]+", address.partition("://")[2])
    elif "@" in address:
        parts += address.rpartition("@")[::2]
    patterns = [re.escape(part) for part in sorted(parts, key=len, reverse=True) if len(part) >= _PART_MIN]
    digits = re.sub(r"\D", "", address)
    if re.fullmatch(r"\+?[\d\s().-]+", address) and len(digits) >= _PART_MIN:
        # Without its country code it is still the number: the last seven digits of it, or all if there are fewer.
        patterns.append(r"(?:[+(]?\d[\d().\-/ ]{0,11})?" + r"[\s().\-/]{0,2}".join(digits[-7:]))
    return patterns


def _codes_in(sent: str) -> list[str]:
    """Patterns of the words that may be a code: with a digit in them, and four characters or more."""
    words = {word[0] for word in _CODE.finditer(sent) if len(word[0]) >= _CODE_MIN}
    return [re.escape(word) for word in sorted(words, key=len, reverse=True)]
