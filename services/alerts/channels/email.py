"""Mail, handed over to a mail server by SMTP."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Final, NoReturn

import aiosmtplib
from email_validator import EmailNotValidError, validate_email

from services.alerts.channels.mime import Recipient, Sender, build_mail, message_id_of
from services.alerts.channels.scrub import scrub
from services.alerts.channels.smtp_pool import PooledConnection, SmtpPool, SmtpServer
from services.alerts.messages import EmailContent, Outgoing, Receipt, Refused, TryLater
from shared.clock import Clock

CLOSING: Final = 421
SIGN_IN: Final = frozenset({530, 534, 535, 538})
"""The server wants us to sign in, or otherwise: nobody's address is wrong."""

_QUEUED = (
    re.compile(r"queued as ([\w.-]{4,64})", re.IGNORECASE | re.ASCII),  # Postfix, and many after it
    re.compile(r"\bid=([\w.-]{4,64})", re.ASCII),  # Exim
    re.compile(r"^(?:2\.\d\.\d )?([\w.-]{4,64}) Message accepted for delivery", re.ASCII),  # Sendmail
    re.compile(r"^Ok ([\w-]{20,64})$", re.IGNORECASE | re.ASCII),  # Amazon SES
)


def recipient_of(address: str) -> Recipient:
    """The address as it is on the wire. A domain that is not ASCII goes as punycode, so that any server takes it; a part before
    the @ that is not has no other form, and the server must know SMTPUTF8. Raises Refused."""
    try:
        parsed = validate_email(address, check_deliverability=False, globally_deliverable=False, test_environment=True)
    except EmailNotValidError as error:
        raise Refused("this is not a mail address") from error
    if parsed.ascii_email is not None:
        return Recipient(parsed.ascii_email)
    return Recipient(f"{parsed.local_part}@{parsed.ascii_domain}", utf8=True)


def queue_id(answer: str) -> str | None:
    """The server's id for a mail that it took, out of its answer; None: it says none that is known."""
    found = next((match for pattern in _QUEUED if (match := pattern.search(answer))), None)
    return found[1] if found else None


class EmailChannel:
    """`timeout_s` is for one mail as a whole, waiting for a connection included; `size`: connections at most."""

    def __init__(self, clock: Clock, timeout_s: float, server: SmtpServer, sender: Sender, *, size: int) -> None:
        self._timeout_s = timeout_s
        self._sender = sender
        self._pool = SmtpPool(server, clock, size=size, timeout_s=timeout_s)

    async def send(self, outgoing: Outgoing) -> Receipt:
        content = outgoing.content
        if not isinstance(content, EmailContent):
            raise Refused("this is not the content of a mail")
        recipient, sent = recipient_of(outgoing.address), f"{content.subject} {content.text}"
        mail = build_mail(outgoing.message_id, outgoing.created_at, content, self._sender, recipient).as_bytes()
        try:
            async with asyncio.timeout(self._timeout_s), self._pool.slot():
                answer = await self._hand_over(recipient, mail)
        except TimeoutError as error:
            raise TryLater(f"the mail server did not answer within {self._timeout_s:g} s") from error
        except _Said as said:
            said.judge(outgoing.address, sent)
        except aiosmtplib.SMTPResponseException as error:  # of the greeting, EHLO, STARTTLS or signing in
            raise TryLater(f"the mail server does not let us in: {scrub(f'{error.code} {error.message}')}") from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # If the connection broke after the mail was accepted and before we read so, the mail will be sent twice. Nothing in
            # SMTP tells whether it was; the Message-ID is the same, so mailboxes that look at it show one.
            raise TryLater(_trouble(error)) from error
        provider_id = queue_id(answer) or message_id_of(outgoing.message_id, self._sender)
        return Receipt(provider_id, scrub(f"250 {answer}", outgoing.address, sent))

    async def close(self) -> None:
        await self._pool.close()

    async def _hand_over(self, recipient: Recipient, mail: bytes) -> str:
        """The server's last answer. Raises _Said when it says no."""
        connection = self._pool.take_idle()
        if connection is not None:
            try:
                return await self._converse(connection, recipient, mail)
            except _Stale:
                pass  # the server had hung up in the meantime, and nothing was sent yet
        return await self._converse(await self._pool.connect(), recipient, mail)

    async def _converse(self, connection: PooledConnection, recipient: Recipient, mail: bytes) -> str:
        whole = False
        try:
            answer = await self._transaction(connection, recipient, mail)
            whole = True
        except _Said as said:
            whole = await said.reset(connection.smtp)
            raise
        finally:
            if whole:
                self._pool.give_back(connection)
            else:
                connection.smtp.close()
        return answer

    async def _transaction(self, connection: PooledConnection, recipient: Recipient, mail: bytes) -> str:
        smtp, options = connection.smtp, ["SMTPUTF8"] if recipient.utf8 else []
        encoding = "utf-8" if recipient.utf8 else "ascii"
        step = "sender"
        try:
            if recipient.utf8 and not smtp.supports_extension("smtputf8"):
                raise _Said("recipient", 550, "the mail server does not know SMTPUTF8, which this address needs")
            await smtp.mail(self._sender.address, options=options, encoding=encoding)
            step = "recipient"
            await smtp.rcpt(recipient.address, encoding=encoding)
            step = "data"
            return (await smtp.data(mail)).message
        except aiosmtplib.SMTPResponseException as error:
            if step == "sender" and error.code == CLOSING and connection.mails:
                raise _Stale from error
            raise _Said(step, error.code, error.message) from error
        except aiosmtplib.SMTPServerDisconnected as error:
            if step == "sender" and connection.mails:
                raise _Stale from error
            raise


def _trouble(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
        return "TLS with the mail server failed, or its certificate is not trusted"
    if isinstance(error, aiosmtplib.SMTPException) and not isinstance(error, OSError):
        return scrub(f"the mail server does not let us in: {error.message}")  # it lacks STARTTLS or AUTH
    return f"no connection to the mail server, or it broke ({type(error).__name__})"


class _Stale(Exception):
    """A kept connection turned out to be closed before anything was sent over it."""


class _Said(Exception):
    """The server said no to a step ("sender", "recipient", "data") of a mail."""

    def __init__(self, step: str, code: int, words: str) -> None:
        super().__init__(step, code)
        self.step = step
        self.code = code
        self.words = words

    async def reset(self, smtp: aiosmtplib.SMTP) -> bool:
        """Whether the connection is ready for another mail."""
        if self.code == CLOSING or not 400 <= self.code < 600:
            return False
        try:
            await smtp.rset()
        except (aiosmtplib.SMTPException, OSError):
            return False
        return True

    def judge(self, address: str, sent: str) -> NoReturn:
        """What it means for the mail, and for others.

        A sender that is refused is a matter of our settings. A recipient that cannot be reached now (full mailbox, greylisting)
        is that recipient's. A mail that is not taken now (queue or disk full) would fare no better if it were another.
        """
        words = scrub(f"{self.code} {self.words}", address, sent)
        ours = self.step == "sender" or self.code in SIGN_IN or not 400 <= self.code < 600
        if self.code >= 500 and not ours:
            raise Refused(words) from self
        raise TryLater(words, ours=ours or self.code == CLOSING or self.step == "data") from self
