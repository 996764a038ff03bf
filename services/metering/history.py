"""Usage window by window: which windows are asked for, the rows, and the zeros between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from datetime import date, datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple

from services.metering.queries import Used
from shared.commands.metering import HISTORY_ROWS_MAX, Moment, UsageSeries
from shared.errors import FieldProblem, InvalidInput
from shared.postgres import Connection
from shared.windows import CivilWindows, Kind, Window

BROKEN: Final = "The query breaks the rules named in `fields`."
_MICROSECOND: Final = timedelta(microseconds=1)

# By the counters' primary key: one range for each application and service.
_OF_APPS: Final = """
    SELECT client_id, service, window_start, calls, units, late_units, corrected_units FROM counter
    WHERE client_id = ANY($1::text[]) AND service = ANY($2::text[]) AND period = $3 AND window_start BETWEEN $4 AND $5
    LIMIT $6
"""
# The account's applications by their index, the deleted ones too, then each one's counters as above: nobody else's rows are read.
_OF_ACCOUNT: Final = """
    SELECT NULL, service, window_start, sum(calls)::bigint, sum(units)::bigint, sum(late_units)::bigint,
        sum(corrected_units)::bigint
    FROM app, LATERAL (
        SELECT service, window_start, calls, units, late_units, corrected_units FROM counter
        WHERE client_id = app.client_id AND service = ANY($2::text[]) AND period = $3 AND window_start BETWEEN $4 AND $5 OFFSET 0)
    WHERE account = $1 GROUP BY service, window_start LIMIT $6
"""
_SERVICES_OF_ACCOUNT: Final = "SELECT DISTINCT unnest(services) AS service FROM app WHERE account = $1"
_APPS_AFTER: Final = """
    SELECT client_id, services FROM app WHERE account = $1 AND client_id > $2 ORDER BY client_id LIMIT $3
"""
_ZONE: Final = "SELECT zone FROM account WHERE account = $1"


class Row(NamedTuple):
    """What one window counts; `client_id` None: all of the account's applications together."""

    client_id: str | None
    service: str
    window_start: datetime
    used: Used


def asked_windows(
    zone: CivilWindows, kind: Kind, from_: Moment, to: Moment, now: datetime, default: int, most: int
) -> list[Window]:
    """The windows from that of `from_` to that of `to`, in the order of time; at least one, and `most` at most.

    A date stands for all of its windows. `to` None is now, `from_` None `default` windows before. Raises InvalidInput.
    """
    last = now if to is None else _last_instant(zone, to)
    first = zone.before(kind, last, default - 1).start if from_ is None else _first_instant(zone, from_)
    found = list(islice(zone.between(kind, first, last), most + 1))
    if not found:
        problem = FieldProblem("from", "it is after `to`", "Give an earlier `from`, or a later `to`.")
    elif len(found) > most:
        pieces = f"`to` {found[most - 1].start.isoformat()}, then `from` {found[most].start.isoformat()}"
        hint = f"Ask for the history piece by piece: {pieces}."
        problem = FieldProblem("from", f"from there to `to` are more than {most} windows", hint)
    else:
        return found
    raise InvalidInput(BROKEN, [problem])


def in_columns(rows: Iterable[Row], windows: Sequence[Window], always: Collection[tuple[str | None, str]]) -> list[UsageSeries]:
    """The rows as series, with zeros in the windows without a row, sorted; those of `always` (client_id, service) also when they
    have no row. Raises InvalidInput when that is more than HISTORY_ROWS_MAX windows."""
    starts = [window.start for window in windows]
    found: dict[tuple[str | None, str], list[Row]] = {key: [] for key in always}
    for row in rows:
        found.setdefault((row.client_id, row.service), []).append(row)
    if len(found) * len(windows) > HISTORY_ROWS_MAX:
        raise too_many(f"{len(windows)} windows of {len(found)} series")
    return [_series(key, found[key], starts) for key in sorted(found, key=_by_app_and_service)]


def too_many(what: str) -> InvalidInput:
    """The refusal of an answer that would have too many windows."""
    hint = "Ask piece by piece: a shorter time, one `service`, or fewer applications at a time (`limit`)."
    return InvalidInput(BROKEN, [FieldProblem("from", f"these are {what}: more than {HISTORY_ROWS_MAX} windows in all", hint)])


async def zone_of(connection: Connection, account: str) -> str | None:
    """The account's time zone; None: it is not known here."""
    zone: str | None = await connection.fetchval(_ZONE, account)
    return zone


async def services_of(connection: Connection, account: str) -> set[str]:
    """Every service that an application of the account selects, or did when it was deleted."""
    return {row["service"] for row in await connection.fetch(_SERVICES_OF_ACCOUNT, account)}


async def apps_after(connection: Connection, account: str, after: str, limit: int) -> list[tuple[str, Sequence[str]]]:
    """Up to `limit` of the account's applications, the deleted ones too, with their services; by client_id, above `after`."""
    return [(row["client_id"], row["services"]) for row in await connection.fetch(_APPS_AFTER, account, after, limit)]


async def rows_of_apps(
    connection: Connection, client_ids: Sequence[str], services: Collection[str], period: str, windows: Sequence[Window]
) -> list[Row]:
    """What these applications used at these services in these windows; `period` is h, d or m. Raises InvalidInput."""
    return await _rows(connection, _OF_APPS, client_ids, services, period, windows)


async def rows_of_account(
    connection: Connection, account: str, services: Collection[str], period: str, windows: Sequence[Window]
) -> list[Row]:
    """The same of all of the account's applications together."""
    return await _rows(connection, _OF_ACCOUNT, account, services, period, windows)


async def _rows(
    connection: Connection,
    statement: str,
    whose: str | Sequence[str],
    services: Collection[str],
    period: str,
    windows: Sequence[Window],
) -> list[Row]:
    ends = windows[0].start, windows[-1].start
    rows = await connection.fetch(statement, whose, sorted(services), period, *ends, HISTORY_ROWS_MAX + 1)
    if len(rows) > HISTORY_ROWS_MAX:
        raise too_many("too many applications, services and windows at once")
    return [Row(row[0], row[1], row[2], Used(*row[3:])) for row in rows]


def _series(key: tuple[str | None, str], rows: Iterable[Row], starts: Sequence[datetime]) -> UsageSeries:
    used, calls, late, corrected = ([0] * len(starts) for _ in range(4))
    for row in rows:
        # The window that it is in rather than one that begins with it: a zone's rules can be corrected afterwards.
        place = bisect_right(starts, row.window_start) - 1
        used[place] += row.used.units
        calls[place] += row.used.calls
        late[place] += row.used.late_units
        corrected[place] += row.used.corrected_units
    client_id, service = key
    columns = {"used": used, "calls": calls, "late": late, "corrected": corrected}
    return UsageSeries(client_id=client_id, service=service, **{name: tuple(column) for name, column in columns.items()})


def _by_app_and_service(key: tuple[str | None, str]) -> tuple[str, str]:
    return key[0] or "", key[1]


def _first_instant(zone: CivilWindows, moment: date) -> datetime:
    return moment if isinstance(moment, datetime) else zone.day_start(moment)


def _last_instant(zone: CivilWindows, moment: date) -> datetime:
    return moment if isinstance(moment, datetime) else zone.day(zone.day_start(moment)).end - _MICROSECOND
