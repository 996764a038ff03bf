"""When a decision is due: so many business days after the day of submission, at the hour at which the office closes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import holidays
import msgspec

_SATURDAY: Final = 5
_YEARS_REMEMBERED: Final = 32


class Calendar(msgspec.Struct, frozen=True):
    """Where and when reviewers work. `country`: ISO 3166 code, whose public holidays (with their substitute days) are free, as
    Saturdays, Sundays and `closed_on` are. `due_soon`: so long before the due time it is told that it comes."""

    zone: str = "Asia/Seoul"
    country: str = "KR"
    closes: time = time(18)
    business_days: int = 3
    due_soon: timedelta = timedelta(hours=8)
    closed_on: frozenset[date] = frozenset()


def due_at(submitted: datetime, calendar: Calendar) -> datetime:
    """When the decision is due, in UTC. The day of submission, by the calendar's zone, does not count."""
    zone = ZoneInfo(calendar.zone)
    day, left = submitted.astimezone(zone).date(), calendar.business_days
    while left:
        day += timedelta(days=1)
        left -= is_business_day(day, calendar)
    return datetime.combine(day, calendar.closes, zone).astimezone(UTC)


def is_business_day(day: date, calendar: Calendar) -> bool:
    """Whether reviewers work that day."""
    return day.weekday() < _SATURDAY and day not in calendar.closed_on and day not in _holidays(calendar.country, day.year)


@lru_cache(_YEARS_REMEMBERED)
def _holidays(country: str, year: int) -> Mapping[date, str]:
    return holidays.country_holidays(country, years=year, expand=False)
