"""An application's name is any text. Whatever it is, a message says the same things in the same places: pure."""

from __future__ import annotations

import json
import re
import unicodedata
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.alerts.channels.mime import Recipient, Sender, build_mail
from services.alerts.messages import EmailContent
from services.alerts.plain import chat, clipped, plain
from shared.commands.registry import RegisterApp
from shared.events.alerts import Deleted, Reissued
from tests.support.letters import AT, MESSAGE_ID, crossed, email, item, renderer, sms, tags_of, text_of, webhook

RENDERER = renderer()
HOSTILE = [
    "x\r\nBcc: a@b.example",
    "x\nSubject: y",
    "x\u2028Bcc:\u2029y\x85z\x0b\x0c",
    "=?utf-8?q?=0ABcc:a?=",
    "<script>alert(1)</script>",
    '"><img src=x onerror=y>',
    "' style='x' a='",
    "</title></td></table>",
    "<!-- x",
    "]]>&lt;b&gt;&amp;",
    "{{ 7 * 7 }}{% raw %}",
    "{% include 'x' %}{#",
    "{{ ''.__class__ }}",
    "${7*7}<%= 7*7 %>",
    "<!channel> <!here>",
    "<@U123|x> @channel",
    "@here @all @everyone",
    "<http://e.example|x>",
    "[x](http://e.example)",
    "![](http://e.example)",
    "`*_~`@all`",
    "\u202egnp.exe\u2066\u200f",
    "\u200b\ufeff\u00ad\u2060",
    "\u3164\u115f",
    "\x00\x1b[31m\x07\x08",
    "\ud800\udfff\uffff\ufdd0",
    "\U000e0041\U000e0042",
    "e" + "\u0301" * 30,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "%s %n {0} \\x00 \\",
    "A" * 5000,
    "",
    "   ",
]
NAMES = pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:40])
ANY_NAME = st.sampled_from(HOSTILE) | st.text(max_size=60) | st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join)
SENDER = Sender("Tollbook", "alerts@tollbook.example")
STEERING = {"Cc", "Cs", "Zl", "Zp"}


def letter(name: str, locale: str = "ko") -> EmailContent:
    """A mail with everything in it: a table, notices, sections."""
    occasions = (
        item(crossed(90), name),
        item(crossed(100, exhausted=True), name, service="csr"),
        item(Reissued(AT, None), name, service=""),
    )
    return email(RENDERER, *occasions, locale=locale, name=name)  # type: ignore[arg-type]


def assert_steers_nothing(text: str, *, lines: bool) -> None:
    steering = {char for char in text if unicodedata.category(char) in STEERING}
    assert steering <= ({"\n"} if lines else set())
    assert not [char for char in text if unicodedata.category(char) == "Cf" and char not in "\u200c\u200d"]
    text.encode("utf-8")


def assert_a_mail_is_harmless(name: str) -> None:
    plainly, mail = letter("Weather"), letter(name)
    assert_steers_nothing(mail.subject, lines=False)
    assert len(mail.subject) <= 150
    assert_steers_nothing(mail.text, lines=True)
    assert mail.text.count("\n") == plainly.text.count("\n")
    assert tags_of(mail.html) == tags_of(plainly.html)
    if plain(name):
        assert f"'{clipped(plain(name), 40)}'" in text_of(mail.html)


@NAMES
def test_a_mail_has_the_lines_and_the_elements_that_it_has_with_any_name(name: str) -> None:
    assert_a_mail_is_harmless(name)


@settings(max_examples=150, deadline=None)
@given(ANY_NAME)
def test_a_mail_is_harmless_whatever_the_name(name: str) -> None:
    assert_a_mail_is_harmless(name)


@NAMES
def test_a_built_mail_has_only_its_own_headers_and_parts(name: str) -> None:
    mail = letter(name)
    raw = build_mail(MESSAGE_ID, AT, mail, SENDER, Recipient("kim@customer.example")).as_bytes()
    parsed = cast(EmailMessage, message_from_bytes(raw, policy=default))
    assert sorted(parsed.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "List-Unsubscribe", "List-Unsubscribe-Post",
         "MIME-Version", "Content-Type"]
    )  # fmt: skip
    assert parsed["To"] == "kim@customer.example"
    assert parsed["Subject"] == mail.subject
    assert [part.get_content_type() for part in parsed.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    for kind, content in (("plain", mail.text), ("html", mail.html)):
        part = parsed.get_body((kind,))
        assert part is not None
        assert part.get_content().replace("\r\n", "\n") == content


@NAMES
def test_templates_are_not_made_of_names(name: str) -> None:
    mail = letter("{{ 7 * 7 }}" + name)
    assert "{{ 7 * 7 }}" in mail.text
    assert "{{ 7 * 7 }}" in text_of(mail.html)
    assert "49" not in mail.text


def assert_a_chat_obeys_nothing(name: str) -> None:
    plainly = json.loads(webhook(RENDERER, item(app_name="Weather"), item(Deleted(AT), "Weather"), code=None))
    body = json.loads(webhook(RENDERER, item(app_name=name), item(Deleted(AT), name), code=None))
    text = body["text"]
    assert_steers_nothing(text, lines=True)
    assert text.count("\n") == plainly["text"].count("\n")
    assert "@" not in text
    assert "<" not in text
    assert ">" not in text
    assert not re.search(r"&(?!(amp|lt|gt);)", text)
    # Outside of code, which starts and ends with a backtick, nothing is there that is not ours.
    assert re.sub(r"`[^`]*`", "", text) == re.sub(r"`[^`]*`", "", plainly["text"])
    assert body["data"]["items"][0]["app_name"] == name.encode("utf-8", "replace").decode()


@NAMES
def test_a_chat_reads_no_mentions_links_or_marks_in_a_name(name: str) -> None:
    assert_a_chat_obeys_nothing(name)


@settings(max_examples=150, deadline=None)
@given(ANY_NAME)
def test_a_chat_obeys_nothing_whatever_the_name(name: str) -> None:
    assert_a_chat_obeys_nothing(name)


@NAMES
def test_a_text_message_has_no_controls_and_one_line(name: str) -> None:
    for locale in ("ko", "en"):
        assert_steers_nothing(sms(RENDERER, item(app_name=name), locale=locale), lines=False)


def test_a_name_of_which_nothing_shows_is_told_by_its_client_id() -> None:
    for name in ("\u200b\u3164", "\x00", ""):
        assert "(CAPTCHA (Image))" in email(RENDERER, item(app_name=name, client_id="abc")).subject
        assert ": abc (" in email(RENDERER, item(app_name=name, client_id="abc")).subject


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=25))
def test_a_name_that_can_be_registered_is_told_as_it_is(name: str) -> None:
    fields = {"account": "acme", "name": name, "services": ["csr"], "environments": {}}
    try:
        registered = RegisterApp.model_validate(fields | {"actor": "t", "command_id": "c" * 8}).name
    except ValueError:
        return
    assert plain(registered) == " ".join(registered.split())


@given(st.text(max_size=60))
def test_plain_is_one_line_and_plain_again_changes_nothing(text: str) -> None:
    made = plain(text)
    assert_steers_nothing(made, lines=False)
    assert plain(made) == made
    assert made == made.strip()


def test_names_that_people_give_stay() -> None:
    for name in ("날씨 알리미", "Café Zoë", "天気 アプリ", "می‌خواهم", "\U0001f468\u200d\U0001f469", "R&D <beta>"):
        assert plain(name) == name
    assert chat("R&D <b>`@all`") == "`R&amp;D &lt;b&gt;ʼ＠allʼ`"
    assert chat("") == ""


def test_a_long_name_is_cut_where_it_is_told() -> None:
    assert clipped("A" * 40, 40) == "A" * 40
    assert clipped("A" * 41, 40) == "A" * 39 + "…"
