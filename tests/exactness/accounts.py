"""What callers were told, application by application: the other side of what metering counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Told:
    """Units by what became of their calls. `unsure` may be counted: nobody was answered, or the gate that refused them died
    before it could take them back."""

    passed: int = 0
    refused: int = 0
    unsure: int = 0


@dataclass
class Accounts:
    """By Client ID. A gate is told apart by its process: what one has refused is settled when it lets another call pass later,
    for it takes back before it records anything new."""

    told: dict[str, Told] = field(default_factory=dict)
    outcomes: Counter[int] = field(default_factory=Counter)
    _open: dict[int, list[tuple[str, int, float]]] = field(default_factory=dict)

    def of(self, client_id: str) -> Told:
        return self.told.setdefault(client_id, Told())

    def answered(self, client_id: str, quantity: int, status: int, gate: int, began: float, now: float) -> None:
        """A gate has answered."""
        self.outcomes[status] += 1
        told = self.of(client_id)
        if status == 200:
            told.passed += quantity
            self._open[gate] = [one for one in self._open.get(gate, []) if one[2] >= began]
        else:
            told.refused += quantity
            if status == 503:
                self._open.setdefault(gate, []).append((client_id, quantity, now))

    def unanswered(self, client_id: str, quantity: int) -> None:
        self.outcomes[0] += 1
        self.of(client_id).unsure += quantity

    def died(self, gate: int) -> None:
        """That process is no more: what it had refused and perhaps not taken back may be counted."""
        for client_id, quantity, _ in self._open.pop(gate, []):
            self.of(client_id).unsure += quantity
