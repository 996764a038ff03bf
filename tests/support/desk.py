"""One gate's leases, a clock that is moved by hand, and metering's rules to ask: without a network."""

from __future__ import annotations

from services.gate.leases import Leases, Taken, Verdict, Waiting
from shared.commands.quota import Answer, LeaseQuota, Wish
from shared.windows import to_us
from tests.support.granting import UTC_NOON, Granting

ID = "k" * 20
KEY = (ID, "csr")
NOON_US = to_us(UTC_NOON)
DAY_END_US = NOON_US + 12 * 3_600_000_000


class Desk:
    """Leases, a clock, and metering's rules to ask."""

    def __init__(self, **limits: int) -> None:
        self.leases = Leases()
        self.now_s = 1000.0
        self.now_us = NOON_US
        self.metering = Granting(daily={KEY: limits["daily"]} if "daily" in limits else {})

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.now_us += int(seconds * 1_000_000)

    def take(self, quantity: int = 1, key: tuple[str, str] = KEY) -> Verdict | None:
        return self.leases.take(key, "acme", quantity, self.now_s, self.now_us)

    def taken(self, quantity: int = 1) -> Taken:
        found = self.take(quantity)
        assert isinstance(found, Taken)
        return found

    def wish(self, first: int = 0, total: int = 0) -> Wish | None:
        wishes = self.leases.wishes({KEY: Waiting(first, total or first, "acme")} if first else {}, self.now_s, self.now_us)
        return wishes[0] if wishes else None

    def ask(self, first: int = 0, total: int = 0) -> Answer | None:
        """A whole request, answered at once."""
        wish = self.wish(first, total)
        returns = self.leases.returns()
        request = LeaseQuota(publisher="gate-1", partition=0, wishes=() if wish is None else (wish,), returned=tuple(returns))
        answers = self.metering.answer(request, self.now_s).answers
        self.leases.returned(returns)
        for answer in answers:
            assert wish is not None
            self.leases.answered(wish, answer, self.now_s, self.now_s)
        return answers[0] if answers else None

    def begin(self, quantity: int = 1) -> Taken:
        """A call that had to wait."""
        assert self.take(quantity) is None
        self.ask(quantity)
        return self.taken(quantity)
