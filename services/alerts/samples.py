"""Made-up occasions, so that templates can be looked at, and be tried before they are used. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from services.alerts.messages import Addressee, Item
from shared.commands.limits import LIMIT_MAX
from shared.events.alerts import (
    KINDS,
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
from shared.events.metering import Period

AT: Final = datetime(2026, 11, 24, 5, 12, tzinfo=UTC)
CODE: Final = "123456"
MESSAGE_ID: Final = "0" * 32
REVIEW_ID: Final = "1" * 32
DIGEST: Final = "digest"
SAMPLES: Final = (*KINDS, DIGEST)
"""What can be looked at: every kind alone, and many things in one message."""
DIGEST_APPS: Final = 60

_DAY: Final = (datetime(2026, 11, 23, 15, tzinfo=UTC), datetime(2026, 11, 24, 15, tzinfo=UTC))
_MONTH: Final = (datetime(2026, 10, 31, 15, tzinfo=UTC), datetime(2026, 11, 30, 15, tzinfo=UTC))
_DUE: Final = datetime(2026, 11, 27, 9, tzinfo=UTC)
_ADDRESSEES: Final[dict[Locale, Addressee]] = {
    "ko": Addressee("홍길동", "ko", "Asia/Seoul"),
    "en": Addressee("Alex Kim", "en", "Europe/London"),
}
_APPS: Final[dict[Locale, str]] = {"ko": "날씨 알리미", "en": "Weather Bell"}


class Sample(NamedTuple):
    """Items as somebody could be told of them. `code` only where a code is told."""

    addressee: Addressee
    items: tuple[Item, ...]
    code: str | None


def sample(kind: str, locale: Locale, services: Sequence[str]) -> Sample:
    """The occasion to show for `kind`, one of SAMPLES, at the catalog's `services` (ids, at least one). Raises KeyError."""
    items = _digest(locale, services) if kind == DIGEST else tuple(_item(locale, services, about) for about in _SHOWN[kind])
    return Sample(_ADDRESSEES[locale], items, CODE if kind == "verification" else None)


def samples(locale: Locale, services: Sequence[str]) -> list[tuple[str, Sample]]:
    """All to show, and the other ways that each kind can go: a template that gets through these gets through everything."""
    shown = [(kind, sample(kind, locale, services)) for kind in SAMPLES]
    nameless = Addressee("", locale, "UTC")
    others = [
        ("crossed", _item(locale, services, about, client_id=client_id))
        for about in _OTHER_CROSSINGS
        for client_id in ("", _client(1))
    ]
    others += [("secret_reissued", _item(locale, services, Reissued(AT, None)))]
    others += [("review_decided", _item(locale, services, Reviewed(AT, REVIEW_ID, "rejected")))]
    return to_reviewers(locale, services) + shown + [(kind, Sample(nameless, (item,), None)) for kind, item in others]


def to_reviewers(locale: Locale, services: Sequence[str]) -> list[tuple[str, Sample]]:
    """Of kinds that are told to applicants and, in other words, to reviewers: what these are told."""
    return [(kind, Sample(_ADDRESSEES[locale], (_item(locale, services, about),), None)) for kind, about in _TO_REVIEWERS.items()]


def _client(number: int) -> str:
    return f"sample{number:014d}"


def _crossed(
    percent: int, period: Period = "daily", *, limit: int = 10_000, version: int = 1, exhausted: bool = False
) -> Crossed:
    start, end = _DAY if period == "daily" else _MONTH
    return Crossed(period, start, end, percent, limit * percent // 100, limit, version, exhausted)


_SHOWN: Final[dict[str, tuple[About, ...]]] = {
    "crossed": (_crossed(70), _crossed(80), _crossed(90)),
    "secret_reissued": (Reissued(AT, AT + timedelta(days=1)),),
    "app_deleted": (Deleted(AT),),
    "review_submitted": (Submitted(AT, REVIEW_ID, _DUE),),
    "review_changes_requested": (ChangesWanted(AT, REVIEW_ID),),
    "review_decided": (Reviewed(AT, REVIEW_ID, "approved"),),
    "review_due_soon": (DueSoon(AT, REVIEW_ID, _DUE),),
    "review_withdrawn": (Withdrawn(AT, REVIEW_ID),),
    "service_suspended": (Suspended(AT, REVIEW_ID),),
    "service_resumed": (Resumed(AT, REVIEW_ID),),
    "verification": (Verifying("v1", AT + timedelta(minutes=10)),),
    "test": (Testing(AT),),
}
_TO_REVIEWERS: Final[dict[str, About]] = {
    "review_submitted": Submitted(AT, REVIEW_ID, _DUE, to_reviewers=True),
    "service_suspended": Suspended(AT, REVIEW_ID, to_reviewers=True),
}
_OTHER_CROSSINGS: Final = (
    _crossed(100, "monthly", limit=LIMIT_MAX, exhausted=True),
    _crossed(100, limit=LIMIT_MAX),
    _crossed(55, "monthly", limit=1, version=0),
    _crossed(100, "monthly", version=0, exhausted=True),
)


def _item(locale: Locale, services: Sequence[str], about: About, *, client_id: str = _client(1)) -> Item:
    if isinstance(about, Verifying | Testing):
        return Item("sample", "", "", "", about)
    service = services[0] if isinstance(about, Crossed | AboutReview) else ""
    app_name = _APPS[locale] if client_id else ""
    return Item("sample", "" if told_to_reviewers(about) else client_id, app_name, service, about)


def _digest(locale: Locale, services: Sequence[str]) -> tuple[Item, ...]:
    at = [services[number % len(services)] for number in range(DIGEST_APPS)]
    grown = [
        Item(f"sample-{number}", _client(number), f"{_APPS[locale]} {number}", at[number], _crossed(number + 20))
        for number in range(1, DIGEST_APPS)
    ]
    urgent = (
        _item(locale, services, _crossed(100, "monthly", exhausted=True), client_id=""),
        *(_item(locale, services, about) for about in (*_SHOWN["crossed"], _crossed(80, "monthly", limit=250_000))),
        *(
            _item(locale, services, _SHOWN[kind][0])
            for kind in ("secret_reissued", "app_deleted", "review_decided", "service_resumed")
        ),
    )
    return (*grown, *urgent)
