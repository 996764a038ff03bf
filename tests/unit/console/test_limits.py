"""How many failures are borne, in how much memory, and by which address they are counted."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from starlette.datastructures import Headers

from services.console.http.boundary import address_of
from services.console.ratelimit import KEYS_MAX, FailureLimit, Remembered
from shared.clock import FixedClock


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 1, 1, tzinfo=UTC))


def test_ten_failures_a_minute(clock: FixedClock) -> None:
    limit = FailureLimit(clock.monotonic)
    for _ in range(9):
        limit.failed("a", "b")
    assert limit.retry_after_s("a") == 0
    clock.advance(20)
    limit.failed("a")
    assert (limit.retry_after_s("a"), limit.retry_after_s("b"), limit.retry_after_s("b", "a")) == (40, 0, 40)
    clock.advance(39.5)
    assert limit.retry_after_s("a") == 1
    clock.advance(0.5)
    assert limit.retry_after_s("a") == 0
    limit.failed("a")
    assert limit.retry_after_s("a") == 0, "a new minute has begun"


def test_a_million_addresses_cost_no_memory(clock: FixedClock) -> None:
    limit, good = FailureLimit(clock.monotonic), Remembered(clock.monotonic)
    for number in range(KEYS_MAX + 100):
        limit.failed(f"address {number}")
        good.add(number.to_bytes(4))
    assert len(limit._failures) == len(good._until) == KEYS_MAX
    assert (0).to_bytes(4) not in good
    assert (KEYS_MAX).to_bytes(4) in good


def test_what_is_remembered_is_forgotten(clock: FixedClock) -> None:
    good = Remembered(clock.monotonic)
    good.add(b"x")
    assert b"x" in good
    clock.advance(900)
    assert b"x" not in good
    good.add(b"x")
    good.discard(b"x")
    good.discard(b"x")
    assert b"x" not in good


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("203.0.113.9", [], [], "203.0.113.9"),
        ("203.0.113.9", ["192.0.2.1"], [], "203.0.113.9"),
        ("10.0.0.1", ["192.0.2.1"], ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6, 192.0.2.1, 10.0.0.2"], ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", ["6.6.6.6", "192.0.2.1"], ["10.0.0.0/8"], "192.0.2.1"),
        ("10.0.0.1", [], ["10.0.0.0/8"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.7"], ["10.0.0.0/8"], "10.0.0.7"),
        ("10.0.0.1", ["nonsense"], ["10.0.0.0/8"], "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", [], [], "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", [], [], "192.0.2.1"),
        ("::1", ["2001:db8::1"], ["::1/128"], "2001:db8::/64"),
    ],
)
def test_whose_address_counts(peer: str, forwarded: list[str], trusted: list[str], address: str) -> None:
    headers = Headers(raw=[(b"x-forwarded-for", value.encode()) for value in forwarded])
    networks = [ip_network(network) for network in trusted]
    assert address_of({"client": (peer, 1)}, headers, networks) == address
