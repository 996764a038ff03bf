"""Which windows a history has, and the zeros in it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from services.metering.history import Row, asked_windows, in_columns
from services.metering.queries import Used
from shared.commands.metering import HISTORY_ROWS_MAX
from shared.errors import InvalidInput
from shared.windows import Kind, Window, civil

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)


def windows(zone: str, kind: Kind, first: date, last: date) -> list[Window]:
    return asked_windows(civil(zone), kind, first, last, NOW, 24, HISTORY_ROWS_MAX)


@pytest.mark.parametrize(
    ("zone", "day", "hours", "first"),
    [
        ("Europe/Berlin", date(2026, 10, 25), 25, "2026-10-25T00:00:00+02:00"),
        ("Europe/Berlin", date(2026, 3, 29), 23, "2026-03-29T00:00:00+01:00"),
        ("Australia/Lord_Howe", date(2026, 4, 5), 25, "2026-04-05T00:00:00+11:00"),  # 24.5 hours: two of half an hour
        ("Australia/Lord_Howe", date(2026, 10, 4), 24, "2026-10-04T00:00:00+10:30"),  # 23.5 hours: one of half an hour
        ("America/Sao_Paulo", date(2018, 11, 4), 23, "2018-11-04T01:00:00-02:00"),  # it begins at 01:00
        ("America/Sao_Paulo", date(2018, 2, 17), 25, "2018-02-17T00:00:00-02:00"),  # 23:00 comes twice
        ("Asia/Seoul", date(2026, 3, 29), 24, "2026-03-29T00:00:00+09:00"),
    ],
)
def test_a_date_is_all_of_its_hours(zone: str, day: date, hours: int, first: str) -> None:
    found = windows(zone, "hour", day, day)
    assert (len(found), found[0].start) == (hours, datetime.fromisoformat(first))
    assert [(found[0].start, found[-1].end)] == windows(zone, "day", day, day)
    assert all(one.end == other.start for one, other in pairwise(found))


def test_too_many_windows_are_refused_with_the_pieces_to_ask_for() -> None:
    with pytest.raises(InvalidInput) as error:
        windows("Europe/Berlin", "hour", date(2024, 1, 1), date(2026, 1, 1))
    [problem] = error.value.fields
    assert problem.field == "from"
    last, following = re.findall(r"20[0-9T:+-]+", problem.hint)
    first_piece = asked_windows(
        civil("Europe/Berlin"), "hour", date(2024, 1, 1), datetime.fromisoformat(last), NOW, 24, HISTORY_ROWS_MAX
    )
    assert len(first_piece) == HISTORY_ROWS_MAX
    assert first_piece[-1].end == datetime.fromisoformat(following)


def test_windows_without_a_row_are_zero_and_series_are_in_order() -> None:
    days = windows("Asia/Seoul", "day", date(2026, 1, 1), date(2026, 1, 3))
    rows = [
        Row("b", "csr", days[2].start, Used(1, 15, 5)),
        Row("a", "csr", days[0].start, Used(2, 30, 0)),
        Row("a", "captcha-image", days[1].start, Used(3, 3, 3)),
    ]
    found = in_columns(rows, days, {("a", "clova-voice")})
    assert [(one.client_id, one.service, one.used, one.calls, one.late) for one in found] == [
        ("a", "captcha-image", (0, 3, 0), (0, 3, 0), (0, 3, 0)),
        ("a", "clova-voice", (0, 0, 0), (0, 0, 0), (0, 0, 0)),
        ("a", "csr", (30, 0, 0), (2, 0, 0), (0, 0, 0)),
        ("b", "csr", (0, 0, 15), (0, 0, 1), (0, 0, 5)),
    ]


def test_nothing_is_lost_when_a_zones_rules_were_corrected() -> None:
    days = windows("Asia/Seoul", "day", date(2026, 1, 1), date(2026, 1, 2))
    rows = [Row(None, "csr", days[0].start + timedelta(hours=1), Used(1, 2, 0)), Row(None, "csr", days[0].start, Used(1, 1, 0))]
    [found] = in_columns(rows, days, ())
    assert (found.used, found.calls) == ((3, 0), (2, 0))


def test_series_and_windows_together_are_bounded() -> None:
    days = windows("Asia/Seoul", "day", date(2025, 1, 1), date(2025, 12, 31))
    assert len(in_columns([], days, {(None, f"s{n}") for n in range(27)})) == 27
    with pytest.raises(InvalidInput) as error:
        in_columns([], days, {(None, f"s{n}") for n in range(28)})
    assert [problem.field for problem in error.value.fields] == ["from"]
    assert "one `service`" in error.value.fields[0].hint
