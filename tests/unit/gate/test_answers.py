"""The bodies and headers of the gate's answers, as NAVER's clients parse them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from services.gate import answers
from services.gate.answers import passed, quota_short
from services.gate.domain import Pass, Reason
from shared.commands.quota import Short, Whose

REFUSALS = answers.refusals(naver_unselected_answer=False)


def error_of(answer: answers.Answer) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(answer.body)
    assert list(content) == ["error"]
    error: dict[str, Any] = content["error"]
    assert error["details"].endswith(".")
    return error


def code(answer: answers.Answer) -> tuple[int, str, str]:
    error = error_of(answer)
    return answer.status, error["errorCode"], error["message"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.UNKNOWN_SERVICE, (404, "300", "Not Found")),
        (Reason.CREDENTIALS_MISSING, (401, "200", "Authentication Failed")),
        (Reason.CREDENTIALS_TWICE, (401, "200", "Authentication Failed")),
        (Reason.CREDENTIALS_WRONG, (401, "200", "Authentication Failed")),
        (Reason.SERVICE_NOT_SELECTED, (401, "210", "Permission Denied")),
        (Reason.SERVICE_SUSPENDED, (401, "210", "Permission Denied")),
        (Reason.WEB_NOT_REGISTERED, (401, "210", "Permission Denied")),
        (Reason.ANDROID_NOT_REGISTERED, (401, "210", "Permission Denied")),
        (Reason.IOS_NOT_REGISTERED, (401, "210", "Permission Denied")),
        (Reason.QUANTITY_INVALID, (400, "100", "Bad Request")),
    ],
)
def test_every_reason_has_its_code(reason: Reason, expected: tuple[int, str, str]) -> None:
    assert code(REFUSALS[reason]) == expected
    assert REFUSALS[reason].outcome == reason


def test_a_suspended_service_is_said_to_be_so() -> None:
    assert error_of(REFUSALS[Reason.SERVICE_SUSPENDED])["details"] == "The service app is suspended."


def test_no_reason_is_forgotten() -> None:
    assert set(REFUSALS) == set(Reason)


def test_the_switch_for_navers_own_answer_to_an_unselected_service() -> None:
    switched = answers.refusals(naver_unselected_answer=True)
    assert code(switched[Reason.SERVICE_NOT_SELECTED]) == (429, "400", "Quota Exceeded")
    for reason in set(Reason) - {Reason.SERVICE_NOT_SELECTED}:
        assert code(switched[reason]) == code(REFUSALS[reason])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answers.NOT_FOUND, (404, "300", "Not Found")),
        (answers.HEADERS_TOO_LARGE, (413, "430", "Request Entity Too Large")),
        (answers.OVERLOADED, (503, "500", "Endpoint Error")),
        (answers.STARTING, (503, "500", "Endpoint Error")),
        (answers.NOT_RECORDED, (503, "500", "Endpoint Error")),
        (answers.UNEXPECTED, (500, "900", "Unexpected Error")),
    ],
)
def test_the_gates_own_refusals(answer: answers.Answer, expected: tuple[int, str, str]) -> None:
    assert code(answer) == expected
    assert (b"retry-after" in dict(answer.headers)) == (answer.status == 503)


def test_the_length_and_type_of_a_body_are_said() -> None:
    for answer in REFUSALS.values():
        headers = dict(answer.headers)
        assert int(headers[b"content-length"]) == len(answer.body)
        assert headers[b"content-type"] == b"application/json"
        assert (b"www-authenticate" in headers) == (answer.status == 401)


def test_a_proxy_that_sees_only_headers_can_still_pass_on_the_body() -> None:
    for answer in (*REFUSALS.values(), answers.STARTING, answers.UNEXPECTED):
        assert dict(answer.headers)[answers.REFUSAL_HEADER] == answer.body


def test_more_fields_follow_the_details() -> None:
    answer = answers.refusal(
        "limit", 429, "400", "Quota Exceeded", "Over.", limit=10, used=10, resets_at="2026-03-02T00:00:00+09:00"
    )
    assert list(error_of(answer)) == ["errorCode", "message", "details", "limit", "used", "resets_at"]


def test_a_call_that_passes_is_told_to_the_api_in_headers() -> None:
    status, *lines = answers.passed(Pass("k" * 20, "acme", "csr", "test", "secret-1", 1)).removesuffix(b"\r\n").split(b"\r\n")
    assert status == b"HTTP/1.1 200 OK"
    assert dict(line.split(b": ") for line in lines) == {
        b"content-length": b"0",
        b"x-tollbook-client-id": b"k" * 20,
        b"x-tollbook-account": b"acme",
        b"x-tollbook-service": b"csr",
        b"x-tollbook-tier": b"test",
    }


@pytest.mark.parametrize("account", ["acme\r\nx-tollbook-tier: live", "acme\n", "acme\0"])
def test_what_is_told_in_a_header_cannot_become_another_one(account: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        answers.passed(Pass("k" * 20, account, "csr", "test", "secret-1", 1))


def test_an_answer_goes_over_the_wire_as_it_is_described() -> None:
    whole = answers.as_bytes(answers.STARTING)
    head, _, body = whole.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    assert status == b"HTTP/1.1 503 Service Unavailable"
    assert [tuple(line.split(b": ", 1)) for line in lines] == [*answers.STARTING.headers, (b"connection", b"close")]
    assert body == answers.STARTING.body


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 2, tzinfo=timezone(timedelta(hours=9)))


def short(limit: int = 10, used: int = 10, *, recallable: bool = False, whose: Whose = "application") -> Short:
    return Short("daily", limit, used, MIDNIGHT, max(0, limit - used), recallable, whose)


@pytest.mark.parametrize(
    ("found", "quantity", "words"),
    [
        (short(), 1, "All of the application's daily limit of 10 at this service is used."),
        (
            short(whose="account"),
            1,
            "All of the account's daily limit of 10 at this service (all of its applications together) is used.",
        ),
        (
            short(whose="test"),
            1,
            "All of the test quota of 10 a month (until this service is activated for the application) is used.",
        ),
        (short(0, 0), 1, "No call passes under the application's daily limit of 0 at this service."),
        (short(10, 8), 3, "The call counts as 3, more than what is left of the application's daily limit of 10 at this service."),
        (
            short(10, 0),
            11,
            "The call counts as 11, more than the whole of the application's daily limit of 10 at this service: it never passes.",
        ),
        (short(10, 3, recallable=True), 2, "is set aside for calls that are being made now"),
    ],
)
def test_a_refusal_for_want_of_units_says_whose_limit_it_is(found: Short, quantity: int, words: str) -> None:
    answer = quota_short(found, quantity, NOON)
    error = msgspec.json.decode(answer.body)["error"]
    assert (answer.outcome, answer.status, error["errorCode"], error["message"]) == (
        "quota_exceeded",
        429,
        "400",
        "Quota Exceeded",
    )
    assert words in error["details"]
    assert (error["limit"], error["used"]) == (found.limit, found.used)
    assert error["resets_at"] == "2026-03-02T00:00:00+09:00"
    headers = dict(answer.headers)
    assert headers[b"x-tollbook-refusal"] == answer.body
    assert headers[b"retry-after"] == (b"1" if found.recallable else b"10800")


def test_when_to_try_again_is_never_before_the_next_second() -> None:
    for at in (MIDNIGHT - timedelta(milliseconds=1), MIDNIGHT, MIDNIGHT + timedelta(hours=1)):
        assert dict(quota_short(short(), 1, at).headers)[b"retry-after"] == b"1"


def test_an_account_in_utc_is_told_its_reset_with_a_z() -> None:
    utc = msgspec.structs.replace(short(), resets_at=datetime(2026, 3, 2, tzinfo=UTC))
    assert msgspec.json.decode(quota_short(utc, 1, NOON).body)["error"]["resets_at"] == "2026-03-02T00:00:00Z"


def test_a_call_that_passes_tells_what_is_left() -> None:
    decision = Pass("k" * 20, "acme", "csr", "live", "s", 1)
    assert passed(decision, 7) == passed(decision) + b"x-tollbook-remaining: 7\r\n"
    assert passed(decision, 0).endswith(b"x-tollbook-remaining: 0\r\n")
