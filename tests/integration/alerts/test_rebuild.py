"""Streams that have another history than alerts has read: it waits, and goes on after a rebuild, which tells nobody anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from nats.aio.client import Client

from shared.events import metering
from shared.streams.declare import delete_stream
from tests.support.alerting import APP, Alerts, crossing
from tests.support.alerts_process import AlertsProcess
from tests.support.metering_process import LogFeed, RegistryFeed, eventually

OTHER = "b" * 20


async def test_other_histories_are_followed_after_a_rebuild_and_nothing_of_them_is_told(
    alerts: AlertsProcess, room: Alerts, meter: LogFeed, nc: Client
) -> None:
    await room.rule(await room.contact())
    today = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)

    async def asked() -> int:
        ((count,),) = await room.rows("SELECT count(*) FROM notification")
        return int(count)

    await meter.publish(crossing(10, today), crossing(20, today), crossing(30, today))
    await eventually(asked, 3)
    await delete_stream(nc, "REGISTRY")
    await delete_stream(nc, "METERING")
    registry = RegistryFeed(nc)
    await registry.open_account()
    await registry.register(OTHER)
    meter = LogFeed(nc, metering.CODEC)
    await meter.publish(crossing(40, today))

    async def refuses() -> bool:
        parts = (await alerts.readiness())["parts"]
        return all("restored from an older copy" in parts[part]["detail"] for part in ("registry", "metering"))

    await eventually(refuses, True)
    done = alerts.run("--rebuild")
    assert done.returncode == 0, done.stderr.decode()
    assert b"read again from 2 events; METERING, with another history now, is followed from its end" in done.stdout
    assert await room.rows("SELECT client_id FROM app") == [(OTHER,)]

    async def is_ready() -> bool:
        return bool((await alerts.readiness())["ready"])

    await eventually(is_ready, True)
    await meter.publish(crossing(50, today))
    await eventually(asked, 4)
    percents = await room.rows("SELECT about::json->>'percent' FROM notification ORDER BY position")
    assert [percent for (percent,) in percents] == ["10", "20", "30", "50"], f"of {APP}: 40 was passed over"
