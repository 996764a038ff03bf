"""Percentages that customers ask for at alerts: told besides the limit's own, each once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.metering.asked import SUBJECT
from services.metering.following import follow_rules
from shared.events.alerts import CODEC, ContactRemoved, NotificationRuleChanged
from shared.events.usage import UsageRecord
from shared.postgres import Pool, open_pool
from shared.streams.consumer import Poison
from shared.streams.declare import delete_stream
from shared.streams.message import Message
from tests.support.limit_owner import Owner
from tests.support.limiting import A, B, Limiting
from tests.support.metering_process import LogFeed, Meter, MeteringProcess, eventually, now_us, rows, used


def rule(client_id: str = A, version: int = 1, **percentages: Any) -> NotificationRuleChanged:
    asked = {"daily": None, "monthly": None, **percentages}
    return NotificationRuleChanged(account="acme", client_id=client_id, service="csr", version=version, **asked)


class Asking(Limiting):
    """Limits and counting, step by step, with the rules that alerts has decided."""

    rules = 0

    async def ask(self, *events: NotificationRuleChanged) -> None:
        """As if ALERTS had just told it."""
        messages = []
        for event in events:
            self.rules += 1
            headers = {"ce-type": CODEC.ce_type("NotificationRuleChanged", 1), "ce-time": "2026-11-24T00:00:00Z"}
            messages.append(Message("ALERTS", SUBJECT, self.rules, headers, CODEC.encode(event), datetime.now(UTC)))
        async with self.pool.acquire() as connection, connection.transaction():
            await follow_rules(connection, messages)


@pytest.fixture
async def pool(schema: ServiceDsn) -> AsyncIterator[Pool]:
    opened = await open_pool(schema.dsn, "metering")
    yield opened
    await opened.close()


@pytest.fixture
async def asking(pool: Pool) -> Asking:
    made = Asking(pool)
    await made.begin()
    return made


async def test_what_was_asked_for_is_told_besides_the_limits_own_rungs(asking: Asking) -> None:
    await asking.ask(rule(daily=70, daily_custom=(85,), monthly_custom=(33,)))
    await asking.set(daily=100, daily_thresholds=(75, 80, 100), monthly=200, monthly_thresholds=(100,))
    await asking.set(B, daily=100, daily_thresholds=(100,))
    await asking.use(69)
    await asking.use(85, B)
    await asking.evaluate()
    assert await asking.percents() == []
    assert await asking.percents("monthly") == [33]
    await asking.use(31)
    await asking.evaluate()
    assert await asking.percents() == [70, 75, 80, 85, 90, 100]
    assert await asking.percents("daily", B) == [], "it was not asked for there"


async def test_what_is_asked_for_of_the_accounts_own_limit_is_told_of_that(asking: Asking) -> None:
    await asking.ask(rule("", monthly=90))
    await asking.set_account(monthly=100, monthly_thresholds=(100,))
    await asking.set(daily=100, daily_thresholds=(100,))
    await asking.use(95)
    await asking.evaluate()
    assert await asking.percents("monthly", "") == [90]
    assert await asking.percents() == []


async def test_the_newest_rule_counts_and_what_is_below_the_highest_told_is_never_told(asking: Asking) -> None:
    await asking.set(daily=100, daily_thresholds=(50,))
    await asking.use(55)
    await asking.evaluate()
    await asking.ask(rule(daily_custom=(10, 45, 52, 60)), rule(version=2, daily_custom=(10, 45, 60, 95)))
    await asking.use(10)
    await asking.evaluate()
    assert await asking.percents() == [50, 60]
    await asking.ask(rule(version=3))
    await asking.use(35)
    await asking.evaluate()
    assert await asking.percents() == [50, 60], "nothing is asked for any more"


async def test_a_rule_that_cannot_be_read_is_not_passed_over(pool: Pool) -> None:
    def message(type_: str, data: bytes) -> Message:
        return Message("ALERTS", SUBJECT, 1, {"ce-type": type_, "ce-time": "2026-11-24T00:00:00Z"}, data, datetime.now(UTC))

    good = CODEC.encode(rule(daily=70))
    gone = CODEC.encode(ContactRemoved(account="acme", contact_id="c1"))
    bad = [
        message(CODEC.ce_type("NotificationRuleChanged", 1), b"{}"),
        message(CODEC.ce_type("NotificationRuleChanged", 2), good),
        message("tollbook.registry.NotificationRuleChanged.v1", good),
        message(CODEC.ce_type("ContactRemoved", 1), gone),
        message("", good),
    ]
    async with pool.acquire() as connection:
        for one in bad:
            with pytest.raises(Poison, match="ALERTS message 1"):
                await follow_rules(connection, [one])
        assert await connection.fetchval("SELECT count(*) FROM rung_asked") == 0


# -- of a worker that runs


@pytest.fixture
def alerts(nc: Client) -> LogFeed:
    return LogFeed(nc, CODEC)


async def waiting(worker: MeteringProcess) -> tuple[bool, str]:
    part = (await worker.readiness())["parts"]["alerts"]
    return part["ready"], part["detail"]


async def asked(schema: ServiceDsn) -> list[tuple[Any, ...]]:
    return await rows(schema, "SELECT client_id, daily, monthly, position FROM rung_asked ORDER BY client_id")


async def test_metering_needs_no_alerts_and_tells_what_it_asks_for_as_soon_as_it_is_there(
    nc: Client, worker: MeteringProcess, alerts: LogFeed, meter: Meter, schema: ServiceDsn
) -> None:
    await eventually(lambda: waiting(worker), (True, "waiting for ALERTS"))
    owner = Owner(nc)
    await owner.set(daily=100, daily_thresholds=(100,))
    await alerts.send("SomethingThatComesLater", b"?", schema=9)
    await alerts.publish(rule(daily=70, daily_custom=(85,)), ContactRemoved(account="acme", contact_id="c1"))
    await eventually(lambda: asked(schema), [(A, [70, 80, 85, 90, 100], [], 2)])
    await eventually(lambda: waiting(worker), (True, ""))
    for units in (60, 15, 10):
        await meter.count(UsageRecord(A, "csr", now_us(), units))
    told = [(A, 1, 70), (A, 1, 80), (A, 1, 85)]
    await eventually(owner.told, told)
    await meter.count(UsageRecord(A, "csr", now_us(), 1))
    await eventually(lambda: used(nc, A), 86)
    await eventually(lambda: rows(schema, "SELECT 1 FROM limit_mark"), [])
    assert await owner.told() == told


async def test_a_rebuild_reads_the_rules_again_and_keeps_them_while_alerts_is_away(
    nc: Client, worker: MeteringProcess, alerts: LogFeed, schema: ServiceDsn
) -> None:
    await alerts.publish(rule(daily=90), rule(B, monthly=100), rule(version=2, daily=100))
    await alerts.send("SomethingThatComesLater", b"?")
    right = [(A, [100], [], 3), (B, [], [100], 2)]
    await eventually(lambda: asked(schema), right)
    await rows(schema, "UPDATE rung_asked SET daily = '{1}'")
    done = worker.run("--rebuild")
    assert done.returncode == 0, done.stderr
    assert b"the rules of alerts from 3" in done.stdout
    assert await asked(schema) == right
    await delete_stream(nc, "ALERTS")
    assert worker.run("--rebuild").returncode == 0
    assert await asked(schema) == right


async def test_a_rebuild_follows_alerts_that_have_another_history_now(
    nc: Client, worker: MeteringProcess, alerts: LogFeed, schema: ServiceDsn
) -> None:
    await alerts.publish(rule(daily=90), rule(B, daily=100))
    await eventually(lambda: asked(schema), [(A, [90, 100], [], 1), (B, [100], [], 2)])
    await delete_stream(nc, "ALERTS")
    await LogFeed(nc, CODEC).publish(rule(monthly=100))

    async def refuses() -> bool:
        ready, detail = await waiting(worker)
        return not ready and "rebuild what was made from this stream" in detail

    await eventually(refuses, True)
    assert worker.run("--rebuild").returncode == 0
    assert await asked(schema) == [(A, [], [100], 1)]
    await eventually(lambda: waiting(worker), (True, ""))
