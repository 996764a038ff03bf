"""What the load knows to be true: how often each application was called for certain, and how often perhaps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final


@dataclass
class Expected:
    """Of one application and service. `maybe` are calls without an answer: each may be counted, once."""

    calls: int = 0
    units: int = 0
    maybe: int = 0


@dataclass
class Ledger:
    """By (client_id, service). `problems` are answers that nobody should get, whatever dies."""

    usage: dict[tuple[str, str], Expected] = field(default_factory=lambda: defaultdict(Expected))
    problems: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def counted(self, client_id: str, service: str, units: int = 1) -> None:
        """A record that was acknowledged, or a call that passed."""
        expected = self.usage[client_id, service]
        expected.calls += 1
        expected.units += units

    def perhaps(self, client_id: str, service: str) -> None:
        self.usage[client_id, service].maybe += 1

    def problem(self, text: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)


PROBLEMS_MAX: Final = 50
"""Told, at most: the first ones tell most."""
