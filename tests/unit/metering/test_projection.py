"""Metering's own log, and the registry's, as changes of rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from services.metering.projection import project
from services.metering.reactions import react
from shared.eventlog.changes import Change, arrange
from shared.eventlog.log import Recorded
from shared.events.metering import (
    AccountLimitChanged,
    LimitChangeCancelled,
    LimitChanged,
    LimitChangeScheduled,
    MeteringEvent,
    Passed,
    QuotaExhausted,
    ThresholdCrossed,
)
from shared.events.registry import AppEdited, AppRegistered, Environments, SecretIssued, SelectedService, ServiceActivated

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
DAY = datetime(2026, 11, 21, 15, tzinfo=UTC)
WHERE: dict[str, Any] = {"account": "acme", "client_id": "a" * 20, "service": "csr"}
OF_APP = ("acme", "a" * 20, "csr")
WINDOW: dict[str, Any] = {"period": "daily", "window_start": DAY, "window_end": NOW, "used": 9, "limit": 10, "limit_version": 3}


def changes(event: MeteringEvent) -> list[tuple[str, tuple[object, ...]]]:
    recorded = Recorded(7, "limit/x", 1, type(event).__name__, 1, b"{}", b"{}", NOW, bytes(32))
    return [(" ".join(change.statement.split())[:30], change.args) for change in project(recorded, event)]


def test_a_changed_limit_is_a_row_shown_told_and_marked() -> None:
    event = LimitChanged(
        **WHERE, version=2, daily=10, monthly=None, daily_rungs=(50, 90), schedule_id="5" * 32, passed=(Passed("daily", DAY, 50),)
    )
    found = changes(event)
    assert [statement.split(" (")[0] for statement, _ in found] == [
        "INSERT INTO app_limit",
        "DELETE FROM limit_schedule WHE",
        "INSERT INTO kv_dirty",
        "INSERT INTO kv_dirty",
        "INSERT INTO told AS t",
        "INSERT INTO limit_mark",
    ]
    assert found[0][1] == ("a" * 20, "csr", "acme", 2, 10, None, "{50,90}", "{10,20,30,40,50,60,70,80,90,100}", NOW)
    assert {args for statement, args in found if "kv_dirty" in statement} == {
        ("usage", f"acme.{'a' * 20}.csr"),
        ("limits", f"acme.{'a' * 20}.csr"),
    }
    assert found[4][1] == (*OF_APP, "d", DAY, 2, 50, False)
    assert found[5][1] == (*OF_APP, "d", DAY)


def test_an_accounts_limit_has_a_key_of_its_own() -> None:
    found = changes(AccountLimitChanged(account="acme", service="csr", version=1, monthly=5))
    assert found[0][1] == ("acme", "csr", 1, 5, "{10,20,30,40,50,60,70,80,90,100}", NOW)
    assert found[1][1] == ("limits", "acme.account.csr")


def test_a_schedule_remembers_who_asked() -> None:
    scheduled = LimitChangeScheduled(
        **WHERE, schedule_id="5" * 32, effective_at=NOW, requested_by="member:m1", daily=1, monthly=None, reason="r"
    )
    row, shown = changes(scheduled)
    assert row[1][-3:] == ("r", "member:m1", NOW)
    assert shown[1] == ("limits", f"acme.{'a' * 20}.csr")
    gone, shown = changes(LimitChangeCancelled(**WHERE, schedule_id="5" * 32))
    assert (gone[1], shown[1]) == (("5" * 32,), ("limits", f"acme.{'a' * 20}.csr"))


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (ThresholdCrossed(**WHERE, **WINDOW, percent=90), (3, 90, False)),
        (QuotaExhausted(**WHERE, **WINDOW), (3, 0, True)),
        (QuotaExhausted(**WHERE, **{**WINDOW, "limit_version": 0}), (0, 0, True)),
    ],
)
def test_what_is_told_is_remembered_by_version(event: MeteringEvent, told: tuple[int, int, bool]) -> None:
    [(_, args)] = changes(event)
    assert args == (*OF_APP, "d", DAY, *told)


def test_rungs_of_one_window_never_meet_in_one_statement() -> None:
    recorded = Recorded(7, "thresholds/x", 1, "ThresholdCrossed", 1, b"{}", b"{}", NOW, bytes(32))
    crossed = [project(recorded, ThresholdCrossed(**WHERE, **WINDOW, percent=percent)) for percent in (10, 20, 30)]
    runs = arrange(change for one in crossed for change in one)
    assert [len(run.rows) for run in runs] == [1, 1, 1]


def reacted(event: Any) -> list[Change]:
    return react(event, 7, NOW)


def test_services_in_tier_test_are_known_until_their_review() -> None:
    services = (SelectedService("csr"), SelectedService("clova-studio", "test"))
    secret = SecretIssued("s1", "00" * 32)
    registered = AppRegistered(
        account="acme", client_id="a" * 20, name="n", services=services, environments=Environments(), secret=secret
    )
    row = reacted(registered)[0].args
    assert row == ("a" * 20, "acme", '{"csr","clova-studio"}', '{"clova-studio"}', NOW, 7)
    edited = AppEdited(account="acme", client_id="a" * 20, name="n", services=services[1:], environments=Environments())
    assert reacted(edited)[1].args == ("a" * 20, '{"clova-studio"}', '{"clova-studio"}', 7)
    activated, *_ = reacted(ServiceActivated(account="acme", client_id="a" * 20, service="clova-studio"))
    assert activated.args == ("a" * 20, "clova-studio", 7)
