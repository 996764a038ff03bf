"""Who was let in, against what was allowed: judged from outside, with knowledge that no process has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shared.events.usage import UsageRecord
from shared.windows import from_us
from tests.simulation.database import WINDOWS, Database, LeaseRow

if TYPE_CHECKING:
    from tests.simulation.gates import Gate

Place = tuple[str, str, int]
"""(client_id, period, start of the window); client_id "" is the account."""


class Broken(AssertionError):
    """An invariant does not hold."""


class Ledger:
    """Units that passed, by window and by lease, and the most that ever may pass.

    The bound of a window is the limit; when one is lowered below what was set aside already, that stays possible.
    """

    def __init__(self, database: Database) -> None:
        self.gates: list[Gate] = []
        self._foreign: Counter[Place] = Counter()
        self._database = database
        self._passed: Counter[Place] = Counter()
        self._passed_of: Counter[str] = Counter()
        self._bounds: dict[Place, int] = {}
        database.watch = self.look

    def units(self, client_id: str, period: str, window_us: int) -> int:
        """What passed in a window."""
        return self._passed[client_id, period, window_us]

    def foreign(self, client_id: str, period: str, window_us: int) -> int:
        """What others than gates have reported of a window: it is counted, and may pass a limit."""
        return self._foreign[client_id, period, window_us]

    def reported(self, client_id: str, quantity: int, at_us: int) -> None:
        """Somebody else has reported usage."""
        slot = WINDOWS.slot(at_us)
        for place in _places(client_id, slot.day_start_us, slot.month_start_us):
            self._foreign[place] += quantity

    def passed(self, record: UsageRecord) -> None:
        """A call was let in. Raises Broken when that is one unit too much, or when nothing is kept for it any more."""
        slot = WINDOWS.slot(record.occurred_at_us)
        for place in _places(record.client_id, slot.day_start_us, slot.month_start_us):
            total = self._passed[place] = self._passed[place] + record.quantity
            bound = self._bound(place)
            if bound is not None and total > bound:
                raise Broken(f"{total} units have passed in {_told(place)}, {bound} are allowed")
        self._passed_of[record.lease] += record.quantity
        self._check_lease(self._database.leases[record.lease])

    def look(self, changed: Sequence[LeaseRow]) -> None:
        """Metering's rows have changed. Raises Broken when they may not be so."""
        for row in changed:
            self._check_lease(row)
        for place in {place for row in changed for place in _places(row.client_id, row.day_us, row.month_us)}:
            bound = None if self._foreign[place] else self._bound(place)
            if bound is not None and (total := self._total(place)) > bound:
                raise Broken(f"{total} units are counted and set aside in {_told(place)}, {bound} are allowed")

    def _check_lease(self, row: LeaseRow) -> None:
        """What passed is counted, or can still be counted for this lease: so nobody else gets it."""
        passed = self._passed_of[row.lease]
        if passed > row.counted + _aside(row):
            raise Broken(f"{passed} units have passed of {row}")

    def _bound(self, place: Place) -> int | None:
        limit = self._database.limit(place[0], place[1])
        return None if limit is None else max(limit, self._bounds.get(place, 0))

    def _total(self, place: Place) -> int:
        client_id, period, window_us = place
        aside = sum(
            _aside(row)
            for row in self._database.open.values()
            if client_id in ("", row.client_id) and (row.day_us if period == "d" else row.month_us) == window_us
        )
        return self._database.units(client_id, period, window_us) + aside

    def limit_changes(self, client_id: str, period: str, limit: int | None) -> None:
        """From now on the limit is this. What was counted or set aside before may still be more."""
        rows = self._database.leases.values()
        starts = {place[2] for place in self._database.counters if place[1] == period}
        starts |= {row.day_us if period == "d" else row.month_us for row in rows}
        for start_us in starts:
            place = (client_id, period, start_us)
            self._bounds[place] = self._total(place)
        limits = self._database.limits
        if not client_id:
            limits.account = limit
        else:
            (limits.daily if period == "d" else limits.monthly)[client_id] = limit

    def is_gone(self, client_id: str) -> None:
        """The application is deleted: nobody gets anything of it any more, but what is set aside may still be used."""
        self._database.delete(client_id)


def _aside(row: LeaseRow) -> int:
    """What may still come of a lease, by definition and not by the rule under test."""
    return 0 if row.closed else max(0, (row.units if row.stated is None else row.stated) - row.counted)


def _places(client_id: str, day_us: int, month_us: int) -> tuple[Place, Place, Place]:
    return (client_id, "d", day_us), (client_id, "m", month_us), ("", "m", month_us)


def _told(place: Place) -> str:
    client_id, period, start_us = place
    whose = f"of application {client_id[0]}" if client_id else "of the account"
    return f"the {'day' if period == 'd' else 'month'} from {from_us(start_us):%Y-%m-%d %H:%M} {whose}"
