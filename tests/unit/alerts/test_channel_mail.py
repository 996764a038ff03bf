"""Mails as bytes: what their headers say, that nothing can add one, and which addresses go on the wire how."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.channels.email import queue_id, recipient_of
from services.alerts.channels.mime import Recipient, Sender, build_mail
from services.alerts.messages import EmailContent, Refused

SENDER = Sender("톨북 알림", "alerts@tollbook.example")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = "0123456789abcdef" * 2
URL = "https://console.example/unsubscribe/" + "Ab-9_" * 40 + "?x=1&y=%20"
HEADERS = {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"}


def built(subject: str = "70 %", sender: Sender = SENDER, url: str | None = None, to: str = "kim@example.com") -> bytes:
    content = EmailContent(subject, "본문\n.\n끝", "<p>본문</p>", url)
    return build_mail(ID, AT, content, sender, recipient_of(to)).as_bytes()


def read(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=SMTP)
    assert isinstance(message, EmailMessage)
    return message


def test_what_a_mail_is_made_of() -> None:
    mail = read(built("[톨북] 음성 인식 앱의 월 한도 70%에 이르렀습니다: " + "아주 긴 이름 " * 10, url=URL))
    assert mail["Subject"] == "[톨북] 음성 인식 앱의 월 한도 70%에 이르렀습니다: " + " ".join(["아주 긴 이름"] * 10)
    assert (mail["From"].addresses[0].display_name, mail["From"].addresses[0].addr_spec) == SENDER
    assert [address.addr_spec for address in mail["To"].addresses] == ["kim@example.com"]
    assert mail["Date"].datetime == AT
    assert mail["Message-ID"] == f"<{ID}@tollbook.example>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert mail.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert [part.get_content().rstrip("\r\n").replace("\r\n", "\n") for part in mail.iter_parts()] == [
        "본문\n.\n끝",
        "<p>본문</p>",
    ]


def test_the_unsubscribe_url_is_whole_and_on_one_line() -> None:
    assert f"\r\nList-Unsubscribe: <{URL}>\r\n".encode() in built(url=URL)
    assert b"List-Unsubscribe" not in built()
    evil = built(url="https://x.example/>\r\nBcc: <evil@example.org>")
    assert set(read(evil).keys()) == HEADERS | {"List-Unsubscribe", "List-Unsubscribe-Post"}
    assert b"%3E%0D%0ABcc" in evil


def test_each_try_is_the_same_bytes_and_all_of_them_ascii() -> None:
    assert built(url=URL) == built(url=URL)
    assert built(url=URL).isascii()
    assert b"\n" not in built().replace(b"\r\n", b"")


@pytest.mark.parametrize("character", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x00", "\ud800"])
def test_nothing_that_could_end_a_line_is_in_a_header(character: str) -> None:
    evil = f"사용량{character}Bcc: evil@example.org{character}{character}<script>"
    mail = read(built(evil, sender=Sender(evil, "alerts@tollbook.example")))
    assert set(mail.keys()) == HEADERS
    assert mail["Subject"] == "사용량 Bcc: evil@example.org <script>"
    assert [address.addr_spec for address in mail["From"].addresses] == ["alerts@tollbook.example"]


@given(subject=st.text(max_size=300))
def test_whatever_the_subject_is_the_headers_are_ours(subject: str) -> None:
    raw = built(subject)
    assert raw.isascii()
    assert len(read(raw).keys()) == len(HEADERS)
    assert set(read(raw).keys()) == HEADERS


@given(text=st.text(max_size=300))
def test_whatever_the_text_is_it_can_be_sent(text: str) -> None:
    raw = build_mail(ID, AT, EmailContent("s", text, text), SENDER, recipient_of("kim@example.com")).as_bytes()
    assert raw.isascii()
    assert b"\x00" not in raw
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    assert len(list(read(raw).iter_parts())) == 2


def test_long_addresses_survive() -> None:
    long = "a" * 60 + "@" + ".".join(["b" * 55] * 3) + ".example"
    assert [address.addr_spec for address in read(built(to=long))["To"].addresses] == [long]
    assert read(built(sender=Sender("T", long.replace("a" * 60, "t"))))["Message-ID"].endswith(".example>")


@pytest.mark.parametrize(
    ("address", "recipient"),
    [
        ("kim@example.com", Recipient("kim@example.com")),
        ("kim@예시.한국", Recipient("kim@xn--vv4b11d.xn--3e0b707e")),
        ("김@example.com", Recipient("김@example.com", utf8=True)),
        ("김@예시.한국", Recipient("김@xn--vv4b11d.xn--3e0b707e", utf8=True)),
    ],
)
def test_a_domain_is_ascii_on_the_wire_and_the_rest_needs_smtputf8(address: str, recipient: Recipient) -> None:
    assert recipient_of(address) == recipient


@pytest.mark.parametrize(
    "address", ["", "kim", "kim@", "a@b@c.example", "kim@example.com\r\nRCPT TO:<x@y.example>", "<kim@example.com>"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(Refused) as caught:
        recipient_of(address)
    assert "kim" not in caught.value.answer


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        ("2.0.0 Ok: queued as 4Yx3Zk2Lm9z1", "4Yx3Zk2Lm9z1"),
        ("OK id=1rXyZ0-0001Ab-2c", "1rXyZ0-0001Ab-2c"),
        ("2.0.0 49CDx1aB012345 Message accepted for delivery", "49CDx1aB012345"),
        ("Ok 0100018d4e5f6a7b-11111111-2222-000000", "0100018d4e5f6a7b-11111111-2222-000000"),
        ("OK", None),
        ("queued for kim@example.com", None),
        ("queued as kim@example.com", None),
    ],
)  # fmt: skip
def test_the_servers_id_for_a_mail(answer: str, known: str | None) -> None:
    assert queue_id(answer) == known
