"""Mail handed over to a real SMTP server: what arrives, and what every way of failing is taken for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.alerts.channels.email import EmailChannel
from services.alerts.channels.opening import open_channels
from services.alerts.channels.settings import ChannelSettings
from services.alerts.channels.smtp_pool import IDLE_MAX_S, MAILS_MAX
from services.alerts.messages import EmailContent, Outgoing, Refused, TryLater
from shared.clock import FixedClock
from tests.support.receivers import DROP, HOST, Certificate, Command, SmtpReceiver, self_signed

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CODE = "481516"

Opener = Callable[..., EmailChannel]


def mail(number: int = 1, to: str = "kim@example.com") -> Outgoing:
    content = EmailContent(f"한도 {number}", f"코드 {CODE}\n", "<p>70 %</p>", "https://console.example/unsubscribe/t")
    return Outgoing(f"{number:032x}", to, "", AT, content)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(AT)


@pytest.fixture
async def opened(clock: FixedClock) -> AsyncIterator[Opener]:
    """Makes channels, and closes them in the end."""
    channels: list[EmailChannel] = []

    def make(port: int, **settings: object) -> EmailChannel:
        given = {"smtp_host": HOST, "smtp_port": port, "smtp_security": "none", "smtp_timeout_s": 5.0}
        given |= {"mail_from": "alerts@tollbook.example"} | settings
        channel = open_channels(ChannelSettings.model_validate(given), clock)["email"]
        assert isinstance(channel, EmailChannel)
        channels.append(channel)
        return channel

    yield make
    for channel in channels:
        await channel.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("tls"))


async def later(channel: EmailChannel, outgoing: Outgoing) -> TryLater:
    with pytest.raises(TryLater) as caught:
        await channel.send(outgoing)
    assert "example.com" not in caught.value.answer
    return caught.value


async def test_a_mail_arrives_whole_and_the_receipt_has_the_servers_id(opened: Opener) -> None:
    async with SmtpReceiver() as inbox:
        receipt = await opened(inbox.port).send(mail())
        (arrived,) = inbox.mails
        assert (arrived.sender, arrived.recipients) == ("alerts@tollbook.example", ("kim@example.com",))
        assert arrived.message["Subject"] == "한도 1"
        assert arrived.message["Message-ID"] == f"<{1:032x}@tollbook.example>"
        assert arrived.message["List-Unsubscribe"] == "<https://console.example/unsubscribe/t>"
        assert arrived.part("plain").split() == ["코드", CODE]
        assert "<p>70 %</p>" in arrived.part("html")
        assert receipt == ("Q00001", "250 2.0.0 Ok: queued as Q00001")


async def test_without_the_servers_id_the_message_id_is_it(opened: Opener) -> None:
    async with SmtpReceiver() as inbox:
        inbox.answers["DATA"].append(f"250 thanks for {CODE}, kim@example.com")
        assert await opened(inbox.port).send(mail()) == (f"<{1:032x}@tollbook.example>", "250 thanks for ***, ***")


@pytest.mark.parametrize("mode", ["starttls", "tls"])
async def test_over_tls_and_signed_in(opened: Opener, certificate: Certificate, mode: str) -> None:
    async with SmtpReceiver(tls=certificate.server, mode=mode, login=("user", "password")) as inbox:
        secure = {"smtp_security": mode, "smtp_user": "user", "smtp_ca_file": str(certificate.file)}
        await opened(inbox.port, smtp_password="password", **secure).send(mail())
        assert len(inbox.mails) == 1

        wrong = await later(opened(inbox.port, smtp_password="wrong", **secure), mail())
        assert wrong.ours
        assert "535" in wrong.answer
        unsigned = {name: value for name, value in secure.items() if name != "smtp_user"}
        not_signed_in = await later(opened(inbox.port, **unsigned), mail())
        assert not_signed_in.ours
        assert "530" in not_signed_in.answer
        assert len(inbox.mails) == 1


@pytest.mark.parametrize("mode", ["starttls", "tls"])
async def test_a_certificate_that_is_not_trusted_is_not_accepted(opened: Opener, certificate: Certificate, mode: str) -> None:
    async with SmtpReceiver(tls=certificate.server, mode=mode) as inbox:
        trouble = await later(opened(inbox.port, smtp_security=mode), mail())
        assert trouble.ours
        assert "not trusted" in trouble.answer
        assert inbox.mails == []


async def test_a_server_that_lacks_starttls_gets_nothing_in_the_clear(opened: Opener) -> None:
    async with SmtpReceiver() as inbox:
        trouble = await later(opened(inbox.port, smtp_security="starttls"), mail())
        assert trouble.ours
        assert "STARTTLS" in trouble.answer
        assert inbox.mails == []


@pytest.mark.parametrize(
    ("step", "said", "ours"),
    [
        ("EHLO", "451 not now", True),
        ("EHLO", "421 closing", True),
        ("MAIL", "451 not now", True),
        ("MAIL", "421 closing", True),
        ("MAIL", "550 sender not allowed", True),
        ("RCPT", "421 closing", True),
        ("RCPT", "450 4.2.1 kim@example.com greylisted", False),
        ("RCPT", "451 4.3.0 later", False),
        ("RCPT", "452 4.2.2 mailbox full", False),
        ("RCPT", "530 5.7.0 sign in first", True),
        ("DATA", "421 closing", True),
        ("DATA", "451 local error", True),
        ("DATA", "452 disk full", True),
    ],
)
async def test_what_is_tried_again_and_whose_fault_it_is(opened: Opener, step: Command, said: str, ours: bool) -> None:
    async with SmtpReceiver() as inbox:
        channel = opened(inbox.port)
        inbox.answers[step].append(said)
        trouble = await later(channel, mail())
        assert trouble.ours is ours
        assert said[:3] in trouble.answer
        await channel.send(mail(2))
        assert [arrived.message["Subject"] for arrived in inbox.mails] == ["한도 2"]


@pytest.mark.parametrize(
    ("step", "said"), [("RCPT", "550 5.1.1 <kim@example.com> unknown"), ("RCPT", "553 no"), ("DATA", "554 5.7.1 spam 481516")]
)
async def test_what_is_refused_for_good_and_the_connection_is_kept(opened: Opener, step: Command, said: str) -> None:
    async with SmtpReceiver() as inbox:
        channel = opened(inbox.port)
        inbox.answers[step].append(said)
        with pytest.raises(Refused) as caught:
            await channel.send(mail())
        assert caught.value.answer.startswith(said[:3])
        assert "kim" not in caught.value.answer
        assert CODE not in caught.value.answer
        await channel.send(mail(2))
        assert inbox.connections == 1


async def test_a_connection_is_kept_for_so_many_mails(opened: Opener) -> None:
    async with SmtpReceiver() as inbox:
        channel = opened(inbox.port)
        for number in range(MAILS_MAX + 1):
            await channel.send(mail(number))
        assert [arrived.connection for arrived in inbox.mails] == [1] * MAILS_MAX + [2]


async def test_a_kept_connection_that_died_is_replaced(opened: Opener, clock: FixedClock) -> None:
    async with SmtpReceiver() as inbox:
        channel = opened(inbox.port)
        await channel.send(mail(1))
        await inbox.hang_up()
        await channel.send(mail(2))
        inbox.answers["MAIL"].append("421 4.4.2 idle for too long")
        await channel.send(mail(3))
        inbox.answers["MAIL"].append(DROP)
        await channel.send(mail(4))
        clock.advance(IDLE_MAX_S)
        await channel.send(mail(5))
        assert [arrived.connection for arrived in inbox.mails] == [1, 2, 3, 4, 5]


async def test_there_are_no_more_connections_than_allowed(opened: Opener) -> None:
    async with SmtpReceiver() as inbox:
        inbox.delays["DATA"] = 0.02
        channel = opened(inbox.port, email_concurrency=3)
        await asyncio.gather(*(channel.send(mail(number)) for number in range(12)))
        assert len(inbox.mails) == 12
        assert inbox.connections == 3


@pytest.mark.parametrize("step", ["RCPT", "DATA"])
async def test_an_answer_that_is_lost_is_tried_again(opened: Opener, step: Command) -> None:
    """After DATA this is the window where a mail is sent twice: under the same Message-ID."""
    async with SmtpReceiver() as inbox:
        channel = opened(inbox.port)
        inbox.answers[step].append(DROP)
        assert (await later(channel, mail())).ours
        await channel.send(mail())
        ids = [arrived.message["Message-ID"] for arrived in inbox.mails]
        assert ids == [f"<{1:032x}@tollbook.example>"] * (2 if step == "DATA" else 1)


@pytest.mark.parametrize("step", ["EHLO", "MAIL", "RCPT", "DATA"])
async def test_a_server_that_does_not_answer_is_given_up(opened: Opener, step: Command) -> None:
    async with SmtpReceiver() as inbox:
        inbox.delays[step] = 30
        trouble = await later(opened(inbox.port, smtp_timeout_s=0.2), mail())
        assert trouble.ours
        assert "within 0.2 s" in trouble.answer


async def test_nobody_there_or_nobody_who_speaks_smtp(opened: Opener) -> None:
    async with SmtpReceiver() as inbox:
        port = inbox.port
    assert (await later(opened(port), mail())).ours

    for greeting in (b"554 go away\r\n", b"SSH-2.0-OpenSSH\r\n", b"2" * 100_000, b""):

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytes = greeting) -> None:
            writer.write(said)
            await reader.read(1000) if said else None
            writer.close()

        server = await asyncio.start_server(greet, HOST, 0)
        async with server:
            assert (await later(opened(server.sockets[0].getsockname()[1], smtp_timeout_s=0.5), mail())).ours


async def test_an_address_that_only_smtputf8_can_carry(opened: Opener) -> None:
    async with SmtpReceiver(utf8=True) as inbox:
        await opened(inbox.port).send(mail(to="김@예시.한국"))
        assert inbox.mails[0].recipients == ("김@xn--vv4b11d.xn--3e0b707e",)
        assert "김@xn--vv4b11d.xn--3e0b707e".encode() in inbox.mails[0].content
    async with SmtpReceiver() as inbox:
        channel = opened(inbox.port)
        with pytest.raises(Refused) as caught:
            await channel.send(mail(to="김@예시.한국"))
        assert "SMTPUTF8" in caught.value.answer
        await channel.send(mail(to="kim@예시.한국"))
        assert inbox.mails[0].recipients == ("kim@xn--vv4b11d.xn--3e0b707e",)


async def test_one_that_is_broken_off_leaves_no_connection_in_the_middle_of_a_mail(opened: Opener) -> None:
    async with SmtpReceiver() as inbox:
        channel = opened(inbox.port)
        await channel.send(mail(1))
        inbox.delays["DATA"] = 30
        task = asyncio.create_task(channel.send(mail(2)))
        await inbox.arrived(1)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        inbox.delays.clear()
        await channel.send(mail(3))
        assert inbox.mails[-1].message["Subject"] == "한도 3"
        assert inbox.mails[-1].connection == 2


def test_a_file_that_is_no_certificate_is_an_error_at_the_start(tmp_path: Path, clock: FixedClock) -> None:
    file = tmp_path / "empty.pem"
    file.write_text("nothing")
    given = {"smtp_host": HOST, "mail_from": "alerts@tollbook.example", "smtp_ca_file": str(file)}
    with pytest.raises(ssl.SSLError):
        open_channels(ChannelSettings.model_validate(given), clock)
