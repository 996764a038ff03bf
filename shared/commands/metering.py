"""What metering can be asked: an application's usage, and when its secrets were last used. Subjects metering.queries.<Name>."""

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

HISTORY_WINDOWS_MAX: Final = 400
"""Windows in one reply's history, at most: a year of days and a month more, or 33 years of months."""
HISTORY_WINDOWS: Final[dict[Period, int]] = {"daily": 31, "monthly": 12}
"""Windows in the history when no `from` is given, the newest among them."""

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
    """One civil day or month. `window_start` is its first instant; `used` is in the service's unit; `calls` counts records."""

    window_start: datetime
    used: int
    calls: int


class Usage(Reply):
    """Reply to GetUsage.

    `used`, `calls` and `late` are of the window that is open now, which began at `window_start` and ends at `resets_at`. `limit`
    is None when there is none. `late` is the part of `used` that was reported after its civil day had ended.
    Everything that USAGE held up to `as_of` is counted; `position` is the sequence in USAGE of the newest message counted.
    `history` is in the order of time, with a row of zeros for a window without usage.
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
    history: tuple[WindowUsage, ...] = ()


class GetCredentialUse(Query):
    """When each secret of an application was last used. Refused with NotFound (no such application, or another account's)."""

    client_id: ClientId


class CredentialUse(Reply):
    """Reply to GetCredentialUse: by secret_id, accurate to a minute. A secret that was never used is absent."""

    secrets: dict[str, datetime] = Field(default_factory=dict)
