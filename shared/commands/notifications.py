"""Notification rules, deliveries and templates, as alerts takes and tells them. Subjects alerts.commands.<Name> and
alerts.queries.<Name>.

A rule is on a *scope*, as a limit is: an application at a service, or (`client_id` None) the account's own limit at a service.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from shared.commands.base import Command, Message, Query, Reply, each_once, whole
from shared.commands.contacts import ContactId, GroupId
from shared.commands.limits import Percent, Version
from shared.commands.metering import ClientId, ServiceId
from shared.events.alerts import STEP, FailureReason, Locale, Method

RECIPIENTS_MAX: Final = 50
CUSTOM_MAX: Final = 10
PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 20

State = Literal["waiting", "delivered", "failed"]
Kind = Literal[
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
]
TemplateKind = Literal[Kind, "digest"]
"""What a message can be about, and many things in one."""


def _threshold(entered: int) -> int:
    if entered % STEP or not STEP <= entered <= 100:
        raise PydanticCustomError(
            "threshold", "This is not one of 10, 20, ... 100.", {"hint": "Put other percentages into the custom ones."}
        )
    return entered


Threshold = Annotated[
    int,
    Field(strict=True, json_schema_extra={"minimum": STEP, "maximum": 100, "multipleOf": STEP}),
    BeforeValidator(whole),
    AfterValidator(_threshold),
]
_UNIQUE: Final = {"uniqueItems": True}
Custom = Annotated[
    tuple[Percent, ...],
    Field(max_length=CUSTOM_MAX, json_schema_extra=_UNIQUE),
    AfterValidator(each_once),
    AfterValidator(lambda entered: tuple(sorted(entered))),
]
Methods = Annotated[tuple[Method, ...], Field(min_length=1, max_length=3, json_schema_extra=_UNIQUE), AfterValidator(each_once)]


class RecipientEntered(Message):
    """A contact, or a group: one of the two. A group's contact is told by those of the methods that it has verified."""

    contact_id: ContactId | None = None
    group_id: GroupId | None = None
    methods: Methods

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.contact_id is None) == (self.group_id is None):
            raise PydanticCustomError(
                "contact_or_group",
                "A recipient is a contact or a group.",
                {"hint": "Give `contact_id` or `group_id`.", "fields": ["contact_id"]},
            )
        return self


class AccountRule(Message):
    """At which percentages of the account's own limit who is told, whole: that limit is of the month."""

    monthly: Threshold | None = None
    monthly_custom: Custom = ()
    recipients: Annotated[tuple[RecipientEntered, ...], Field(max_length=RECIPIENTS_MAX)] = ()
    expected_version: Version | None = None


class SetNotifications(Command, AccountRule):
    """Set at which percentages of the limits who is told, whole. `daily` 70: at 70, 80, 90, 100 %. -> NotificationsView

    A rule without recipients is kept, and answered with a warning. `expected_version` as for limits. InvalidInput: a contact that
    the account does not have or that has not verified the method; a service that the application has not selected.
    NotFound: no such application.
    """

    client_id: ClientId | None = None
    service: ServiceId
    daily: Threshold | None = None
    daily_custom: Custom = ()


class GetNotifications(Query):
    """The rule of a scope, and who is told. -> NotificationsView"""

    client_id: ClientId | None = None
    service: ServiceId


class ListNotificationChanges(Query):
    """The changes of a rule, the newest first. `before`: the version to go on below. -> NotificationChanges"""

    client_id: ClientId | None = None
    service: ServiceId
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    before: Version | None = None


class ListDeliveries(Query):
    """What was to be sent, the newest first: of the account, an application or a contact. -> Deliveries"""

    client_id: ClientId | None = None
    contact_id: ContactId | None = None
    state: State | None = None
    kind: Kind | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    before: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None


class CountDeliveries(Query):
    """How many there are in each state, as ListDeliveries chooses them. -> DeliveryCounts"""

    client_id: ClientId | None = None
    contact_id: ContactId | None = None


class ListTemplates(Query):
    """The kinds of messages that there are. -> Templates"""


class PreviewTemplate(Query):
    """What a message of that kind would look like, with made-up content. -> TemplatePreview"""

    kind: TemplateKind
    method: Method
    locale: Locale


class Warned(Reply):
    """Something that will not work as somebody may expect. `code` for programs, `detail` for people."""

    code: str
    detail: str


class RecipientView(Reply):
    """`name` is the contact's or group's; None: a removed one, in history. `unreachable`: methods that cannot be used now."""

    contact_id: str | None
    group_id: str | None
    name: str | None
    methods: tuple[Method, ...]
    unreachable: tuple[Method, ...] = ()


class NotificationsView(Reply):
    """The rule of a scope. `version` 0: none was ever set. `client_id` None: of the account's own limit."""

    client_id: str | None
    service: str
    version: int
    changed_at: datetime | None
    daily: int | None
    monthly: int | None
    daily_custom: tuple[int, ...]
    monthly_custom: tuple[int, ...]
    daily_percentages: tuple[int, ...]
    monthly_percentages: tuple[int, ...]
    recipients: tuple[RecipientView, ...]
    warnings: tuple[Warned, ...] = ()


class NotificationChange(Reply):
    """One change: who (an id), when, and what the rule and its recipients were from then on."""

    version: int
    changed_at: datetime
    changed_by: str
    daily: int | None
    monthly: int | None
    daily_custom: tuple[int, ...]
    monthly_custom: tuple[int, ...]
    recipients: tuple[RecipientView, ...]


class NotificationChanges(Reply):
    """One page. `next_before` is what to ask on with; None: this was the last."""

    changes: tuple[NotificationChange, ...]
    next_before: int | None


class DeliveryView(Reply):
    """One message to one contact by one method, or a part of one that tells several (`message_id` is the same).

    `about` is what it tells, as JSON. `contact_name` None: the contact was removed. `attempts` so far; `next_attempt_at` while it
    waits; `answer` is what the provider said last.
    """

    delivery_id: str
    client_id: str | None
    service: str | None
    app_name: str
    contact_id: str
    contact_name: str | None
    method: Method
    kind: Kind
    about: dict[str, Any]
    state: State
    requested_at: datetime
    due_at: datetime
    deadline: datetime
    attempts: int
    next_attempt_at: datetime | None
    settled_at: datetime | None
    message_id: str | None
    provider_id: str | None
    reason: FailureReason | None
    answer: str


class Deliveries(Reply):
    """One page. `next_before` is what to ask on with; None: this was the last."""

    deliveries: tuple[DeliveryView, ...]
    next_before: int | None


class DeliveryCounts(Reply):
    waiting: int
    delivered: int
    failed: int


class TemplateView(Reply):
    kind: TemplateKind
    methods: tuple[Method, ...]
    locales: tuple[Locale, ...]


class Templates(Reply):
    templates: tuple[TemplateView, ...]


class TemplatePreview(Reply):
    """`subject` and `html` of a mail; `text` of a mail or text message; `body` of a webhook, JSON as text."""

    subject: str | None = None
    text: str | None = None
    html: str | None = None
    body: str | None = None
