"""The stack's receivers of mail and text messages as it runs them, and those who send."""

from __future__ import annotations

import asyncio
import json
import smtplib
import stat
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import httpx
import pytest

from deploy.inbox import MAIL_BYTES_MAX, RECIPIENTS_MAX
from deploy.local_http import request
from deploy.sens import Account, signature
from deploy.servers.program import Program, free_port
from deploy.services import PROJECT
from deploy.sms_receiver import BODY_BYTES_MAX
from deploy.stack import smtp_answers
from tests.support.servers import ServerProcess

ACCOUNT = Account("ncp:sms:kr:1:test", "access", "secret")
TARGET = f"/sms/v2/services/{ACCOUNT.service_id}/messages"


class Inbox(ServerProcess):
    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder = folder / "inbox"
        command = (sys.executable, "-m", "deploy.inbox", str(self.port), str(self.folder))
        super().__init__(Program("inbox", command, folder=PROJECT), lambda: smtp_answers(self.port), folder / "log")

    def mails(self) -> list[EmailMessage]:
        """What has arrived, in order."""
        return [_parsed(path.read_bytes()) for path in sorted(self.folder.glob("*.eml"))]


def _parsed(content: bytes) -> EmailMessage:
    parsed = message_from_bytes(content, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    process = Inbox(tmp_path)
    process.start()
    yield process
    process.kill()


def mail(subject: str = "쿼터 70 %", to: str = "kim@example.com") -> EmailMessage:
    made = EmailMessage(policy=policy.SMTP)
    made["From"], made["To"], made["Subject"] = "Tollbook <tollbook@localhost>", to, subject
    made.set_content("한도의 70 %에 이르렀습니다.\n.\nA line that is a dot is above.\n")
    made.add_alternative("<p>한도의 <b>70 %</b></p>", subtype="html")
    return made


def test_a_mail_is_a_file_that_a_mail_program_reads(inbox: Inbox) -> None:
    with smtplib.SMTP("127.0.0.1", inbox.port, timeout=10) as client:
        refused = client.send_message(mail(), "tollbook@localhost", ["kim@example.com", "lee@example.com"])
    assert refused == {}
    [kept] = inbox.mails()
    assert (kept["Subject"], kept["To"], kept["Return-Path"]) == ("쿼터 70 %", "kim@example.com", "<tollbook@localhost>")
    assert kept.get_all("Delivered-To") == ["kim@example.com", "lee@example.com"]
    plain, html = kept.get_body(("plain",)), kept.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines()[:2] == ["한도의 70 %에 이르렀습니다.", "."]
    assert "<b>70 %</b>" in html.get_content()
    [path] = inbox.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_many_mails_over_few_connections_all_arrive_and_each_answer_names_its_file(inbox: Inbox) -> None:
    async def send(connection: int) -> list[str]:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=inbox.port, use_tls=False, start_tls=False)
        async with client:
            return [(await client.send_message(mail(f"{connection}/{number}")))[1] for number in range(25)]

    answers = [answer for some in await asyncio.gather(*(send(number) for number in range(4))) for answer in some]
    assert len({kept["Subject"] for kept in inbox.mails()}) == 100
    assert {answer.rpartition(" ")[2] for answer in answers} == {path.name for path in inbox.folder.iterdir()}


def test_a_mail_that_is_too_large_or_for_too_many_is_refused(inbox: Inbox) -> None:
    large = b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" + (b"y" * 78 + b"\r\n") * (MAIL_BYTES_MAX // 80)
    with smtplib.SMTP("127.0.0.1", inbox.port, timeout=30) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as told_before:
            client.sendmail("a@example.com", ["b@example.com"], large)
        assert told_before.value.smtp_code == 552
        client.mail("a@example.com")  # without SIZE=: the server sees it only when it has come
        client.rcpt("b@example.com")
        assert client.data(large)[0] == 552
        many = [f"u{number}@example.com" for number in range(RECIPIENTS_MAX + 1)]
        assert list(client.sendmail("a@example.com", many, b"Subject: many\r\n\r\n")) == many[-1:]
    assert [kept["Subject"] for kept in inbox.mails()] == ["many"]


def test_a_mail_that_cannot_be_written_is_not_taken_and_may_come_again(inbox: Inbox) -> None:
    inbox.folder.rmdir()
    inbox.folder.write_text("in the way")
    with smtplib.SMTP("127.0.0.1", inbox.port, timeout=10) as client:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.send_message(mail())
        assert refused.value.smtp_code == 452
        inbox.folder.unlink()
        client.send_message(mail())
    assert len(inbox.mails()) == 1


def test_it_stops_when_asked_to_though_somebody_is_connected(inbox: Inbox) -> None:
    with smtplib.SMTP("127.0.0.1", inbox.port, timeout=10) as client:
        inbox.stop()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()


class Texts(ServerProcess):
    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.folder = folder / "sms"
        command = (sys.executable, "-m", "deploy.sms_receiver", self.url.rpartition(":")[2], str(self.folder))
        program = Program("sms", command, ACCOUNT.environment(), folder=PROJECT)
        super().__init__(program, self._answers, folder / "log")

    def _answers(self) -> bool:
        try:
            return request("GET", f"{self.url}/healthz").status == 200
        except OSError:
            return False

    def send(self, content: str = "70 %", *, target: str = TARGET, **headers: str) -> httpx.Response:
        """A signed request; `headers` instead of its own."""
        timestamp = str(int(time.time() * 1000))
        own = {
            "x-ncp-apigw-timestamp": timestamp,
            "x-ncp-iam-access-key": ACCOUNT.access_key,
            "x-ncp-apigw-signature-v2": signature(ACCOUNT, "POST", target, timestamp),
        }
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        body = {"type": "SMS", "contentType": "COMM", "countryCode": "82", "from": "0212345678", "content": content}
        body["messages"] = [{"to": "01012345678", "content": content}]  # type: ignore[assignment]
        return httpx.post(self.url + target, json=body, headers=own, timeout=10, trust_env=False)

    def kept(self) -> list[dict[str, str]]:
        return [json.loads(path.read_text("utf-8")) for path in sorted(self.folder.glob("*.json"))]


@pytest.fixture
def texts(tmp_path: Path) -> Iterator[Texts]:
    process = Texts(tmp_path)
    process.start()
    yield process
    process.kill()


def test_a_signed_request_is_accepted_and_kept(texts: Texts) -> None:
    answer = texts.send("[Tollbook] csr 70 %")
    assert answer.status_code == 202, answer.text
    assert (answer.json()["statusCode"], answer.json()["statusName"]) == ("202", "success")
    [kept] = texts.kept()
    assert kept["requestId"] == answer.json()["requestId"]
    assert (kept["to"], kept["from"], kept["content"]) == ("01012345678", "0212345678", "[Tollbook] csr 70 %")
    [path] = texts.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert texts.send(target=f"{TARGET}?a=b").status_code == 202, "the query is part of what is signed"


def test_what_is_not_signed_or_cannot_be_sent_leaves_nothing(texts: Texts) -> None:
    statuses = [
        texts.send(x_ncp_apigw_signature_v2="wrong").status_code,
        texts.send(x_ncp_iam_access_key="another").status_code,
        texts.send(x_ncp_apigw_timestamp=str(int((time.time() - 301) * 1000))).status_code,
        texts.send("x" * 91).status_code,
        texts.send("x" * BODY_BYTES_MAX).status_code,
        texts.send(target="/sms/v2/services/another/messages").status_code,
        httpx.get(texts.url + TARGET, trust_env=False).status_code,
    ]
    assert statuses == [401, 401, 401, 400, 413, 404, 404]
    assert texts.kept() == []


def test_many_at_once_are_all_kept(texts: Texts) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: texts.send(str(number)).status_code, range(40)))
    assert set(answers) == {202}
    assert sorted(int(kept["content"]) for kept in texts.kept()) == list(range(40))
