"""What counters grow by: groups of equal records, each into the counters of its own civil windows. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from services.metering.fields import LEASE
from services.metering.lapses import LeaseUse
from shared.windows import SLOT_US, CivilWindows


class App(NamedTuple):
    """What counting needs to know of an application."""

    account: str
    windows: CivilWindows
    deleted_at_us: int | None = None


class CounterKey(NamedTuple):
    """Which counter: `period` is h, d or m; `window_start_us` in microseconds since 1970 UTC."""

    client_id: str
    service: str
    period: str
    window_start_us: int


class Count:
    """What a counter grows by. `late_units` is the part that was reported after its civil day had ended, `after_close_units` the
    part that was reported after the counter's own window had: its hour, day or month. `corrected_units` is the part that came by
    corrections: below zero where they took more than they gave."""

    __slots__ = ("after_close_units", "calls", "corrected_units", "late_units", "units")

    def __init__(self) -> None:
        self.calls = 0
        self.units = 0
        self.late_units = 0
        self.after_close_units = 0
        self.corrected_units = 0

    def __repr__(self) -> str:
        return f"Count({self.calls}, {self.units}, {self.late_units}, {self.after_close_units}, {self.corrected_units})"


class Source(NamedTuple):
    """Where records came from: stored in the minute `recorded` since 1970, by `publisher` under `subject` ("" for single events,
    and for records of several senders that name no lease)."""

    recorded: int
    publisher: str
    subject: str


class Group(NamedTuple):
    """What records have in common that are counted together. `minute` is when they occurred, in minutes since 1970."""

    client_id: str
    service: str
    secret_id: str
    lease: str
    minute: int
    source: Source


_Place = tuple[str, str, int, int]
"""(client_id, service, minute, recorded)"""


class _Windows(NamedTuple):
    """The counters of a place, and for each whether units that come to it are late, and whether its window had closed."""

    counters: list[tuple[Count, bool, bool]]
    day_start_us: int


class Growth:
    """Adds groups up. What is taken back is added with negative numbers.

    `leases` are units by what they were spent from, `secrets_used` the last use, in microseconds since 1970 UTC, by (client_id,
    secret_id).
    """

    def __init__(self, directory: Mapping[str, App]) -> None:
        self.counters: dict[CounterKey, Count] = {}
        self.leases: dict[LeaseUse, int] = {}
        self.secrets_used: dict[tuple[str, str], int] = {}
        self._directory = directory
        self._places: dict[_Place, _Windows] = {}

    def add(self, group: Group, calls: int, units: int, latest_us: int) -> None:
        """Let everything grow that the group counts for. Its application must be in the directory."""
        client_id, service, secret_id, lease, minute, source = group
        place = (client_id, service, minute, source.recorded)
        found = self._places.get(place) or self._look_up(place)
        for count, late, closed in found.counters:
            count.calls += calls
            count.units += units
            if late:
                count.late_units += units
            if closed:
                count.after_close_units += units
        if lease and LEASE.fullmatch(lease):
            spent = LeaseUse(lease, source.publisher, source.subject, client_id, service, found.day_start_us)
            self.leases[spent] = self.leases.get(spent, 0) + units
        if secret_id and calls > 0:
            key = (client_id, secret_id)
            if latest_us > self.secrets_used.get(key, 0):
                self.secrets_used[key] = latest_us

    def correct(self, group: Group, corrected: int, calls: int, units: int) -> tuple[bool, bool, bool]:
        """Change by the difference what a group was counted for, as far as its windows are open in minute `corrected`, and were
        when it was recorded; which of hour, day and month that was so for. Its application must be in the directory."""
        client_id, service, _, _, minute, source = group
        then, now = (client_id, service, minute, source.recorded), (client_id, service, minute, corrected)
        as_counted = self._places.get(then) or self._look_up(then)
        as_of_now = self._places.get(now) or self._look_up(now)
        changed = []
        for (count, late, closed_then), (_, _, closed_now) in zip(as_counted.counters, as_of_now.counters, strict=True):
            open_ = not (closed_then or closed_now)
            changed.append(open_)
            if open_:
                count.calls += calls
                count.units += units
                count.corrected_units += units
                if late:
                    count.late_units += units
        hour, day, month = changed
        return hour, day, month

    def _look_up(self, place: _Place) -> _Windows:
        client_id, service, minute, recorded = place
        slot = self._directory[client_id].windows.slot(minute * SLOT_US)
        recorded_us = recorded * SLOT_US  # windows end at full minutes: what is after the end is not before it in its minute
        late = slot.day_end_us <= recorded_us
        found = []
        for period, start_us, end_us in (
            ("h", slot.hour_start_us, slot.hour_end_us),
            ("d", slot.day_start_us, slot.day_end_us),
            ("m", slot.month_start_us, slot.month_end_us),
        ):
            count = self.counters.setdefault(CounterKey(client_id, service, period, start_us), Count())
            found.append((count, late, end_us <= recorded_us))
        windows = self._places[place] = _Windows(found, slot.day_start_us)
        return windows
