"""Who is told what: contacts, rules, and every message that was asked for. Stream ALERTS, subjects alerts.events.<Type>.

Nothing personal is in them: names, addresses and phone numbers are in the vault of alerts, and events say under which id.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal

import msgspec

from shared.events.codec import Codec, Event
from shared.events.metering import Period

Method = Literal["email", "sms", "webhook"]
METHODS: Final[tuple[Method, ...]] = ("email", "sms", "webhook")
Locale = Literal["ko", "en"]

STEP: Final = 10
"""Between the percentages that follow from a threshold."""


def rungs_of(threshold: int | None, custom: Iterable[int] = ()) -> tuple[int, ...]:
    """The percentages that a rule tells: 70 is 70, 80, 90, 100; `custom` ones besides. None and none: nothing is told."""
    steps = () if threshold is None else range(threshold, 101, STEP)
    return tuple(sorted({*steps, *custom}))


class QuietHours(msgspec.Struct, frozen=True, gc=False):
    """From `start`, included, to `end`, excluded, each day in the contact's zone; "HH:MM". They may reach over midnight."""

    start: str
    end: str


class ContactAdded(Event, frozen=True, kw_only=True):
    """The account can have somebody told. Name and addresses are in the vault under `vault_id`; `methods` has an address each.

    `locale` and `zone` say in which language and time. `digest_at` ("HH:MM" in the zone): what need not be told at once is told
    then, once a day; None: no digest.
    """

    account: str
    contact_id: str
    vault_id: str
    methods: tuple[Method, ...]
    locale: Locale
    zone: str
    quiet_hours: QuietHours | None = None
    digest_at: str | None = None


class ContactEdited(Event, frozen=True, kw_only=True):
    """The contact is now this, whole. `readdressed` are the methods whose address is another than before: not verified."""

    account: str
    contact_id: str
    vault_id: str
    methods: tuple[Method, ...]
    readdressed: tuple[Method, ...]
    locale: Locale
    zone: str
    quiet_hours: QuietHours | None = None
    digest_at: str | None = None


class ContactRemoved(Event, frozen=True, kw_only=True):
    """The contact is gone, from groups and recipients too, and what the vault held of it is shredded."""

    account: str
    contact_id: str


class VerificationRequested(Event, frozen=True, kw_only=True):
    """A code was made for the contact's address of that method; it is in the vault under `vault_id` until it ends."""

    account: str
    contact_id: str
    method: Method
    vault_id: str
    expires_at: datetime


class VerificationFailed(Event, frozen=True, kw_only=True):
    """Somebody entered a code that was not the one. `attempts_left` 0: that code is void."""

    account: str
    contact_id: str
    method: Method
    attempts_left: int


class ContactVerified(Event, frozen=True, kw_only=True):
    """Who has the address has said the code: from now on the contact can be told by that method."""

    account: str
    contact_id: str
    method: Method


class ContactUnsubscribed(Event, frozen=True, kw_only=True):
    """Whoever reads the address wants nothing more there. Verifying it again takes that back."""

    account: str
    contact_id: str
    method: Method


class GroupChanged(Event, frozen=True, kw_only=True):
    """The group is now this, whole. The first one makes it."""

    account: str
    group_id: str
    name: str
    contacts: tuple[str, ...]


class GroupRemoved(Event, frozen=True, kw_only=True):
    """The group is gone, from recipients too; its contacts stay."""

    account: str
    group_id: str


class NotificationRuleChanged(Event, frozen=True, kw_only=True):
    """At which percentages of its limits an application at a service is told of (client_id "": of the account's own limit).

    `daily` and `monthly` are thresholds, see `rungs_of`; None: that period is not told, but for custom percentages. `version` is
    1, 2, 3 ... for the scope, over rules and recipients together.
    """

    account: str
    client_id: str
    service: str
    version: int
    daily: int | None
    monthly: int | None
    daily_custom: tuple[int, ...] = ()
    monthly_custom: tuple[int, ...] = ()


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """A contact, or everybody in a group: one of the two ids is ""."""

    contact_id: str
    group_id: str
    methods: tuple[Method, ...]


class RecipientsChanged(Event, frozen=True, kw_only=True):
    """Who is told, whole. `version` as in NotificationRuleChanged."""

    account: str
    client_id: str
    service: str
    version: int
    recipients: tuple[Recipient, ...]


class Crossed(msgspec.Struct, frozen=True, tag="crossed", gc=False):
    """Usage has come to `percent` of a limit; see ThresholdCrossed. `exhausted`: calls are being refused."""

    period: Period
    window_start: datetime
    window_end: datetime
    percent: int
    used: int
    limit: int
    limit_version: int
    exhausted: bool = False


class Reissued(msgspec.Struct, frozen=True, tag="secret_reissued", gc=False):
    """The application has a new secret; the one before works until then (None: it works no longer)."""

    at: datetime
    previous_valid_until: datetime | None


class Deleted(msgspec.Struct, frozen=True, tag="app_deleted", gc=False):
    """The application was deleted."""

    at: datetime


class Submitted(msgspec.Struct, frozen=True, tag="review_submitted", gc=False):
    """The service app waits for a review, which is to have decided by `due_at`. `to_reviewers`: it is they who are told."""

    at: datetime
    review_id: str
    due_at: datetime
    to_reviewers: bool = False


class ChangesWanted(msgspec.Struct, frozen=True, tag="review_changes_requested", gc=False):
    """A reviewer wants changes before deciding."""

    at: datetime
    review_id: str


class Reviewed(msgspec.Struct, frozen=True, tag="review_decided", gc=False):
    """A review has decided about the service app."""

    at: datetime
    review_id: str
    decision: Literal["approved", "rejected"]


class DueSoon(msgspec.Struct, frozen=True, tag="review_due_soon", gc=False):
    """Reviewers have not decided, and are to have by `due_at`. Only they are told."""

    at: datetime
    review_id: str
    due_at: datetime


class Withdrawn(msgspec.Struct, frozen=True, tag="review_withdrawn", gc=False):
    """The applicant wants no decision any more. Only reviewers are told."""

    at: datetime
    review_id: str


class Suspended(msgspec.Struct, frozen=True, tag="service_suspended", gc=False):
    """A reviewer has suspended the service app: calls are refused. `to_reviewers`: it is they who are told."""

    at: datetime
    review_id: str
    to_reviewers: bool = False


class Resumed(msgspec.Struct, frozen=True, tag="service_resumed", gc=False):
    """The suspension was lifted: calls pass again."""

    at: datetime
    review_id: str


class Verifying(msgspec.Struct, frozen=True, tag="verification", gc=False):
    """The code under `vault_id` is to be told, for as long as it can be used."""

    vault_id: str
    expires_at: datetime


class Testing(msgspec.Struct, frozen=True, tag="test", gc=False):
    """Somebody wants to see that messages arrive."""

    at: datetime


AboutReview = Submitted | ChangesWanted | Reviewed | DueSoon | Withdrawn | Suspended | Resumed
About = Crossed | Reissued | Deleted | AboutReview | Verifying | Testing
KINDS: Final = (
    "crossed",
    "secret_reissued",
    "app_deleted",
    "review_submitted",
    "review_changes_requested",
    "review_decided",
    "review_due_soon",
    "review_withdrawn",
    "service_suspended",
    "service_resumed",
    "verification",
    "test",
)


def told_to_reviewers(about: About) -> bool:
    """Whether it is told to who reviews, whose account is not the application's."""
    match about:
        case Submitted() | Suspended():
            return about.to_reviewers
        case DueSoon() | Withdrawn():
            return True
        case _:
            return False


class NotificationRequested(Event, frozen=True, kw_only=True):
    """A contact is to be told of something by one method; once for each (what, contact, method), and the stream's name says so.

    client_id "": it is not about one application of the account (what reviewers are told is about another account's); service "":
    not about one service. `app_name` is what the application was called then. Due when it happened, or when quiet hours end, or
    with the digest. After `deadline` it is not sent any more.
    """

    request_id: str
    account: str
    client_id: str
    service: str
    app_name: str
    contact_id: str
    method: Method
    about: About
    due_at: datetime
    deadline: datetime


class NotificationDelivered(Event, frozen=True, kw_only=True):
    """The channel's provider has accepted the message. One message may tell several requests: they have its `message_id`."""

    request_id: str
    account: str
    client_id: str
    contact_id: str
    method: Method
    message_id: str
    attempts: int
    provider_id: str
    answer: str


FailureReason = Literal["refused", "deadline", "contact_removed", "not_verified", "unsubscribed", "expired", "channel_not_set_up"]
"""`expired`: the code that was to be told can no longer be entered."""


class NotificationFailed(Event, frozen=True, kw_only=True):
    """It will not be sent. `answer` is what the provider said last, without addresses. message_id "": none was made."""

    request_id: str
    account: str
    client_id: str
    contact_id: str
    method: Method
    message_id: str
    attempts: int
    reason: FailureReason
    answer: str


AlertsEvent = (
    ContactAdded
    | ContactEdited
    | ContactRemoved
    | VerificationRequested
    | VerificationFailed
    | ContactVerified
    | ContactUnsubscribed
    | GroupChanged
    | GroupRemoved
    | NotificationRuleChanged
    | RecipientsChanged
    | NotificationRequested
    | NotificationDelivered
    | NotificationFailed
)

CODEC: Codec[AlertsEvent] = Codec("alerts", AlertsEvent)
STREAM: Final = "ALERTS"
SUBJECTS: Final = "alerts.events.>"
