"""Which crossings of a limit are to be told: a function of what is counted, the limit, and what was told before. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from services.metering import quota
from shared.events.metering import Period, ThresholdCrossed
from shared.windows import Kind, civil

KIND: Final[dict[str, Kind]] = {"d": "day", "m": "month"}
PERIOD: Final[dict[str, Period]] = {"d": "daily", "m": "monthly"}
"""By the letter that the tables have for a period."""


class WindowKey(NamedTuple):
    """One window of one scope; client_id "": of the account's own limit."""

    account: str
    client_id: str
    service: str
    period: str
    window_start: datetime


class Marked(NamedTuple):
    """A window that is to be looked at, as the rows of one snapshot say.

    `version` None: the scope never had a limit. `limit` None: it has none for this period now. `rungs` are the limit's own and
    those that were asked for, in any order, some of them perhaps twice. `units` were counted while the window was open. `told`:
    the highest percentage that was told of this version in this window.
    """

    key: WindowKey
    zone: str
    version: int | None
    limit: int | None
    rungs: Sequence[int]
    changed_at: datetime | None
    units: int
    told: int


def threshold_stream(account: str, client_id: str, service: str) -> str:
    """The stream of what is told of a scope; client_id "": of the account's own limit."""
    return f"thresholds/{client_id}/{service}" if client_id else f"account-thresholds/{account}/{service}"


def window_end(key: WindowKey, zone: str) -> datetime:
    """Where the window ends, excluded."""
    return civil(zone).of(KIND[key.period], key.window_start).end


def to_tell(marked: Marked) -> list[ThresholdCrossed]:
    """The crossings that were not told yet, in ascending order: what is not above `told` is never told again, also if its rung is
    younger than that.

    Nothing for a limit of 0, which is no measure of anything, and nothing if the limit is younger than the window's end.
    """
    if not marked.limit or marked.version is None or marked.changed_at is None:
        return []
    rungs = quota.crossed(marked.units, marked.limit, marked.rungs, marked.told)
    if not rungs:
        return []
    key = marked.key
    end = window_end(key, marked.zone)
    if marked.changed_at >= end:
        return []
    return [
        ThresholdCrossed(
            account=key.account,
            client_id=key.client_id,
            service=key.service,
            period=PERIOD[key.period],
            window_start=key.window_start,
            window_end=end,
            percent=percent,
            used=marked.units,
            limit=marked.limit,
            limit_version=marked.version,
        )
        for percent in rungs
    ]
