"""What messages say: pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from services.alerts.messages import Item
from services.alerts.rendering import CHAT_MAX, DATA_ITEMS_MAX, WRITTEN_MAX
from shared.events import alerts
from shared.events.alerts import (
    KINDS,
    METHODS,
    ChangesWanted,
    Deleted,
    DueSoon,
    Reissued,
    Resumed,
    Reviewed,
    Submitted,
    Suspended,
    Verifying,
    Withdrawn,
)
from shared.windows import UnknownZone
from tests.support.letters import (
    AT,
    CATALOG,
    CLIENT_ID,
    MESSAGE_ID,
    UNSUBSCRIBE,
    addressee,
    cells_of,
    crossed,
    email,
    item,
    renderer,
    sms,
    text_of,
    webhook,
)

RENDERER = renderer()
DUE = AT + timedelta(days=3, hours=3, minutes=48)
MONTH = {
    "period": "monthly",
    "window_start": datetime(2026, 10, 31, 15, tzinfo=UTC),
    "window_end": datetime(2026, 11, 30, 15, tzinfo=UTC),
}


def monthly(percent: int, **fields: object) -> object:
    return msgspec.structs.replace(crossed(percent), **MONTH, **fields)


def many(count: int) -> list[Item]:
    services = list(CATALOG)
    return [
        Item(f"r{number}", f"app{number}", f"App {number}", services[number % 3], crossed(number % 90 + 10))
        for number in range(count)
    ]


def test_a_crossing_is_told_with_all_its_figures() -> None:
    mail = email(RENDERER, item(crossed(90, used=1_234_567, limit=1_371_000)), locale="ko", name="홍길동")
    assert mail.subject == "[Tollbook] 일간 사용량 90% 도달: Weather (이미지 캡차)"
    assert "홍길동 님, 안녕하세요." in mail.text
    assert "한도의 90%에 도달했습니다(1,234,567 / 1,371,000회)" in mail.text
    assert f"https://console.example/apps/{CLIENT_ID}" in mail.text
    assert UNSUBSCRIBE in mail.text
    assert mail.unsubscribe_url == UNSUBSCRIBE
    head, row = cells_of(mail.html)
    assert head == ["애플리케이션 / 서비스", "기간", "사용률", "사용량 / 한도", "초기화 시각 (Asia/Seoul)"]
    assert row == ["Weather이미지 캡차", "일간", "90%", "1,234,567 / 1,371,000회", "2026년 11월 25일(수) 00:00"]
    assert '<html lang="ko">' in mail.html


@pytest.mark.parametrize(
    ("zone", "resets_at"), [("Asia/Seoul", "Wed 25 Nov 2026, 00:00"), ("America/St_Johns", "Tue 24 Nov 2026, 11:30")]
)
def test_times_are_in_the_readers_zone_which_is_named(zone: str, resets_at: str) -> None:
    mail = email(RENDERER, item(), zone=zone)
    for text in (mail.text, text_of(mail.html)):
        assert resets_at in text
        assert f"Times are in {zone}." in text


def test_several_rungs_of_a_window_are_one_thing_in_any_order() -> None:
    for percents in ((70, 80, 90), (90, 70, 80), (80, 90, 70, 90)):
        mail = email(RENDERER, *(item(crossed(percent)) for percent in percents))
        assert mail.subject == "[Tollbook] 90% of daily limit used: Weather (CAPTCHA (Image))"
        assert "Also passed: 70%, 80%." in mail.text
        assert cells_of(mail.html)[1][2] == "90%70%, 80%"
        assert sms(RENDERER, *(item(crossed(percent)) for percent in percents)) == sms(RENDERER, item())


def test_other_windows_limits_and_applications_are_other_things() -> None:
    apart = [
        item(),
        item(monthly(90)),
        item(crossed(limit_version=2)),
        item(service="csr"),
        item(client_id=""),
        item(client_id="b" * 20),
    ]
    mail = email(RENDERER, *apart)
    assert mail.subject.endswith(" and 5 more")
    assert len(cells_of(mail.html)) == 1 + len(apart)


def test_refused_calls_come_before_everything_and_say_so() -> None:
    refused = item(crossed(100, exhausted=True), "Last")
    mail = email(
        RENDERER, item(app_name="First", client_id="f"), item(Reissued(AT, None), "Second", "s"), refused, item(crossed(100))
    )
    assert mail.subject == "[Tollbook] Calls refused, daily limit used up: Last (CAPTCHA (Image)) and 2 more"
    assert cells_of(mail.html)[1][2] == "100%Calls refused"
    assert "호출 거부 중" in sms(RENDERER, refused, locale="ko")
    assert "호출이 거부되고 있습니다" in email(RENDERER, refused, locale="ko").text


def test_an_accounts_own_limit_and_a_test_quota_are_named_so() -> None:
    mail = email(RENDERER, item(monthly(90, limit_version=0), client_id="", app_name="ignored"), locale="ko")
    assert mail.subject == "[Tollbook] 월간 사용량 90% 도달: 계정 전체 (이미지 캡차)"
    assert "월간 테스트 한도의 90%" in mail.text
    assert "ignored" not in mail.html + mail.text
    assert 'href="https://console.example"' in mail.html
    assert "계정 전체" in sms(RENDERER, item(client_id=""), locale="ko")


@pytest.mark.parametrize(
    ("about", "said"),
    [
        (Reissued(AT, AT + timedelta(hours=1)), "이전 Client Secret은 2026년 11월 24일(화) 15:12까지 사용할 수 있습니다."),
        (Reissued(AT, None), "이전 Client Secret은 더 이상 사용할 수 없습니다."),
        (Deleted(AT), "2026년 11월 24일(화) 14:12에 삭제되었습니다."),
        (
            Submitted(AT, "r", DUE),
            "심사를 신청했습니다(2026년 11월 24일(화) 14:12). 심사 기한은 2026년 11월 27일(금) 18:00입니다.",
        ),
        (Submitted(AT, "r", DUE, to_reviewers=True), "심사가 접수되었습니다(2026년 11월 24일(화) 14:12). 처리 기한은"),
        (ChangesWanted(AT, "r"), "심사에서 보완을 요청했습니다"),
        (DueSoon(AT, "r", DUE), "아직 결정되지 않았습니다. 처리 기한은 2026년 11월 27일(금) 18:00입니다."),
        (Withdrawn(AT, "r"), "심사 신청이 철회되었습니다"),
        (Suspended(AT, "r"), "호출이 거부되고 있습니다(2026년 11월 24일(화) 14:12). 정지 사유는 콘솔에서"),
        (Suspended(AT, "r", to_reviewers=True), "호출이 거부되고 있습니다(2026년 11월 24일(화) 14:12)."),
        (Resumed(AT, "r"), "이용 정지가 해제되어 다시 호출할 수 있습니다"),
        (Reviewed(AT, "r", "approved"), "심사를 통과했습니다"),
        (Reviewed(AT, "r", "rejected"), "심사가 반려되었습니다"),
        (Verifying("v", AT + timedelta(minutes=10)), "인증번호는 123456입니다. 2026년 11월 24일(화) 14:22까지 입력해 주세요."),
        (alerts.Testing(AT), "테스트 메시지입니다"),
    ],
)
def test_every_other_kind_says_what_happened_by_every_method(about: object, said: str) -> None:
    mail = email(RENDERER, item(about), locale="ko")
    assert said in mail.text
    assert said in text_of(mail.html)
    assert said in json.loads(webhook(RENDERER, item(about), locale="ko"))["text"]


def test_a_code_comes_with_until_when_and_what_to_do_if_it_was_not_asked_for() -> None:
    asked = item(Verifying("vault-7", AT + timedelta(minutes=10)), "", "", "")
    mail = email(RENDERER, asked)
    assert "Your code is 123456. Please enter it by Tue 24 Nov 2026, 14:22. Ignore this message" in mail.text
    assert "123456" not in mail.subject
    assert sms(RENDERER, asked) == "[Tollbook] Code 123456, valid until 14:22. Ignore this if you did not ask."
    body = json.loads(webhook(RENDERER, asked))
    assert body["data"]["code"] == "123456"
    assert "vault-7" not in json.dumps(body)
    with pytest.raises(ValueError, match="code"):
        webhook(RENDERER, asked, code=None)


def test_many_things_are_a_digest_that_writes_out_the_most_urgent_and_counts_the_rest() -> None:
    mail = email(RENDERER, *many(120))
    rows = cells_of(mail.html)[1:]
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), key=lambda percent: -int(percent[:-1]))
    assert (len(rows), rows[0][2]) == (WRITTEN_MAX, "99%")
    assert "And 70 more: https://console.example" in mail.text
    assert "And 70 more" in text_of(mail.html)
    assert mail.subject.endswith(" and 119 more")
    assert sms(RENDERER, *many(120)).endswith(" +119 more")


def test_a_digest_has_one_section_for_each_application_and_service() -> None:
    mail = email(
        RENDERER, item(), item(monthly(70)), item(Reviewed(AT, "r", "approved")), item(client_id="other", app_name="Other")
    )
    assert mail.text.count("* Weather (CAPTCHA (Image))\n") == 1
    assert mail.text.count("* Other (CAPTCHA (Image))\n") == 1
    assert mail.html.count("<tbody>") == 2


def test_what_happens_in_a_review_points_to_its_page_also_beside_other_things() -> None:
    page = "https://console.example/service-apps/r1"
    decided = item(Reviewed(AT, "r1", "rejected"))
    alone, beside = email(RENDERER, decided), email(RENDERER, item(), decided)
    assert f"See more: {page}\n" in alone.text
    assert f'<a href="{page}"' in alone.html
    assert f"in the console. {page}\n  https://console.example/apps/{CLIENT_ID}\n" in beside.text
    assert f'in the console. <a href="{page}"' in beside.html
    assert json.loads(webhook(RENDERER, decided))["data"]["items"][0]["url"] == page


def test_reviewers_read_of_each_review_which_application_it_is_and_where_to_decide() -> None:
    waiting = [item(Submitted(AT, f"r{number}", DUE, to_reviewers=True), f"App {number}", "") for number in (1, 2)]
    mail = email(RENDERER, *waiting)
    for number in (1, 2):
        section = f"* App {number} (CAPTCHA (Image))\n  - Application 'App {number}' waits for its review"
        assert section in mail.text
        assert f"\n  https://console.example/reviews/r{number}\n" in mail.text
        assert f'<a href="https://console.example/reviews/r{number}"' in mail.html
    assert mail.subject == "[Tollbook] To review: App 1 (CAPTCHA (Image)) and 1 more"
    assert "account" not in mail.text
    assert sms(RENDERER, waiting[0]) == "[Tollbook] App 1 (CAPTCHA (Image)): to review, due 11-27 18:00"


def test_when_a_decision_is_due_is_told_in_the_readers_zone() -> None:
    mail = email(RENDERER, item(Submitted(AT, "r", DUE)), zone="America/St_Johns")
    assert "A decision is due by Fri 27 Nov 2026, 05:30." in mail.text


def test_a_suspension_comes_before_all_that_is_no_code() -> None:
    refused, suspended = item(crossed(100, exhausted=True), "Refused", "f"), item(Suspended(AT, "r"), "Suspended", "s")
    mail = email(RENDERER, item(crossed(90)), refused, item(Resumed(AT, "r"), "Resumed", "t"), suspended)
    assert mail.subject == "[Tollbook] Suspended, calls refused: Suspended (CAPTCHA (Image)) and 3 more"
    assert [line[2:] for line in mail.text.splitlines() if line.startswith("* ")] == [
        f"{name} (CAPTCHA (Image))" for name in ("Suspended", "Refused", "Resumed", "Weather")
    ]


def test_an_exact_fifty_leaves_nothing_to_count() -> None:
    assert "more:" not in email(RENDERER, *many(WRITTEN_MAX)).text


def test_a_webhook_is_a_standard_webhook_with_a_text_for_chats() -> None:
    body = json.loads(webhook(RENDERER, item(), code=None))
    assert (body["type"], body["timestamp"]) == ("tollbook.notification", "2026-11-24T05:12:00Z")
    assert body["text"].startswith(
        "Application `Weather` has used 90% of its daily limit of CAPTCHA (Image) (900 / 1,000 calls)."
    )
    assert body["data"] == {
        "message_id": MESSAGE_ID,
        "more": 0,
        "items": [
            {
                "request_id": "request-1",
                "kind": "crossed",
                "client_id": CLIENT_ID,
                "app_name": "Weather",
                "service": "captcha-image",
                "service_name": "CAPTCHA (Image)",
                "unit": "call",
                "url": f"https://console.example/apps/{CLIENT_ID}",
                "about": {
                    "period": "daily",
                    "window_start": "2026-11-23T15:00:00Z",
                    "window_end": "2026-11-24T15:00:00Z",
                    "percent": 90,
                    "used": 900,
                    "limit": 1000,
                    "limit_version": 1,
                    "exhausted": False,
                },
            }
        ],
    }


def test_a_webhook_has_the_most_urgent_thousand_items_and_says_how_many_more() -> None:
    body = json.loads(webhook(RENDERER, *many(1_500), item(crossed(100, exhausted=True))))
    assert (len(body["data"]["items"]), body["data"]["more"]) == (DATA_ITEMS_MAX, 501)
    assert body["data"]["items"][0]["about"]["exhausted"]
    assert body["text"].count("•") == CHAT_MAX
    assert f"And {1_501 - CHAT_MAX} more." in body["text"]


def test_the_same_is_written_the_same_also_by_another_renderer_and_however_items_come() -> None:
    items, other = many(80), renderer()
    for method in METHODS:
        contents = {
            made.render(method, addressee("ko"), items, code=None, unsubscribe_url=None, message_id=MESSAGE_ID, at=AT)
            for made in (RENDERER, RENDERER, other)
        }
        assert len(contents) == 1
    assert email(RENDERER, *items) == email(RENDERER, *reversed(items))


def test_a_service_that_left_the_catalog_goes_by_its_id() -> None:
    mail = email(RENDERER, item(service="gone"))
    assert "(gone)" in mail.subject
    assert cells_of(mail.html)[1][3] == "900 / 1,000"


def test_nothing_to_tell_and_nowhere_to_be_are_errors() -> None:
    with pytest.raises(ValueError, match="at least one"):
        email(RENDERER)
    with pytest.raises(UnknownZone, match="Asia/Soul"):
        email(RENDERER, item(), zone="Asia/Soul")


def test_there_is_a_preview_of_every_kind() -> None:
    assert set(RENDERER.kinds()) == {*KINDS, "digest"}
    with pytest.raises(KeyError):
        RENDERER.preview("nothing", "sms", "ko")
