"""What the person at the terminal sees: the stack's own lines, and every process's lines under its name."""

from __future__ import annotations

import sys
from typing import Final, TextIO

COLOURS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
NAME_WIDTH: Final = 9


class Screen:
    """Lines with a name in front, in colour on a terminal."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._coloured = self._out.isatty()
        self._colour_of: dict[str, int] = {}
        self._open = True

    def line(self, name: str, text: str) -> None:
        """One line of the process `name`."""
        label = f"{name:<{NAME_WIDTH}}"
        if self._coloured:
            colour = self._colour_of.setdefault(name, COLOURS[len(self._colour_of) % len(COLOURS)])
            label = f"\x1b[{colour}m{label}\x1b[0m"
        self._write(f"{label} | {text}\n")

    def say(self, text: str) -> None:
        """One line of the stack itself."""
        self.line("tollbook", text)

    def plain(self, text: str) -> None:
        """Text as it is, to be copied from."""
        self._write(f"{text}\n")

    def _write(self, text: str) -> None:
        if not self._open:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except (BrokenPipeError, ValueError):
            self._open = False  # nobody reads any more; the stack runs on
        except UnicodeEncodeError:
            self._out.write(text.encode("ascii", "backslashreplace").decode("ascii"))
