"""What the wishes of one request get, without rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from services.metering.granting import read_request
from services.metering.grants import Book, Facts, Scope, Sum, Terms, unanswerable
from shared.commands.quota import WISHES_MAX, Leased, Short, Undecided, Unlimited, Wish
from shared.errors import InvalidInput, MalformedRequest
from shared.windows import civil

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
DAY, MONTH = civil("Asia/Seoul").day(NOW), civil("Asia/Seoul").month(NOW)
A, B = "a" * 20, "b" * 20
FREE = Facts("acme", False, True, False, 0, None, None, 0, None, Sum(0, 0), Sum(0, 0), Sum(0, 0), 0, None)


def book(*, trusted: bool = True) -> Book:
    numbers = count(1)
    return Book(Terms(10.0, 1.0, {"csr": 5}), lambda: f"lease{next(numbers)}", trusted=trusted)


def wish(client_id: str = A, wanted: int = 1, needed: int = 1, lease: str = "") -> Wish:
    return Wish(client_id, "csr", wanted, needed, NOW, lease)


def test_without_a_limit_no_lease_is_needed_whether_or_not_counting_is_up_to_date() -> None:
    assert book(trusted=False).answer(wish(), DAY, MONTH, FREE) == Unlimited()
    limited = FREE._replace(version=1, daily=10)
    assert book(trusted=False).answer(wish(), DAY, MONTH, limited) == Undecided("counting is not up to date")


def test_the_tightest_limit_decides_and_is_named() -> None:
    facts = FREE._replace(version=3, daily=10, monthly=20, day=Sum(7, 1), month=Sum(19, 0), account_version=1, account_monthly=99)
    one = book()
    assert one.answer(wish(needed=2, wanted=2), DAY, MONTH, facts) == Short("monthly", 20, 19, MONTH.end, 1, False)
    [(scope, limit)] = one.exhausted
    assert (scope, limit.version, limit.window_start, one.recalls) == (Scope("acme", A, "csr"), 3, MONTH.start, set())
    of_account = facts._replace(account_monthly=50, account_month=Sum(40, 10))
    assert one.answer(wish(), DAY, MONTH, of_account) == Short("monthly", 50, 40, MONTH.end, 0, True, "account")
    assert one.recalls == {Scope("acme", "", "csr")}
    in_test = FREE._replace(in_test=True, month=Sum(5, 0))
    assert one.answer(wish(), DAY, MONTH, in_test) == Short("monthly", 5, 5, MONTH.end, 0, False, "test")
    assert one.exhausted[-1][1].version == 0


def test_a_call_that_would_never_pass_exhausts_nothing() -> None:
    facts, one = FREE._replace(version=1, daily=10, day=Sum(3, 0)), book()
    assert one.answer(wish(needed=11, wanted=11), DAY, MONTH, facts) == Short("daily", 10, 3, DAY.end, 7, False)
    assert one.exhausted == []
    one.answer(wish(needed=10, wanted=10), DAY, MONTH, facts)
    one.answer(wish(), DAY, MONTH, facts._replace(daily=0))
    assert [limit.limit for _, limit in one.exhausted] == [10, 0]


def test_later_wishes_see_what_earlier_ones_got() -> None:
    one = book()
    facts = FREE._replace(account_version=1, account_monthly=10)
    first = one.answer(wish(A, 3, 3), DAY, MONTH, facts)
    second = one.answer(wish(B, 5, 5), DAY, MONTH, facts)
    third = one.answer(wish(A, 3, 3), DAY, MONTH, facts)
    fourth = one.answer(wish(A, 2, 2), DAY, MONTH, facts)
    assert isinstance(first, Leased)
    assert isinstance(second, Leased)
    assert isinstance(fourth, Leased)
    assert third == Short("monthly", 10, 0, MONTH.end, 2, True, "account")
    assert (first.units, second.units, fourth.units, fourth.added, fourth.remaining) == (3, 5, 5, 2, 0)
    assert (first.lease, fourth.lease) == ("lease1", "lease1"), "the second wish for one scope adds to the first one's lease"
    assert [(lease.lease, lease.before, lease.added) for lease in one.set_aside.values()] == [("lease1", 0, 5), ("lease2", 0, 5)]


def test_a_lease_that_may_be_extended_is() -> None:
    one = book()
    answer = one.answer(wish(lease="mine"), DAY, MONTH, FREE._replace(version=1, daily=100, day=Sum(0, 7), held=7))
    assert isinstance(answer, Leased)
    assert (answer.lease, answer.units, answer.added, answer.day_start, answer.day_end) == ("mine", 8, 1, *DAY)
    assert answer.remaining == 92


def test_deleted_or_not_selected_is_undecided() -> None:
    assert isinstance(book().answer(wish(), DAY, MONTH, FREE._replace(deleted=True)), Undecided)
    assert isinstance(book().answer(wish(), DAY, MONTH, FREE._replace(selected=False)), Undecided)
    assert unanswerable(wish(), NOW, {"ocr"}) == "the service csr is not in the catalog"
    assert "clock" in unanswerable(wish(), NOW + timedelta(seconds=301), {"csr"})
    assert unanswerable(wish(), NOW - timedelta(seconds=299), {"csr"}) == ""


ONE_WISH = b'{"client_id":"a","service":"csr","wanted":1,"needed":1,"at":"2026-11-22T03:00:00Z"}'


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"publisher":"g"}', "(whole)"),
        (b'{"publisher":"","partition":0}', "publisher"),
        (b'{"publisher":"g","partition":4}', "partition"),
        (b'{"publisher":"g","partition":-1}', "partition"),
        (b'{"publisher":"g","partition":0,"wishes":[%s]}' % ONE_WISH.replace(b'"wanted":1', b'"wanted":0'), "wishes[0].wanted"),
        (b'{"publisher":"g","partition":0,"wishes":[%s]}' % ONE_WISH.replace(b"00Z", b"00"), "wishes[0].at"),
        (b'{"publisher":"g","partition":0,"wishes":[%s]}' % b",".join([ONE_WISH] * (WISHES_MAX + 1)), "wishes"),
        (b'{"publisher":"g","partition":0,"returned":[{"lease":"\\u0000","spent":1}]}', "returned[0].lease"),
        (b'{"publisher":"g","partition":0,"returned":[{"lease":"l","spent":-1}]}', "returned[0].spent"),
        (b'{"publisher":"g","partition":0,"returned":[{"lease":"l","spent":9223372036854775808}]}', "returned[0].spent"),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_and_the_field_named(data: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_request(data, 4)
    assert refused.value.fields[0].field == field


@pytest.mark.parametrize("data", [b"", b"{", b"\xff"])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_request(data, 4)
