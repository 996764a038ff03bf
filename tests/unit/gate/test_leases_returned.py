"""How leases are given back, recalled and revoked."""

from __future__ import annotations

from datetime import timedelta

from services.gate.leases import IDLE_S, Leases, Taken, Waiting
from shared.commands.quota import Leased, LeaseQuota, Undecided, Unlimited, Wish
from tests.support.desk import ID, NOON_US, Desk
from tests.support.granting import UTC_NOON


def test_what_is_idle_is_returned_and_forgotten() -> None:
    desk = Desk(daily=100)
    lease = desk.begin(3).lease
    assert not desk.leases.due()
    desk.pass_time(IDLE_S + 0.1)
    desk.leases.tidy(desk.now_s, desk.now_us)
    assert desk.leases.due()
    assert desk.take() is None
    for _ in range(3):
        assert [(one.lease, one.spent) for one in desk.leases.returns()] == [(lease, 3)], "told until it is acknowledged"
    desk.ask()
    assert desk.leases.returns() == []
    assert desk.metering.rows[lease].stated == 3
    desk.pass_time(IDLE_S + 0.1)
    desk.leases.tidy(desk.now_s, desk.now_us)
    assert not desk.leases.still_good(lease, desk.now_s + 20)
    desk.pass_time(20)
    desk.leases.tidy(desk.now_s, desk.now_us)
    assert vars(desk.leases) == vars(Leases()), "nothing is left"


def test_a_return_that_nobody_takes_is_given_up_when_the_lease_is_over() -> None:
    desk = Desk(daily=100)
    desk.begin(3)
    desk.leases.return_all()
    desk.pass_time(11.1)
    desk.leases.tidy(desk.now_s, desk.now_us)
    assert not desk.leases.due()


def test_a_lease_given_up_while_its_extension_is_under_way_is_not_spent_again() -> None:
    desk = Desk(daily=100)
    lease = desk.begin(3).lease
    desk.pass_time(6)
    desk.take()
    wish = desk.wish(5)
    assert wish is not None
    asked_s = desk.now_s
    desk.leases.recall("acme", ID, "csr")
    answer = desk.metering.answer(LeaseQuota(publisher="gate-1", partition=0, wishes=(wish,)), asked_s).answers[0]
    assert isinstance(answer, Leased)
    assert answer.lease == lease
    desk.leases.answered(wish, answer, asked_s, desk.now_s)
    assert desk.take() is None
    desk.ask(1)
    assert desk.taken().lease != lease
    assert desk.metering.rows[lease].stated in (3, 4)


def test_an_extension_that_is_answered_when_the_lease_is_forgotten_gives_nothing_anew() -> None:
    """A gate that was stopped for seconds finds that the lease is over before it finds the answer: all the lease's units would be
    there a second time."""
    desk = Desk(daily=100)
    lease = desk.begin(3).lease
    desk.pass_time(8)
    wish = desk.wish(5)
    assert wish is not None
    assert wish.lease == lease
    asked_s = desk.now_s
    answer = desk.metering.answer(LeaseQuota(publisher="gate-1", partition=0, wishes=(wish,)), asked_s).answers[0]
    assert isinstance(answer, Leased)
    desk.pass_time(3.1)
    desk.take(50)
    desk.leases.tidy(desk.now_s, desk.now_us)
    desk.leases.answered(wish, answer, asked_s, desk.now_s)
    assert desk.take() is None
    assert not desk.leases.still_good(lease, desk.now_s)


def test_what_was_granted_before_a_limit_changed_goes_back() -> None:
    desk = Desk(daily=100)
    desk.take()
    wish = desk.wish(1)
    assert wish is not None
    asked_s = desk.now_s
    desk.pass_time(0.01)
    desk.leases.revoke("acme", ID, "csr", desk.now_s)
    answer = desk.metering.answer(LeaseQuota(publisher="gate-1", partition=0, wishes=(wish,)), asked_s).answers[0]
    desk.leases.answered(wish, answer, asked_s, desk.now_s)
    assert desk.take() is None
    assert [one.spent for one in desk.leases.returns()] == [0]
    for late in (Unlimited(), Undecided("x")):
        desk.leases.answered(wish, late, asked_s, desk.now_s)
        assert desk.take() is None


def test_answers_for_nobody() -> None:
    desk = Desk(daily=100)
    wish = Wish(ID, "csr", 1, 1, UTC_NOON)
    desk.leases.answered(wish, Unlimited(), 1.0, 1.0)
    day = timedelta(days=1)
    desk.leases.answered(wish, Leased("l", 5, 5, 10, 1, UTC_NOON, UTC_NOON + day, 0), 1.0, 1.0)
    assert [one.lease for one in desk.leases.returns()] == ["l"]
    assert desk.leases.wishes({}, 1.0, NOON_US) == []


def test_who_waits_is_not_forgotten() -> None:
    """Metering did not answer for a while: what is asked for after that is what calls wait for, also when they were forgotten."""
    desk = Desk(daily=100)
    assert desk.take() is None
    for _ in range(3):
        assert desk.wish(1) is not None
        desk.pass_time(IDLE_S / 2 + 0.1)
        desk.leases.tidy(desk.now_s, desk.now_us)
    desk.pass_time(IDLE_S + 0.1)
    desk.leases.tidy(desk.now_s, desk.now_us)
    desk.ask(1)
    assert desk.taken()


def test_an_accounts_leases_end_together() -> None:
    desk = Desk()
    keys = [(letter * 20, service) for letter in "abc" for service in ("csr", "papago-nmt")]
    desk.metering.daily = dict.fromkeys(keys, 10)
    for account, key in zip(["acme", "acme", "acme", "acme", "other", "other"], keys, strict=True):
        desk.leases.take(key, account, 1, desk.now_s, desk.now_us)
    wishes = desk.leases.wishes(dict.fromkeys(keys, Waiting(1, 1, "acme")), desk.now_s, desk.now_us)
    answers = desk.metering.answer(LeaseQuota(publisher="g", partition=0, wishes=tuple(wishes)), desk.now_s).answers
    for wish, answer in zip(wishes, answers, strict=True):
        desk.leases.answered(wish, answer, desk.now_s, desk.now_s)
    assert desk.leases.held()[0] == 6
    desk.leases.recall("acme", "", "csr")
    assert desk.leases.held()[0] == 4
    desk.leases.revoke("acme", "", "papago-nmt", desk.now_s)
    desk.leases.revoke("nobody", "", "csr", desk.now_s)
    assert desk.leases.held()[0] == 2
    desk.leases.return_all()
    assert desk.leases.held() == (0, 0)
    assert len(desk.leases.returns()) == 6


def test_units_that_no_record_names_are_put_back() -> None:
    desk = Desk(daily=100)
    taken = desk.begin(5)
    desk.leases.put_back(taken, 5)
    desk.leases.return_all()
    assert [one.spent for one in desk.leases.returns()] == [0]
    desk.leases.put_back(Taken("unknown", 0, 0), 1)
