"""What a message says, before it is worded: the items of a bundle as lines, several rungs of one window as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Final, NamedTuple

import msgspec

from services.alerts import wording
from services.alerts.links import Links
from services.alerts.messages import Item
from services.alerts.plain import clipped, plain
from shared.catalog import CatalogEntry, Unit
from shared.events.alerts import Crossed, Deleted, Locale, Reissued, Reviewed, Testing, Verifying

APP_MAX: Final = 40
SERVICE_MAX: Final = 100

# How urgent what is: a crossing is as urgent as its percentage, but calls that are refused come before everything.
_VERIFYING: Final = 2000
_EXHAUSTED: Final = 1000
_REISSUED: Final = 99
_DELETED: Final = 98
_REVIEWED: Final = 1
_TESTING: Final = 0
_CROSSED_MAX: Final = 999


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be told: what templates see as `line`, `top`, and in sections. Every text is one line without controls.

    For every kind: `kind`; `app` (what the application is called; "": it is about the account), `service` (its name; "": it is
    about no service), `url` (where to look), `at` (when it was, or ends; in the reader's language and zone), `sentence` (the line
    in words, see templates/README.md).

    Of crossed: `period` (daily, monthly), `percent`, `lower` (the rungs below that were crossed as well), `exhausted` (calls are
    refused), `test_quota`, `used`, `limit`, `amount` (both, with the unit), `resets_at`. Of secret_reissued: `previous_until` ("":
    the old secret works no longer). Of review_decided: `approved`. Of verification: `code`, `at_brief`.
    """

    kind: str
    urgency: int
    client_id: str
    service_id: str
    app: str
    service: str
    url: str
    at: str = ""
    at_brief: str = ""
    sentence: str = ""
    period: str = ""
    percent: int = 0
    lower: tuple[int, ...] = ()
    exhausted: bool = False
    test_quota: bool = False
    used: str = ""
    limit: str = ""
    amount: str = ""
    resets_at: str = ""
    previous_until: str = ""
    approved: bool = False
    code: str = ""


class Section(NamedTuple):
    """Everything about one application (`app` "": the account) and service (""): no one service)."""

    app: str
    service: str
    url: str
    limits: tuple[Line, ...]
    notices: tuple[Line, ...]


class Reader(NamedTuple):
    """In which language and zone, at what time, with what code it is told."""

    locale: Locale
    zone: tzinfo
    now: datetime
    code: str


class Telling(NamedTuple):
    """Makes lines of items: `catalog` names services, `links` says where to look."""

    catalog: Mapping[str, CatalogEntry]
    links: Links

    def lines(self, items: Iterable[Item], reader: Reader) -> list[Line]:
        """The most urgent first; what is alike by application and service, so that the same items give the same lines."""
        crossed: dict[tuple[object, ...], list[Item]] = {}
        lines: list[Line] = []
        for item in items:
            about = item.about
            if isinstance(about, Crossed):
                window = (item.client_id, item.service, about.period, about.window_start, about.limit_version)
                crossed.setdefault(window, []).append(item)
            else:
                lines.append(self._notice(item, reader))
        lines += [self._crossing(group, reader) for group in crossed.values()]
        lines.sort(key=lambda line: (-line.urgency, line.app, line.client_id, line.service_id, line.period, line.at, line.resets_at))
        return lines

    def service_name(self, service: str, locale: Locale) -> str:
        """As the catalog calls it; its id if the catalog has it no longer."""
        entry = self.catalog.get(service)
        return clipped(plain(service if entry is None else getattr(entry.name, locale)), SERVICE_MAX)

    def unit(self, service: str) -> Unit | None:
        """What one counted unit of it is."""
        entry = self.catalog.get(service)
        return None if entry is None else entry.unit

    def app_name(self, item: Item) -> str:
        """A name that shows; the Client ID where nothing is left of it. "" only if it is about no application."""
        return clipped(plain(item.app_name), APP_MAX) or plain(item.client_id) if item.client_id else ""

    def _crossing(self, group: Sequence[Item], reader: Reader) -> Line:
        """Of all that was told of a window, the highest; they come in any order."""
        abouts = [item.about for item in group if isinstance(item.about, Crossed)]
        last = max(abouts, key=lambda about: (about.percent, about.exhausted, about.used))
        item = group[0]
        exhausted = any(about.exhausted for about in abouts)
        used = max(about.used for about in abouts)
        return Line(
            kind="crossed",
            urgency=_EXHAUSTED + last.percent if exhausted else min(last.percent, _CROSSED_MAX),
            client_id=item.client_id,
            service_id=item.service,
            app=self.app_name(item),
            service=self.service_name(item.service, reader.locale),
            url=self.links.app(item.client_id),
            period=last.period,
            percent=last.percent,
            lower=tuple(sorted({about.percent for about in abouts if about.percent < last.percent})),
            exhausted=exhausted,
            test_quota=last.limit_version == 0,
            used=wording.number(used),
            limit=wording.number(last.limit),
            amount=wording.amount(reader.locale, used, last.limit, self.unit(item.service)),
            resets_at=wording.moment(reader.locale, last.window_end, reader.zone),
        )

    def _notice(self, item: Item, reader: Reader) -> Line:
        def at(instant: datetime) -> str:
            return wording.moment(reader.locale, instant, reader.zone)

        about = item.about
        known = {
            "client_id": item.client_id,
            "service_id": item.service,
            "app": self.app_name(item),
            "service": self.service_name(item.service, reader.locale) if item.service else "",
            "url": self.links.app(item.client_id),
        }
        match about:
            case Reissued():
                until = "" if about.previous_valid_until is None else at(about.previous_valid_until)
                return Line(kind="secret_reissued", urgency=_REISSUED, at=at(about.at), previous_until=until, **known)
            case Deleted():  # its page is gone
                return Line(kind="app_deleted", urgency=_DELETED, at=at(about.at), **{**known, "url": self.links.console})
            case Reviewed():
                approved = about.decision == "approved"
                return Line(kind="review_decided", urgency=_REVIEWED, at=at(about.at), approved=approved, **known)
            case Verifying():
                brief = wording.brief_moment(about.expires_at, reader.now, reader.zone)
                code = plain(reader.code)
                return Line(
                    kind="verification", urgency=_VERIFYING, at=at(about.expires_at), at_brief=brief, code=code, **{**known, "url": ""}
                )
            case Testing():
                return Line(kind="test", urgency=_TESTING, at=at(about.at), **{**known, "url": ""})
            case Crossed():
                raise AssertionError("crossings are told by window")


def sections(lines: Iterable[Line]) -> list[Section]:
    """By application and service, in the order in which they first come."""
    grouped: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        grouped.setdefault((line.client_id, line.service_id), []).append(line)
    return [
        Section(
            app=group[0].app,
            service=group[0].service,
            url=group[0].url,
            limits=tuple(line for line in group if line.kind == "crossed"),
            notices=tuple(line for line in group if line.kind != "crossed"),
        )
        for group in grouped.values()
    ]
