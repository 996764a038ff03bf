"""How leases are spent, extended, given back and refused: each path of the machine by itself."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from services.gate.leases import (
    ACK_S,
    AGAIN_S,
    HOPE_S,
    IDLE_S,
    REFUSED_S,
    TIDY_MAX,
    WANTED_MAX,
    Leases,
    Taken,
    Waiting,
    may_spend,
)
from shared.commands.quota import WISHES_MAX, Leased, LeaseQuota, Short, Undecided, Unlimited, Wish
from tests.support.desk import DAY_END_US, ID, KEY, Desk
from tests.support.granting import UTC_NOON


def test_units_are_taken_until_there_are_none() -> None:
    desk = Desk(daily=10)
    first = desk.begin(4)
    assert first.remaining == 6
    assert desk.leases.still_good(first.lease, desk.now_s)
    for left in range(5, -1, -1):
        if desk.take() is None:
            desk.ask(1)
            assert desk.taken().remaining == left
    assert desk.take() is None
    answer = desk.ask(1)
    assert isinstance(answer, Short)
    assert (answer.limit, answer.used, answer.available) == (10, 0, 0)


def test_a_quantity_is_taken_whole_or_not_at_all() -> None:
    desk = Desk(daily=10)
    desk.begin(7)
    assert desk.take(5) is None
    assert isinstance(desk.ask(5), Short)
    desk.pass_time(HOPE_S)
    assert isinstance(desk.take(5), Short)
    assert desk.take(3) is None, "so many could be had"
    desk.ask(3)
    assert desk.taken(3).remaining == 0


def test_a_busy_application_is_given_what_it_needs_for_some_seconds() -> None:
    desk = Desk(daily=1_000_000)
    desk.begin()
    requests = []
    for millisecond in range(5_000):
        desk.pass_time(0.001)
        if desk.take() is None:
            desk.ask(1)
            desk.taken()
        elif desk.leases.due():
            desk.ask()
            requests.append(millisecond)
    assert len(requests) < 50
    assert len([at for at in requests if at > 2_000]) <= 2, "about one in three seconds, once the rate is known"
    held = desk.leases.held()
    assert held[0] == 1
    assert 300 < held[1] < 4_000


def test_calls_of_many_sizes_that_wait_are_asked_for_together() -> None:
    desk = Desk(daily=100)
    desk.take(3)
    wish = desk.wish(3, 20)
    assert wish is not None
    assert (wish.needed, wish.lease) == (3, "")
    assert 20 <= wish.wanted < 40
    desk.ask(3, 20)
    assert desk.taken(3).remaining == 97
    assert desk.taken(17).remaining == 80


def test_more_than_a_number_can_hold_is_never_asked_for() -> None:
    desk = Desk(daily=10**18)
    biggest = 1_000_000_000
    desk.begin(biggest)
    for _ in range(20_000):
        if desk.take(biggest) is None:
            desk.ask(biggest, 10**18)
    wish = desk.wish(biggest, 10**18)
    assert wish is not None
    assert biggest <= wish.wanted <= WANTED_MAX
    desk.pass_time(1e9)
    wish = desk.wish(1)
    assert wish is not None
    assert wish.wanted == 2, "the rate is forgotten"


@pytest.mark.parametrize("odd", [math.nan, -1.0, 0.0, -math.inf])
def test_a_lease_of_an_odd_length_is_never_spent(odd: float) -> None:
    desk = Desk(daily=10)
    desk.metering.lease_s = odd
    desk.take()
    desk.ask(1)
    assert desk.take() is None
    assert desk.wish(1) is None, "not asked again without a pause"
    desk.pass_time(AGAIN_S)
    assert desk.wish(1) is not None
    desk.leases.tidy(desk.now_s, desk.now_us)
    desk.leases.tidy(desk.now_s, desk.now_us)


def test_a_lease_ends_by_the_interval_timer() -> None:
    desk = Desk(daily=100)
    taken = desk.begin(4)
    desk.pass_time(8.5)
    assert desk.leases.still_good(taken.lease, desk.now_s)
    desk.pass_time(0.3)
    assert desk.take() is None, "an acknowledgement might come too late"
    assert desk.leases.still_good(taken.lease, desk.now_s)
    desk.pass_time(0.2)
    assert not desk.leases.still_good(taken.lease, desk.now_s)
    assert desk.begin(1).lease != taken.lease
    assert desk.metering.rows[taken.lease].stated == 4
    assert not may_spend(9.0, 0.0, 10.0, 1.0)
    assert may_spend(8.999, 0.0, 10.0, 1.0)


def test_a_lease_in_use_is_extended() -> None:
    desk = Desk(daily=1000)
    lease = desk.begin().lease
    for _ in range(60):
        desk.pass_time(0.5)
        taken = desk.take()
        if taken is None:
            desk.ask(1)
            taken = desk.taken()
        elif desk.leases.due():
            desk.ask()
        assert isinstance(taken, Taken)
        assert taken.lease == lease
    assert desk.metering.rows[lease].seen_s > 1020


def test_the_day_that_a_lease_is_for() -> None:
    desk = Desk(daily=100)
    desk.now_us = DAY_END_US - 1_000
    lease = desk.begin(4).lease
    assert desk.take(1) is None or desk.taken(1).lease == lease
    desk.now_us = DAY_END_US
    assert desk.take() is None
    tomorrow = desk.begin(1)
    assert tomorrow.lease != lease
    assert desk.leases.still_good(lease, desk.now_s), "what was taken before midnight may still be recorded"
    desk.now_us = DAY_END_US - 1
    assert desk.take() is None, "the clock was set back"


def test_a_refusal_stands_for_a_moment() -> None:
    desk = Desk(daily=0)
    desk.take()
    desk.ask(1)
    for _ in range(5):
        assert isinstance(desk.take(), Short)
    desk.pass_time(REFUSED_S)
    assert desk.take() is None
    desk.ask(1)
    assert isinstance(desk.take(), Short)
    desk.leases.revoke("acme", ID, "csr", desk.now_s)
    assert desk.take() is None, "the limit has changed"
    desk.ask(1)
    assert desk.take() is None, "what was asked in that very moment does not count"
    desk.pass_time(0.001)
    desk.ask(1)
    assert isinstance(desk.take(), Short)
    desk.now_us = DAY_END_US
    assert desk.take() is None, "the day is another"


def test_units_that_may_come_back_are_waited_for() -> None:
    desk = Desk(daily=10)
    others = LeaseQuota(publisher="gate-2", partition=1, wishes=(Wish(ID, "csr", 10, 10, UTC_NOON),))
    lease = desk.metering.answer(others, desk.now_s).answers[0]
    assert isinstance(lease, Leased)
    desk.take()
    began_s = desk.now_s
    while desk.now_s < began_s + HOPE_S:
        assert desk.take() is None
        answer = desk.ask(1)
        assert answer is None or (isinstance(answer, Short) and answer.recallable)
        desk.pass_time(0.02)
    assert 5 <= len(desk.metering.requests) <= 60
    assert isinstance(desk.take(), Short)
    desk.pass_time(REFUSED_S)
    assert desk.take() is None
    desk.metering.rows[lease.lease].stated = 8
    desk.ask(1)
    assert desk.taken().remaining == 1


def test_what_is_not_decided_is_waited_for() -> None:
    desk = Desk(daily=10)
    desk.metering.undecided = "counting again"
    desk.take()
    desk.ask(1)
    assert desk.take() is None
    assert desk.leases.last_word(KEY) == Undecided("counting again")
    desk.pass_time(HOPE_S)
    assert desk.take() == Undecided("counting again")
    desk.metering.undecided = ""
    desk.ask(1)
    desk.taken()
    assert desk.leases.last_word(KEY) is None
    assert desk.leases.last_word(("z" * 20, "csr")) is None


def test_without_a_limit_calls_pass_without_a_lease() -> None:
    desk = Desk()
    desk.take()
    desk.ask(1)
    assert desk.take() == Unlimited()
    desk.metering.daily[KEY] = 10
    desk.leases.revoke("acme", ID, "csr", desk.now_s)
    desk.pass_time(0.001)
    assert desk.begin().remaining == 9
    del desk.metering.daily[KEY]
    desk.pass_time(6)
    desk.take()
    assert desk.ask() == Unlimited()
    assert desk.take() == Unlimited()
    assert len(desk.leases.returns()) == 1


def test_near_the_limit_nothing_is_asked_for_ahead() -> None:
    desk = Desk(daily=4)
    desk.begin()
    while desk.leases.held()[1] or desk.take() is not None:
        desk.take()
    before = len(desk.metering.requests)
    for _ in range(100):
        desk.ask()
    assert len([r for r in desk.metering.requests[before:] if r.wishes]) <= 1


def test_many_applications_are_looked_at_some_at_a_time() -> None:
    desk = Desk()
    keys = [(f"{number:020}", "csr") for number in range(10_000)]
    desk.metering.daily = dict.fromkeys(keys, 10)
    for key in keys:
        desk.take(1, key)
    waiting = dict.fromkeys(keys, Waiting(1, 1, "acme"))
    rounds = 0
    while waiting:
        wishes = desk.leases.wishes(waiting, desk.now_s, desk.now_us)
        assert 0 < len(wishes) <= WISHES_MAX
        for wish in wishes:
            row = Leased(f"l{wish.client_id}", 5, 5, 10, 1, UTC_NOON, UTC_NOON + timedelta(days=1), 0)
            desk.leases.answered(wish, row, desk.now_s, desk.now_s)
            del waiting[wish.client_id, wish.service]
        rounds += 1
    assert rounds == len(keys) / WISHES_MAX
    desk.pass_time(IDLE_S + 0.1)
    desk.leases.tidy(desk.now_s, desk.now_us)
    assert desk.leases.held()[0] == len(keys) - TIDY_MAX
    for _ in range(10):
        desk.leases.tidy(desk.now_s, desk.now_us)
    assert desk.leases.held()[0] == 0
    assert len(desk.leases.returns()) == WISHES_MAX
    desk.pass_time(20)
    for _ in range(10):
        desk.leases.tidy(desk.now_s, desk.now_us)
    assert vars(desk.leases) == vars(Leases())


def test_headroom_is_less_than_the_margin() -> None:
    assert ACK_S < 1.0
