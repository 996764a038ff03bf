"""Codes that prove an address: how often they are sent, how often they may be entered, and what they never verify."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pydantic import SecretStr

from services.alerts.contacts import ATTEMPTS_MAX, CODE_VALID, Contact, evolve
from services.alerts.requests import request_id, request_stream
from services.alerts.tokens import Unsubscribing, make_token, read_token
from services.alerts.verification import (
    ACCOUNT_CODES_MAX,
    CODES_MAX,
    RESEND_AFTER,
    TESTS_MAX,
    CodeFacts,
    EnteredFacts,
    NewCode,
    TriedFacts,
    confirm_verification,
    request_verification,
    send_test,
    unsubscribe,
)
from shared.commands.contacts import ConfirmVerification, RequestVerification, SendTest, Unsubscribe
from shared.errors import Conflict, InvalidInput, NotFound, TooManyRequests
from shared.eventlog.vault import Vault
from shared.events import alerts
from shared.events.alerts import (
    ContactEdited,
    ContactUnsubscribed,
    NotificationRequested,
    VerificationFailed,
    Verifying,
)
from tests.support.alerts_examples import ACCOUNT, CODE, CODE_VAULT, KIM, NEXT_VAULT, NOW, added, asked, command, verified
from tests.support.scenario import Outcome, Scenario

CONTACTS: Scenario[Contact | None] = Scenario(None, evolve)
UNSUBSCRIBED = ContactUnsubscribed(account=ACCOUNT, contact_id=KIM, method="email")
MINUTE = timedelta(minutes=1)
NEWER = NewCode("7" * 32, "555555")


def request(
    *past: Any, now: datetime = NOW, there: tuple[datetime, ...] = (), account: tuple[datetime, ...] = (), **fields: Any
) -> Outcome[Contact | None]:
    wish = command(RequestVerification, **{"contact_id": KIM, "method": "email", **fields})
    facts = CodeFacts(now, there, account)
    return CONTACTS.given(*past).when(lambda state: request_verification(state, facts, wish, NewCode(CODE_VAULT, CODE)))


def confirm(
    *past: Any, code: str = CODE, now: datetime = NOW, vault_id: str = CODE_VAULT, **fields: Any
) -> Outcome[Contact | None]:
    wish = command(ConfirmVerification, **{"contact_id": KIM, "method": "email", "code": code, **fields})
    facts = EnteredFacts(now, {vault_id: CODE})
    return CONTACTS.given(*past).when(lambda state: confirm_verification(state, facts, wish))


def failed(left: int) -> VerificationFailed:
    return VerificationFailed(account=ACCOUNT, contact_id=KIM, method="email", attempts_left=left)


def test_a_code_is_sealed_and_the_message_that_tells_it_is_asked_for_at_once() -> None:
    decision = request(added()).then(asked())
    assert decision.seal == {CODE_VAULT: CODE.encode()}
    id_ = request_id(f"verification/{CODE_VAULT}", KIM, "email")
    message = NotificationRequested(
        request_id=id_,
        account=ACCOUNT,
        client_id="",
        service="",
        app_name="",
        contact_id=KIM,
        method="email",
        about=Verifying(CODE_VAULT, NOW + CODE_VALID),
        due_at=NOW,
        deadline=NOW + CODE_VALID,
    )
    assert decision.begins == {request_stream(id_): [message]}
    assert (decision.reply.expires_at, decision.reply.resend_at) == (NOW + CODE_VALID, NOW + RESEND_AFTER)


def test_another_code_is_sent_after_a_minute_and_shreds_the_one_before() -> None:
    refusal = request(added(), asked(NOW - RESEND_AFTER + timedelta(milliseconds=1))).refused(TooManyRequests)
    assert (refusal.detail.endswith("in 1 seconds."), refusal.retry_after_s) == (True, 1)
    decision = request(added(), asked(NOW - RESEND_AFTER, vault_id=NEXT_VAULT)).then(asked())
    assert list(decision.shred) == [NEXT_VAULT]


def test_an_address_gets_five_codes_a_day_and_an_account_a_hundred() -> None:
    spread = tuple(NOW - timedelta(hours=23) + number * MINUTE for number in range(CODES_MAX))
    request(added(), there=spread[1:]).then(asked())
    refusal = request(added(), there=spread).refused(TooManyRequests, says=str(CODES_MAX))
    assert "3600 seconds" in refusal.detail
    many = tuple(NOW - timedelta(hours=1) for _ in range(ACCOUNT_CODES_MAX))
    request(added(), account=many[1:]).then(asked())
    request(added(), account=many).refused(TooManyRequests, says=str(ACCOUNT_CODES_MAX))


def test_a_corrected_address_need_not_wait_for_its_code() -> None:
    correction = ContactEdited(
        account=ACCOUNT,
        contact_id=KIM,
        vault_id=NEXT_VAULT,
        methods=("email",),
        readdressed=("email", "sms"),
        locale="ko",
        zone="Asia/Seoul",
    )
    request(added(), asked(NOW - timedelta(seconds=1)), correction).then(asked())


def test_what_is_verified_needs_no_code_until_it_was_unsubscribed() -> None:
    request(added(), verified()).refused(Conflict)
    request(added(), verified(), UNSUBSCRIBED).then(asked())
    request(added(methods=("sms",))).refused(InvalidInput, fields=("method",))
    request().refused(NotFound)


def test_the_right_code_verifies_and_is_shredded() -> None:
    decision = confirm(added(), asked()).then(verified())
    assert (decision.reply.verified, list(decision.shred)) == (True, [CODE_VAULT])
    again = confirm(added(), verified(), code="000000").then_nothing()
    assert again.reply.verified


def test_verifying_again_takes_an_unsubscription_back() -> None:
    confirm(added(), verified(), UNSUBSCRIBED, asked()).then(verified())
    state = CONTACTS.given(added(), verified(), UNSUBSCRIBED, asked(), verified()).state
    assert state is not None
    assert state.methods["email"].usable


def test_a_wrong_code_is_counted_and_the_fifth_makes_it_void() -> None:
    decision = confirm(added(), asked(), code="000000").then(failed(4))
    assert (decision.reply.verified, decision.reply.attempts_left, list(decision.shred)) == (False, 4, [])
    last = confirm(added(), asked(), failed(1), code="000000").then(failed(0))
    assert (last.reply.attempts_left, list(last.shred)) == (0, [CODE_VAULT])
    void = confirm(added(), asked(), failed(0)).then_nothing()
    assert (void.reply.verified, "void" in void.reply.problem) == (False, True)


def test_a_code_that_has_expired_or_was_never_sent_verifies_nothing() -> None:
    late = confirm(added(), asked(), now=NOW + CODE_VALID).then_nothing()
    assert (late.reply.verified, "expired" in late.reply.problem) == (False, True)
    confirm(added(), asked(), now=NOW + CODE_VALID - timedelta(microseconds=1)).then(verified())
    assert not confirm(added()).then_nothing().reply.verified


def test_a_code_that_the_vault_does_not_have_is_never_the_right_one() -> None:
    confirm(added(), asked(), vault_id="8" * 32).then(failed(4))


def test_unsubscribing_is_harmless_to_repeat() -> None:
    wish = command(Unsubscribe, token="t")
    for past, events in (([added(), verified()], [UNSUBSCRIBED]), ([added(), verified(), UNSUBSCRIBED], []), ([added()], [])):
        CONTACTS.given(*past).when(lambda state: unsubscribe(state, wish, "email")).then(*events)
    CONTACTS.given(added()).when(lambda state: unsubscribe(state, wish, "webhook")).then_nothing()
    CONTACTS.given().when(lambda state: unsubscribe(state, wish, "email")).refused(NotFound)


def test_a_link_says_whose_it_is_to_nobody_but_the_vault_that_sealed_it() -> None:
    vault = Vault(SecretStr("c7" * 32))
    token = make_token(vault, ACCOUNT, KIM, "email")
    assert read_token(vault, token) == Unsubscribing(ACCOUNT, KIM, "email")
    assert len(token) < 500
    assert KIM not in token
    assert read_token(Vault(SecretStr(f"{'01' * 32},{'c7' * 32}")), token).contact_id == KIM
    for wrong in ("", "x", "a b", "é", token[:-4], token[:20] + ("A" if token[20] != "A" else "B") + token[21:]):
        with pytest.raises(NotFound):
            read_token(vault, wrong)
    with pytest.raises(NotFound):
        read_token(Vault(SecretStr("01" * 32)), token)


def test_a_test_goes_to_what_can_be_used_ten_times_an_hour() -> None:
    wish = command(SendTest, contact_id=KIM, method="email")

    def send(*past: Any, tests: int = 0) -> Outcome[Contact | None]:
        facts = TriedFacts(NOW, [NOW - timedelta(minutes=30)] * tests)
        return CONTACTS.given(*past).when(lambda state: send_test(state, facts, wish))

    decision = send(added(), verified(), tests=TESTS_MAX - 1).then_nothing()
    ((stream, (message,)),) = decision.begins.items()
    assert stream == request_stream(decision.reply.delivery_id) == request_stream(request_id("test/c1", KIM, "email"))
    assert (message.about, message.due_at, message.deadline) == (alerts.Testing(NOW), NOW, NOW + timedelta(minutes=10))
    send(added(), verified(), tests=TESTS_MAX).refused(TooManyRequests, says="1800 seconds")
    send(added()).refused(Conflict, says="not verified")
    send(added(), verified(), UNSUBSCRIBED).refused(Conflict, says="unsubscribed")
    send(added(methods=("sms",))).refused(InvalidInput, fields=("method",))


def test_ids_of_requests_are_the_same_for_the_same_and_differ_for_everything_else() -> None:
    assert request_id("test/c1", KIM, "email") == request_id("test/c1", KIM, "email")
    parts = [
        ("test/c1", KIM, "email"),
        ("test/c1", KIM, "sms"),
        ("test/c", "1" + KIM, "email"),
        (f"test/c1{KIM[:2]}", KIM[2:], "email"),
    ]
    assert len({request_id(*one) for one in parts}) == len(parts)
    assert all(len(request_id(*one)) == 32 for one in parts)


class Verification(RuleBasedStateMachine):
    """Requests, entries, corrections and time, in any order: the address is verified only by the code that was sent to it last,
    while it is valid and after fewer than five wrong ones."""

    @initialize()
    def begin(self) -> None:
        self.state: Contact | None = evolve(None, added(methods=("email",)))
        self.now, self.made = NOW, 0
        self.vault: dict[str, str] = {}
        self.current = ""
        self.sent_at = NOW - timedelta(days=1)
        self.wrong = 0
        self.verified = False

    @rule(seconds=st.sampled_from([1, 59, 61, 599, 601]))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def have_one_sent(self) -> None:
        self.made += 1
        new = NewCode(f"{self.made:032x}", f"{self.made:06d}")
        wish = command(RequestVerification, contact_id=KIM, method="email")
        try:
            decision = request_verification(self.state, CodeFacts(self.now, (), ()), wish, new)
        except (Conflict, TooManyRequests):
            assert self.verified or self.now < self.sent_at + RESEND_AFTER
            return
        assert not self.verified
        self._apply(decision)
        self.current, self.sent_at, self.wrong = new.code, self.now, 0

    @rule(entered=st.integers(1, 6), newest=st.booleans())
    def enter(self, entered: int, newest: bool) -> None:
        code = self.current or "999999" if newest else f"{entered:06d}"
        wish = command(ConfirmVerification, contact_id=KIM, method="email", code=code)
        decision = confirm_verification(self.state, EnteredFacts(self.now, self.vault), wish)
        alive = bool(self.current) and self.now < self.sent_at + CODE_VALID and self.wrong < ATTEMPTS_MAX
        right = alive and code == self.current
        assert decision.reply.verified == (self.verified or right)
        if alive and not self.verified:
            self.wrong += not right
        self._apply(decision)
        if decision.reply.verified:
            self.verified, self.current = True, ""

    @rule()
    def correct_the_address(self) -> None:
        edited = ContactEdited(
            account=ACCOUNT,
            contact_id=KIM,
            vault_id=NEXT_VAULT,
            methods=("email",),
            readdressed=("email",),
            locale="ko",
            zone="Asia/Seoul",
        )
        self.state = evolve(self.state, edited)
        self.current, self.verified, self.sent_at = "", False, self.now - timedelta(days=1)

    @invariant()
    def it_is_verified_if_and_only_if_it_was(self) -> None:
        assert self.state is not None
        assert self.state.methods["email"].usable == self.verified

    def _apply(self, decision: Any) -> None:
        for event in decision.events:
            self.state = evolve(self.state, event)
        for id_ in decision.shred:
            self.vault.pop(id_, None)
        self.vault |= {id_: kept.decode() for id_, kept in decision.seal.items()}


TestVerification = Verification.TestCase
TestVerification.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
