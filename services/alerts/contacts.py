"""Contacts: whom an account can have told, and what follows from a wish to change one. Pure.

Each contact has a stream of its own. Its name and addresses are a Card, which comes in as a fact and goes out to be sealed: the
events, and so this state, know only under which id of the vault it is. What proves an address is in verification.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple, assert_never

import msgspec

from services.alerts.cards import Card, addresses, encode_card
from shared.commands.contacts import (
    CONTACTS_MAX,
    AddContact,
    ContactRemovedReply,
    ContactView,
    EditContact,
    MethodView,
    QuietHoursEntered,
    QuietHoursView,
    ReissueWebhookSecret,
    RemoveContact,
    WebhookSecret,
)
from shared.errors import Conflict, FieldProblem, InvalidInput, NotFound
from shared.eventlog.decision import Decision
from shared.events.alerts import (
    METHODS,
    AlertsEvent,
    ContactAdded,
    ContactEdited,
    ContactRemoved,
    ContactUnsubscribed,
    ContactVerified,
    GroupChanged,
    GroupRemoved,
    Locale,
    Method,
    NotificationDelivered,
    NotificationFailed,
    NotificationRequested,
    NotificationRuleChanged,
    QuietHours,
    RecipientsChanged,
    VerificationFailed,
    VerificationRequested,
)

CODE_VALID: Final = timedelta(minutes=10)
ATTEMPTS_MAX: Final = 5
FIELD_OF: Final[Mapping[Method, str]] = {"email": "email", "sms": "phone", "webhook": "webhook_url"}
"""The field of an address, in commands and cards."""


class Code(msgspec.Struct, frozen=True):
    """A code that was sent. `attempts_left` 0: it is void."""

    vault_id: str
    expires_at: datetime
    attempts_left: int = ATTEMPTS_MAX

    @property
    def sent_at(self) -> datetime:
        return self.expires_at - CODE_VALID


class Standing(msgspec.Struct, frozen=True):
    """What is known of one address: whether its reader has proved to be there, and has not asked to be left alone since."""

    verified: bool = False
    unsubscribed: bool = False
    code: Code | None = None

    @property
    def usable(self) -> bool:
        """Something else than a code may be sent there."""
        return self.verified and not self.unsubscribed


class Contact(msgspec.Struct, frozen=True):
    """A contact. `methods` has each address that it has."""

    account: str
    contact_id: str
    vault_id: str
    methods: Mapping[Method, Standing]
    locale: Locale
    zone: str
    quiet_hours: QuietHours | None = None
    digest_at: str | None = None
    removed: bool = False


class New(NamedTuple):
    """Freshly made, in case the command is accepted: an id for the vault, and a secret for a webhook."""

    vault_id: str
    webhook_secret: str


class AccountFacts(NamedTuple):
    """How many contacts the account has, and the time."""

    now: datetime
    contacts: int


class Kept(NamedTuple):
    """What is kept of a contact besides its stream."""

    card: Card
    added_at: datetime
    edited_at: datetime


class CardFacts(NamedTuple):
    """What is kept of the command's contact (None: there is none), and the time."""

    now: datetime
    kept: Kept | None


def contact_stream(contact_id: str) -> str:
    """The stream of a contact."""
    return f"contact/{contact_id}"


def evolve(state: Contact | None, event: AlertsEvent) -> Contact | None:
    """The contact after one more event of its stream."""
    match event:
        case ContactAdded():
            methods = {method: Standing() for method in event.methods}
            shape = (event.vault_id, methods, event.locale, event.zone, event.quiet_hours, event.digest_at)
            return Contact(event.account, event.contact_id, *shape)
        case (
            GroupChanged()
            | GroupRemoved()
            | NotificationRuleChanged()
            | RecipientsChanged()
            | NotificationRequested()
            | NotificationDelivered()
            | NotificationFailed()
        ):  # of other streams
            return state
        case _:
            assert state is not None, "a contact is added first"
            return _evolve_added(state, event)


def _evolve_added(
    contact: Contact,
    event: ContactEdited | ContactRemoved | VerificationRequested | VerificationFailed | ContactVerified | ContactUnsubscribed,
) -> Contact:
    match event:
        case ContactEdited():
            staying = {method: standing for method, standing in contact.methods.items() if method not in event.readdressed}
            methods = {method: staying.get(method, Standing()) for method in event.methods}
            shape = (event.vault_id, methods, event.locale, event.zone, event.quiet_hours, event.digest_at)
            return Contact(event.account, event.contact_id, *shape)
        case ContactRemoved():
            return msgspec.structs.replace(contact, methods={}, removed=True)
        case VerificationRequested():
            return _with(contact, event.method, code=Code(event.vault_id, event.expires_at))
        case VerificationFailed():
            code = contact.methods[event.method].code
            assert code is not None, "a code was sent first"
            return _with(contact, event.method, code=msgspec.structs.replace(code, attempts_left=event.attempts_left))
        case ContactVerified():
            return _with(contact, event.method, verified=True, unsubscribed=False, code=None)
        case ContactUnsubscribed():
            return _with(contact, event.method, unsubscribed=True)
        case _:
            assert_never(event)


def _with(contact: Contact, method: Method, **changed: bool | Code | None) -> Contact:
    standing = msgspec.structs.replace(contact.methods[method], **changed)
    return msgspec.structs.replace(contact, methods={**contact.methods, method: standing})


# -- commands


def add_contact(
    state: Contact | None, facts: AccountFacts, command: AddContact, contact_id: str, new: New
) -> Decision[AlertsEvent, ContactView]:
    """A new contact, none of whose addresses is verified."""
    if state is not None:
        raise Conflict("A contact with this new id exists already. Ask again.")
    if facts.contacts >= CONTACTS_MAX:
        raise Conflict(f"The account has {facts.contacts} contacts; at most {CONTACTS_MAX} are possible. Remove one first.")
    card = _card(command.name, command.email, command.phone, command.webhook_url, new.webhook_secret)
    added = ContactAdded(
        account=command.account,
        contact_id=contact_id,
        vault_id=new.vault_id,
        methods=tuple(addresses(card)),
        locale=command.locale,
        zone=command.zone,
        quiet_hours=_quiet_hours(command.quiet_hours),
        digest_at=command.digest_at,
    )
    after = evolve(None, added)
    assert after is not None, "it was added"
    view = contact_view(after, Kept(card, facts.now, facts.now), facts.now)
    return Decision([added], view, seal={new.vault_id: encode_card(card)}, reveals=new.vault_id, at=facts.now)


def edit_contact(state: Contact | None, facts: CardFacts, command: EditContact, new: New) -> Decision[AlertsEvent, ContactView]:
    """The contact with what was given changed. An address that is another one than before has to be verified."""
    contact, kept = _known(state, facts, command.account)
    card = _edited(kept.card, command, new.webhook_secret)
    now_has, had = addresses(card), addresses(kept.card)
    if not now_has:
        problem = FieldProblem(
            _last_removed(command), "No address would be left.", "Enter another address, or remove the contact."
        )
        raise InvalidInput("A contact has an address at least.", [problem])
    quiet_hours = contact.quiet_hours if command.quiet_hours is None else _quiet_hours(command.quiet_hours or None)
    edited = ContactEdited(
        account=contact.account,
        contact_id=contact.contact_id,
        vault_id=new.vault_id,
        methods=tuple(now_has),
        readdressed=tuple(method for method in METHODS if now_has.get(method) != had.get(method)),
        locale=command.locale or contact.locale,
        zone=command.zone or contact.zone,
        quiet_hours=quiet_hours,
        digest_at=contact.digest_at if command.digest_at is None else command.digest_at or None,
    )
    after = _evolve_added(contact, edited)
    if card == kept.card and after == msgspec.structs.replace(contact, vault_id=new.vault_id):
        return Decision([], contact_view(contact, kept, facts.now), reveals=contact.vault_id)
    return Decision(
        [edited],
        contact_view(after, Kept(card, kept.added_at, facts.now), facts.now),
        seal={new.vault_id: encode_card(card)},
        shred=[contact.vault_id, *codes_of(contact, edited.readdressed)],
        reveals=new.vault_id,
        at=facts.now,
    )


def reissue_webhook_secret(
    state: Contact | None, facts: CardFacts, command: ReissueWebhookSecret, new: New
) -> Decision[AlertsEvent, WebhookSecret]:
    """Another secret for the same webhook, which stays verified. The one before signs nothing more."""
    contact, kept = _known(state, facts, command.account)
    if not kept.card.webhook_url:
        raise no_webhook()
    edited = ContactEdited(
        account=contact.account,
        contact_id=contact.contact_id,
        vault_id=new.vault_id,
        methods=tuple(contact.methods),
        readdressed=(),
        locale=contact.locale,
        zone=contact.zone,
        quiet_hours=contact.quiet_hours,
        digest_at=contact.digest_at,
    )
    card = msgspec.structs.replace(kept.card, webhook_secret=new.webhook_secret)
    reply = WebhookSecret(contact_id=contact.contact_id, secret=new.webhook_secret)
    seal = {new.vault_id: encode_card(card)}
    return Decision([edited], reply, seal=seal, shred=[contact.vault_id], reveals=new.vault_id)


def remove_contact(state: Contact | None, command: RemoveContact) -> Decision[AlertsEvent, ContactRemovedReply]:
    """Remove it, and shred what the vault has of it. Removing it again changes nothing."""
    reply = ContactRemovedReply(contact_id=command.contact_id)
    if state is not None and state.removed and state.account == command.account:
        return Decision([], reply)
    contact = own(state, command.account)
    shred = [contact.vault_id, *codes_of(contact, METHODS)]
    return Decision([ContactRemoved(account=contact.account, contact_id=contact.contact_id)], reply, shred=shred)


# -- what commands have in common


def own(state: Contact | None, account: str) -> Contact:
    """The contact, if it is there for this account; another account's is as if there was none."""
    if state is None or state.account != account or state.removed:
        raise no_contact()
    return state


def standing_of(contact: Contact, method: Method) -> Standing:
    """What is known of the contact's address of that method. Raises InvalidInput when it has none."""
    if method in contact.methods:
        return contact.methods[method]
    problem = FieldProblem("method", "The contact has no such address.", f"Choose from: {', '.join(contact.methods)}.")
    raise InvalidInput("The contact cannot be reached like that.", [problem])


def no_contact() -> NotFound:
    """What is said about a contact that is not there, and about another account's."""
    return NotFound("There is no such contact.")


def no_webhook() -> NotFound:
    """What is said about the secret of a webhook that is not there."""
    return NotFound("The contact has no webhook.")


def codes_of(contact: Contact, methods: tuple[Method, ...]) -> list[str]:
    """Where the vault has codes for these addresses."""
    found = (contact.methods.get(method, Standing()).code for method in methods)
    return [code.vault_id for code in found if code is not None]


def contact_view(contact: Contact, kept: Kept, now: datetime) -> ContactView:
    """The contact as its account sees it."""
    card = kept.card
    quiet = contact.quiet_hours
    return ContactView(
        contact_id=contact.contact_id,
        name=card.name,
        email=card.email or None,
        phone=card.phone or None,
        webhook_url=card.webhook_url or None,
        locale=contact.locale,
        zone=contact.zone,
        quiet_hours=None if quiet is None else QuietHoursView(start=quiet.start, end=quiet.end),
        digest_at=contact.digest_at,
        methods=tuple(_method_view(method, address, contact.methods[method], now) for method, address in addresses(card).items()),
        added_at=kept.added_at,
        edited_at=kept.edited_at,
    )


def _method_view(method: Method, address: str, standing: Standing, now: datetime) -> MethodView:
    code = standing.code
    waits = code is not None and code.attempts_left > 0 and code.expires_at > now
    return MethodView(
        method=method,
        address=address,
        verified=standing.verified,
        unsubscribed=standing.unsubscribed,
        verification_expires_at=code.expires_at if code is not None and waits else None,
    )


def _known(state: Contact | None, facts: CardFacts, account: str) -> tuple[Contact, Kept]:
    contact = own(state, account)
    assert facts.kept is not None, "the read tables and the vault are never behind the log"
    return contact, facts.kept


def _card(name: str, email: str | None, phone: str | None, webhook_url: str | None, webhook_secret: str) -> Card:
    return Card(
        name=name,
        email=email or "",
        phone=phone or "",
        webhook_url=webhook_url or "",
        webhook_secret=webhook_secret if webhook_url else "",
    )


def _edited(card: Card, command: EditContact, webhook_secret: str) -> Card:
    """The card after the edit. Another URL is somebody else's, who shall not be able to sign as the one before."""
    name = card.name if command.name is None else command.name
    email = card.email if command.email is None else command.email
    phone = card.phone if command.phone is None else command.phone
    url = card.webhook_url if command.webhook_url is None else command.webhook_url
    return _card(name, email, phone, url, card.webhook_secret if url == card.webhook_url else webhook_secret)


def _last_removed(command: EditContact) -> str:
    """The field to name when no address is left: one that the command empties."""
    return next(field for field in FIELD_OF.values() if getattr(command, field) == "")


def _quiet_hours(entered: QuietHoursEntered | str | None) -> QuietHours | None:
    return QuietHours(entered.start, entered.end) if isinstance(entered, QuietHoursEntered) else None
