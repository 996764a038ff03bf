"""Webhooks: a signed POST to a URL that a customer registered (https://www.standardwebhooks.com)."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from aiohttp.abc import AbstractResolver
from yarl import URL

from services.alerts.channels.addresses import Network, may_connect
from services.alerts.channels.http_calls import Answer, HttpCaller, NotAllowed
from services.alerts.messages import Outgoing, Receipt, Refused, TryLater, WebhookContent
from shared.clock import Clock
from shared.webhooks import WebhookUrlProblem, sign, webhook_id, webhook_url

GONE: Final = 410
TOO_MANY: Final = 429
UNAVAILABLE: Final = 503


class WebhookChannel:
    """`allowed`: networks that may be reached although they are not of the public internet. `resolver`: for tests."""

    def __init__(
        self, clock: Clock, timeout_s: float, allowed: Sequence[Network] = (), resolver: AbstractResolver | None = None
    ) -> None:
        self._clock = clock
        self._caller = HttpCaller(timeout_s, lambda info: _guarded_socket(info, allowed), resolver)

    async def send(self, outgoing: Outgoing) -> Receipt:
        if not isinstance(outgoing.content, WebhookContent):
            raise Refused("this is not the content of a webhook")
        body, this_id = outgoing.content.body, webhook_id(outgoing.message_id)
        timestamp_s = int(self._clock.now().timestamp())
        try:
            url = URL(webhook_url(outgoing.address))
            signature = sign(outgoing.secret, this_id, timestamp_s, body)
        except WebhookUrlProblem as error:
            raise Refused(error.problem) from error
        except ValueError as error:  # never shows URL or secret: a stranger's words would
            raise Refused("the webhook's URL or secret cannot be used") from error
        headers = {
            "Content-Type": "application/json",
            "webhook-id": this_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature,
        }
        return self._judged(await self._caller.post(url, body, headers), outgoing)

    async def close(self) -> None:
        await self._caller.close()

    def _judged(self, answer: Answer, outgoing: Outgoing) -> Receipt:
        """As the standard recommends: 2xx is delivered, 410 ends it, everything else is tried again.

        Redirects end it too: they are not followed, so trying again would change nothing. What an answer says is the affair of
        this receiver; only 5xx, with which servers say that they are in trouble, counts against its host.
        """
        if 200 <= answer.status < 300:
            return Receipt("", str(answer.status))  # without the body: many receivers echo what they got
        sent = outgoing.content.body.decode("utf-8", "replace") if isinstance(outgoing.content, WebhookContent) else ""
        words = answer.words(outgoing, sent)
        if answer.status == GONE:
            raise Refused(words)
        if 300 <= answer.status < 400:
            raise Refused(f"{answer.status}: redirects are not followed; register the URL that it leads to")
        after_s = answer.retry_after_s(self._clock.now())
        told = answer.status == TOO_MANY or (answer.status == UNAVAILABLE and after_s is not None)
        raise TryLater(words, retry_after_s=after_s, ours=answer.status >= 500 and not told)


def _guarded_socket(info: tuple[Any, ...], allowed: Sequence[Network]) -> socket.socket:
    """Is asked with the very address that is connected to next, after all names and spellings were resolved: a name that leads
    elsewhere the second time, or 0x7f.1, is judged by where it leads."""
    family, kind, protocol, _, address = info
    if not may_connect(address[0], allowed):
        raise NotAllowed("this address is not allowed")
    return socket.socket(family, kind, protocol)
