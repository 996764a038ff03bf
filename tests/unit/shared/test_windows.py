"""Civil windows against zoneinfo: they tile time, hold their instant, nest, and begin where the civil date does."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.windows import SLOT_US, UnknownZone, civil, from_us, to_us

ZONES = [
    "Asia/Seoul",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "America/Sao_Paulo",  # until 2018 its clocks changed at midnight
    "Asia/Beirut",  # still do
    "America/Havana",
]
LAST_SECOND = int(datetime(2100, 12, 31, tzinfo=UTC).timestamp())

zones = st.sampled_from(ZONES)
instants = st.integers(0, LAST_SECOND * 1_000_000).map(from_us)
kinds = st.sampled_from(["hour", "day", "month"])


def changes(zone: str) -> list[datetime]:
    """The instants, to the day, after which the zone's offset changes."""
    tz = ZoneInfo(zone)
    days = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(365 * 80)]
    return [a for a, b in itertools.pairwise(days) if a.astimezone(tz).utcoffset() != b.astimezone(tz).utcoffset()]


CHANGES = {zone: changes(zone) for zone in ZONES}


@st.composite
def near_changes(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone and an instant within two days of a change of its offset: where the mistakes are."""
    zone = draw(st.sampled_from([zone for zone in ZONES if CHANGES[zone]]))
    return zone, draw(st.sampled_from(CHANGES[zone])) + timedelta(
        microseconds=draw(st.integers(-86_400_000_000, 172_800_000_000))
    )


cases = st.one_of(st.tuples(zones, instants), near_changes())


@given(cases, kinds)
def test_a_window_holds_its_instant_and_its_neighbours_touch_it(case: tuple[str, datetime], kind: str) -> None:
    zone, at = case
    windows = civil(zone)
    window = windows.of(kind, at)
    assert window.start <= at < window.end
    assert windows.of(kind, window.start) == window
    assert windows.of(kind, window.end - timedelta(microseconds=1)) == window
    assert windows.next(kind, window).start == window.end
    assert windows.previous(kind, window).end == window.start


@given(cases)
def test_hours_nest_in_days_and_days_in_months(case: tuple[str, datetime]) -> None:
    zone, at = case
    hour, day, month = (civil(zone).of(kind, at) for kind in ("hour", "day", "month"))
    assert month.start <= day.start <= hour.start < hour.end <= day.end <= month.end


@given(cases)
def test_a_day_is_the_civil_date_and_begins_at_midnight_if_there_is_one(case: tuple[str, datetime]) -> None:
    zone, at = case
    tz = ZoneInfo(zone)
    day = civil(zone).day(at)
    first, last = day.start.astimezone(tz), (day.end - timedelta(microseconds=1)).astimezone(tz)
    assert first.date() == at.astimezone(tz).date() == last.date()
    assert (day.start - timedelta(microseconds=1)).astimezone(tz).date() < first.date()
    if first.time().isoformat() != "00:00:00":  # only where 00:00 does not exist
        midnight = datetime(first.year, first.month, first.day, tzinfo=tz)
        assert midnight.astimezone(UTC).astimezone(tz).replace(tzinfo=None) != midnight.replace(tzinfo=None)


@given(cases)
def test_a_month_is_the_civil_month(case: tuple[str, datetime]) -> None:
    zone, at = case
    tz = ZoneInfo(zone)
    month = civil(zone).month(at)
    first, last = month.start.astimezone(tz), (month.end - timedelta(microseconds=1)).astimezone(tz)
    local = at.astimezone(tz)
    assert (first.year, first.month, first.day) == (local.year, local.month, 1)
    assert (last.year, last.month) == (local.year, local.month)
    assert month.start == civil(zone).day(month.start).start


@given(cases)
def test_an_hour_shows_one_hour_and_one_offset_and_is_never_longer(case: tuple[str, datetime]) -> None:
    zone, at = case
    tz = ZoneInfo(zone)
    hour = civil(zone).hour(at)
    first, last, local = (x.astimezone(tz) for x in (hour.start, hour.end - timedelta(microseconds=1), at))
    assert (first.date(), first.hour, first.utcoffset()) == (local.date(), local.hour, local.utcoffset())
    assert (last.date(), last.hour, last.utcoffset()) == (local.date(), local.hour, local.utcoffset())
    assert hour.end - hour.start <= timedelta(hours=1)


@given(cases)
def test_a_slot_gives_the_windows_of_its_instant(case: tuple[str, datetime]) -> None:
    zone, at = case
    windows = civil(zone)
    slot = windows.slot(to_us(at))
    assert (slot.hour_start_us, slot.hour_end_us) == tuple(map(to_us, windows.hour(at)))
    assert (slot.day_start_us, slot.day_end_us) == tuple(map(to_us, windows.day(at)))
    assert (slot.month_start_us, slot.month_end_us) == tuple(map(to_us, windows.month(at)))
    if at.year >= 1973:
        assert windows.slot(to_us(at) // SLOT_US * SLOT_US) == slot


@given(instants)
def test_microseconds_there_and_back(at: datetime) -> None:
    assert from_us(to_us(at)) == at


@pytest.mark.parametrize(
    ("zone", "day", "start", "hours"),
    [
        ("Asia/Seoul", date(2026, 11, 22), "2026-11-21T15:00:00", 24),
        ("America/New_York", date(2026, 3, 8), "2026-03-08T05:00:00", 23),
        ("America/New_York", date(2026, 11, 1), "2026-11-01T04:00:00", 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), "2026-04-04T13:00:00", 24.5),
        ("Asia/Kathmandu", date(2026, 1, 1), "2025-12-31T18:15:00", 24),
        ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04T03:00:00", 23),  # begins at 01:00
        ("America/Sao_Paulo", date(2018, 2, 17), "2018-02-17T02:00:00", 25),  # 23:00 to 24:00 comes twice
        ("Asia/Beirut", date(2025, 3, 30), "2025-03-29T22:00:00", 23),  # begins at 01:00
        ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00:00", 25),  # 00:00 comes twice
        ("Pacific/Apia", date(2011, 12, 29), "2011-12-29T10:00:00", 24),  # the next is the 31st
        ("America/St_Johns", date(2006, 10, 29), "2006-10-29T02:30:00", 25),  # 00:01 back to 23:01 of the day before
    ],
)
def test_days_that_are_hard(zone: str, day: date, start: str, hours: float) -> None:
    windows = civil(zone)
    window = windows.day(windows.day_start(day))
    assert window.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert window.end - window.start == timedelta(hours=hours)
    assert windows.previous("day", windows.next("day", window)) == window


def test_a_date_that_was_left_out_has_no_window() -> None:
    windows = civil("Pacific/Apia")
    before = windows.day(windows.day_start(date(2011, 12, 29)))
    after = windows.next("day", before)
    assert after.start == windows.day_start(date(2011, 12, 30)) == windows.day_start(date(2011, 12, 31))
    assert after.start.astimezone(ZoneInfo("Pacific/Apia")).date() == date(2011, 12, 31)


def test_between_and_before_count_windows() -> None:
    windows = civil("Asia/Seoul")
    at = datetime(2026, 3, 1, 3, tzinfo=UTC)
    days = list(windows.between("day", at - timedelta(days=2), at))
    assert [(w.start + timedelta(hours=9)).date() for w in days] == [date(2026, 2, 27), date(2026, 2, 28), date(2026, 3, 1)]
    assert windows.before("day", at, 2) == days[0]
    assert windows.before("month", at, 14).start == datetime(2024, 12, 31, 15, tzinfo=UTC)
    assert list(windows.between("day", at, at - timedelta(days=2))) == []


def test_no_offset_changes_within_a_minute_since_1973() -> None:
    step = timedelta(days=120)
    for zone in sorted(available_timezones()):
        tz = ZoneInfo(zone)
        low = datetime(1973, 1, 1, tzinfo=UTC)
        while low.year < 2038:
            change, high = low, low + step
            if low.astimezone(tz).utcoffset() != high.astimezone(tz).utcoffset():
                while high - change > timedelta(seconds=1):
                    middle = change + (high - change) // timedelta(seconds=2) * timedelta(seconds=1)
                    same = middle.astimezone(tz).utcoffset() == change.astimezone(tz).utcoffset()
                    change, high = (middle, high) if same else (change, middle)
                assert to_us(high) % SLOT_US == 0, (zone, high)
            offset = low.astimezone(tz).utcoffset()
            assert offset is not None
            assert offset % timedelta(minutes=1) == timedelta(0), (zone, low)
            low += step


@pytest.mark.parametrize("zone", ["", "Asia/Nowhere", "../etc/passwd", "a\0b", "A" * 300])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(UnknownZone):
        civil(zone)
