"""What a provider answers goes into events: short, one line, and nothing in it that is somebody's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.channels.scrub import LENGTH_MAX, scrub

MAIL = "minsu.kim@example.com"
PHONE = "+821012345678"
HOOK = "https://hooks.example.com:8443/services/T0001/B0002?key=abcdef"


@pytest.mark.parametrize(
    ("answer", "address", "scrubbed"),
    [
        ("250 2.0.0 Ok: queued as 4F2A7C", MAIL, "250 2.0.0 Ok: queued as 4F2A7C"),
        ("550 5.1.1 <minsu.kim@example.com>: unknown", MAIL, "550 5.1.1 <***>: unknown"),
        ("550 user Minsu.Kim does not exist", MAIL, "550 user *** does not exist"),
        ("550 other@elsewhere.org too", MAIL, "550 *** too"),
        ("550 minsu.kim＠example.com", MAIL, "550 ***"),
        ("550 minsu.kim%40example.com", MAIL, "550 ***"),
        ("to 821012345678 failed", PHONE, "to *** failed"),
        ("to 010-1234-5678 failed", PHONE, "to *** failed"),
        ('{"to":"01012345678","code":21211}', PHONE, '{"to":"***","code":21211}'),
        ("call (02) 2123 4567 now", "", "call *** now"),
        ("see https://www.twilio.com/docs/errors/21211", PHONE, "see ***"),
        ("no route to hooks.example.com", HOOK, "no route to ***"),
        ("no such B0002", HOOK, "no such ***"),
        ("moved to elsewhere.example.org/a/b?c=d", HOOK, "moved to ***"),
        ("line one\r\n\tline two\x00\x1b[31m\u2028three", "", "line one line two [31m three"),
        ("", MAIL, ""),
    ],
)
def test_what_is_somebodys_is_blotted_out(answer: str, address: str, scrubbed: str) -> None:
    assert scrub(answer, address) == scrubbed


def test_an_answer_that_quotes_a_code_does_not_tell_it() -> None:
    assert scrub('{"echo":"Your code is 481516"}', HOOK, "Your code is 481516") == '{"echo":"Your code is ***"}'
    assert scrub("got 481 516", "", "Your code: 481 516") == "got ***"


def test_a_long_answer_is_cut_after_it_was_scrubbed() -> None:
    said = "x" * (LENGTH_MAX - 5) + " " + MAIL + " and more"
    scrubbed = scrub(said, MAIL)
    assert len(scrubbed) == LENGTH_MAX
    assert scrubbed.endswith("***…")


WORDS = st.text(max_size=60)


@given(before=WORDS, after=WORDS, address=st.sampled_from([MAIL, PHONE, HOOK]))
def test_whatever_stands_around_it_the_address_is_not_told(before: str, after: str, address: str) -> None:
    scrubbed = scrub(before + address + after, address)
    assert len(scrubbed) <= LENGTH_MAX
    assert scrubbed.isprintable()
    assert address.lower() not in scrubbed.lower()
    assert "minsu" not in scrubbed.lower()
    assert "12345678" not in scrubbed
    assert "B0002" not in scrubbed
