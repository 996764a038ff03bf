"""Webhooks over real HTTP: signatures that the reference package believes, and nothing private that can be reached."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

from services.alerts.channels.addresses import networks
from services.alerts.channels.webhook import WebhookChannel
from services.alerts.messages import Outgoing, Refused, TryLater, WebhookContent
from shared.clock import Clock, FixedClock, SystemClock
from shared.ids import new_webhook_secret
from tests.support.receivers import HOST, HttpReceiver, Reply, self_signed

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MESSAGE_ID = "0123456789abcdef" * 2
SECRET = new_webhook_secret()
BODY = json.dumps({"type": "usage.crossed", "code": "481516", "앱": "음성"}).encode()
HERE = "127.0.0.0/8"

Opener = Callable[..., WebhookChannel]


class Names(AbstractResolver):
    """Says where names lead, each time the next of what it was given; the last one for ever."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        pass


def outgoing(url: str, secret: str = SECRET) -> Outgoing:
    return Outgoing(MESSAGE_ID, url, secret, NOW, WebhookContent(BODY))


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    channels: list[WebhookChannel] = []

    def make(
        allowed: str = HERE, *, clock: Clock | None = None, timeout_s: float = 5, names: AbstractResolver | None = None
    ) -> WebhookChannel:
        channels.append(WebhookChannel(clock or FixedClock(NOW), timeout_s, networks(allowed), names))
        return channels[-1]

    yield make
    for channel in channels:
        await channel.close()


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with HttpReceiver() as running:
        yield running


async def test_the_reference_package_believes_the_signature(opened: Opener, receiver: HttpReceiver) -> None:
    receiver.default = Reply(204)
    assert await opened(clock=SystemClock()).send(outgoing(receiver.url + "/hook?a=b")) == ("", "204")
    (request,) = receiver.requests
    assert Webhook(SECRET).verify(request.body, dict(request.headers)) == json.loads(BODY)
    assert (request.method, request.path, request.body) == ("POST", "/hook?a=b", BODY)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == f"msg_{MESSAGE_ID}"


async def test_each_try_has_the_same_id_and_its_own_time(opened: Opener, receiver: HttpReceiver) -> None:
    clock = FixedClock(NOW)
    channel = opened(clock=clock)
    await channel.send(outgoing(receiver.url))
    clock.advance(600)
    await channel.send(outgoing(receiver.url))
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 600
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


@pytest.mark.parametrize(
    ("reply", "ours", "after_s"),
    [
        (Reply(400, body=b"do not like it"), False, None),
        (Reply(401), False, None),
        (Reply(404), False, None),
        (Reply(429), False, None),
        (Reply(429, {"Retry-After": "7"}), False, 7.0),
        (Reply(429, {"Retry-After": "Fri, 02 Jan 2026 03:05:05 GMT"}), False, 60.0),
        (Reply(503, {"Retry-After": "120"}), False, 120.0),
        (Reply(503), True, None),
        (Reply(500), True, None),
        (Reply(drop=True), True, None),
    ],
)
async def test_everything_else_is_tried_again(
    opened: Opener, receiver: HttpReceiver, reply: Reply, ours: bool, after_s: float | None
) -> None:
    receiver.default = reply
    with pytest.raises(TryLater) as caught:
        await opened().send(outgoing(receiver.url))
    assert (caught.value.ours, caught.value.retry_after_s) == (ours, after_s)
    assert len(receiver.requests) == 1


async def test_gone_is_for_good_and_answers_do_not_tell_what_was_sent(opened: Opener, receiver: HttpReceiver) -> None:
    receiver.default = Reply(410, body=b"gone from " + receiver.url.encode() + b" with code 481516")
    with pytest.raises(Refused) as caught:
        await opened().send(outgoing(receiver.url))
    assert caught.value.answer == "410 gone from *** with code ***"
    receiver.default = Reply(200, body=BODY)
    assert await opened().send(outgoing(receiver.url)) == ("", "200")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(opened: Opener, receiver: HttpReceiver, status: int) -> None:
    async with HttpReceiver() as other:
        receiver.default = Reply(status, {"Location": other.url + "/secret"})
        with pytest.raises(Refused) as caught:
            await opened().send(outgoing(receiver.url))
        assert "redirects are not followed" in caught.value.answer
        assert (len(receiver.requests), other.requests) == (1, [])


@pytest.mark.parametrize("status", [200, 500])
async def test_an_endless_answer_is_read_a_little_and_left(opened: Opener, receiver: HttpReceiver, status: int) -> None:
    receiver.default = Reply(status, endless=True)
    channel = opened()
    if status == 200:
        assert await channel.send(outgoing(receiver.url)) == ("", "200")
    else:
        with pytest.raises(TryLater) as caught:
            await channel.send(outgoing(receiver.url))
        assert len(caught.value.answer) == 200
    await receiver.hung_up.wait()


async def test_who_does_not_answer_is_given_up(opened: Opener, receiver: HttpReceiver) -> None:
    receiver.default = Reply(slow_s=30)
    with pytest.raises(TryLater) as caught:
        await opened(timeout_s=0.2).send(outgoing(receiver.url))
    assert caught.value.ours
    assert "within 0.2 s" in caught.value.answer


async def test_an_answer_whose_body_drips_is_an_answer_and_one_whose_head_drips_is_none(opened: Opener) -> None:
    dripping, ended = b"HTTP/1.1 200 OK\r\n", asyncio.Semaphore(0)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(dripping)
        with contextlib.suppress(OSError):
            while not writer.is_closing():
                await asyncio.sleep(0.02)
                writer.write(b"A: b\r\n")
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        ended.release()

    server = await asyncio.start_server(drip, HOST, 0)
    async with server:
        channel = opened(timeout_s=0.3)
        url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(TryLater):
            await channel.send(outgoing(url))
        await ended.acquire()
        dripping += b"Content-Length: 100000\r\n\r\n"
        assert await channel.send(outgoing(url)) == ("", "200")
        await ended.acquire()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "127.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "0177.0.0.1",
     "127.0.0.1.", "127。0。0。1", "１２７.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::]",
     "[64:ff9b::7f00:1]", "[2002:7f00:1::]"],
)  # fmt: skip
async def test_this_machine_is_not_reached_however_it_is_spelled(opened: Opener, receiver: HttpReceiver, host: str) -> None:
    with pytest.raises((Refused, TryLater)) as caught:
        await opened(allowed="").send(outgoing(f"http://{host}:{receiver.port}/"))
    assert receiver.requests == []
    assert host not in caught.value.answer
    if host in ("127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]"):
        assert isinstance(caught.value, Refused)


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]"])
async def test_it_is_when_it_is_allowed(opened: Opener, receiver: HttpReceiver, host: str) -> None:
    """So the guard is what kept it off, and it looks at where a spelling leads."""
    await opened().send(outgoing(f"http://{host}:{receiver.port}/"))
    assert len(receiver.requests) == 1


async def test_a_name_that_leads_elsewhere_the_second_time_is_judged_by_where_it_leads(
    opened: Opener, receiver: HttpReceiver
) -> None:
    names = Names(HOST, "10.0.0.1", "169.254.169.254", "::1")
    channel = opened(names=names)  # this machine is allowed, so that the first can be seen to arrive
    url = f"http://hooks.example.com:{receiver.port}/"
    await channel.send(outgoing(url))
    for asked in (2, 3, 4):
        with pytest.raises(Refused) as caught:
            await channel.send(outgoing(url))
        assert "not in the allowed networks" in caught.value.answer
        assert names.asked == asked
    assert len(receiver.requests) == 1
    assert receiver.requests[0].headers["host"] == f"hooks.example.com:{receiver.port}"


async def test_the_proxy_of_the_environment_is_not_used(
    opened: Opener, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, receiver.url)
    with pytest.raises(Refused):
        await opened(allowed="", names=Names("10.0.0.1")).send(outgoing("http://hooks.example.com/"))
    assert receiver.requests == []


async def test_a_certificate_that_is_not_trusted_is_not_accepted(
    opened: Opener, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with HttpReceiver(tls=self_signed(tmp_path_factory.mktemp("tls")).server) as receiver:
        with pytest.raises(TryLater) as caught:
            await opened().send(outgoing(receiver.url))
        assert caught.value.answer == "the server's certificate is not valid"
        assert receiver.requests == []


@pytest.mark.parametrize(
    ("url", "secret"),
    [("ftp://example.com/", SECRET), ("http://user@example.com/", SECRET), (f"http://{HOST}/", "whsec_c2hvcnQ=")],
    ids=["no HTTP", "a user", "a short secret"],  # the secret is another each time, names of tests are not
)  # fmt: skip
async def test_what_cannot_be_sent_is_refused(opened: Opener, url: str, secret: str) -> None:
    with pytest.raises(Refused) as caught:
        await opened().send(outgoing(url, secret))
    assert "c2hvcnQ" not in caught.value.answer
