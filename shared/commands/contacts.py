"""Contacts of an account, and groups of them, as alerts takes and tells them. Subjects alerts.commands.<Name> and
alerts.queries.<Name>."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shared.commands.base import AccountId, ActorId, Command, Message, Query, Reply, Shaped, each_once
from shared.commands.registry import Zone
from shared.events.alerts import Locale, Method
from shared.webhooks import URL_LENGTH_MAX, WebhookUrlProblem, webhook_url

SERVICE: Final = "alerts"

CONTACT_NAME_MAX: Final = 50
EMAIL_MAX: Final = 254
CONTACTS_MAX: Final = 200
"""Contacts of one account, at most."""
GROUPS_MAX: Final = 50
GROUP_CONTACTS_MAX: Final = 50
"""Contacts in a group, at most: all groups with the longest names go into one message of NATS."""
GROUP_NAME_MAX: Final = 30
ZONE_DEFAULT: Final = "Asia/Seoul"
LOCALE_DEFAULT: Final[Locale] = "ko"
CODE_DIGITS: Final = 6
ANYBODY: Final = "anybody"
"""Stands for the account where the console cannot know it."""

_CONTROL: Final = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_TIME: Final = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_ID: Final = r"[0-9a-f]{32}"


def _label(most: int) -> AfterValidator:
    """One line that people read: composed (NFC), without spaces around it and without control characters."""

    def check(entered: str) -> str:
        text = unicodedata.normalize("NFC", entered[: 10 * most]).strip()
        if any(unicodedata.category(c) in _CONTROL for c in text):
            raise PydanticCustomError("characters", "A control or invisible character is in it.", {"hint": "Type it again."})
        if not 1 <= len(text) <= most:
            words = "It is empty." if not text else "It is longer than {most} characters."
            raise PydanticCustomError("length", words, {"most": most, "hint": f"Enter 1 to {most} characters."})
        return text

    return AfterValidator(check)


def _email(entered: str) -> str:
    try:
        return validate_email(entered[: 2 * EMAIL_MAX], check_deliverability=False).normalized
    except EmailNotValidError:
        raise PydanticCustomError("email", "This is not a mail address.", {"hint": "Enter one like name@example.com."}) from None


def _phone(entered: str) -> str:
    hint = "Enter it with its country code: +821012345678."
    try:
        number = phonenumbers.parse(entered[:40])
    except phonenumbers.NumberParseException:
        raise PydanticCustomError("phone", "This is not a phone number with its country code.", {"hint": hint}) from None
    if not phonenumbers.is_valid_number(number):
        raise PydanticCustomError("phone", "No such phone number can exist.", {"hint": hint})
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _webhook(entered: str) -> str:
    try:
        return webhook_url(entered)
    except WebhookUrlProblem as problem:
        raise PydanticCustomError("webhook_url", "{problem}", {"problem": problem.problem, "hint": problem.hint}) from problem


def _or_removed(check: Any) -> AfterValidator:
    """For a field of an edit: an empty string removes what is there."""
    return AfterValidator(lambda entered: check(entered) if entered else "")


ContactId = Annotated[str, Shaped(_ID, "This is not a contact's id.", "GET /v1/contacts lists them.")]
GroupId = Annotated[str, Shaped(_ID, "This is not a group's id.", "GET /v1/contact-groups lists them.")]
Members = Annotated[
    tuple[ContactId, ...],
    Field(max_length=GROUP_CONTACTS_MAX, json_schema_extra={"uniqueItems": True}),
    AfterValidator(each_once),
]
ContactName = Annotated[str, _label(CONTACT_NAME_MAX), Field(json_schema_extra={"minLength": 1, "maxLength": CONTACT_NAME_MAX})]
GroupName = Annotated[str, _label(GROUP_NAME_MAX), Field(json_schema_extra={"minLength": 1, "maxLength": GROUP_NAME_MAX})]
Email = Annotated[str, AfterValidator(_email), Field(json_schema_extra={"format": "email", "maxLength": EMAIL_MAX})]
Phone = Annotated[str, AfterValidator(_phone), Field(json_schema_extra={"description": "E.164: +821012345678"})]
WebhookUrl = Annotated[str, AfterValidator(_webhook), Field(json_schema_extra={"format": "uri", "maxLength": URL_LENGTH_MAX})]
TimeOfDay = Annotated[str, Shaped(_TIME, "This is not a time of day.", "Enter it as HH:MM, 00:00 to 23:59.")]
Code = Annotated[
    str, Shaped(rf"[0-9]{{{CODE_DIGITS}}}", "This is not a code.", f"Enter the {CODE_DIGITS} digits that were in the message.")
]


class QuietHoursEntered(Message):
    """Each day from `start` to `end` in the contact's zone, HH:MM; over midnight if `end` is not after `start`."""

    start: TimeOfDay
    end: TimeOfDay

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.start == self.end:
            hint = "Let them end at another time than they start."
            raise PydanticCustomError("quiet_all_day", "They would never end.", {"hint": hint, "fields": ["end"]})
        return self


class _OrNone:
    """Metadata: quiet hours, or "" for none. Not a union's work, because that names its branches in the place of an error."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(entered: Any, validate: ValidatorFunctionWrapHandler) -> Any:
            return "" if entered == "" else validate(entered)

        hours = handler.generate_schema(QuietHoursEntered)
        return core_schema.no_info_wrap_validator_function(check, hours, serialization=core_schema.simple_ser_schema("any"))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(schema), {"type": "string", "maxLength": 0}]}


class AddContact(Command):
    """Add somebody who can be told: an address at least. Each is verified before anything else is sent there. -> ContactView

    Conflict: the account has too many.
    """

    name: ContactName
    email: Email | None = None
    phone: Phone | None = None
    webhook_url: WebhookUrl | None = None
    locale: Locale = LOCALE_DEFAULT
    zone: Zone = ZONE_DEFAULT
    quiet_hours: QuietHoursEntered | None = None
    digest_at: TimeOfDay | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.email is None and self.phone is None and self.webhook_url is None:
            raise PydanticCustomError(
                "no_address",
                "The contact has no address.",
                {"hint": "Enter `email`, `phone` or `webhook_url`.", "fields": ["email"]},
            )
        return self


class EditContact(Command):
    """Change what is given; what is left out, or null, stays. An empty string removes an address, the quiet hours or the digest.

    A new address has to be verified. -> ContactView. InvalidInput: no address would be left.
    """

    contact_id: ContactId
    name: ContactName | None = None
    email: Annotated[str, _or_removed(_email)] | None = None
    phone: Annotated[str, _or_removed(_phone)] | None = None
    webhook_url: Annotated[str, _or_removed(_webhook)] | None = None
    locale: Locale | None = None
    zone: Zone | None = None
    quiet_hours: Annotated[QuietHoursEntered | Literal[""], _OrNone()] | None = None
    digest_at: (
        Annotated[str, Shaped(f"({_TIME})?", "This is not a time of day.", "Enter it as HH:MM, or an empty string.")] | None
    ) = None


class RemoveContact(Command):
    """Remove the contact from everything, and shred its data. Removing it again changes nothing. -> ContactRemovedReply"""

    contact_id: ContactId


class RequestVerification(Command):
    """Send a code to the contact's address of that method. -> VerificationView

    Conflict: it is verified. TooManyRequests: one was sent a moment ago, or too many were in a day, to this address or by the
    account. InvalidInput: no such address.
    """

    contact_id: ContactId
    method: Method


class ConfirmVerification(Command):
    """Enter the code that was sent. -> VerificationResult, which says `verified` false for a wrong one.

    It is valid for ten minutes and void after five wrong ones, and after the address is changed. InvalidInput: no such address.
    """

    contact_id: ContactId
    method: Method
    code: Code


class SendTest(Command):
    """Send a test message to an address that can be used. -> TestRequested

    Conflict: it is not verified, or unsubscribed. TooManyRequests: there were too many in an hour. InvalidInput: no such address.
    """

    contact_id: ContactId
    method: Method


class Unsubscribe(Command):
    """What the link in a mail asks for. The token is sealed by alerts, and says whose address it is. -> Unsubscribed

    Whoever follows a link has signed in nowhere: leave `account` and `actor` out, for alerts puts those of the token in their
    place before it decides. Unsubscribing again changes nothing. NotFound: nobody issued this token, or the contact is gone.
    """

    account: AccountId = ANYBODY
    actor: ActorId = f"link:{ANYBODY}"
    token: Annotated[str, StringConstraints(max_length=500)]


class ReissueWebhookSecret(Command):
    """A new secret that the contact's webhook is signed with, at once. NotFound: it has no webhook. -> WebhookSecret"""

    contact_id: ContactId


class AddGroup(Command):
    """A group of contacts, to be named as one. -> GroupView

    InvalidInput: a contact that the account does not have. Conflict: another group has the name, or there are too many.
    """

    name: GroupName
    contacts: Members = ()


class EditGroup(Command):
    """Change what is given; what is left out, or null, stays. Refused as AddGroup. -> GroupView"""

    group_id: GroupId
    name: GroupName | None = None
    contacts: Members | None = None


class RemoveGroup(Command):
    """Remove the group, from recipients too. Removing it again changes nothing. -> GroupRemovedReply"""

    group_id: GroupId


class ListContacts(Query):
    """All of the account's contacts, by name. -> Contacts"""


class GetContact(Query):
    """-> ContactView"""

    contact_id: ContactId


class GetWebhookSecret(Query):
    """The secret that the contact's webhook is signed with. NotFound: it has no webhook. -> WebhookSecret"""

    contact_id: ContactId


class ListGroups(Query):
    """All of the account's groups, by name. -> Groups"""


class GetGroup(Query):
    """-> GroupView"""

    group_id: GroupId


class MethodView(Reply):
    """One address of a contact. Only what is verified and not unsubscribed is sent to."""

    method: Method
    address: str
    verified: bool
    unsubscribed: bool = False
    verification_expires_at: datetime | None = None


class QuietHoursView(Reply):
    start: str
    end: str


class ContactView(Reply):
    """A contact, for its own account's eyes."""

    contact_id: str
    name: str
    email: str | None
    phone: str | None
    webhook_url: str | None
    locale: Locale
    zone: str
    quiet_hours: QuietHoursView | None
    digest_at: str | None
    methods: tuple[MethodView, ...]
    added_at: datetime
    edited_at: datetime


class Contacts(Reply):
    contacts: tuple[ContactView, ...]


class ContactRemovedReply(Reply):
    contact_id: str


class VerificationView(Reply):
    """A code is on its way. Another one can be asked for at `resend_at`."""

    contact_id: str
    method: Method
    expires_at: datetime
    resend_at: datetime


class VerificationResult(Reply):
    """`verified` false: it was not the code, or that is void. `problem` says which; it may be entered `attempts_left` times."""

    contact_id: str
    method: Method
    verified: bool
    attempts_left: int = 0
    problem: str = ""


class TestRequested(Reply):
    """The message is on its way; its fate is the delivery with that id."""

    __test__ = False

    delivery_id: str


class Unsubscribed(Reply):
    method: Method


class WebhookSecret(Reply):
    contact_id: str
    secret: str


class GroupMember(Reply):
    """A contact that is there. `name` is today's, also when a repeated command gets its first reply."""

    contact_id: str
    name: str


class GroupView(Reply):
    group_id: str
    name: str
    contacts: tuple[GroupMember, ...]


class Groups(Reply):
    groups: tuple[GroupView, ...]


class GroupRemovedReply(Reply):
    group_id: str
