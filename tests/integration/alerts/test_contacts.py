"""Contacts and groups on a real NATS and PostgreSQL: asked for, proved, and forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client
from pydantic import SecretStr

from deploy.servers.roles import ServiceDsn
from services.alerts.projection import TABLES
from services.alerts.tokens import make_token
from shared.commands.contacts import (
    AddContact,
    AddGroup,
    ConfirmVerification,
    ContactRemovedReply,
    Contacts,
    ContactView,
    EditContact,
    EditGroup,
    GetContact,
    GetGroup,
    GetWebhookSecret,
    GroupRemovedReply,
    Groups,
    GroupView,
    ListContacts,
    ListGroups,
    ReissueWebhookSecret,
    RemoveContact,
    RemoveGroup,
    RequestVerification,
    SendTest,
    TestRequested,
    Unsubscribe,
    Unsubscribed,
    VerificationResult,
    VerificationView,
    WebhookSecret,
)
from shared.commands.requester import ask
from shared.errors import Conflict, InvalidInput, NotFound, TooManyRequests
from shared.eventlog.vault import Vault, VaultKeyUnknown
from tests.support.alerts_process import VAULT_KEY, AlertsProcess, Asker, kept, rows
from tests.support.metering_process import eventually

PERSONAL = {"name": "Kim Harabeoji", "email": "harabeoji@example.com", "phone": "+821012345678"}
HOOK = "https://hooks.example.com/harabeoji"
LATER = {"name": "Kim Halmeoni", "email": "halmeoni@example.com"}


async def stored(nc: Client, stream: str = "ALERTS") -> list[str]:
    """Every message of the stream, headers and data, as text."""
    js = nc.jetstream()
    count = (await js.stream_info(stream)).state.messages
    found = [await js.get_msg(stream, sequence) for sequence in range(1, count + 1)]
    return [f"{message.subject} {message.headers} {(message.data or b'').decode()}" for message in found]


async def tables(schema: ServiceDsn) -> dict[str, list[str]]:
    """Every row of every table of the schema, as text."""
    names = await rows(schema, "SELECT tablename FROM pg_tables WHERE schemaname = 'alerts'")
    return {
        name: [row for (row,) in await rows(schema, f"SELECT t::text FROM {name} AS t ORDER BY t::text")] for (name,) in names
    }


async def opened(schema: ServiceDsn) -> list[str]:
    """Everything sealed in the schema, opened."""
    vault = Vault(SecretStr(VAULT_KEY))
    replies = await rows(schema, "SELECT account, command_id, reply FROM command WHERE reply IS NOT NULL")
    found = [vault.open(f"reply:{account}:{command_id}", reply) for account, command_id, reply in replies]
    found += [vault.open_kept(*row) for row in await rows(schema, "SELECT id, sealed FROM vault")]
    return [one.decode() for one in found]


async def test_a_contact_is_added_read_edited_and_not_there_for_others(acme: Asker, nc: Client) -> None:
    added = await acme.add(**PERSONAL, quiet_hours={"start": "22:00", "end": "07:00"})
    await acme.add(name="Ahn", email="ahn@example.com")
    assert await acme.ask(GetContact, ContactView, contact_id=added.contact_id) == added
    listed = await acme.ask(ListContacts, Contacts)
    assert [one.name for one in listed.contacts] == ["Ahn", PERSONAL["name"]]
    edited = await acme.ask(EditContact, ContactView, contact_id=added.contact_id, phone="", zone="Europe/Berlin")
    assert await acme.ask(GetContact, ContactView, contact_id=added.contact_id) == edited
    assert (edited.phone, edited.zone, edited.email, edited.added_at) == (None, "Europe/Berlin", added.email, added.added_at)
    globex = Asker(nc, acme.dsn, "globex")
    assert (await globex.ask(ListContacts, Contacts)).contacts == ()
    for message, reply in ((GetContact, ContactView), (RemoveContact, ContactRemovedReply)):
        with pytest.raises(NotFound):
            await globex.ask(message, reply, contact_id=added.contact_id)


async def test_the_same_command_again_gives_the_first_reply(acme: Asker) -> None:
    first = await acme.add(command_id="c1", **PERSONAL)
    assert await acme.add(command_id="c1", **PERSONAL) == first
    await acme.ask(EditContact, ContactView, contact_id=first.contact_id, **LATER)
    with pytest.raises(Conflict, match="no longer kept"):  # it showed what has been shredded since
        await acme.add(command_id="c1", **PERSONAL)
    assert len((await acme.ask(ListContacts, Contacts)).contacts) == 1


async def test_edits_at_once_are_decided_on_each_others_cards(acme: Asker) -> None:
    added = await acme.add(**PERSONAL)
    wishes: list[dict[str, Any]] = [
        {"name": "Lee"},
        {"email": "lee@example.com"},
        {"phone": "+821087654321"},
        {"webhook_url": HOOK},
        {"locale": "en"},
        {"digest_at": "09:00"},
    ]
    await asyncio.gather(*(acme.ask(EditContact, ContactView, contact_id=added.contact_id, **wish) for wish in wishes))
    now = await acme.ask(GetContact, ContactView, contact_id=added.contact_id)
    assert (now.name, now.email, now.phone, now.webhook_url) == ("Lee", "lee@example.com", "+821087654321", HOOK)
    assert (now.locale, now.digest_at) == ("en", "09:00")
    assert await rows(acme.dsn, "SELECT count(*) FROM vault") == [(1,)]


async def test_an_address_is_proved_by_the_code_that_was_sent_there(acme: Asker) -> None:
    contact = await acme.add(**PERSONAL)
    here: dict[str, Any] = {"contact_id": contact.contact_id, "method": "email"}
    with pytest.raises(Conflict):
        await acme.ask(SendTest, TestRequested, **here)
    requested = await acme.ask(RequestVerification, VerificationView, **here)
    with pytest.raises(TooManyRequests):
        await acme.ask(RequestVerification, VerificationView, **here)
    ((kind, state, about),) = await rows(acme.dsn, "SELECT kind, state, about::json->>'vault_id' FROM notification")
    assert kind == "verification"
    assert state in ("waiting", "failed"), "no mail server is set up, which the worker finds out at once"
    code = (await kept(acme.dsn, about)).decode()
    assert code == await acme.code(contact.contact_id, "email")
    shown = (await acme.ask(GetContact, ContactView, contact_id=contact.contact_id)).methods[0]
    assert (shown.verified, shown.verification_expires_at) == (False, requested.expires_at)

    wrong = f"{(int(code) + 1) % 1_000_000:06d}"
    refused = await acme.ask(ConfirmVerification, VerificationResult, **here, code=wrong, command_id="w1")
    again = await acme.ask(ConfirmVerification, VerificationResult, **here, code=wrong, command_id="w1")
    assert (refused.verified, refused.attempts_left) == (again.verified, again.attempts_left) == (False, 4)
    assert (await acme.ask(ConfirmVerification, VerificationResult, **here, code=code)).verified
    with pytest.raises(NotFound):
        await kept(acme.dsn, about)
    shown = (await acme.ask(GetContact, ContactView, contact_id=contact.contact_id)).methods[0]
    assert (shown.verified, shown.verification_expires_at) == (True, None)

    test = await acme.ask(SendTest, TestRequested, **here)
    assert await rows(acme.dsn, "SELECT kind, contact_id FROM notification WHERE request_id = $1", test.delivery_id) == [
        ("test", contact.contact_id)
    ]


async def test_a_code_for_an_address_that_was_edited_meanwhile_verifies_nothing(acme: Asker) -> None:
    contact = await acme.add(**PERSONAL)
    here: dict[str, Any] = {"contact_id": contact.contact_id, "method": "email"}
    await acme.ask(RequestVerification, VerificationView, **here)
    code = await acme.code(contact.contact_id, "email")
    edited = await acme.ask(EditContact, ContactView, contact_id=contact.contact_id, email="other@example.com")
    assert edited.methods[0].verification_expires_at is None
    assert not (await acme.ask(ConfirmVerification, VerificationResult, **here, code=code)).verified
    await acme.ask(RequestVerification, VerificationView, **here)
    newer = await acme.code(contact.contact_id, "email")
    assert (await acme.ask(ConfirmVerification, VerificationResult, **here, code=newer)).verified


async def test_one_address_gets_five_codes_a_day_however_many_contacts_have_it(acme: Asker) -> None:
    for number in range(6):
        contact = await acme.add(name=f"Kim {number}")
        asked = acme.ask(RequestVerification, VerificationView, contact_id=contact.contact_id, method="email")
        if number < 5:
            await asked
        else:
            with pytest.raises(TooManyRequests, match="5 codes"):
                await asked
    other = await acme.add(email="lee@example.com")
    await acme.ask(RequestVerification, VerificationView, contact_id=other.contact_id, method="email")


async def test_whoever_has_the_link_unsubscribes_and_the_account_verifies_again(acme: Asker, nc: Client) -> None:
    contact = await acme.add(**PERSONAL)
    await acme.verify(contact.contact_id, "email")
    token = make_token(Vault(SecretStr(VAULT_KEY)), "acme", contact.contact_id, "email")
    for command_id in ("u1", "u1", "u2"):
        reply = await ask(nc, "alerts", Unsubscribe(command_id=command_id, token=token), Unsubscribed, timeout_s=20)
        assert reply.method == "email"
    shown = (await acme.ask(GetContact, ContactView, contact_id=contact.contact_id)).methods[0]
    assert (shown.verified, shown.unsubscribed) == (True, True)
    ((actor,),) = await rows(acme.dsn, "SELECT meta->>'actor' FROM event WHERE type = 'ContactUnsubscribed'")
    assert actor == f"contact:{contact.contact_id}"
    with pytest.raises(Conflict, match="unsubscribed"):
        await acme.ask(SendTest, TestRequested, contact_id=contact.contact_id, method="email")
    with pytest.raises(NotFound):
        await ask(nc, "alerts", Unsubscribe(command_id="u3", token=token[:-3]), Unsubscribed, timeout_s=20)
    await acme.verify(contact.contact_id, "email")
    assert not (await acme.ask(GetContact, ContactView, contact_id=contact.contact_id)).methods[0].unsubscribed


async def test_a_webhooks_secret_is_read_and_reissued(acme: Asker) -> None:
    contact = await acme.add(**PERSONAL)
    with pytest.raises(NotFound):
        await acme.ask(GetWebhookSecret, WebhookSecret, contact_id=contact.contact_id)
    await acme.ask(EditContact, ContactView, contact_id=contact.contact_id, webhook_url=HOOK)
    first = await acme.ask(GetWebhookSecret, WebhookSecret, contact_id=contact.contact_id)
    assert first.secret.startswith("whsec_")
    second = await acme.ask(ReissueWebhookSecret, WebhookSecret, contact_id=contact.contact_id)
    assert await acme.ask(GetWebhookSecret, WebhookSecret, contact_id=contact.contact_id) == second != first


async def test_groups_are_kept_and_show_only_who_is_there(acme: Asker) -> None:
    kim, lee = await acme.add(), await acme.add(name="Lee")
    group = await acme.ask(AddGroup, GroupView, name="On call", contacts=[lee.contact_id, kim.contact_id], command_id="g1")
    assert [one.name for one in group.contacts] == ["Kim", "Lee"]
    with pytest.raises(Conflict):
        await acme.ask(AddGroup, GroupView, name="On call")
    with pytest.raises(InvalidInput) as refusal:
        await acme.ask(EditGroup, GroupView, group_id=group.group_id, contacts=[kim.contact_id, "f" * 32])
    assert [problem.field for problem in refusal.value.fields] == ["contacts[1]"]
    edited = await acme.ask(EditGroup, GroupView, group_id=group.group_id, name="Night")
    assert await acme.ask(GetGroup, GroupView, group_id=group.group_id) == edited
    await acme.ask(RemoveContact, ContactRemovedReply, contact_id=lee.contact_id)
    assert [one.name for one in (await acme.ask(ListGroups, Groups)).groups[0].contacts] == ["Kim"]
    again = await acme.ask(AddGroup, GroupView, name="On call", contacts=[lee.contact_id, kim.contact_id], command_id="g1")
    assert (again.name, [one.name for one in again.contacts]) == ("On call", ["Kim"])
    await acme.ask(RemoveGroup, GroupRemovedReply, group_id=group.group_id)
    assert (await acme.ask(ListGroups, Groups)).groups == ()


async def test_a_removed_contact_is_forgotten_everywhere(
    acme: Asker, alerts: AlertsProcess, schema: ServiceDsn, nc: Client
) -> None:
    staying = await acme.add(name="Staying", email="staying@example.com")
    contact = await acme.add(command_id="a1", **PERSONAL, webhook_url=HOOK)
    id_ = contact.contact_id
    secrets = [await acme.ask(GetWebhookSecret, WebhookSecret, contact_id=id_)]
    await acme.verify(id_, "email", "sms")
    await acme.ask(AddGroup, GroupView, name="On call", contacts=[id_, staying.contact_id])
    await acme.ask(SendTest, TestRequested, contact_id=id_, method="sms")
    await acme.ask(EditContact, ContactView, contact_id=id_, command_id="e1", **LATER)
    await acme.ask(RequestVerification, VerificationView, contact_id=id_, method="email")
    codes = [await acme.code(id_, "email")]
    secrets.append(await acme.ask(ReissueWebhookSecret, WebhookSecret, contact_id=id_))
    words = [*PERSONAL.values(), *LATER.values(), HOOK, *(one.secret for one in secrets), *codes]
    assert any(LATER["name"] in one for one in await opened(schema))  # it was there, and the look finds it

    await acme.ask(RemoveContact, ContactRemovedReply, contact_id=id_, command_id="r1")
    await acme.ask(RemoveContact, ContactRemovedReply, contact_id=id_)
    for one in await opened(schema):
        assert not [word for word in words if word in one]
    assert any("staying@example.com" in one for one in await opened(schema))
    everything = [row for some in (await tables(schema)).values() for row in some]
    assert len(everything) > 20
    everything += await stored(nc)
    everything += alerts.log.read_text().splitlines()
    private = [*words[:-1], *(word.encode().hex() for word in words[:-1])]  # six digits may be in any number
    for one in everything:
        assert not [word for word in private if word in one], one
    with pytest.raises(Conflict):
        await acme.add(command_id="a1", **PERSONAL, webhook_url=HOOK)
    for asked, reply in ((GetContact, ContactView), (GetWebhookSecret, WebhookSecret)):
        with pytest.raises(NotFound):
            await acme.ask(asked, reply, contact_id=id_)


async def test_a_rebuild_gives_the_same_rows_and_asks_for_nothing(
    acme: Asker, alerts: AlertsProcess, schema: ServiceDsn, nc: Client
) -> None:
    kim, lee = await acme.add(webhook_url=HOOK), await acme.add(name="Lee", phone="+821012345678")
    await acme.verify(kim.contact_id, "email", "webhook")
    await acme.ask(RequestVerification, VerificationView, contact_id=lee.contact_id, method="sms")
    await acme.ask(EditContact, ContactView, contact_id=kim.contact_id, email="", quiet_hours={"start": "22:00", "end": "06:00"})
    await acme.ask(SendTest, TestRequested, contact_id=kim.contact_id, method="webhook")
    group = await acme.ask(AddGroup, GroupView, name="On call", contacts=[kim.contact_id, lee.contact_id])
    await acme.ask(EditGroup, GroupView, group_id=group.group_id, contacts=[kim.contact_id])
    gone = await acme.add(name="Gone")
    await acme.ask(RemoveContact, ContactRemovedReply, contact_id=gone.contact_id)
    assert alerts.stop() == 0
    before = await tables(schema)
    assert all(before[name] for name in ("contact", "contact_method", "contact_group", "group_member", "notification"))
    done = alerts.run("--rebuild")
    assert done.returncode == 0, done.stderr.decode()
    after = await tables(schema)
    assert {name: after[name] for name in TABLES} == {name: before[name] for name in TABLES}
    assert (after["event"], after["vault"]) == (before["event"], before["vault"])


async def test_what_was_decided_is_told_in_the_stream_and_the_log_says_who_asked(
    acme: Asker, schema: ServiceDsn, nc: Client
) -> None:
    contact = await acme.add()
    await acme.ask(EditContact, ContactView, contact_id=contact.contact_id, name="Lee", actor="member:m7")
    await acme.ask(RequestVerification, VerificationView, contact_id=contact.contact_id, method="email", actor="member:m8")

    async def told() -> list[str]:
        return [one.split()[0].rpartition(".")[2] for one in await stored(nc)]

    # No mail server is set up, so the message that tells the code fails at once.
    order = ["ContactAdded", "ContactEdited", "VerificationRequested", "NotificationRequested", "NotificationFailed"]
    await eventually(told, order)
    asked = await rows(schema, "SELECT meta->>'actor' FROM event ORDER BY position")
    assert [actor for (actor,) in asked] == ["token:t1", "member:m7", "member:m8", "member:m8", "service:alerts"]


async def test_a_card_opens_with_no_other_key_and_under_no_other_id(acme: Asker, schema: ServiceDsn) -> None:
    await acme.add(**PERSONAL)
    ((id_, sealed),) = await rows(schema, "SELECT id, sealed FROM vault")
    assert PERSONAL["email"].encode() not in sealed
    with pytest.raises(VaultKeyUnknown):
        Vault(SecretStr("00" * 32)).open_kept(id_, sealed)
    with pytest.raises(VaultKeyUnknown):
        Vault(SecretStr(VAULT_KEY)).open_kept("0" * 32, sealed)


async def test_bad_input_is_refused_with_each_field(acme: Asker, nc: Client) -> None:
    answer = await nc.request(
        f"alerts.commands.{AddContact.__name__}",
        b'{"command_id":"c1","account":"acme","actor":"token:t1","name":"","email":"kim","phone":"010","nickname":"k"}',
        timeout=20,
        headers={"content-type": "application/json"},
    )
    said = answer.data.decode()
    assert all(f'"field":"{field}"' in said for field in ("name", "email", "phone", "nickname"))
