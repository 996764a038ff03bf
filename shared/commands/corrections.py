"""Corrections of single records, as metering lists them. Subject metering.queries.ListCorrections."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from shared.commands.base import Query, Reply
from shared.commands.metering import ClientId, Moment, ServiceId

PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 20
Window = Literal["hour", "day", "month"]


class ListCorrections(Query):
    """The corrections of an application's records, the newest first, of all services unless `service` is given.

    `from` and `to` say when they were made: a date stands for the whole of its civil day in the account's zone; both are
    included. `before` is `next_before` of the page before. Refused with NotFound (no such application, or another account's).
    """

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True, serialize_by_alias=True)

    client_id: ClientId
    service: ServiceId | None = None
    from_: Moment = Field(None, alias="from")
    to: Moment = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    before: Annotated[int, Field(ge=1)] | None = None


class CorrectionView(Reply):
    """One record that was taken back or stated anew by who had reported it.

    `old` and `new` are what counted before and after, in the service's unit; null: nothing, not even a call. `counted_in` names
    the windows of the record that were open when the correction came, whose usage has changed by the difference; in those that
    `closed` names it stayed as it was. `position` is the correction's sequence in USAGE. `occurred_at` is when the call was,
    `reported_at` when its record was stored, `corrected_at` when the correction was.
    """

    position: int
    service: str
    source: str
    record_id: str
    reason: str
    old: int | None
    new: int | None
    occurred_at: datetime
    reported_at: datetime
    corrected_at: datetime
    counted_in: tuple[Window, ...]
    closed: tuple[Window, ...]


class CorrectionPage(Reply):
    """Reply to ListCorrections. `next_before` leads to the next page; None: this was the last."""

    corrections: tuple[CorrectionView, ...]
    next_before: int | None = None
