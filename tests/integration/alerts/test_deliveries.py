"""What accounts see of deliveries: lists, counts, previews, and the bucket `notifications`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.alerts.channels.email import EmailChannel
from services.alerts.contacts import contact_stream
from services.alerts.dashboard import BUCKET
from services.alerts.delivery_queries import counts_of, dashboard_keys, dashboard_values, deliveries_of
from shared.clock import FixedClock, SystemClock
from shared.commands.notifications import (
    CountDeliveries,
    Deliveries,
    DeliveryCounts,
    ListDeliveries,
    ListTemplates,
    PreviewTemplate,
    TemplatePreview,
    Templates,
)
from shared.events.alerts import ContactRemoved
from shared.streams.declare import kv_keys
from shared.streams.kv import KvProjection
from tests.support.alerting import APP, Alerts, crossing
from tests.support.alerts_process import AlertsProcess, Asker
from tests.support.receivers import SmtpReceiver

TODAY = datetime(2026, 11, 23, 15, tzinfo=UTC)


async def listed(room: Alerts, **chosen: Any) -> Deliveries:
    async with room.pool.acquire() as connection:
        return await deliveries_of(connection, room.vault, ListDeliveries(account=chosen.pop("account", "acme"), **chosen))


async def test_deliveries_are_shown_with_what_their_message_knows_and_by_page(
    room: Alerts, clock: FixedClock, inbox: SmtpReceiver, mail: EmailChannel
) -> None:
    kim, lee = await room.contact("Kim"), await room.contact("Lee")
    await room.rule(kim, lee)
    await room.hear(crossing(50, TODAY), crossing(60, TODAY))
    clock.advance(0.3)
    inbox.answers["RCPT"].append("452 4.2.2 over quota")
    worker = room.worker({"email": mail}, at_once=1)
    for _ in range(3):
        await worker.look()
        await worker.drain()
    shown = await listed(room)
    assert {(one.contact_name, one.state, one.attempts) for one in shown.deliveries} in (
        {("Kim", "waiting", 1), ("Lee", "delivered", 1)},
        {("Lee", "waiting", 1), ("Kim", "delivered", 1)},
    )
    waits = next(one for one in shown.deliveries if one.state == "waiting")
    assert "over quota" in waits.answer
    assert waits.next_attempt_at is not None
    assert waits.message_id is not None
    assert waits.about["percent"] in (50, 60)
    assert "type" not in waits.about
    page = await listed(room, limit=3)
    assert page.next_before is not None
    rest = await listed(room, limit=3, before=page.next_before)
    assert [*page.deliveries, *rest.deliveries] == list(shown.deliveries)
    assert rest.next_before is None
    assert {one.contact_id for one in (await listed(room, contact_id=kim)).deliveries} == {kim}
    assert len((await listed(room, client_id=APP, state="delivered")).deliveries) == 2
    assert (await listed(room, kind="test")).deliveries == ()
    assert (await listed(room, account="globex")).deliveries == ()
    async with room.pool.acquire() as connection:
        counts = await counts_of(connection, "acme", APP, None)
    assert counts == DeliveryCounts(waiting=2, delivered=2, failed=0)


async def test_a_removed_contact_is_shown_without_a_name(room: Alerts) -> None:
    kim = await room.contact()
    await room.rule(kim)
    await room.hear(crossing(50, TODAY))
    await room.append(contact_stream(kim), 2, ContactRemoved(account="acme", contact_id=kim))
    (one,) = (await listed(room)).deliveries
    assert (one.contact_id, one.contact_name) == (kim, None)


async def test_the_bucket_shows_counts_rules_and_the_newest_and_nobody_by_name(
    room: Alerts, clock: FixedClock, nc: Client
) -> None:
    kim = await room.contact("Kim")
    await room.rule(kim, daily=80, custom=(85,))
    await room.rule(kim, client_id="", daily=100)
    kv = KvProjection(BUCKET, room.pool, lambda: nc, dashboard_values, SystemClock(), all_keys=dashboard_keys)
    for version in range(1, 7):
        await room.hear(crossing(80, TODAY, version=version), crossing(90, TODAY, version=version))
    await kv.write_dirty()
    bucket = await nc.jetstream().key_value(BUCKET)
    assert await kv_keys(nc, BUCKET) == {f"acme.{APP}", "acme.account"}
    kept = (await bucket.get(f"acme.{APP}")).value
    assert kept is not None
    value = json.loads(kept)
    assert value["counts"] == {"waiting": 12, "delivered": 0, "failed": 0}
    assert value["rules"] == {"csr": {"daily": [80, 85, 90, 100], "monthly": []}}
    assert len(value["newest"]) == 10
    assert value["newest"][0] | {"delivery_id": ""} == {
        "delivery_id": "",
        "service": "csr",
        "contact_id": kim,
        "method": "email",
        "kind": "crossed",
        "percent": 90,
        "state": "waiting",
        "requested_at": "2026-11-24T03:00:00Z",
        "due_at": "2026-11-24T03:00:00Z",
        "settled_at": None,
        "reason": None,
    }
    assert value["position"] == len(await room.events())
    assert b"Kim" not in kept
    assert b"example.com" not in kept


async def test_the_process_answers_about_deliveries_and_templates(acme: Asker, alerts: AlertsProcess, schema: ServiceDsn) -> None:
    assert (await acme.ask(ListDeliveries, Deliveries)).deliveries == ()
    assert await acme.ask(CountDeliveries, DeliveryCounts) == DeliveryCounts(waiting=0, delivered=0, failed=0)
    templates = await acme.ask(ListTemplates, Templates)
    assert {one.kind for one in templates.templates} >= {"crossed", "verification", "digest"}
    for kind in ("crossed", "digest"):
        preview = await acme.ask(PreviewTemplate, TemplatePreview, kind=kind, method="email", locale="en")
        assert preview.subject
        assert preview.text
        assert preview.html
    sms = await acme.ask(PreviewTemplate, TemplatePreview, kind="crossed", method="sms", locale="ko")
    assert sms.text
    assert sms.html is None
    hook = await acme.ask(PreviewTemplate, TemplatePreview, kind="crossed", method="webhook", locale="en")
    assert json.loads(hook.body or "")["type"] == "tollbook.notification"
