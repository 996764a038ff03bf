"""The pure parts of answering and of keeping dead letters."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from services.metering.dashboard import BUCKET
from services.metering.deadletters import HEADERS_BYTES_MAX, letter
from services.metering.ends import Looked, as_of
from services.metering.ingest import Uses
from services.metering.queries import AppRow, Counted
from services.metering.reactions import react
from services.metering.reads import history_windows
from services.metering.rejection import Rejected, Why
from shared.commands.metering import HISTORY_WINDOWS_MAX, GetUsage
from shared.errors import InvalidInput
from shared.events.registry import CODEC, AppDeleted
from shared.streams.facts import Unreadable, decode
from shared.streams.message import Message
from shared.windows import civil

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
APP = AppRow("a" * 20, "acme", civil("Asia/Seoul"), ["csr"], NOW - timedelta(days=1))


def query(**fields: Any) -> GetUsage:
    return GetUsage(account="acme", client_id="a" * 20, service="csr", **fields)


def rejected(data: bytes = b"data", headers: dict[str, str] | None = None) -> Rejected:
    message = Message("USAGE", "usage.records.3", 9, headers or {}, data, NOW)
    return Rejected(message, Why.UNREADABLE, "a\nreason 이유")


def test_history_has_31_days_or_12_months_unless_asked_otherwise() -> None:
    days = history_windows(APP, query(), NOW)
    assert (len(days), days[-1]) == (31, APP.windows.day(NOW))
    months = history_windows(APP, query(period="monthly", to="2026-03-05"), NOW)
    assert (len(months), months[-1].end) == (12, datetime(2026, 3, 31, 15, tzinfo=UTC))


def test_dates_are_the_accounts_and_instants_stand_for_their_window() -> None:
    [only] = history_windows(APP, query(from_=date(2026, 1, 1), to="2026-01-01T12:00:00+09:00"), NOW)
    assert only.start == datetime(2025, 12, 31, 15, tzinfo=UTC)
    assert history_windows(APP, query(from_="2026-01-01T14:59:59.999999Z", to="2026-01-01T15:00:00Z"), NOW) == [
        only,
        APP.windows.next("day", only),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"from_": date(2026, 1, 2), "to": date(2026, 1, 1)},
        {"from_": date(2027, 1, 2)},
        {"from_": date(1970, 1, 1), "to": date(2199, 1, 1)},
        {"from_": date(2026, 1, 1), "to": date(2026, 1, 1) + timedelta(days=HISTORY_WINDOWS_MAX)},
    ],
)
def test_a_history_backwards_or_too_long_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as error:
        history_windows(APP, query(**fields), NOW)
    assert [problem.field for problem in error.value.fields] == ["from"]


def test_as_of_is_now_only_when_all_is_counted() -> None:
    before = NOW - timedelta(seconds=3)
    counted = {"r": Counted(5, before)}
    assert as_of(Looked(NOW, {"r": 5, "c": 0}), counted, APP.registered_at) == NOW
    assert as_of(Looked(NOW, {"r": 6, "c": 0}), counted, APP.registered_at) == before
    assert as_of(Looked(NOW, {"r": 5, "c": 7}), counted, APP.registered_at) == APP.registered_at
    assert as_of(Looked(NOW, {"r": None, "c": 0}), counted, APP.registered_at) == before
    assert as_of(Looked(NOW, {"r": None, "c": None}), {}, APP.registered_at) == APP.registered_at


def test_a_dead_letter_says_why_and_where_from() -> None:
    kept = letter(rejected(headers={"ce-id": "é\u0001", "b@d name": "x"}), 1_000_000)
    assert kept.data == b"data"
    assert kept.headers == {
        "Nats-Msg-Id": "USAGE-9",
        "tollbook-why": "unreadable",
        "tollbook-reason": "a?reason ??",
        "tollbook-stream": "USAGE",
        "tollbook-subject": "usage.records.3",
        "tollbook-sequence": "9",
        "tollbook-recorded-at": "2026-11-22T03:00:00+00:00",
        "tollbook-original-ce-id": "\\xe9\u0001",
        "tollbook-original-b_d_name": "x",
    }
    record = letter(Rejected(rejected().message, Why.TOO_OLD, "r", 4, b"record"), 1_000_000)
    assert (record.data, record.headers["Nats-Msg-Id"], record.headers["tollbook-record"]) == (b"record", "USAGE-9-4", "4")


@pytest.mark.parametrize(
    ("headers", "data"), [({"x": "h" * 70_000}, b"d"), ({"x": "\ufffd" * 30_000}, b"d" * 900_000), ({}, b"d" * 999_990)]
)
def test_a_dead_letter_always_fits(headers: dict[str, str], data: bytes) -> None:
    kept = letter(rejected(data, headers), 1_000_000)
    assert kept.size <= 1_000_000
    assert sum(len(name) + len(value) for name, value in kept.headers.items()) <= HEADERS_BYTES_MAX
    assert data.startswith(kept.data)
    assert "tollbook-left-out" in kept.headers


def test_the_last_use_of_a_secret_is_written_at_most_once_a_minute_unless_its_transaction_failed() -> None:
    uses, key = Uses(), ("a" * 20, "s1")

    def batch(sequence: int, us: int) -> dict[tuple[str, str], int]:
        uses.begin([Message("USAGE", "usage.records.3", sequence, {}, b"", NOW)])
        return dict(uses.to_write({key: us}))

    assert batch(1, 1_000_000) == {key: 1_000_000}
    assert batch(2, 60_999_999) == {}
    assert batch(3, 61_000_000) == {key: 61_000_000}
    assert batch(3, 61_000_000) == {key: 61_000_000}, "the same messages again: they were not committed"
    assert batch(4, 61_000_001) == {}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/r", "ce-type": "tollbook.registry.AppDeleted.v1"},
        {"ce-time": "2026-11-22T03:00:00Z", "ce-type": "tollbook.registry.AppDeleted.v9"},
        {"ce-time": "2026-11-22T03:00:00Z", "ce-type": "tollbook.registry.Unheard.v1"},
        {"ce-time": "2026-11-22T03:00:00Z", "ce-type": "tollbook.metering.AppDeleted.v1"},
    ],
)
def test_an_event_of_the_registry_that_cannot_be_read_stops_the_worker(headers: dict[str, str]) -> None:
    if "ce-time" in headers:
        headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/r", **headers}
    with pytest.raises(Unreadable):
        decode(CODEC, Message("REGISTRY", "registry.events.AppDeleted", 1, headers, b'{"account":"a","client_id":"b"}', NOW))


def test_a_deletion_is_as_old_as_the_registry_says() -> None:
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/tollbook/registry",
        "ce-type": "tollbook.registry.AppDeleted.v1",
        "ce-time": "2026-11-22T02:00:00Z",
    }
    event, recorded_at = decode(CODEC, Message("REGISTRY", "x", 7, headers, b'{"account":"acme","client_id":"b"}', NOW))
    assert event == AppDeleted(account="acme", client_id="b")
    first, *_ = react(event, 7, recorded_at)
    assert first.args == ("b", datetime(2026, 11, 22, 2, tzinfo=UTC), 7, BUCKET)
