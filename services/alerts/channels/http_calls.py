"""One HTTP request and its answer, bounded in time and size: what the channels over HTTP stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final, NamedTuple

import aiohttp
from aiohappyeyeballs import SocketFactoryType
from aiohttp.abc import AbstractResolver
from yarl import URL

from services.alerts.channels.scrub import scrub
from services.alerts.messages import Outgoing, Refused, TryLater

BODY_MAX: Final = 4096
"""Bytes of an answer that are read; then the connection is closed."""
RETRY_AFTER_MAX_S: Final = 24 * 3600.0
AGENT: Final = "Tollbook"


class Answer(NamedTuple):
    """What came back: status, header lines, and the first bytes of the body as text."""

    status: int
    headers: Mapping[str, str]
    body: str

    def retry_after_s(self, now: datetime) -> float | None:
        """Seconds that the answer asks to wait (Retry-After as seconds or as a date), at most a day; None: it does not say."""
        said = self.headers.get("Retry-After", "").strip()
        if said.isascii() and said.isdigit():
            return min(float(said[:9]), RETRY_AFTER_MAX_S)
        try:
            at = parsedate_to_datetime(said)
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
        return min(max(seconds, 0.0), RETRY_AFTER_MAX_S)

    def words(self, outgoing: Outgoing, sent: str) -> str:
        """Status and body, fit for an event. `sent`: what was sent, as receivers that fail may quote it."""
        return scrub(f"{self.status} {self.body}".rstrip(), outgoing.address, sent)


class NotAllowed(OSError):
    """A socket would have been connected to an address that is not allowed."""


class HttpCaller:
    """Posts. `timeout_s` is for everything: name, connection, TLS, request and answer. `socket_factory` may refuse addresses.

    A connection for each request: one that was kept open and has died meanwhile cannot be told from an answer that was lost, and
    a lost answer is a possible duplicate. Redirects are not followed; proxies, cookies and netrc of the environment are not
    looked at; compressed answers are not asked for, and not unpacked. `resolver`: another than the system's, for tests.
    """

    def __init__(
        self, timeout_s: float, socket_factory: SocketFactoryType | None = None, resolver: AbstractResolver | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._socket_factory = socket_factory
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: URL, data: bytes, headers: Mapping[str, str]) -> Answer:
        """Raises TryLater (`ours`) when no answer came, Refused when the URL is none or leads where it may not."""
        own = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        try:
            async with self._open().post(url, data=data, headers={**own, **headers}, allow_redirects=False) as response:
                # A copy: the response's own headers are gone with it.
                answered = MappingProxyType(response.headers.copy())
                return Answer(response.status, answered, await _beginning(response))
        except aiohttp.InvalidURL as error:
            raise Refused("the URL is not one that can be connected to") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, NotAllowed):
                raise Refused("the host's address is private, local or reserved, and not in the allowed networks") from error
            raise TryLater(_connection_trouble(error)) from error
        except TimeoutError as error:
            raise TryLater(f"no answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:  # uvloop has RuntimeError, too
            # Of what the request came to nothing is known: it may have been taken.
            raise TryLater(f"the connection broke before an answer came ({type(error).__name__})") from error

    async def close(self) -> None:
        """Ends what is under way."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Addresses one after the other, not in a race of tasks: then an error of the factory is told as it is.
            connector = aiohttp.TCPConnector(
                limit=0,
                force_close=True,
                use_dns_cache=False,
                happy_eyeballs_delay=None,
                socket_factory=self._socket_factory,
                resolver=self._resolver or aiohttp.ThreadedResolver(),
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, ceil_threshold=float("inf")),
                auto_decompress=False,
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _beginning(response: aiohttp.ClientResponse) -> str:
    """The status is the answer: a body that never ends or breaks off takes nothing from it."""
    read = bytearray()
    try:
        while len(read) < BODY_MAX and (piece := await response.content.read(BODY_MAX - len(read))):
            read += piece
    except (TimeoutError, asyncio.IncompleteReadError, aiohttp.ClientError, OSError):
        pass
    finally:
        response.close()
    return bytes(read).decode("utf-8", "replace")


def _connection_trouble(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host's name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the server's certificate is not valid"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS with the server failed"
    return "no connection to the server"
