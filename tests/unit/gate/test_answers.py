"""The bodies and headers of the gate's answers, as NAVER's clients parse them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.gate import answers
from services.gate.domain import Pass, Reason

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
        (Reason.WEB_NOT_REGISTERED, (401, "210", "Permission Denied")),
        (Reason.ANDROID_NOT_REGISTERED, (401, "210", "Permission Denied")),
        (Reason.IOS_NOT_REGISTERED, (401, "210", "Permission Denied")),
        (Reason.QUANTITY_INVALID, (400, "100", "Bad Request")),
    ],
)
def test_every_reason_has_its_code(reason: Reason, expected: tuple[int, str, str]) -> None:
    assert code(REFUSALS[reason]) == expected
    assert REFUSALS[reason].outcome == reason


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
