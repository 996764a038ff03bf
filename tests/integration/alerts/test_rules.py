"""Notification rules on a real NATS and PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.alerts.projection import TABLES
from shared.commands.contacts import (
    AddGroup,
    ContactRemovedReply,
    ContactView,
    EditContact,
    GroupRemovedReply,
    GroupView,
    RemoveContact,
    RemoveGroup,
)
from shared.commands.notifications import (
    GetNotifications,
    ListNotificationChanges,
    NotificationChanges,
    NotificationsView,
    SetNotifications,
)
from shared.errors import Conflict, InvalidInput, NotFound
from tests.support.alerts_process import AlertsProcess, Asker, rows
from tests.support.metering_process import RegistryFeed

APP = "a" * 20


class Ruler:
    """An account that sets and reads the rule of one application at one service."""

    def __init__(self, asker: Asker, client_id: str | None = APP) -> None:
        self.asker = asker
        self.scope: dict[str, Any] = {"client_id": client_id, "service": "csr"}

    async def set(self, **fields: Any) -> NotificationsView:
        return await self.asker.ask(SetNotifications, NotificationsView, **{**self.scope, **fields})

    async def get(self, **fields: Any) -> NotificationsView:
        return await self.asker.ask(GetNotifications, NotificationsView, **{**self.scope, **fields})

    async def changes(self, **fields: Any) -> NotificationChanges:
        return await self.asker.ask(ListNotificationChanges, NotificationChanges, **{**self.scope, **fields})


def warned(view: NotificationsView) -> list[str]:
    return [one.code for one in view.warnings]


async def test_a_rule_is_set_and_read_with_names_and_warnings(acme: Asker) -> None:
    ruler = Ruler(acme)
    assert (await ruler.get()).version == 0
    lonely = await ruler.set(monthly=70)
    assert (warned(lonely), lonely.monthly_percentages) == (["no_recipients"], (70, 80, 90, 100))
    kim, lee = await acme.add(), await acme.add(name="Lee")
    await acme.verify(kim.contact_id, "email")
    group = await acme.ask(AddGroup, GroupView, name="On call", contacts=[kim.contact_id, lee.contact_id])
    recipients = [
        {"contact_id": kim.contact_id, "methods": ["email"]},
        {"group_id": group.group_id, "methods": ["email", "sms"]},
    ]
    view = await ruler.set(monthly=70, recipients=recipients, expected_version=1)
    assert [(one.name, one.unreachable) for one in view.recipients] == [("Kim", ()), ("On call", ("sms",))]
    assert (view.version, warned(view)) == (2, ["unreachable"])
    assert await ruler.get() == view
    with pytest.raises(Conflict):
        await ruler.set(monthly=80, recipients=recipients, expected_version=1)


async def test_who_is_removed_is_not_told_any_more_and_a_removed_contact_in_history(acme: Asker) -> None:
    ruler = Ruler(acme)
    kim = await acme.add()
    await acme.verify(kim.contact_id, "email")
    group = await acme.ask(AddGroup, GroupView, name="On call", contacts=[kim.contact_id])
    to_both = [
        {"contact_id": kim.contact_id, "methods": ["email"]},
        {"group_id": group.group_id, "methods": ["email"]},
    ]
    await ruler.set(daily=50, recipients=to_both)
    await ruler.set(daily=60, recipients=to_both, actor="member:m7", command_id="s2")
    before = await ruler.changes()
    assert [(one.version, one.changed_by, one.daily, len(one.recipients)) for one in before.changes] == [
        (2, "member:m7", 60, 2),
        (1, "token:t1", 50, 2),
    ]
    assert [one.name for one in before.changes[0].recipients] == ["Kim", "On call"]

    await acme.ask(RemoveContact, ContactRemovedReply, contact_id=kim.contact_id)
    view = await ruler.get()
    assert [(one.name, one.unreachable) for one in view.recipients] == [("On call", ("email",))]
    assert [one.name for one in (await ruler.changes()).changes[1].recipients] == [None, "On call"]
    await acme.ask(RemoveGroup, GroupRemovedReply, group_id=group.group_id)
    assert warned(await ruler.get()) == ["no_recipients"]
    assert warned(await ruler.set(daily=60, recipients=to_both, command_id="s2")) == ["no_recipients"]  # done before
    with pytest.raises(InvalidInput) as refusal:
        await ruler.set(daily=60, recipients=to_both)
    assert [one.field for one in refusal.value.fields] == ["recipients[0].contact_id", "recipients[1].group_id"]


async def test_an_address_that_changes_is_unreachable_until_it_is_verified(acme: Asker) -> None:
    ruler = Ruler(acme)
    kim = await acme.add()
    await acme.verify(kim.contact_id, "email")
    await ruler.set(daily=50, recipients=[{"contact_id": kim.contact_id, "methods": ["email"]}])
    await acme.ask(EditContact, ContactView, contact_id=kim.contact_id, email="other@example.com")
    assert warned(await ruler.get()) == ["unreachable"]
    await acme.verify(kim.contact_id, "email")
    assert warned(await ruler.get()) == []


async def test_history_is_paged(acme: Asker) -> None:
    ruler = Ruler(acme)
    for threshold in (10, 20, 30, 40, 50):
        await ruler.set(daily=threshold)
    first = await ruler.changes(limit=2)
    second = await ruler.changes(limit=2, before=first.next_before)
    third = await ruler.changes(limit=2, before=second.next_before)
    pages = [[one.daily for one in page.changes] for page in (first, second, third)]
    assert (pages, third.next_before) == ([[50, 40], [30, 20], [10]], None)


async def test_an_application_that_was_just_registered_edited_or_deleted_is_known(acme: Asker, registry: RegistryFeed) -> None:
    await registry.register("b" * 20)
    ruler = Ruler(acme, "b" * 20)
    assert (await ruler.set(daily=50)).version == 1
    with pytest.raises(InvalidInput) as refusal:
        await ruler.set(service="papago", daily=50)
    assert [one.field for one in refusal.value.fields] == ["service"]
    await registry.edit("b" * 20, ("csr", "papago"))
    assert (await ruler.set(service="papago", daily=50)).version == 1
    await registry.edit("b" * 20, ("papago",))
    await registry.register("c" * 20, account="globex")
    for client_id in ("c" * 20, "d" * 20):
        with pytest.raises(NotFound):
            await ruler.set(client_id=client_id, daily=50)
    assert (await ruler.get()).version == 1  # what was ruled is shown, also where the service was deselected
    await registry.delete("b" * 20)
    await registry.register("e" * 20)
    await ruler.get(client_id="e" * 20)  # by now the deletion has been applied
    with pytest.raises(NotFound):
        await ruler.get()


async def test_the_accounts_own_limit_has_a_rule_of_its_own(acme: Asker, nc: Client) -> None:
    own = Ruler(acme, None)
    assert (await own.set(monthly=90)).client_id is None
    assert (await Ruler(acme).get()).version == 0
    with pytest.raises(InvalidInput):
        await own.set(service="nothing", monthly=90)
    with pytest.raises(NotFound):
        await Ruler(Asker(nc, acme.dsn, "nobody"), None).set(monthly=90)
    assert [one.monthly for one in (await own.changes()).changes] == [90]


async def test_two_processes_share_the_work(
    acme: Asker, alerts: AlertsProcess, nats_url: str, schema: ServiceDsn, registry: RegistryFeed, tmp_path: Path
) -> None:
    second = AlertsProcess(nats_url, schema, tmp_path, "two")
    try:
        await second.start()
        for letter in "bcdefgh":
            await registry.register(letter * 20)
            assert (await Ruler(acme, letter * 20).set(daily=50)).version == 1
        assert await rows(schema, "SELECT count(*) FROM app") == [(8,)]
        alerts.kill()
        await registry.register("z" * 20)
        assert (await Ruler(acme, "z" * 20).set(daily=50)).version == 1
        assert (await second.readiness())["ready"]
    finally:
        second.kill()


async def test_a_rebuild_gives_the_same_rules(acme: Asker, alerts: AlertsProcess, schema: ServiceDsn) -> None:
    ruler = Ruler(acme)
    kim = await acme.add()
    await acme.verify(kim.contact_id, "email")
    to_kim = [{"contact_id": kim.contact_id, "methods": ["email"]}]
    await ruler.set(daily=50, monthly_custom=[5, 33], recipients=to_kim)
    await Ruler(acme, None).set(monthly=90, recipients=to_kim)
    await ruler.set(daily=60, recipients=to_kim)
    assert alerts.stop() == 0

    async def look() -> dict[str, list[tuple[Any, ...]]]:
        return {name: await rows(schema, f"SELECT t::text FROM {name} AS t ORDER BY 1") for name in TABLES}

    before = await look()
    assert (len(before["rule"]), len(before["recipient"])) == (2, 2)
    done = alerts.run("--rebuild")
    assert done.returncode == 0, done.stderr.decode()
    assert await look() == before
