"""When a limit will be reached if usage goes on as it does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from shared.commands.metering import Forecast, Period
from shared.windows import CivilWindows, Kind, Window

_BASIS: Final[Mapping[Period, tuple[Kind, int]]] = {"daily": ("hour", 3), "monthly": ("day", 7)}
"""Which windows the rate is taken from, besides the open one: hours tell how a day goes on; a week has its days off in it."""
SHORTEST: Final = timedelta(minutes=1)
"""A rate over less says nothing."""
_HOUR: Final = timedelta(hours=1)


class Basis(NamedTuple):
    """What was used from `since` to `until`, in units."""

    since: datetime
    until: datetime
    units: int


def basis_window(windows: CivilWindows, period: Period, now: datetime) -> tuple[Kind, Window]:
    """The windows whose usage gives the rate: of that kind, from the first one's start to the end of the one that is open."""
    kind, count = _BASIS[period]
    return kind, Window(windows.before(kind, now, count).start, windows.of(kind, now).end)


def forecast(limit: int | None, used: int, resets_at: datetime, basis: Basis) -> Forecast | None:
    """What the rate of `basis` means for the open window, of which `used` units are used. None: there is no limit, or no rate."""
    since, until, units = basis
    lasted = until - since
    if limit is None or lasted < SHORTEST:
        return None
    rate = units / (lasted / _HOUR)
    reached_at = None
    if used >= limit:
        reached_at = until
    elif rate > 0 and (hours := (limit - used) / rate) < (resets_at - until) / _HOUR:
        reached_at = until + hours * _HOUR
    return Forecast(reached_at=reached_at, units_per_hour=round(rate, 3), since=since, until=until)
