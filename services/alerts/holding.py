"""When a contact is told: at once, with its daily digest, or when its quiet hours are over. Pure.

Times of day are what the clock on the contact's wall shows. One that a clock change leaves out comes at the first instant after
the gap; of one that comes twice the first counts for a digest, and quiet hours end at whichever comes next.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from shared.events.alerts import About, Crossed, DueSoon, Resumed, Suspended, Testing, Verifying
from shared.windows import civil

if TYPE_CHECKING:
    from shared.windows import CivilWindows

FULL: Final = 100
_DAYS: Final = 3
"""Civil dates that are looked at: a zone may leave one out."""


class Wishes(NamedTuple):
    """What a contact has chosen. Times "HH:MM" in the IANA `zone`; quiet hours are both None, or from start to end, excluded."""

    zone: str
    quiet_start: str | None
    quiet_end: str | None
    digest_at: str | None


def is_urgent(about: About) -> bool:
    """Never held back: whether calls pass or are refused, what is to be done soon, and what somebody waits for."""
    match about:
        case Crossed():
            return about.percent >= FULL
        case Suspended() | Resumed() | DueSoon() | Verifying() | Testing():
            return True
        case _:
            return False


def due_at(now: datetime, wishes: Wishes, *, urgent: bool) -> datetime:
    """When to tell what happens `now`. Never before that. Raises UnknownZone."""
    if urgent:
        return now
    windows = civil(wishes.zone)
    if wishes.digest_at is not None:
        return min(at for day in _dates(windows, now) if (at := windows.first_at(_wall(day, wishes.digest_at))) >= now)
    if wishes.quiet_start is None or wishes.quiet_end is None:
        return now
    start, end = time.fromisoformat(wishes.quiet_start), time.fromisoformat(wishes.quiet_end)
    if not _is_quiet(windows.wall(now).time(), start, end):
        return now
    ends = {at for day in _dates(windows, now) for at in _both(windows, _wall(day, wishes.quiet_end)) if at > now}
    return min(at for at in ends if not _is_quiet(windows.wall(at).time(), start, end))


def _is_quiet(wall: time, start: time, end: time) -> bool:
    if start <= end:
        return start <= wall < end
    return wall >= start or wall < end


def _dates(windows: CivilWindows, now: datetime) -> list[date]:
    today = windows.wall(now).date()
    return [today + timedelta(days=days) for days in range(_DAYS)]


def _wall(day: date, at: str) -> datetime:
    return datetime.combine(day, time.fromisoformat(at))


def _both(windows: CivilWindows, wall: datetime) -> set[datetime]:
    """The first and the last instant at which the clock shows `wall`: nearly always the same."""
    first = windows.first_at(wall)
    again = wall.replace(tzinfo=windows.tz, fold=1).astimezone(UTC)
    return {first, again} if windows.wall(again) == wall else {first}
