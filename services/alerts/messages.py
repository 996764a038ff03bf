"""What goes between composing a message and handing it over: contents, and what a channel says of them. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from shared.events.alerts import About, Locale


class Item(msgspec.Struct, frozen=True):
    """One thing that a message tells. `service` is its id; client_id "", service "": as in NotificationRequested."""

    request_id: str
    client_id: str
    app_name: str
    service: str
    about: About


class Addressee(msgspec.Struct, frozen=True):
    """Whom a message speaks to."""

    name: str
    locale: Locale
    zone: str


class EmailContent(msgspec.Struct, frozen=True):
    """A mail. `unsubscribe_url`: for the one-click header (RFC 8058); None in what was asked for just now (codes, tests)."""

    subject: str
    text: str
    html: str
    unsubscribe_url: str | None = None


class SmsContent(msgspec.Struct, frozen=True):
    """A text message, of one segment."""

    text: str


class WebhookContent(msgspec.Struct, frozen=True):
    """The body of a request, JSON, as it is signed."""

    body: bytes


Content: TypeAlias = EmailContent | SmsContent | WebhookContent


class Outgoing(NamedTuple):
    """One message to one address.

    `message_id` (32 hexadecimal digits) is the same however often it is tried: every channel makes its idempotency key of it.
    `address`: a mail address, a phone number (E.164), a URL. `secret`: what a webhook is signed with (whsec_...), else "".
    """

    message_id: str
    address: str
    secret: str
    created_at: datetime
    content: Content


class Receipt(NamedTuple):
    """The provider has taken it: the provider's id for it ("" if it gives none) and answer, as short text."""

    provider_id: str
    answer: str


class Refused(Exception):
    """The provider will never take this message, for instance because there is no such address. `answer`: its words."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.answer = answer


class TryLater(Exception):
    """It was not taken now. `retry_after_s`: not before that, if the provider said so.

    `ours`: the channel itself fails (no connection, time-out, overload, bad credentials), so that other messages would fare no
    better; what the circuit breaker counts. Else it is about this address only.
    """

    def __init__(self, answer: str, *, retry_after_s: float | None = None, ours: bool = True) -> None:
        super().__init__(answer)
        self.answer = answer
        self.retry_after_s = retry_after_s
        self.ours = ours


class Channel(Protocol):
    """One way to reach people."""

    async def send(self, outgoing: Outgoing) -> Receipt:
        """Hand it over, in the channel's own time limit at most. Raises Refused or TryLater, and nothing else."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
