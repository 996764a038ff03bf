"""What others have named, made fit to stand in a message: one line, nothing that steers a mail, a phone or a chat. Pure.

Each surface has its own danger. A header ends at a newline; a terminal and a mail program obey control characters; a direction
override makes a text read otherwise than it is; a chat makes links, pictures and calls to everybody of a name.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Final

_INVISIBLE: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0\u034f")
"""Letters and marks that show nothing: Hangul fillers, an empty Braille cell, the grapheme joiner."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""Of the format characters these two stay: Persian and emoji are spelled with them."""


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """`text` composed (NFC), on one line, without control, format, direction and invisible characters; "" if nothing is left.

    Line ends, tabs and every kind of space become one space. Lone surrogates and noncharacters, which UTF-8 or a mail could not
    carry, go.
    """
    composed = unicodedata.normalize("NFC", text)
    if composed.isprintable() and _INVISIBLE.isdisjoint(composed):  # as nearly every name is
        return " ".join(composed.split())
    kept = (" " if _is_space(char) else char for char in composed if _is_space(char) or _shows(char))
    line = " ".join("".join(kept).split())
    return line if any(char not in _JOINERS for char in line) else ""


def _is_space(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) in {"Zs", "Zl", "Zp"}


def _shows(char: str) -> bool:
    if char in _JOINERS:
        return True
    nonchar = ord(char) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(char) <= 0xFDEF
    return unicodedata.category(char) not in {"Cc", "Cf", "Cs"} and char not in _INVISIBLE and not nonchar


def clipped(text: str, most: int) -> str:
    """At most `most` characters: the rest becomes "…"."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def chat(text: str) -> str:
    """A name for a chat: as code, so that no marks, links or pictures are read in it, and without a way to call people.

    Slack wants `&`, `<` and `>` written so, and calls everybody at `<!channel>`; Mattermost does at `@channel`.
    """
    if not text:
        return ""
    return f"`{chat_line(text).replace('`', chr(0x2BC))}`"


def chat_line(text: str) -> str:
    """A text that is ours for a chat: nothing in it is an entity, a mention or a link of Slack's."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "＠")
