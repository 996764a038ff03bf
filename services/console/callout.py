"""Who may watch which dashboard: nats-server asks here about every connection that is not a service's (auth callout).

A connection that brings an API token of an owner or member may read the keys of its account in the KV buckets, and nothing
else. What each permission is for, and which are withheld, is told in README.md.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, Final, NamedTuple

import msgspec
import nkeys
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.console import nats_jwt
from services.console.tokens import Authenticator, Principal
from shared.clock import Clock
from shared.errors import Forbidden, TollbookError, Unauthenticated

log = logging.getLogger(__name__)

SUBJECT: Final = "$SYS.REQ.USER.AUTH"
AUDIENCE: Final = "nats-authorization-request"
BUCKETS: Final = ("apps", "usage", "limits", "notifications", "reviews")
"""The KV buckets that dashboards may watch."""
CONNECTION_LIFE: Final = timedelta(hours=1)
"""A connection ends at the latest then, and with it what a token that was revoked meanwhile can see. Clients reconnect alone."""
WAITING_MAX: Final = 256
WORKERS: Final = 8


class Question(NamedTuple):
    """What matters of an authorization request."""

    server_id: str
    user_key: str
    address: str
    options: dict[str, Any]


class Callout:
    """Answers nats-server's questions. `run` is a background task of the service; several consoles share the questions."""

    def __init__(self, seed: str, nats_account: str, authenticator: Authenticator, clock: Clock) -> None:
        self._issuer = nkeys.from_seed(seed.encode())
        self._nats_account = nats_account
        self._authenticator = authenticator
        self._clock = clock
        self._waiting: asyncio.Queue[Msg] = asyncio.Queue(WAITING_MAX)

    async def run(self, nc: Client) -> None:
        """Answer until cancelled."""
        subscription = await nc.subscribe(SUBJECT, queue="console", cb=self._take)
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(WORKERS):
                    workers.create_task(self._work())
        finally:
            if nc.is_connected:
                await subscription.unsubscribe()

    async def _take(self, message: Msg) -> None:
        if self._waiting.full():
            log.warning("console: too many NATS connections at once; one of them is not answered")
            return
        self._waiting.put_nowait(message)

    async def _work(self) -> None:
        while True:
            message = await self._waiting.get()
            try:
                answer = await self.answer(message.data)
                if answer is not None:
                    await message.respond(answer.encode())
            except Exception as error:  # one broken question must not leave the others unanswered
                log.error("console: a NATS connection could not be decided: %s", type(error).__name__)  # noqa: TRY400 - its text may hold a token

    async def answer(self, request: bytes) -> str | None:
        """The authorization response to an authorization request; None to what is none."""
        asked = _question(request)
        if asked is None:
            log.warning("console: %s held something that is not an authorization request", SUBJECT)
            return None
        response: dict[str, Any] = {"type": "authorization_response", "version": 2}
        try:
            principal = await self._authenticator.authenticate(_token(asked.options), asked.address)
            if principal.roles.isdisjoint(("owner", "member")):
                raise Forbidden("Dashboards need one of the roles owner, member.")
            response["jwt"] = self._user(asked.user_key, principal)
        except TollbookError as error:
            response["error"] = error.detail
        now_s = int(self._clock.now().timestamp())
        return nats_jwt.encode({"aud": asked.server_id, "sub": asked.user_key, "iat": now_s, "nats": response}, self._issuer)

    def _user(self, user_key: str, principal: Principal) -> str:
        """The user that the connection becomes."""
        now = self._clock.now()
        ends_at = now + CONNECTION_LIFE
        if principal.expires_at is not None:
            ends_at = min(ends_at, principal.expires_at)
        claims = {
            "aud": self._nats_account,
            "sub": user_key,
            "name": f"{principal.account}/{principal.token_id}",
            "iat": int(now.timestamp()),
            "exp": int(ends_at.timestamp()) + 1,
            "nats": {**permissions(principal.account), "subs": 100, "payload": 65536, "data": -1, "type": "user", "version": 2},
        }
        return nats_jwt.encode(claims, self._issuer)


def _question(request: bytes) -> Question | None:
    """The authorization request, if it is one that a nats-server has signed."""
    try:
        claims = nats_jwt.decode(request, nkeys.PREFIX_BYTE_SERVER)
        asked = msgspec.convert(claims.get("nats"), dict[str, Any])
        server, client = (msgspec.convert(asked.get(name), dict[str, Any]) for name in ("server_id", "client_info"))
        options = msgspec.convert(asked.get("connect_opts"), dict[str, Any])
    except (nats_jwt.BadJwt, msgspec.ValidationError):
        return None
    server_id, user_key = str(server.get("id")), str(asked.get("user_nkey"))
    if claims.get("aud") != AUDIENCE or server_id != claims["iss"] or not user_key.startswith("U"):
        return None
    return Question(server_id, user_key, str(client.get("host", "")), options)


def permissions(account: str) -> dict[str, Any]:
    """What a dashboard of `account` may publish and subscribe to. Everything that is not named is refused by nats-server."""
    publish = ["$JS.API.INFO"]
    for bucket in BUCKETS:
        keys = f"$KV.{bucket}.{account}.>"
        publish += [
            f"$JS.API.CONSUMER.CREATE.KV_{bucket}.*.{keys}",
            f"$JS.API.CONSUMER.INFO.KV_{bucket}.*",
            f"$JS.API.CONSUMER.DELETE.KV_{bucket}.*",
            f"$JS.API.DIRECT.GET.KV_{bucket}.{keys}",
            f"$JS.FC.KV_{bucket}.>",
        ]
    return {"pub": {"allow": publish}, "sub": {"allow": [f"{inbox_prefix(account)}.>"]}}


def inbox_prefix(account: str) -> str:
    """The inbox prefix that a dashboard must connect with. Its own, so that nobody hears the answers of another account."""
    return f"_INBOX_{account}"


def _token(options: dict[str, Any]) -> str:
    """The API token of a connection: as its token, or as its password under any user name."""
    token = options.get("auth_token") or options.get("pass") or ""
    if not token:
        raise Unauthenticated("Connect with an API token.")
    return str(token)
