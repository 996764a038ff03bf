"""Text messages over real HTTP, to receivers that check what SENS and Twilio document."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest

from services.alerts.channels.opening import open_channels
from services.alerts.channels.settings import ChannelSettings
from services.alerts.messages import Channel, Outgoing, Refused, SmsContent, TryLater
from shared.clock import FixedClock
from tests.support.receivers import HttpReceiver, Received, Reply

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
MESSAGE_ID = "0123456789abcdef" * 2
TEXT = "[톨북] 코드 481516"
SERVICE = "ncp:sms:kr:123:tollbook"
TAKEN = Reply(202, body=json.dumps({"requestId": "VORS-1", "statusCode": "202", "statusName": "success"}).encode())

Opener = Callable[..., Channel]


def outgoing(to: str = "+821012345678") -> Outgoing:
    return Outgoing(MESSAGE_ID, to, "", AT, SmsContent(TEXT))


@pytest.fixture
async def receiver() -> AsyncIterator[HttpReceiver]:
    async with HttpReceiver() as running:
        yield running


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    channels: list[Channel] = []

    def make(**given: object) -> Channel:
        channels.append(open_channels(ChannelSettings.model_validate({"sms_timeout_s": 5} | given), FixedClock(AT))["sms"])
        return channels[-1]

    yield make
    for channel in channels:
        await channel.close()


@pytest.fixture
def sens(opened: Opener, receiver: HttpReceiver) -> Channel:
    return opened(sms_provider="sens", sms_sender="0212345678", sens_base_url=receiver.url, sens_service_id=SERVICE,
                  sens_access_key="access", sens_secret_key="secret")  # fmt: skip


@pytest.fixture
def twilio(opened: Opener, receiver: HttpReceiver) -> Channel:
    return opened(sms_provider="twilio", sms_sender="+12015550123", twilio_base_url=receiver.url + "/",
                  twilio_account_sid="AC123", twilio_auth_token="token")  # fmt: skip


def checking(request: Received) -> Reply:
    """SENS by its documents: the signature over "METHOD SP URI LF timestamp LF accessKey", and a clock within five minutes."""
    timestamp, key = request.headers["x-ncp-apigw-timestamp"], request.headers["x-ncp-iam-access-key"]
    signed = f"{request.method} {request.path}\n{timestamp}\n{key}".encode()
    expected = base64.b64encode(hmac.new(b"secret", signed, hashlib.sha256).digest()).decode()
    if request.headers["x-ncp-apigw-signature-v2"] != expected:
        return Reply(401, body=b"wrong signature")
    if abs(int(timestamp) / 1000 - AT.timestamp()) > 300:
        return Reply(401, body=b"wrong time")
    return TAKEN


async def test_sens_accepts_the_signature_and_reads_the_body(sens: Channel, receiver: HttpReceiver) -> None:
    receiver.respond = checking
    assert await sens.send(outgoing()) == ("VORS-1", "202 accepted")
    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", f"/sms/v2/services/{SERVICE}/messages")
    assert request.headers["x-ncp-apigw-timestamp"] == "1767323045678"
    assert request.headers["content-type"] == "application/json; charset=utf-8"
    assert json.loads(request.body) == {
        "type": "SMS",
        "contentType": "COMM",
        "countryCode": "82",
        "from": "0212345678",
        "content": TEXT,
        "messages": [{"to": "01012345678", "content": TEXT}],
    }


@pytest.mark.parametrize("body", [b"", b"not json", b'{"requestId": 7}', b'{"requestId": "kim@example.com"}'])
async def test_what_sens_accepted_is_accepted_whatever_the_body_says(sens: Channel, receiver: HttpReceiver, body: bytes) -> None:
    receiver.default = Reply(202, body=body)
    assert await sens.send(outgoing()) == ("", "202 accepted")


async def test_the_messages_api_gets_its_form_and_an_idempotency_token(twilio: Channel, receiver: HttpReceiver) -> None:
    receiver.default = Reply(
        201, body=json.dumps({"sid": "SM42", "status": "queued", "to": "+821012345678", "body": TEXT}).encode()
    )
    assert await twilio.send(outgoing()) == ("SM42", "201 queued")
    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/2010-04-01/Accounts/AC123/Messages.json")
    assert dict(parse_qsl(request.body.decode())) == {"To": "+821012345678", "From": "+12015550123", "Body": TEXT}
    assert base64.b64decode(request.headers["authorization"].removeprefix("Basic ")) == b"AC123:token"
    assert request.headers["i-twilio-idempotency-token"] == MESSAGE_ID


@pytest.fixture(params=["sens", "twilio"])
def either(request: pytest.FixtureRequest) -> Channel:
    channel: Channel = request.getfixturevalue(request.param)
    return channel


@pytest.mark.parametrize(
    ("reply", "after_s"),
    [
        (Reply(401, body=b"bad credentials"), None),
        (Reply(403), None),
        (Reply(404, body=b"no such service"), None),
        (Reply(429, {"Retry-After": "7"}), 7.0),
        (Reply(429, {"Retry-After": "Fri, 02 Jan 2026 03:05:05 GMT"}), 59.322),
        (Reply(429), None),
        (Reply(500, body=b"oops"), None),
        (Reply(503, {"Retry-After": "30"}), 30.0),
        (Reply(302, {"Location": "/elsewhere"}), None),
        (Reply(204), None),
        (Reply(drop=True), None),
    ],
)
async def test_what_is_tried_again_is_the_channels_fault(
    either: Channel, receiver: HttpReceiver, reply: Reply, after_s: float | None
) -> None:
    receiver.default = reply
    with pytest.raises(TryLater) as caught:
        await either.send(outgoing())
    assert caught.value.ours
    assert caught.value.retry_after_s == after_s
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_is_wrong_with_the_message_is_refused_and_told_without_the_number(
    either: Channel, receiver: HttpReceiver, status: int
) -> None:
    quoted = {
        "code": 21211,
        "message": "Invalid 'To' 010-1234-5678, +821012345678",
        "text": TEXT,
        "more_info": "https://x.example",
    }
    receiver.default = Reply(status, body=json.dumps(quoted, ensure_ascii=False).encode())
    with pytest.raises(Refused) as caught:
        await either.send(outgoing())
    answer = caught.value.answer
    assert answer.startswith(f"{status} ")
    assert "Invalid 'To' ***" in answer
    assert not any(told in answer for told in ("1234", "5678", "481516", "x.example"))


async def test_a_sender_that_the_account_does_not_own_is_our_fault(twilio: Channel, receiver: HttpReceiver) -> None:
    receiver.default = Reply(400, body=b'{"code": 21606, "message": "The From phone number is not valid", "status": 400}')
    with pytest.raises(TryLater) as caught:
        await twilio.send(outgoing())
    assert caught.value.ours
    receiver.default = Reply(201, body=b'{"sid": "SM1", "status": "failed"}')
    with pytest.raises(Refused):
        await twilio.send(outgoing())


async def test_an_endless_answer_is_read_a_little_and_left(either: Channel, receiver: HttpReceiver) -> None:
    receiver.default = Reply(400, endless=True)
    with pytest.raises(Refused) as caught:
        await either.send(outgoing())
    assert len(caught.value.answer) == 200


async def test_a_provider_that_does_not_answer_is_given_up(opened: Opener, receiver: HttpReceiver) -> None:
    receiver.default = Reply(slow_s=30)
    channel = opened(sms_provider="twilio", sms_sender="+12015550123", twilio_base_url=receiver.url, sms_timeout_s=0.2,
                     twilio_account_sid="AC123", twilio_auth_token="token")  # fmt: skip
    with pytest.raises(TryLater) as caught:
        await channel.send(outgoing())
    assert caught.value.ours
    assert "within 0.2 s" in caught.value.answer


async def test_nobody_there(opened: Opener) -> None:
    async with HttpReceiver() as gone:
        url = gone.url
    channel = opened(sms_provider="twilio", sms_sender="+12015550123", twilio_base_url=url, twilio_account_sid="AC123",
                     twilio_auth_token="token")  # fmt: skip
    with pytest.raises(TryLater) as caught:
        await channel.send(outgoing())
    assert (caught.value.ours, caught.value.answer) == (True, "no connection to the server")
