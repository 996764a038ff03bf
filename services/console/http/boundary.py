"""What stands before the routes, as bare ASGI: the last net for errors, the sign-in, and the bounds of a request's body.

They stand in this order, so that nobody who is not signed in gets a body read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter
from starlette.datastructures import Headers, MutableHeaders

from services.console.problems import BodyTooSlow, problem_response, unexpected
from services.console.settings import Network
from services.console.tokens import Authenticator
from shared.errors import TollbookError, TooLarge, Unauthenticated
from shared.service import AsgiApp, Receive, Scope, Send

API: Final = "/v1/"
OPEN_PATHS: Final = frozenset({"/v1/openapi.json"})
BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
BODY_BYTES_MAX: Final = 1024 * 1024
OPEN_BODY_BYTES_MAX: Final = 4096
"""Of a request that nobody signs in for: the button of a page, or a mail program's one-click request."""
BODY_TIMEOUT_S: Final = 10.0
CLOSE: Final = {"Connection": "close"}

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer. No answer of the API may be kept by a cache: some hold secrets, all belong to one account. A page that
people see has a policy (CSP) of its own: what it has set stays."""


class Boundary:
    """The outermost: adds HEADERS, counts answers, and answers what nobody else did."""

    def __init__(self, inner: AsgiApp, metrics: CollectorRegistry) -> None:
        self._inner = inner
        self._answers = Counter("tollbook_console_answers_total", "HTTP answers", ["method", "route", "status"], registry=metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = False

        async def send_with_headers(message: dict[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                self._answers.labels(_known_method(scope["method"]), _route(scope), str(message["status"])).inc()
            await send(message)

        try:
            await self._inner(scope, receive, send_with_headers)  # type: ignore[arg-type]  # messages are dicts
        except TollbookError as error:
            if not started:
                await problem_response(error)(scope, receive, send_with_headers)  # type: ignore[arg-type]
        except Exception as error:
            if not started:  # else the framework has answered, and only passes the error on
                await problem_response(unexpected(error))(scope, receive, send_with_headers)  # type: ignore[arg-type]


class SignIn:
    """Puts the bearer of the request's API token into `request.state.principal`, or answers 401 or 429."""

    def __init__(self, inner: AsgiApp, authenticator: Authenticator, proxies: Sequence[Network]) -> None:
        self._inner = inner
        self._authenticator = authenticator
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(API) and scope["path"] not in OPEN_PATHS:
            headers = Headers(scope=scope)
            address = address_of(scope, headers, self._proxies)
            principal = await self._authenticator.authenticate(bearer_token(headers), address)
            scope.setdefault("state", {})["principal"] = principal
        await self._inner(scope, receive, send)


class BodyBounds:
    """Reads the body before the routes do: at most BODY_BYTES_MAX bytes, counted as they come, in at most BODY_TIMEOUT_S.

    Without a sign-in OPEN_BODY_BYTES_MAX.
    """

    def __init__(self, inner: AsgiApp, timeout_s: float = BODY_TIMEOUT_S) -> None:
        self._inner = inner
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in BODY_METHODS:
            await self._inner(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except (TooLarge, BodyTooSlow) as error:
            # What is still on its way is not waited for.
            await problem_response(error, CLOSE)(scope, receive, send)
            return
        if body is None:
            return
        given = False

        async def receive_again() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._inner(scope, receive_again, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when its sender has gone."""
        bytes_max = BODY_BYTES_MAX if scope["path"].startswith(API) else OPEN_BODY_BYTES_MAX
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and (len(declared) > 10 or int(declared) > bytes_max):
            raise _too_large(bytes_max)
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk: bytes = message.get("body", b"")
                    size += len(chunk)
                    if size > bytes_max:
                        raise _too_large(bytes_max)
                    chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError:
            raise BodyTooSlow(f"The body did not arrive within {self._timeout_s:.0f} seconds.") from None


def bearer_token(headers: Headers) -> str:
    """The token of `Authorization: Bearer <token>`. Raises Unauthenticated when there is none, or more than one."""
    values = headers.getlist("authorization")
    if len(values) > 1:
        raise Unauthenticated("There is more than one Authorization header.")
    scheme, _, token = (values[0] if values else "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("Send an API token: Authorization: Bearer tbk_...")
    return token.strip()


def address_of(scope: Scope, headers: Headers, proxies: Sequence[Network]) -> str:
    """The client's address as failures are counted by: an IPv4 address, or the /64 of an IPv6 one.

    X-Forwarded-For is read from its end, past the proxies that are trusted: what stands before the first stranger, anyone may
    write.
    """
    client = scope.get("client")
    hops = [str(client[0]) if client else ""]
    forwarded = ",".join(headers.getlist("x-forwarded-for"))
    hops = [*(hop.strip() for hop in forwarded.split(",") if hop.strip()), *hops]
    address = hops[-1]
    for hop in reversed(hops):
        try:
            parsed = ip_address(hop)
        except ValueError:
            break
        if isinstance(parsed, IPv6Address):
            parsed = parsed.ipv4_mapped or parsed
        address = f"{IPv6Address(int(parsed) >> 64 << 64)}/64" if isinstance(parsed, IPv6Address) else str(parsed)
        if not any(parsed in network for network in proxies):
            break
    return address


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body has more than {bytes_max} bytes.")


def _known_method(method: str) -> str:
    return method if method in BODY_METHODS or method in {"GET", "HEAD", "OPTIONS"} else "other"


def _route(scope: Scope) -> str:
    """The route's pattern, never the path itself: a metric's labels must stay few."""
    return str(getattr(scope.get("route"), "path_format", "none"))
