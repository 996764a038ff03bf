"""Civil windows: the hours, days and months of an IANA zone, as instants. Pure; the time always comes in as an argument.

- A day begins at 00:00 local. Where a clock change leaves that out, it begins at the first instant of that civil date; where
  00:00 comes twice, at the first. A date that a zone left out altogether (Samoa, 30 December 2011) has no window.
- A month begins with its 1st day.
- An hour begins when the local clock shows a full hour, and ends at the next or at a change of the zone's offset, whichever
  is first: so the hour that comes twice in autumn is two windows, and Lord Howe has some of half an hour.

Windows of one kind tile time without gap or overlap, and hours nest in days, days in months.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

Kind = Literal["hour", "day", "month"]
_Following = Callable[[date], date]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)

SLOT_US: Final = 60_000_000
"""A minute, in microseconds: since 1973 every offset of every zone, and every change of one, comes at a full minute."""
_QUARTER_US: Final = 900_000_000
_QUARTERS_MAX: Final = 8192
"""Quarters of an hour remembered per zone: 85 days of them, more than the 35 days in which usage is accepted."""
_ZONES_MAX: Final = 1024
"""Zones remembered: more than there are."""


class Window(NamedTuple):
    """From `start`, included, to `end`, excluded: instants in UTC."""

    start: datetime
    end: datetime


class Slot(NamedTuple):
    """The windows that an instant, and the rest of its minute, lies in; in microseconds since 1970 UTC."""

    hour_start_us: int
    hour_end_us: int
    day_start_us: int
    day_end_us: int
    month_start_us: int
    month_end_us: int


class UnknownZone(ValueError):
    """No such IANA time zone."""


def to_us(at: datetime) -> int:
    """An aware instant as microseconds since 1970 UTC, exactly."""
    return (at - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The instant in UTC that is `us` microseconds after 1970 UTC. Raises OverflowError outside the years 1 to 9999."""
    return EPOCH + timedelta(microseconds=us)


class CivilWindows:
    """The windows of one zone; get it from `civil`. Instants that come in are aware, in any zone, years 1900 to 2200."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self.tz = _zone_info(zone)
        self._quarters: dict[int, Slot] = {}

    def hour(self, at: datetime) -> Window:
        """The civil hour that `at` is in."""
        local = at.astimezone(self.tz)
        offset = _offset(local)
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        start = at.astimezone(UTC) - into
        end = start + _HOUR
        second = at.astimezone(UTC).replace(microsecond=0)
        if self._offset_at(start) != offset:
            start = self._first_with_offset(start, second, offset, same=True)
        if self._offset_at(end - _SECOND) != offset:
            end = self._first_with_offset(second, end - _SECOND, offset, same=False)
        return Window(start, end)

    def day(self, at: datetime) -> Window:
        """The civil day that `at` is in."""
        return self._containing(at, at.astimezone(self.tz).date(), _next_date)

    def month(self, at: datetime) -> Window:
        """The civil month that `at` is in."""
        return self._containing(at, at.astimezone(self.tz).date().replace(day=1), _next_month)

    def of(self, kind: Kind, at: datetime) -> Window:
        """The window of that kind that `at` is in."""
        return self.hour(at) if kind == "hour" else self.day(at) if kind == "day" else self.month(at)

    def next(self, kind: Kind, window: Window) -> Window:
        """The window that begins where `window` ends."""
        return self.of(kind, window.end)

    def previous(self, kind: Kind, window: Window) -> Window:
        """The window that ends where `window` begins."""
        return self.of(kind, window.start - _MICROSECOND)

    def between(self, kind: Kind, first: datetime, last: datetime) -> Iterator[Window]:
        """Every window from that of `first` to that of `last`, both included, in the order of time."""
        window = self.of(kind, first)
        while window.start <= last:
            yield window
            window = self.next(kind, window)

    def before(self, kind: Kind, at: datetime, count: int) -> Window:
        """The window `count` windows before that of `at`."""
        window = self.of(kind, at)
        for _ in range(count):
            window = self.previous(kind, window)
        return window

    def day_start(self, day: date) -> datetime:
        """The first instant of a civil date; of the date after it, when the zone left it out."""
        return self.first_at(datetime(day.year, day.month, day.day))  # noqa: DTZ001 - what the wall clock shows

    def wall(self, at: datetime) -> datetime:
        """What the wall clock shows at an instant: without a zone."""
        return at.astimezone(self.tz).replace(tzinfo=None)

    def first_at(self, wall: datetime) -> datetime:
        """The first instant at which the wall clock shows `wall` (without a zone), or has jumped over it."""
        local = wall.replace(tzinfo=self.tz, fold=0)
        start = local.astimezone(UTC)
        if self.wall(start) == wall:
            return start
        # It does not exist: the change that jumps over it lies between what the offsets after and before it make of it.
        low, high = local.replace(fold=1).astimezone(UTC), start
        while high - low > _SECOND:
            middle = low + (high - low) // _SECOND // 2 * _SECOND
            if self.wall(middle) >= wall:
                high = middle
            else:
                low = middle
        return high

    def slot(self, us: int) -> Slot:
        """The windows of the instant `us` microseconds after 1970 UTC. Remembered by the quarter of an hour, so cheap."""
        quarter = us // _QUARTER_US
        found = self._quarters.get(quarter)
        if found is not None and found.hour_start_us <= us < found.hour_end_us:
            return found
        at = from_us(us)
        hour, day, month = self.hour(at), self.day(at), self.month(at)
        slot = Slot(*(to_us(instant) for window in (hour, day, month) for instant in window))
        if len(self._quarters) >= _QUARTERS_MAX:
            self._quarters.clear()
        self._quarters[quarter] = slot
        return slot

    def _containing(self, at: datetime, label: date, following: _Following) -> Window:
        start = self.day_start(label)
        label = following(label)
        end = self.day_start(label)
        while end <= at:  # the clock went back over midnight, or the zone left a date out
            label = following(label)
            start, end = end, self.day_start(label)
        return Window(start, end)

    def _offset_at(self, at: datetime) -> timedelta:
        return _offset(at.astimezone(self.tz))

    def _first_with_offset(self, low: datetime, high: datetime, offset: timedelta, *, same: bool) -> datetime:
        """The first second after `low`, up to `high`, whose offset is (unless `same`: is not) `offset`, as it is at `high`."""
        while high - low > _SECOND:
            middle = low + (high - low) // _SECOND // 2 * _SECOND
            if (self._offset_at(middle) == offset) is same:
                high = middle
            else:
                low = middle
        return high


@lru_cache(maxsize=_ZONES_MAX)
def civil(zone: str) -> CivilWindows:
    """The windows of an IANA zone. Raises UnknownZone."""
    return CivilWindows(zone)


def _zone_info(zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise UnknownZone(f"There is no time zone {zone!r}; give an IANA name such as Asia/Seoul.") from error


def _offset(local: datetime) -> timedelta:
    offset = local.utcoffset()
    assert offset is not None, "aware instants only"
    return offset


def _next_date(day: date) -> date:
    return day + _DAY


def _next_month(first: date) -> date:
    return first.replace(year=first.year + 1, month=1) if first.month == 12 else first.replace(month=first.month + 1)
