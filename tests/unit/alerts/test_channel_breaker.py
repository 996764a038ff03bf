"""The circuit breaker, on a clock that stands still."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.alerts.channels.breaker import Breaker, breaker_key
from shared.clock import FixedClock

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(START)


def broken(clock: FixedClock) -> Breaker:
    breaker = Breaker(clock, failures=3, open_s=2, open_max_s=10, probe_s=20)
    for _ in range(3):
        assert breaker.ask("email") == 0
        breaker.failed("email")
    return breaker


def test_it_opens_after_failures_in_a_row(clock: FixedClock) -> None:
    breaker = Breaker(clock, failures=3, open_s=2)
    for outcome in ("failed", "failed", "worked", "failed", "failed"):
        getattr(breaker, outcome)("email")
    assert breaker.ask("email") == 0
    breaker.failed("email")
    assert breaker.ask("email") == 2
    assert breaker.ask("sms") == 0
    clock.advance(1.5)
    assert breaker.ask("email") == 0.5


def test_half_open_one_may_try_and_the_others_wait_for_it(clock: FixedClock) -> None:
    breaker = broken(clock)
    clock.advance(2)
    assert breaker.ask("email") == 0
    assert breaker.ask("email") == 20
    breaker.worked("email")
    assert [breaker.ask("email") for _ in range(3)] == [0, 0, 0]
    assert breaker.opened() == 0


def test_each_probe_that_fails_doubles_the_wait_up_to_a_cap(clock: FixedClock) -> None:
    breaker, waits = broken(clock), []
    for _ in range(5):
        waits.append(breaker.ask("email"))
        clock.advance(waits[-1])
        assert breaker.ask("email") == 0
        breaker.failed("email")
    assert waits == [2, 4, 8, 10, 10]


def test_who_began_before_it_opened_and_fails_late_does_not_prolong_it(clock: FixedClock) -> None:
    breaker = broken(clock)
    breaker.failed("email")
    breaker.failed("email")
    assert breaker.ask("email") == 2
    clock.advance(2)
    breaker.failed("email")  # nobody probes yet
    assert breaker.ask("email") == 0


def test_a_probe_that_is_never_told_of_holds_the_key_for_a_while_only(clock: FixedClock) -> None:
    breaker = broken(clock)
    clock.advance(2)
    assert breaker.ask("email") == 0
    clock.advance(19)
    assert breaker.ask("email") == 1
    clock.advance(1)
    assert breaker.ask("email") == 0
    breaker.unheard("email")
    assert breaker.ask("email") == 0


def test_it_remembers_so_many_keys_and_no_more(clock: FixedClock) -> None:
    breaker = Breaker(clock, failures=1, open_s=2, keys_max=2)
    for key in ("a", "b", "a", "c"):
        breaker.failed(key)
    assert [breaker.ask(key) for key in ("a", "b", "c")] == [2, 0, 2]


def test_webhooks_fail_by_host_and_port() -> None:
    assert breaker_key("email", "a@example.com") == breaker_key("email", "b@example.org")
    assert breaker_key("webhook", "https://One.example/a") == breaker_key("webhook", "https://one.example/b")
    assert len({breaker_key("webhook", f"https://{host}/") for host in ("a.example", "b.example", "a.example:8443")}) == 3


class BreakerMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order: while it is open nobody may try, and it never waits for longer than its cap."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FixedClock(START)
        self.breaker = Breaker(self.clock, failures=2, open_s=1, open_max_s=8, probe_s=5)
        self.in_a_row = 0
        self.under_way = 0

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 9.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def asks(self) -> None:
        opened = self.breaker.opened()
        wait = self.breaker.ask("k")
        assert 0 <= wait <= 8
        if wait == 0:
            self.under_way += 1
            if opened:
                assert self.breaker.ask("k") == 5  # it is the probe, and the only one
        else:
            assert opened
            assert self.in_a_row >= 2

    @precondition(lambda self: self.under_way)
    @rule()
    def one_works(self) -> None:
        self.under_way -= 1
        self.in_a_row = 0
        self.breaker.worked("k")
        assert self.breaker.ask("k") == 0
        assert not self.breaker.opened()

    @precondition(lambda self: self.under_way)
    @rule()
    def one_fails(self) -> None:
        self.under_way -= 1
        self.in_a_row += 1
        self.breaker.failed("k")

    @invariant()
    def it_is_open_only_after_two_failures_in_a_row(self) -> None:
        assert bool(self.breaker.opened()) == (self.in_a_row >= 2)


TestBreakerMachine = BreakerMachine.TestCase
