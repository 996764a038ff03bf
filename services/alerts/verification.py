"""Whether messages may go to an address: codes that prove it, a wish for no more of them, and messages to try it. Pure.

A message that a command causes is asked for in the same decision: it begins the stream of its request.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from services.alerts.contacts import ATTEMPTS_MAX, CODE_VALID, Code, Contact, own, standing_of
from services.alerts.requests import request_id, request_stream
from shared.commands.contacts import (
    ConfirmVerification,
    RequestVerification,
    SendTest,
    TestRequested,
    Unsubscribe,
    Unsubscribed,
    VerificationResult,
    VerificationView,
)
from shared.errors import Conflict, TooManyRequests
from shared.eventlog.decision import Decision
from shared.events.alerts import (
    About,
    AlertsEvent,
    ContactUnsubscribed,
    ContactVerified,
    Method,
    NotificationRequested,
    Testing,
    VerificationFailed,
    VerificationRequested,
    Verifying,
)

RESEND_AFTER: Final = timedelta(seconds=60)
DAY: Final = timedelta(days=1)
CODES_MAX: Final = 5
"""Codes to one address in a day, at most."""
ACCOUNT_CODES_MAX: Final = 100
"""Codes of one account in a day, at most."""
HOUR: Final = timedelta(hours=1)
TESTS_MAX: Final = 10
"""Test messages to one contact in an hour, at most."""
TEST_VALID: Final = timedelta(minutes=10)


class NewCode(NamedTuple):
    """A code, freshly made in case the command is accepted, and its id in the vault."""

    vault_id: str
    code: str


class CodeFacts(NamedTuple):
    """When codes were sent within a day, the oldest first: to the contacts that have this address now, and by the account."""

    now: datetime
    to_address: Sequence[datetime]
    of_account: Sequence[datetime]


class EnteredFacts(NamedTuple):
    """The codes that the vault has for the address, by their ids: one or none."""

    now: datetime
    codes: Mapping[str, str]


class TriedFacts(NamedTuple):
    """When test messages to the contact were asked for within an hour, the oldest first."""

    now: datetime
    tests: Sequence[datetime]


def request_verification(
    state: Contact | None, facts: CodeFacts, command: RequestVerification, new: NewCode
) -> Decision[AlertsEvent, VerificationView]:
    """Have a code sent. One that was sent before to this address is void from now on."""
    contact = own(state, command.account)
    standing = standing_of(contact, command.method)
    if standing.usable:
        raise Conflict("This address is verified.")
    if standing.code is not None and standing.code.sent_at + RESEND_AFTER > facts.now:
        raise _too_many("A code was sent there a moment ago.", standing.code.sent_at + RESEND_AFTER - facts.now)
    if len(facts.to_address) >= CODES_MAX:
        wait = facts.to_address[-CODES_MAX] + DAY - facts.now
        raise _too_many(f"{CODES_MAX} codes were sent to this address within a day.", wait)
    if len(facts.of_account) >= ACCOUNT_CODES_MAX:
        wait = facts.of_account[-ACCOUNT_CODES_MAX] + DAY - facts.now
        raise _too_many(f"The account has had {ACCOUNT_CODES_MAX} codes sent within a day.", wait)
    expires_at = facts.now + CODE_VALID
    requested = VerificationRequested(
        account=contact.account,
        contact_id=contact.contact_id,
        method=command.method,
        vault_id=new.vault_id,
        expires_at=expires_at,
    )
    message = _message(
        contact, command.method, f"verification/{new.vault_id}", Verifying(new.vault_id, expires_at), facts.now, expires_at
    )
    return Decision(
        [requested],
        VerificationView(
            contact_id=contact.contact_id,
            method=command.method,
            expires_at=expires_at,
            resend_at=facts.now + RESEND_AFTER,
        ),
        begins={request_stream(message.request_id): [message]},
        seal={new.vault_id: new.code.encode()},
        shred=[standing.code.vault_id] if standing.code is not None else [],
        at=facts.now,
    )


def confirm_verification(
    state: Contact | None, facts: EnteredFacts, command: ConfirmVerification
) -> Decision[AlertsEvent, VerificationResult]:
    """Verify the address, or count the attempt: as an answer, for a refusal would leave nothing behind to count."""
    contact = own(state, command.account)
    standing = standing_of(contact, command.method)
    here = VerificationResult(contact_id=contact.contact_id, method=command.method, verified=False)
    if standing.usable:
        return Decision([], here.model_copy(update={"verified": True}))
    code = standing.code
    problem = _void(code, facts.now)
    if code is None or problem:
        return Decision([], here.model_copy(update={"problem": problem}))
    if hmac.compare_digest(facts.codes.get(code.vault_id, "").encode(), command.code.encode()):
        verified = ContactVerified(account=contact.account, contact_id=contact.contact_id, method=command.method)
        return Decision([verified], here.model_copy(update={"verified": True}), shred=[code.vault_id])
    left = code.attempts_left - 1
    failed = VerificationFailed(account=contact.account, contact_id=contact.contact_id, method=command.method, attempts_left=left)
    problem = "This is not the code." if left else f"This is not the code, {ATTEMPTS_MAX} times now. Have another one sent."
    reply = here.model_copy(update={"attempts_left": left, "problem": problem})
    return Decision([failed], reply, shred=[] if left else [code.vault_id])


def unsubscribe(state: Contact | None, command: Unsubscribe, method: Method) -> Decision[AlertsEvent, Unsubscribed]:
    """Nothing more goes there but a code that is asked for. Once more changes nothing; nor does it when the address is gone."""
    contact = own(state, command.account)
    reply = Unsubscribed(method=method)
    standing = contact.methods.get(method)
    if standing is None or not standing.usable:
        return Decision([], reply)
    event = ContactUnsubscribed(account=contact.account, contact_id=contact.contact_id, method=method)
    return Decision([event], reply)


def send_test(state: Contact | None, facts: TriedFacts, command: SendTest) -> Decision[AlertsEvent, TestRequested]:
    """Have a message sent that tells nothing but that messages arrive."""
    contact = own(state, command.account)
    standing = standing_of(contact, command.method)
    if standing.unsubscribed:
        raise Conflict("Who reads this address has unsubscribed. Verify it again first.")
    if not standing.verified:
        raise Conflict("This address is not verified. Verify it first.")
    if len(facts.tests) >= TESTS_MAX:
        wait = facts.tests[-TESTS_MAX] + HOUR - facts.now
        raise _too_many(f"{TESTS_MAX} test messages were sent to this contact within an hour.", wait)
    cause = f"test/{command.command_id}"
    message = _message(contact, command.method, cause, Testing(facts.now), facts.now, facts.now + TEST_VALID)
    begins = {request_stream(message.request_id): [message]}
    return Decision([], TestRequested(delivery_id=message.request_id), begins=begins, at=facts.now)


def _message(
    contact: Contact, method: Method, cause: str, about: About, due_at: datetime, deadline: datetime
) -> NotificationRequested:
    return NotificationRequested(
        request_id=request_id(cause, contact.contact_id, method),
        account=contact.account,
        client_id="",
        service="",
        app_name="",
        contact_id=contact.contact_id,
        method=method,
        about=about,
        due_at=due_at,
        deadline=deadline,
    )


def _void(code: Code | None, now: datetime) -> str:
    """Why no code can be entered, "" if one can."""
    if code is None:
        return "There is no code for this address. Have one sent."
    if not code.attempts_left:
        return "The code is void after too many wrong ones. Have another one sent."
    return "The code has expired. Have another one sent." if code.expires_at <= now else ""


def _too_many(what: str, wait: timedelta) -> TooManyRequests:
    seconds = max(1, -(-wait // timedelta(seconds=1)))
    return TooManyRequests(f"{what} Ask again in {seconds} seconds.", retry_after_s=seconds)
