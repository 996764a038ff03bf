"""Text messages are one segment everywhere: pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.alerts.messages import Item
from services.alerts.sms_text import carried, fitting, gsm_septets, korean_bytes, one_segment
from shared.commands.limits import LIMIT_MAX
from shared.events.alerts import (
    ChangesWanted,
    Deleted,
    DueSoon,
    Locale,
    Reissued,
    Resumed,
    Reviewed,
    Submitted,
    Suspended,
    Verifying,
    Withdrawn,
    told_to_reviewers,
)
from tests.support.letters import AT, CATALOG, CLIENT_ID, crossed, entry, item, renderer, sms

RENDERER = renderer()
REVIEW = "e" * 32
DUE = AT + timedelta(days=3, hours=3, minutes=48)
HOSTILE = "".join(map(chr, range(32))) + "\u2028\u202e\u200b\ufeff\u3164\U0001f600똠é한A{[]}~|€`ｱ漢กخ\ud800"
NAMES = st.text(max_size=40) | st.text(HOSTILE, max_size=40) | st.text("가나다 abc한", max_size=40)


def assert_one_segment_for_everybody(text: str) -> None:
    """With the standard library's codec and counts, not with what is tested."""
    assert len(text.encode("cp949")) <= 90
    assert max(map(ord, text)) <= 0xFFFF
    assert not [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    if text.isascii() and "`" not in text:  # the only printable ASCII character that GSM 03.38 has not
        assert len(text) + sum(text.count(char) for char in "^{}\\[~]|") <= 160
    elif gsm_septets(text) is None:
        assert len(text.encode("utf-16-be")) <= 140


@pytest.mark.parametrize("locale", ["ko", "en"])
@settings(max_examples=150, deadline=None)
@given(
    name=NAMES,
    percent=st.integers(1, 1000),
    limit=st.integers(0, LIMIT_MAX),
    service=st.sampled_from([*CATALOG, "gone-from-the-catalog"]),
    exhausted=st.booleans(),
    others=st.integers(0, 3),
)
@example(name="가" * 20, percent=100, limit=LIMIT_MAX, service="csr", exhausted=True, others=3)
@example(name="`" * 20, percent=100, limit=LIMIT_MAX, service="csr", exhausted=True, others=3)
@example(name="[]" * 10, percent=100, limit=LIMIT_MAX, service="csr", exhausted=False, others=0)
def test_whatever_the_name_a_crossing_is_one_segment_with_its_percentage(
    locale: Locale, name: str, percent: int, limit: int, service: str, exhausted: bool, others: int
) -> None:
    top = item(crossed(percent, limit=limit, used=limit, exhausted=exhausted), name, service=service)
    more = [Item("r", f"other{number}", name, service, crossed(1)) for number in range(others)]
    text = sms(RENDERER, top, *more, locale=locale)
    assert_one_segment_for_everybody(text)
    assert f"{percent}%" in text
    assert text.startswith("[Tollbook] ")


@pytest.mark.parametrize("locale", ["ko", "en"])
@settings(max_examples=60, deadline=None)
@given(
    name=NAMES,
    about=st.sampled_from(
        [
            Reissued(AT, None),
            Deleted(AT),
            Submitted(AT, REVIEW, DUE),
            Submitted(AT, REVIEW, DUE, to_reviewers=True),
            ChangesWanted(AT, REVIEW),
            Reviewed(AT, REVIEW, "approved"),
            Reviewed(AT, REVIEW, "rejected"),
            DueSoon(AT, REVIEW, DUE),
            Withdrawn(AT, REVIEW),
            Suspended(AT, REVIEW),
            Suspended(AT, REVIEW, to_reviewers=True),
            Resumed(AT, REVIEW),
        ]
    ),
    others=st.integers(0, 3),
)
def test_whatever_the_name_everything_else_is_one_segment(locale: Locale, name: str, about: Any, others: int) -> None:
    top = item(about, name, "" if told_to_reviewers(about) else CLIENT_ID, service="csr")
    more = [Item("r", f"other{number}", name, "csr", Reviewed(AT, f"z{number}", "rejected")) for number in range(others)]
    assert_one_segment_for_everybody(sms(RENDERER, top, *more, locale=locale))


def test_a_review_whose_application_has_no_name_for_a_phone_goes_by_its_id() -> None:
    text = sms(RENDERER, item(DueSoon(AT, REVIEW, DUE), "กข", "", "captcha-image"))
    assert text == f"[Tollbook] {REVIEW} (CAPTCHA (Image)): review due 11-27 18:00"


@pytest.mark.parametrize("locale", ["ko", "en"])
def test_a_code_is_told_whole_with_room_for_twelve_characters_at_any_time(locale: Locale) -> None:
    tomorrow = AT.replace(day=25)
    for code, until in (("123456", tomorrow), ("ABCD1234EFGH", AT)):
        text = sms(RENDERER, item(Verifying("v", until), "", "", ""), locale=locale, code=code)
        assert_one_segment_for_everybody(text)
        assert code in text


def test_the_longest_service_name_gives_way_too() -> None:
    catalog = CATALOG | {"long": entry("long", "S" * 100, "긴" * 100, "call")}
    for locale in ("ko", "en"):
        text = sms(renderer(catalog=catalog), item(crossed(90), "가나다라마", service="long"), locale=locale)
        assert_one_segment_for_everybody(text)
        assert "가나다라마" in text
        assert "90%" in text


def test_names_are_shortened_before_figures_go_and_both_only_as_far_as_needed() -> None:
    assert sms(RENDERER, item(), locale="ko") == "[Tollbook] Weather(이미지 캡차) 일간 90% 도달(900/1,000)"
    assert sms(RENDERER, item()) == "[Tollbook] Weather (CAPTCHA (Image)): 90% daily limit, 900/1,000"
    long = sms(RENDERER, item(app_name="가나다라마바사아자차카타파하거너더러머버", service="csr"), locale="ko")
    assert long == "[Tollbook] 가나다라마바사아자차..(CLOVA Speech Recognit..) 일간 90% 도달(900/1,000)"
    huge = sms(RENDERER, item(crossed(90, limit=LIMIT_MAX, used=LIMIT_MAX), "가나다라마바사아자차", service="csr"), locale="ko")
    assert "90%" in huge
    assert f"{LIMIT_MAX:,}" not in huge


def test_what_a_phone_cannot_show_is_told_otherwise() -> None:
    assert carried("Café Zoë \U0001f600☕") == "Cafe Zoe"
    assert carried("한\n글\u202e") == "한 글"
    assert carried("ｆｕｌｌ") == "full"
    assert carried("สวัสดี") == ""
    assert CLIENT_ID in sms(RENDERER, item(app_name="สวัสดี"))
    assert CLIENT_ID in sms(RENDERER, item(app_name="\U0001f600"), locale="ko")


@pytest.mark.parametrize(
    ("text", "korean", "septets", "fits"),
    [
        ("A" * 90, 90, 90, True),
        ("A" * 91, 91, 91, False),
        ("가" * 45, 90, None, True),
        ("가" * 45 + "A", 91, None, False),
        ("가" + "A" * 69, 71, None, True),
        ("가" + "A" * 70, 72, None, False),
        ("[" * 80, 80, 160, True),
        ("[" * 81, 81, 162, False),
        ("é", None, 1, False),
        ("\U0001f600", None, None, False),
        ("€", 2, 2, True),
        ("`" * 71, 71, None, False),
    ],
)
def test_the_budgets(text: str, korean: int | None, septets: int | None, fits: bool) -> None:
    assert (korean_bytes(text), gsm_septets(text), one_segment(text)) == (korean, septets, fits)


@given(st.lists(st.text("가나 ab", max_size=60).map(carried), min_size=1, max_size=3))
def test_a_name_that_fits_is_not_cut_and_one_more_byte_would_be_too_many(names: list[str]) -> None:
    def write(shortened: Sequence[str], figures: bool) -> str:
        return "|".join(shortened)

    text = fitting(write, names)
    assert text is not None
    assert one_segment(text)
    if one_segment("|".join(names)):
        assert text == "|".join(names)


def test_what_does_not_fit_even_without_names_is_not_written() -> None:
    assert fitting(lambda names, figures: "x" * 91, ["name"]) is None
    assert fitting(lambda names, figures: "x" * 91 if figures else "y", ["name"]) == "y"
