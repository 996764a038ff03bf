"""Calls, what became of them, and how that is told in a trace."""

from __future__ import annotations

import msgspec

from services.gate.leases import Taken, Verdict
from shared.commands.quota import Answer, Leased, Short


class Call(msgspec.Struct, gc=False):
    """One call: `passed`, `refused` (and `short`: for want of units), or neither: its gate died.

    `unsure`: refused, but its record is perhaps stored, and was not taken back yet.
    """

    client_id: str
    quantity: int
    passed: bool = False
    refused: bool = False
    short: bool = False
    unsure: bool = False

    @property
    def settled(self) -> bool:
        """Whether its caller was answered, and nothing of it can be counted that its caller does not know of."""
        return self.passed or (self.refused and not self.unsure)


def outline(what: Answer | Verdict) -> str:
    """An answer of metering, or what a call gets, in a few words."""
    match what:
        case Leased():
            return f"{what.lease} +{what.added}"
        case Taken():
            return f"takes {what.lease}"
        case Short():
            return f"short of {what.whose} {what.period} {what.limit}, {what.available} left{', recalled' * what.recallable}"
        case _:
            return str(what)
