"""SMS by Twilio's Messages API, and by what speaks it too."""

from __future__ import annotations

import base64
import re
from typing import Final, NamedTuple
from urllib.parse import urlencode

import msgspec
from yarl import URL

from services.alerts.channels.http_calls import Answer, HttpCaller
from services.alerts.messages import Outgoing, Receipt, Refused, SmsContent, TryLater
from shared.clock import Clock

OURS: Final = frozenset({401, 403, 404, 408, 425, 429})
"""Wrong keys, an unknown account, too many requests: no other message would fare better."""
OURS_BY_CODE: Final = frozenset({20003, 20429, 21212, 21603, 21606, 21659, 21660})
"""Twilio's codes for our own credentials, rate and sender number, which come as 400, too."""
FAILED: Final = frozenset({"failed", "undelivered", "canceled"})


class TwilioAccount(NamedTuple):
    """Who sends. `sender`: a number (E.164), short code or sender id of the account. `base_url` has no slash at its end."""

    base_url: str
    sid: str
    auth_token: str
    sender: str


class TwilioChannel:
    """The message's id goes with it as I-Twilio-Idempotency-Token. Twilio documents that header for its own webhooks, not for
    this call, so it is for receivers that know it; with those that do not, a lost answer may be a message sent twice."""

    def __init__(self, clock: Clock, timeout_s: float, account: TwilioAccount) -> None:
        self._clock = clock
        self._account = account
        self._caller = HttpCaller(timeout_s)
        self._url = URL(f"{account.base_url}/2010-04-01/Accounts/{account.sid}/Messages.json", encoded=True)

    async def send(self, outgoing: Outgoing) -> Receipt:
        if not isinstance(outgoing.content, SmsContent):
            raise Refused("this is not the content of a text message")
        form = {"To": outgoing.address, "From": self._account.sender, "Body": outgoing.content.text}
        basic = base64.b64encode(f"{self._account.sid}:{self._account.auth_token}".encode()).decode()
        headers = {
            "Authorization": f"Basic {basic}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "I-Twilio-Idempotency-Token": outgoing.message_id,
        }
        answer = await self._caller.post(self._url, urlencode(form).encode(), headers)
        return self._judged(answer, answer.words(outgoing, outgoing.content.text))

    async def close(self) -> None:
        await self._caller.close()

    def _judged(self, answer: Answer, words: str) -> Receipt:
        said = _said(answer.body)
        if answer.status in (200, 201):
            if said.status in FAILED:
                raise Refused(words)
            # Not the body: it has the message's text in it, and a text may be a code.
            return Receipt(said.sid if re.fullmatch(r"\w{1,64}", said.sid, re.ASCII) else "", f"{answer.status} {said.status}")
        ours = answer.status in OURS or said.code in OURS_BY_CODE
        if 400 <= answer.status < 500 and not ours:
            raise Refused(words)
        raise TryLater(words, retry_after_s=answer.retry_after_s(self._clock.now()))


class _Said(msgspec.Struct):
    """Of a message that was made: sid and status. Of an error: code (its status is a number)."""

    sid: str = ""
    status: str | int | None = None
    code: int | None = None


def _said(body: str) -> _Said:
    try:
        return msgspec.json.decode(body, type=_Said)
    except msgspec.DecodeError:
        return _Said()
