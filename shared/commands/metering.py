"""What metering can be asked about usage, and when secrets were last used. Subjects metering.queries.<Name>."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal, LiteralString

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from shared.commands.base import Query, Reply

SERVICE: Final = "metering"

ClientId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{20}$")]
ServiceId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Period = Literal["daily", "monthly"]
Interval = Literal["hour", "day", "month"]

HISTORY_WINDOWS_MAX: Final = 400
"""Windows in one reply's history, at most: a year of days and a month more, or 33 years of months."""
HISTORY_WINDOWS: Final[dict[Period, int]] = {"daily": 31, "monthly": 12}
"""Windows in the history when no `from` is given, the newest among them."""
INTERVAL_WINDOWS: Final[dict[Interval, int]] = {"hour": 24, "day": 31, "month": 12}
"""The same of GetUsageHistory."""
HISTORY_ROWS_MAX: Final = 10_000
"""Windows of all series of one UsageHistory together, at most: more than a year of hours of one service."""
APPS_MAX: Final = 100
"""Applications in one question or answer, at most."""

_YEARS: Final = range(1970, 2200)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_FORM_HINT: Final = "Give a date (2026-01-31) or an instant with its offset (2026-01-31T09:00:00Z)."


def _problem(type_: LiteralString, message: LiteralString, hint: str) -> PydanticCustomError:
    return PydanticCustomError(type_, message, {"hint": hint})


def _as_moment(value: Any) -> date | datetime | None:
    """A civil date, or an aware instant in UTC, from what JSON or a query string carries."""
    if value is None:
        return None
    moment: date | datetime
    try:
        if isinstance(value, str):
            moment = date.fromisoformat(value) if _DATE.fullmatch(value) else datetime.fromisoformat(value)
        elif isinstance(value, date):  # datetime is one too
            moment = value
        else:
            raise _problem("moment_type", "This is neither a date nor an instant", _FORM_HINT)
        if isinstance(moment, datetime):
            if moment.tzinfo is None:
                raise _problem("moment_offset", "This instant has no offset from UTC", _FORM_HINT)
            moment = moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        if isinstance(error, PydanticCustomError):
            raise
        raise _problem("moment_parsing", "This is neither a date nor an instant", _FORM_HINT) from None
    if moment.year not in _YEARS:
        raise _problem("moment_range", "This is too far away", f"Give a year from {_YEARS[0]} to {_YEARS[-1]}.")
    return moment


Moment = Annotated[datetime | date | None, BeforeValidator(_as_moment)]
"""A civil date in the account's zone, or an instant; on the wire ISO 8601. An instant stands for the window that it is in."""


class GetUsage(Query):
    """The usage of one application at one service: now, and window by window from `from` to `to`, both included.

    Refused with NotFound (no such application, or another account's) and InvalidInput (no such service; `from` after `to`;
    more than HISTORY_WINDOWS_MAX windows). `to` defaults to now, `from` to HISTORY_WINDOWS before it. In Python the fields
    are `from_` and `to`, on the wire `from` and `to`.
    """

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True, serialize_by_alias=True)

    client_id: ClientId
    service: ServiceId
    period: Period = "daily"
    from_: Moment = Field(None, alias="from")
    to: Moment = None


class WindowUsage(Reply):
    """One civil hour, day or month. `window_start` is its first instant; `used` is in the service's unit; `calls` counts records.
    `late` is the part of `used` that was reported after its civil day had ended; `corrected` the part that came by corrections
    while the window was open, below zero if they took more than they gave. Later ones are in ListCorrections alone."""

    window_start: datetime
    used: int
    calls: int
    late: int = 0
    corrected: int = 0


class Forecast(Reply):
    """When the limit of the open window will be reached if usage goes on as it went from `since` to `until`.

    `units_per_hour` is that rate. `reached_at` None: not before the window ends. The limit is reached already: it is `until`.
    """

    reached_at: datetime | None
    units_per_hour: float
    since: datetime
    until: datetime


class Usage(Reply):
    """Reply to GetUsage.

    `used`, `calls`, `late` and `corrected` are of the window that is open now, which began at `window_start` and ends at
    `resets_at`. `limit` is the application's own (while the service waits for its review: the lower of it and the test quota),
    None when there is none; `forecast` is None then too. `late` is the part of `used` that was reported after its civil day had
    ended, `late_share` the same as a share, from 0 to 1; `corrected` the part that came by corrections. Everything that USAGE
    held up to `as_of` is counted; `position` is the sequence in USAGE of the newest message counted. `history` is in the order of
    time, with a row of zeros for a window without usage.
    """

    client_id: str
    service: str
    period: Period
    zone: str
    used: int
    calls: int
    limit: int | None = None
    window_start: datetime
    resets_at: datetime
    as_of: datetime
    position: int
    late: int = 0
    corrected: int = 0
    late_share: float = 0.0
    forecast: Forecast | None = None
    history: tuple[WindowUsage, ...] = ()


class GetUsageOfApps(Query):
    """The usage of many applications now, at each service that they selected. -> UsageOfApps

    One that metering does not know (yet), or that is another account's, is left out of the reply.
    """

    client_ids: Annotated[tuple[ClientId, ...], Field(min_length=1, max_length=APPS_MAX)]


class OpenWindow(Reply):
    """The day or month that is open now; `limit` as in Usage."""

    used: int
    calls: int
    limit: int | None = None
    window_start: datetime
    resets_at: datetime


class OpenWindows(Reply):
    """What one application used at one service."""

    client_id: str
    service: str
    daily: OpenWindow
    monthly: OpenWindow


class UsageOfApps(Reply):
    """Reply to GetUsageOfApps; `as_of` and `position` as in Usage."""

    as_of: datetime
    position: int
    usage: tuple[OpenWindows, ...] = ()


class GetUsageHistory(Query):
    """Usage window by window from `from` to `to`, both included: of one application, or (`client_id` None) of the whole account,
    with the applications that are deleted by now. -> UsageHistory

    Services are never added up. `service` None: each of them. `by_app` (of the account only): by application, those without any
    usage left out, `apps_max` of them at most, above `after` in the order of Client IDs. Refused with NotFound (no such
    application, or another account's) and InvalidInput (no such service; `from` after `to`; more than HISTORY_ROWS_MAX windows
    over all series). `to` defaults to now, `from` to INTERVAL_WINDOWS before it. In Python the fields are `from_` and `to`, on
    the wire `from` and `to`.
    """

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True, serialize_by_alias=True)

    client_id: ClientId | None = None
    service: ServiceId | None = None
    interval: Interval = "day"
    from_: Moment = Field(None, alias="from")
    to: Moment = None
    by_app: bool = False
    apps_max: Annotated[int, Field(ge=1, le=APPS_MAX)] = APPS_MAX
    after: ClientId | None = None


class UsageSeries(Reply):
    """One service's usage, window by window: item n of each belongs to the window that starts at `window_starts[n]` of the reply.

    `client_id` is None when the applications of the account are added up.
    """

    client_id: str | None
    service: str
    used: tuple[int, ...]
    calls: tuple[int, ...]
    late: tuple[int, ...]
    corrected: tuple[int, ...]


class UsageHistory(Reply):
    """Reply to GetUsageHistory; `as_of` and `position` as in Usage.

    In columns, because a message of NATS has a bound: every series has a value for every window, zero where nothing was used. The
    last window ends at `until`. A series is there for the service asked for, each that the application has selected, and each
    that was used; in the order of `client_id` and `service`. `next_after` is what to ask on `after`; None: these were the last.
    """

    zone: str
    as_of: datetime
    position: int
    window_starts: tuple[datetime, ...]
    until: datetime
    series: tuple[UsageSeries, ...]
    next_after: str | None = None


class GetFirstCall(Query):
    """Whether an application has ever made a call to a service that passed. -> FirstCall

    Refused with NotFound (no such application, or another account's) and InvalidInput (no such service).
    """

    client_id: ClientId
    service: ServiceId


class FirstCall(Reply):
    """Reply to GetFirstCall: as far as everything that USAGE held up to `as_of` is counted. Once `called` it stays so: a record
    that a correction takes back was a call even so. One that a gate takes back because it did not pass is none."""

    called: bool
    as_of: datetime


class GetCredentialUse(Query):
    """When each secret of an application was last used. Refused with NotFound (no such application, or another account's)."""

    client_id: ClientId


class CredentialUse(Reply):
    """Reply to GetCredentialUse: by secret_id, accurate to a minute. A secret that was never used is absent."""

    secrets: dict[str, datetime] = Field(default_factory=dict)
