"""Adding, editing and removing contacts: what the log is told, what the vault keeps, and what it forgets."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from services.alerts.cards import Card, addresses, decode_card, encode_card
from services.alerts.contacts import (
    AccountFacts,
    Contact,
    Kept,
    add_contact,
    contact_view,
    edit_contact,
    evolve,
    reissue_webhook_secret,
    remove_contact,
)
from shared.commands.contacts import CONTACTS_MAX, AddContact, EditContact, ReissueWebhookSecret, RemoveContact
from shared.errors import Conflict, InvalidInput, NotFound
from shared.events.alerts import ContactEdited, ContactRemoved, QuietHours
from tests.support.alerts_examples import (
    ACCOUNT,
    BEFORE,
    CARD,
    CODE_VAULT,
    KIM,
    NEW,
    NEXT_SECRET,
    NEXT_VAULT,
    NOW,
    SECRET,
    VAULT,
    added,
    asked,
    card_facts,
    command,
    verified,
)
from tests.support.scenario import Outcome, Scenario

CONTACTS: Scenario[Contact | None] = Scenario(None, evolve)
REMOVED = ContactRemoved(account=ACCOUNT, contact_id=KIM)
HOOKED = Card(name="Kim", webhook_url="https://example.com/hook", webhook_secret=SECRET)


def add(contacts: int = 0, **fields: Any) -> Outcome[Contact | None]:
    wish = command(AddContact, **{"name": "Kim", "email": "kim@example.com", **fields})
    return CONTACTS.given().when(lambda state: add_contact(state, AccountFacts(NOW, contacts), wish, KIM, NEW))


def edit(*past: Any, card: Card = CARD, account: str = ACCOUNT, **fields: Any) -> Outcome[Contact | None]:
    wish = command(EditContact, contact_id=KIM, **fields).model_copy(update={"account": account})
    return CONTACTS.given(*past).when(lambda state: edit_contact(state, card_facts(card), wish, NEW))


def edited(**extra: Any) -> ContactEdited:
    shape: dict[str, Any] = {"methods": ("email", "sms"), "readdressed": (), "locale": "ko", "zone": "Asia/Seoul"}
    return ContactEdited(account=ACCOUNT, contact_id=KIM, vault_id=NEXT_VAULT, **{**shape, **extra})


def remove(*past: Any, account: str = ACCOUNT) -> Outcome[Contact | None]:
    wish = command(RemoveContact, contact_id=KIM).model_copy(update={"account": account})
    return CONTACTS.given(*past).when(lambda state: remove_contact(state, wish))


def test_a_contact_is_added_with_its_name_and_addresses_in_the_vault_only() -> None:
    decision = add(phone="+82 10-1234-5678", quiet_hours={"start": "22:00", "end": "07:00"}).then(
        added(vault_id=NEXT_VAULT, quiet_hours=QuietHours("22:00", "07:00"))
    )
    assert {id_: decode_card(kept) for id_, kept in decision.seal.items()} == {NEXT_VAULT: CARD}
    assert decision.reveals == NEXT_VAULT
    assert (decision.reply.name, decision.reply.email, decision.reply.phone) == ("Kim", "kim@example.com", "+821012345678")
    assert [(one.method, one.verified) for one in decision.reply.methods] == [("email", False), ("sms", False)]
    assert decision.reply.added_at == decision.at == NOW


def test_a_webhook_gets_a_secret_which_its_contact_does_not_show() -> None:
    decision = add(webhook_url="https://example.com/hook").then(added(vault_id=NEXT_VAULT, methods=("email", "webhook")))
    assert decode_card(decision.seal[NEXT_VAULT]).webhook_secret == NEXT_SECRET
    assert NEXT_SECRET not in decision.reply.model_dump_json()


def test_an_account_has_only_so_many_contacts() -> None:
    add(CONTACTS_MAX - 1).then(added(vault_id=NEXT_VAULT, methods=("email",)))
    add(CONTACTS_MAX).refused(Conflict, says=str(CONTACTS_MAX))


def test_an_edit_changes_what_is_given_and_shreds_the_card_before() -> None:
    decision = edit(added(), verified(), name="Kim Min", locale="en").then(edited(locale="en"))
    assert decode_card(decision.seal[NEXT_VAULT]) == Card(name="Kim Min", email=CARD.email, phone=CARD.phone)
    assert (list(decision.shred), decision.reveals) == ([VAULT], NEXT_VAULT)
    assert [(one.method, one.verified) for one in decision.reply.methods] == [("email", True), ("sms", False)]
    assert (decision.reply.added_at, decision.reply.edited_at) == (BEFORE, NOW)


def test_another_address_is_not_verified_and_the_code_of_the_old_one_is_void() -> None:
    decision = edit(added(), verified(), asked(method="sms"), phone="+821087654321").then(edited(readdressed=("sms",)))
    assert set(decision.shred) == {VAULT, CODE_VAULT}
    after = CONTACTS.given(added(), verified(), asked(method="sms"), edited(readdressed=("sms",))).state
    assert after is not None
    assert (after.methods["sms"].code, after.methods["email"].verified) == (None, True)


def test_an_address_is_removed_by_an_empty_text_and_another_one_added() -> None:
    decision = edit(added(), phone="", webhook_url="https://example.com/hook").then(
        edited(methods=("email", "webhook"), readdressed=("sms", "webhook"))
    )
    assert [one.method for one in decision.reply.methods] == ["email", "webhook"]


def test_a_code_of_an_address_that_stays_is_kept() -> None:
    decision = edit(added(), asked(), name="Kim Min").then(edited())
    assert list(decision.shred) == [VAULT]
    assert decision.reply.methods[0].verification_expires_at is not None


def test_quiet_hours_and_digest_are_removed_by_an_empty_text() -> None:
    before = added(quiet_hours=QuietHours("22:00", "07:00"), digest_at="09:00")
    edit(before, quiet_hours="", digest_at="").then(edited())
    edit(before, zone="Europe/Berlin").then(
        edited(zone="Europe/Berlin", quiet_hours=QuietHours("22:00", "07:00"), digest_at="09:00")
    )


def test_an_edit_that_changes_nothing_is_nothing() -> None:
    decision = edit(added(), name="Kim", email="kim@example.com", phone="+82 10-1234-5678").then_nothing()
    assert (decision.seal, list(decision.shred), decision.reveals) == ({}, [], VAULT)
    assert decision.reply.edited_at == BEFORE


def test_the_last_address_cannot_be_removed() -> None:
    refusal = edit(added(), email="", phone="").refused(InvalidInput, fields=("email",))
    assert "No address" in refusal.fields[0].problem


def test_another_webhook_gets_another_secret_and_the_same_one_keeps_its_own() -> None:
    hooked = added(methods=("webhook",))
    moved = edit(hooked, card=HOOKED, webhook_url="https://example.com/other").then(
        edited(methods=("webhook",), readdressed=("webhook",))
    )
    assert decode_card(moved.seal[NEXT_VAULT]).webhook_secret == NEXT_SECRET
    renamed = edit(hooked, card=HOOKED, name="Lee").then(edited(methods=("webhook",)))
    assert decode_card(renamed.seal[NEXT_VAULT]).webhook_secret == SECRET


def test_a_webhook_secret_is_reissued_and_the_webhook_stays_verified() -> None:
    wish = command(ReissueWebhookSecret, contact_id=KIM)
    past = CONTACTS.given(added(methods=("webhook",)), verified("webhook"))
    decision = past.when(lambda state: reissue_webhook_secret(state, card_facts(HOOKED), wish, NEW)).then(
        edited(methods=("webhook",))
    )
    assert decode_card(decision.seal[NEXT_VAULT]).webhook_secret == decision.reply.secret == NEXT_SECRET
    assert (list(decision.shred), decision.reveals) == ([VAULT], NEXT_VAULT)
    CONTACTS.given(added()).when(lambda state: reissue_webhook_secret(state, card_facts(), wish, NEW)).refused(NotFound)


def test_removing_a_contact_shreds_its_card_and_its_codes_and_once_more_is_nothing() -> None:
    decision = remove(added(), asked(), asked(method="sms", vault_id="4" * 32)).then(REMOVED)
    assert set(decision.shred) == {VAULT, CODE_VAULT, "4" * 32}
    remove(added(), REMOVED).then_nothing()


def test_a_contact_that_is_not_there_and_one_of_another_account_are_the_same() -> None:
    for outcome in (remove(), remove(added(), account="globex"), remove(added(), REMOVED, account="globex")):
        outcome.refused(NotFound, says="no such contact")
    for outcome in (edit(name="Lee"), edit(added(), account="globex", name="Lee"), edit(added(), REMOVED, name="Lee")):
        outcome.refused(NotFound, says="no such contact")


def test_a_card_comes_back_as_it_was_sealed_and_knows_its_addresses_in_order() -> None:
    full = Card(name="Kim", email="k@example.com", phone="+821012345678", webhook_url="https://x.example", webhook_secret=SECRET)
    assert decode_card(encode_card(full)) == full
    assert list(addresses(full)) == ["email", "sms", "webhook"]
    assert addresses(Card(name="Kim", phone="+1")) == {"sms": "+1"}


def test_a_code_that_has_expired_is_not_shown_as_waiting() -> None:
    state = CONTACTS.given(added(), asked(BEFORE)).state
    assert state is not None
    view = contact_view(state, Kept(CARD, BEFORE, BEFORE), NOW)
    assert view.methods[0].verification_expires_at is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": "", "email": "x"}, {"name", "email"}),
        ({"name": "a\x00b", "phone": "12"}, {"name", "phone"}),
        ({"name": "Kim"}, {"email"}),
        ({"name": "Kim", "email": "k@example.com", "zone": "Mars/Base", "digest_at": "24:00"}, {"zone", "digest_at"}),
        (
            {"name": "Kim", "webhook_url": "ftp://x", "quiet_hours": {"start": "08:00", "end": "08:00"}},
            {"webhook_url", "quiet_hours"},
        ),
    ],
)
def test_what_is_wrong_with_a_contact_is_said_all_at_once(fields: dict[str, Any], named: set[str]) -> None:
    with pytest.raises(ValidationError) as refusal:
        command(AddContact, **fields)
    errors = refusal.value.errors()
    found = {str(place) for error in errors for place in (error["loc"][:1] or error["ctx"]["fields"][:1])}
    assert found == named
