"""Figures and times as each language writes them. Pure. Whole sentences are in templates/, where an operator can change them."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from shared.catalog import Unit
from shared.events.alerts import Locale
from shared.windows import UnknownZone

_UNITS: Final[dict[Locale, dict[Unit, tuple[str, str]]]] = {
    "ko": {
        "call": ("회", "회"),
        "second15": ("건(15초 단위)", "건(15초 단위)"),
        "character": ("자", "자"),
        "token": ("토큰", "토큰"),
        "image": ("장", "장"),
    },
    "en": {
        "call": (" call", " calls"),
        "second15": (" unit of 15 s", " units of 15 s"),
        "character": (" character", " characters"),
        "token": (" token", " tokens"),
        "image": (" image", " images"),
    },
}
_WEEKDAYS: Final[dict[Locale, tuple[str, ...]]] = {
    "ko": tuple("월화수목금토일"),
    "en": ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
}
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def zone_of(name: str) -> tzinfo:
    """The IANA zone. Raises UnknownZone."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise UnknownZone(f"There is no time zone {name!r}; give an IANA name such as Asia/Seoul.") from error


def number(amount: int) -> str:
    """With thousands separators, which both languages write as commas."""
    return f"{amount:,}"


def amount(locale: Locale, used: int, limit: int, unit: Unit | None) -> str:
    """`900 / 1,000 calls`; without a unit if the catalog has the service no longer."""
    both = f"{number(used)} / {number(limit)}"
    return both if unit is None else both + _UNITS[locale][unit][limit != 1]


def moment(locale: Locale, at: datetime, zone: tzinfo) -> str:
    """Date and time to the minute: `2026년 11월 25일(수) 00:00`, `Wed 25 Nov 2026, 00:00`."""
    local = at.astimezone(zone)
    weekday = _WEEKDAYS[locale][local.weekday()]
    if locale == "ko":
        return f"{local.year}년 {local.month}월 {local.day}일({weekday}) {local:%H:%M}"
    return f"{weekday} {local.day} {_MONTHS[local.month - 1]} {local.year}, {local:%H:%M}"


def brief_moment(at: datetime, now: datetime, zone: tzinfo) -> str:
    """For a text message: `14:32` if that is within twelve hours of `now`, else `11-25 14:32`."""
    local = at.astimezone(zone)
    near = abs((at - now).total_seconds()) <= 12 * 3600
    return f"{local:%H:%M}" if near else f"{local:%m-%d %H:%M}"
