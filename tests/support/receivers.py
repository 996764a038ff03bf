"""Receivers of mails and of HTTP requests, real servers on loopback that can be told to misbehave.

    async with SmtpReceiver() as inbox:                   # host 127.0.0.1, port inbox.port
        inbox.answers["RCPT"].append("450 4.2.2 mailbox full")   # to the next RCPT; then it accepts again. DROP: hangs up instead
        inbox.delays["DATA"] = 0.05                       # seconds before the answer to each DATA
        ...
        inbox.mails[0].message["Subject"], inbox.mails[0].recipients; await inbox.arrived(2)

    async with SmtpReceiver(tls=self_signed(tmp_path).server, mode="starttls", login=("user", "password")) as inbox: ...

    async with HttpReceiver() as receiver:                # receiver.url, without a path
        receiver.replies.append(Reply(429, {"Retry-After": "7"}))   # to the next request; then `receiver.default`
        receiver.respond = lambda request: Reply(202)     # or a function of the request, for all
        ...
        receiver.requests[0].headers, .body, .path

What a DROP of DATA or a `Reply(drop=True)` hangs up on was received and kept: the answer is what is lost.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as MAIL_POLICY
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DROP: Final = "drop"
HOST: Final = "127.0.0.1"
WAIT_S: Final = 10.0

Command = Literal["EHLO", "MAIL", "RCPT", "DATA"]


class Certificate(NamedTuple):
    """Of a server at 127.0.0.1 and localhost, signed by nobody else; `file` (PEM) is what a client must trust."""

    file: Path
    server: ssl.SSLContext


def self_signed(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / "certificate.pem", folder / "key.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return Certificate(file, context)


class Mail(NamedTuple):
    """A mail that was received: its envelope and its bytes."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    connection: int
    """Over which connection, counted from 1."""

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.content, policy=MAIL_POLICY)
        assert isinstance(message, EmailMessage)
        return message

    def part(self, kind: Literal["plain", "html"]) -> str:
        body = self.message.get_body((kind,))
        assert body is not None
        return str(body.get_content())


class SmtpReceiver:
    """A mail server. `mode`: as the client's: none, starttls (offered and required) or tls. `login`: who must sign in."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        mode: Literal["none", "starttls", "tls"] = "none",
        login: tuple[str, str] | None = None,
        utf8: bool = False,
    ) -> None:
        self.mails: list[Mail] = []
        self.answers: dict[Command, deque[str]] = defaultdict(deque)
        self.delays: dict[Command, float] = {}
        self.connections = 0
        self.port = 0
        self._tls, self._mode, self._login, self._utf8 = tls, mode, login, utf8
        self._open: list[_Conversation] = []
        self._server: asyncio.Server | None = None
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        over = self._tls if self._mode == "tls" else None
        self._server = await asyncio.get_running_loop().create_server(self._conversation, HOST, self.port, ssl=over)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        await self.hang_up()
        await self._server.wait_closed()

    async def arrived(self, count: int) -> list[Mail]:
        """Waits until there are that many mails."""
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: len(self.mails) >= count)
        return self.mails

    async def hang_up(self) -> None:
        """Ends all conversations without a word, as a server that is restarted."""
        tasks = [conversation.task for conversation in self._open if conversation.task is not None]
        for conversation in self._open:
            conversation.drop()
        self._open.clear()
        for task in tasks:
            task.cancel()  # one whose TLS handshake failed would wait for ever
        await asyncio.gather(*tasks, return_exceptions=True)

    def _conversation(self) -> SMTP:
        self.connections += 1
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # that AUTH is offered without STARTTLS, though TLS may have been there from the start
            conversation = _Conversation(
                _Handler(self, self.connections),
                hostname="receiver.test",
                enable_SMTPUTF8=self._utf8,
                tls_context=self._tls if self._mode == "starttls" else None,
                require_starttls=self._mode == "starttls",
                auth_required=self._login is not None,
                auth_require_tls=self._mode == "starttls",
                authenticator=self._authenticate,
                loop=asyncio.get_running_loop(),
            )
        self._open.append(conversation)
        return conversation

    def _authenticate(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == self._login, handled=False)

    async def answer(self, server: SMTP, command: Command) -> str | None:
        """What to say to it: None, it is accepted; else that, or the line is dead already."""
        await asyncio.sleep(self.delays.get(command, 0))
        queue = self.answers[command]
        said = queue.popleft() if queue else None
        if said == DROP:
            assert isinstance(server, _Conversation)
            server.drop()
            raise ConnectionResetError
        return said

    async def keep(self, mail: Mail) -> None:
        async with self._news:
            self.mails.append(mail)
            self._news.notify_all()


class _Conversation(SMTP):
    @property
    def task(self) -> asyncio.Task[None] | None:
        return self._handler_coroutine

    def drop(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self.transport.abort()
        if isinstance(self._original_transport, asyncio.WriteTransport):
            self._original_transport.abort()  # with STARTTLS


class _Handler:
    def __init__(self, receiver: SmtpReceiver, connection: int) -> None:
        self._receiver = receiver
        self._connection = connection

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        said = await self._receiver.answer(server, "EHLO")
        session.host_name = hostname
        return responses if said is None else [said]

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        said = await self._receiver.answer(server, "MAIL")
        if said is None:
            envelope.mail_from = address
        return said or "250 2.1.0 Ok"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        said = await self._receiver.answer(server, "RCPT")
        if said is None:
            envelope.rcpt_tos.append(address)
        return said or "250 2.1.5 Ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        mail = Mail(envelope.mail_from or "", tuple(envelope.rcpt_tos), content, self._connection)
        queue = self._receiver.answers["DATA"]
        if not queue or queue[0] == DROP:
            await self._receiver.keep(mail)
        said = await self._receiver.answer(server, "DATA")
        return said or f"250 2.0.0 Ok: queued as Q{len(self._receiver.mails):05d}"


@dataclass(frozen=True)
class Received:
    """A request. Header names in lower case; `path` with its query."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """`drop`: hangs up instead. `endless`: the body never ends. `slow_s`: seconds before the answer begins."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop: bool = False
    endless: bool = False
    slow_s: float = 0.0


class HttpReceiver:
    """An HTTP server (HTTPS with `tls`) that keeps every request."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.replies: deque[Reply] = deque()
        self.default = Reply()
        self.respond: Callable[[Received], Reply] | None = None
        self.port = 0
        self.hung_up = asyncio.Event()
        """Set when a reader of an endless body has gone."""
        self._tls = tls
        self._news = asyncio.Condition()
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self.port, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self._runner.cleanup()

    async def arrived(self, count: int) -> list[Received]:
        """Waits until there are that many requests."""
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.method, request.path_qs, headers, await request.read())
        async with self._news:
            self.requests.append(received)
            self._news.notify_all()
        reply = self.replies.popleft() if self.replies else self.respond(received) if self.respond else self.default
        await asyncio.sleep(reply.slow_s)
        if reply.drop:
            assert request.transport is not None
            request.transport.abort()
        if reply.endless:
            return await self._endless(request, reply)
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body)

    async def _endless(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        await response.prepare(request)
        try:
            while True:
                await response.write(b"and so on, " * 1000)
        except OSError:
            self.hung_up.set()
            raise
