"""SMS by NAVER Cloud's Simple & Easy Notification Service, version 2 of its API."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final, NamedTuple

import msgspec
import phonenumbers
from yarl import URL

from services.alerts.channels.http_calls import Answer, HttpCaller
from services.alerts.messages import Outgoing, Receipt, Refused, SmsContent, TryLater
from shared.clock import Clock

ACCEPTED: Final = 202
KOREA: Final = 82
OURS: Final = frozenset({401, 403, 404, 408, 425, 429})
"""Wrong keys, an unknown service id, too many requests: no other message would fare better."""


class SensAccount(NamedTuple):
    """Who sends. `sender`: one of the numbers registered at SENS, digits only. `base_url` has no slash at its end."""

    base_url: str
    service_id: str
    access_key: str
    secret_key: str
    sender: str


def signature(secret_key: str, method: str, uri: str, timestamp_ms: str, access_key: str) -> str:
    """The value of x-ncp-apigw-signature-v2. `uri`: path and query, as they are sent."""
    signed = f"{method} {uri}\n{timestamp_ms}\n{access_key}"
    return base64.b64encode(hmac.digest(secret_key.encode(), signed.encode(), hashlib.sha256)).decode()


def country_and_number(address: str) -> tuple[str, str]:
    """An E.164 number as SENS wants it: country code, and the number within the country, digits only. Raises Refused.

    Korean numbers are dialled with their 0 (01012345678); others have no such prefix from abroad.
    """
    try:
        number = phonenumbers.parse(address)
    except phonenumbers.NumberParseException as error:
        raise Refused("this is not a phone number with its country code") from error
    if number.country_code == KOREA:
        national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
        return str(KOREA), re.sub(r"\D", "", national)
    return str(number.country_code), phonenumbers.national_significant_number(number)


class SensChannel:
    """SENS knows no idempotency key: when a request's answer is lost, trying again may send the message twice."""

    def __init__(self, clock: Clock, timeout_s: float, account: SensAccount) -> None:
        self._clock = clock
        self._account = account
        self._caller = HttpCaller(timeout_s)
        self._url = URL(f"{account.base_url}/sms/v2/services/{account.service_id}/messages", encoded=True)

    async def send(self, outgoing: Outgoing) -> Receipt:
        if not isinstance(outgoing.content, SmsContent):
            raise Refused("this is not the content of a text message")
        country, number = country_and_number(outgoing.address)
        body = {
            "type": "SMS",
            "contentType": "COMM",
            "countryCode": country,
            "from": self._account.sender,
            "content": outgoing.content.text,
            "messages": [{"to": number, "content": outgoing.content.text}],
        }
        answer = await self._caller.post(self._url, msgspec.json.encode(body), self._headers())
        return self._judged(answer, answer.words(outgoing, outgoing.content.text))

    async def close(self) -> None:
        await self._caller.close()

    def _headers(self) -> dict[str, str]:
        account, timestamp_ms = self._account, str(int(self._clock.now().timestamp() * 1000))
        return {
            "Content-Type": "application/json; charset=utf-8",
            "x-ncp-apigw-timestamp": timestamp_ms,
            "x-ncp-iam-access-key": account.access_key,
            "x-ncp-apigw-signature-v2": signature(
                account.secret_key, "POST", self._url.raw_path_qs, timestamp_ms, account.access_key
            ),
        }

    def _judged(self, answer: Answer, words: str) -> Receipt:
        if answer.status == ACCEPTED:
            return Receipt(_request_id(answer.body), f"{ACCEPTED} accepted")
        if 400 <= answer.status < 500 and answer.status not in OURS:
            raise Refused(words)
        raise TryLater(words, retry_after_s=answer.retry_after_s(self._clock.now()))


class _Accepted(msgspec.Struct):
    requestId: str = ""


def _request_id(body: str) -> str:
    try:
        said = msgspec.json.decode(body, type=_Accepted).requestId
    except msgspec.DecodeError:
        return ""  # it was accepted all the same
    return said if re.fullmatch(r"[\w.:-]{1,100}", said, re.ASCII) else ""
