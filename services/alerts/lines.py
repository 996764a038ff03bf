"""What a message says, before it is worded: the items of a bundle as lines, several rungs of one window as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from services.alerts import wording
from services.alerts.links import Links
from services.alerts.messages import Item
from services.alerts.plain import clipped, plain
from shared.catalog import CatalogEntry, Unit
from shared.events.alerts import (
    About,
    AboutReview,
    ChangesWanted,
    Crossed,
    Deleted,
    DueSoon,
    Locale,
    Reissued,
    Resumed,
    Reviewed,
    Submitted,
    Suspended,
    Testing,
    Verifying,
    Withdrawn,
    told_to_reviewers,
)

APP_MAX: Final = 40
SERVICE_MAX: Final = 100

_EXHAUSTED: Final = 1000


def urgency(about: About) -> int:
    """What comes first in a message: codes, calls that are refused, what is urgent of reviews, then crossings by percentage and
    the rest among them."""
    match about:
        case Crossed():
            return min(about.percent, _EXHAUSTED - 1) + _EXHAUSTED * about.exhausted
        case Verifying():
            return 3 * _EXHAUSTED
        case Suspended():
            return 2 * _EXHAUSTED
        case Resumed() | DueSoon():
            return _EXHAUSTED - 1
        case Reissued():
            return 99
        case Deleted():
            return 98
        case Submitted() | ChangesWanted() | Reviewed() | Withdrawn():
            return 1
        case Testing():
            return 0


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be told: what templates see as `line`, `top`, and in sections. Every text is one line without controls.

    For every kind: `kind`; `app` (what the application is called; "": it is about the account), `service` (its name; "": it is
    about no service), `url` (where to look), `at` (when it was, or ends; in the reader's language and zone), `sentence` (the line
    in words, see templates/README.md).

    Of crossed: `period` (daily, monthly), `percent`, `lower` (the rungs below that were crossed as well), `exhausted` (calls are
    refused), `test_quota`, `used`, `limit`, `amount` (both, with the unit), `resets_at`. Of secret_reissued: `previous_until`
    ("": the old secret works no longer). Of what happens in a review: `review_id`, `to_reviewers`; `due_at` and `due_brief` of
    review_submitted and review_due_soon, `approved` of review_decided. Of verification: `code`, `at_brief`.
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
    review_id: str = ""
    to_reviewers: bool = False
    due_at: str = ""
    due_brief: str = ""
    code: str = ""


class Section(NamedTuple):
    """Everything about one application (`app` "": the account) and service (""): no one service). To reviewers: about one review.

    `url`: where to look; a line with another one has more to show than its section.
    """

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
        lines.sort(
            key=lambda line: (-line.urgency, line.app, line.client_id, line.service_id, line.period, line.at, line.resets_at)
        )
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
        """A name that shows; an id where nothing is left of it. "" only if it is about no application."""
        id_ = item.client_id or (item.about.review_id if isinstance(item.about, AboutReview) else "")
        return clipped(plain(item.app_name), APP_MAX) or plain(id_) if id_ else ""

    def url(self, item: Item) -> str:
        """Where there is more to see of it."""
        if not isinstance(item.about, AboutReview):
            return self.links.app(item.client_id)
        page = self.links.review if told_to_reviewers(item.about) else self.links.service_app
        return page(item.about.review_id)

    def _crossing(self, group: Sequence[Item], reader: Reader) -> Line:
        """Of all that was told of a window, the highest; they come in any order."""
        abouts = [item.about for item in group if isinstance(item.about, Crossed)]
        last = max(abouts, key=lambda about: (about.percent, about.exhausted, about.used))
        item = group[0]
        used = max(about.used for about in abouts)
        return Line(
            kind="crossed",
            urgency=max(urgency(about) for about in abouts),
            client_id=item.client_id,
            service_id=item.service,
            app=self.app_name(item),
            service=self.service_name(item.service, reader.locale),
            url=self.links.app(item.client_id),
            period=last.period,
            percent=last.percent,
            lower=tuple(sorted({about.percent for about in abouts if about.percent < last.percent})),
            exhausted=any(about.exhausted for about in abouts),
            test_quota=last.limit_version == 0,
            used=wording.number(used),
            limit=wording.number(last.limit),
            amount=wording.amount(reader.locale, used, last.limit, self.unit(item.service)),
            resets_at=wording.moment(reader.locale, last.window_end, reader.zone),
        )

    def _notice(self, item: Item, reader: Reader) -> Line:
        def at(instant: datetime) -> str:
            return wording.moment(reader.locale, instant, reader.zone)

        line = Line(
            kind="test",
            urgency=urgency(item.about),
            client_id=item.client_id,
            service_id=item.service,
            app=self.app_name(item),
            service=self.service_name(item.service, reader.locale) if item.service else "",
            url=self.url(item),
        )
        match item.about:
            case Reissued(at=when, previous_valid_until=until):
                return replace(line, kind="secret_reissued", at=at(when), previous_until="" if until is None else at(until))
            case Deleted(at=when):  # its page is gone
                return replace(line, kind="app_deleted", at=at(when), url=self.links.console)
            case Verifying(expires_at=until):
                brief = wording.brief_moment(until, reader.now, reader.zone)
                return replace(line, kind="verification", at=at(until), at_brief=brief, code=plain(reader.code), url="")
            case Testing(at=when):
                return replace(line, at=at(when), url="")
            case Crossed():
                raise AssertionError("crossings are told by window")
            case _:
                return _in_review(line, item.about, reader)


def _in_review(line: Line, about: AboutReview, reader: Reader) -> Line:
    def at(instant: datetime) -> str:
        return wording.moment(reader.locale, instant, reader.zone)

    kind, to_reviewers = str(about.__struct_config__.tag), told_to_reviewers(about)
    line = replace(line, kind=kind, at=at(about.at), review_id=about.review_id, to_reviewers=to_reviewers)
    match about:
        case Submitted(due_at=due) | DueSoon(due_at=due):
            return replace(line, due_at=at(due), due_brief=wording.brief_moment(due, reader.now, reader.zone))
        case Reviewed(decision=decision):
            return replace(line, approved=decision == "approved")
        case ChangesWanted() | Withdrawn() | Suspended() | Resumed():
            return line


def sections(lines: Iterable[Line]) -> list[Section]:
    """By application and service, in the order in which they first come."""
    grouped: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        grouped.setdefault((line.client_id or line.review_id, line.service_id), []).append(line)
    return [_section(group) for group in grouped.values()]


def _section(group: Sequence[Line]) -> Section:
    limits = tuple(line for line in group if line.kind == "crossed")
    notices = tuple(line for line in group if line.kind != "crossed")
    return Section(app=group[0].app, service=group[0].service, url=(limits or notices)[0].url, limits=limits, notices=notices)
