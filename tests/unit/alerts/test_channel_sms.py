"""SENS's signature by its documented rule, its numbers, and Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.alerts.channels.http_calls import Answer
from services.alerts.channels.sens import country_and_number, signature
from services.alerts.messages import Refused


def test_the_signature_of_a_request() -> None:
    """Made by hand: printf 'POST /sms/v2/services/ncp:sms:kr:1:x/messages\\n1700000000000\\naccess' |
    openssl dgst -sha256 -hmac secret -binary | base64"""
    uri = "/sms/v2/services/ncp:sms:kr:1:x/messages"
    assert signature("secret", "POST", uri, "1700000000000", "access") == "Zs0IFJ42ceu2UFqrZdl5ieeNSlGZ31zANVU/X2/WZNE="


@pytest.mark.parametrize(
    ("address", "country", "number"),
    [
        ("+821012345678", "82", "01012345678"),
        ("+82212345678", "82", "0212345678"),
        ("+12015550123", "1", "2015550123"),
        ("+819012345678", "81", "9012345678"),
        ("+390612345678", "39", "0612345678"),
    ],
)
def test_a_number_is_country_and_number_within_it(address: str, country: str, number: str) -> None:
    assert country_and_number(address) == (country, number)


@pytest.mark.parametrize("address", ["", "01012345678", "+", "+999123", "kim@example.com"])
def test_what_is_no_number_is_refused(address: str) -> None:
    with pytest.raises(Refused) as caught:
        country_and_number(address)
    assert address == "" or address not in caught.value.answer


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Fri, 02 Jan 2026 03:05:05 GMT", 60.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("Fri, 02 Jan 2099 03:00:00 GMT", 86400.0),
        ("99999999999999999999", 86400.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٧", None),
        ("", None),
    ],
)
def test_retry_after_as_seconds_and_as_a_date(said: str, seconds: float | None) -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert Answer(429, {"Retry-After": said}, "").retry_after_s(now) == seconds
    assert Answer(429, {}, "").retry_after_s(now) is None
