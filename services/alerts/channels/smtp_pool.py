"""Connections to the mail server that are kept open between mails."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final, Literal, NamedTuple, TypeAlias

import aiosmtplib

from shared.clock import Clock

Security: TypeAlias = Literal["none", "starttls", "tls"]

MAILS_MAX: Final = 100
"""Mails over one connection; servers close it after about as many, and after a change of DNS others are found."""
IDLE_MAX_S: Final = 30.0
"""Servers close idle connections after a minute to five."""
QUIT_S: Final = 1.0


class SmtpServer(NamedTuple):
    """Where mails are handed over. `user` "": without signing in. `tls`: what "starttls" and "tls" check certificates with.

    `helo`: the name to give at EHLO, a domain; the machine's own would be asked of the DNS, which can take its time.
    """

    host: str
    port: int
    security: Security
    user: str
    password: str
    helo: str
    tls: ssl.SSLContext | None = None


class PooledConnection:
    """A connection, how many mails went over it, and since when it idles (monotonic seconds)."""

    def __init__(self, smtp: aiosmtplib.SMTP) -> None:
        self.smtp = smtp
        self.mails = 0
        self.idle_since = 0.0


class SmtpPool:
    """At most `size` connections; who comes when all are taken waits. Give each back, or close it."""

    def __init__(self, server: SmtpServer, clock: Clock, *, size: int, timeout_s: float) -> None:
        self._server = server
        self._clock = clock
        self._timeout_s = timeout_s
        self._idle: list[PooledConnection] = []
        self._free = asyncio.Semaphore(size)
        self._closed = False

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """The right to one connection, and to another in its place."""
        async with self._free:
            yield

    def take_idle(self) -> PooledConnection | None:
        """One that was kept and looks alive; the server may have closed it all the same."""
        while self._idle:
            connection = self._idle.pop()  # the last one first, so that what is too many becomes idle
            fresh = self._clock.monotonic() - connection.idle_since < IDLE_MAX_S
            if fresh and connection.smtp.is_connected:
                return connection
            connection.smtp.close()
        return None

    async def connect(self) -> PooledConnection:
        """A new one, secured and signed in. Raises what aiosmtplib raises, ssl.SSLError and OSError."""
        server = self._server
        smtp = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user or None,
            password=server.password if server.user else None,
            local_hostname=server.helo,
            timeout=self._timeout_s,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=server.tls,
        )
        try:
            await smtp.connect()
            if smtp.is_ehlo_or_helo_needed:
                await smtp.ehlo()
        except BaseException:
            smtp.close()
            raise
        return PooledConnection(smtp)

    def give_back(self, connection: PooledConnection) -> None:
        """After a mail, when the conversation is at a point where the next may begin."""
        connection.mails += 1
        connection.idle_since = self._clock.monotonic()
        if self._closed or connection.mails >= MAILS_MAX or not connection.smtp.is_connected:
            connection.smtp.close()
        else:
            self._idle.append(connection)

    async def close(self) -> None:
        """Says goodbye on idle connections. What is under way closes its own."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(self._quit(connection.smtp) for connection in idle))

    async def _quit(self, smtp: aiosmtplib.SMTP) -> None:
        with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
            await smtp.quit(timeout=QUIT_S)
        smtp.close()
