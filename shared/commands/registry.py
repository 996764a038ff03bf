"""What the registry accepts and answers: accounts, terms, the catalog, applications and their credentials.

Subjects `registry.commands.<Name>` and `registry.queries.<Name>`. The models check everything that can be checked without the
registry's own state, so that an edge reports all of it before asking; the registry checks again.
"""

from __future__ import annotations

import re
import unicodedata
import zoneinfo
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from shared import environments
from shared.commands.base import Command, Message, Query, Reply, whole

NAME_LENGTH_MAX: Final = 20
NAME_LENGTH_ADVISED: Final = 10
SERVICES_MAX: Final = 50
GRACE_MAX_S: Final = 7 * 24 * 3600
PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 20

_SERVICE_ID: Final = r"[a-z0-9][a-z0-9-]{0,31}"
_INVISIBLE_LETTERS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_INVISIBLE: Final = frozenset("\u200b\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u061c\u180e")
_DIRECTION: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _app_name(entered: str) -> str:
    """Composed (NFC), without spaces around it; 1 to 20 characters, a character being a Unicode code point."""
    if len(entered) > 1000:
        raise _name_too_long()
    name = unicodedata.normalize("NFC", entered).strip()
    if any(unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or c in _INVISIBLE or ord(c) & 0xFFFE == 0xFFFE for c in name):
        raise PydanticCustomError(
            "name_characters", "The name has a control or invisible character in it.", {"hint": "Type the name again."}
        )
    if any(c in _DIRECTION for c in name):
        raise PydanticCustomError(
            "name_characters",
            "A character in the name turns the writing direction.",
            {"hint": "Type the name again."},
        )
    if len(name) > NAME_LENGTH_MAX:
        raise _name_too_long()
    if not any(unicodedata.category(c)[0] in "LNPS" and c not in _INVISIBLE_LETTERS for c in name):
        raise PydanticCustomError("name_empty", "The name is empty.", {"hint": f"Enter 1 to {NAME_LENGTH_MAX} characters."})
    return name


def _name_too_long() -> PydanticCustomError:
    return PydanticCustomError(
        "name_too_long",
        "The name is longer than {most} characters.",
        {"most": NAME_LENGTH_MAX, "hint": f"Enter 1 to {NAME_LENGTH_MAX} characters; up to {NAME_LENGTH_ADVISED} read best."},
    )


def name_hints(name: str) -> tuple[str, ...]:
    """Advice about a name that is allowed."""
    if len(name) <= NAME_LENGTH_ADVISED:
        return ()
    return (f"Some services show the application's name on their screens: up to {NAME_LENGTH_ADVISED} characters read best.",)


def _described(**schema: Any) -> Any:
    """Have JSON Schema (OpenAPI, AsyncAPI) say what the validators beside it check; they say it better when it is broken."""
    return Field(json_schema_extra=schema)


def _bounded(most: int, what: str) -> BeforeValidator:
    """Refuse an over-long list before its entries are looked at, so that the answer stays short."""

    def check(entered: Any) -> Any:
        if isinstance(entered, list | tuple) and len(entered) > most:
            raise PydanticCustomError(
                "too_many",
                "There are {given} {what}; at most {most} are possible.",
                {"given": len(entered), "what": what, "most": most, "hint": f"Enter at most {most}."},
            )
        return entered

    return BeforeValidator(check)


def _environment(reduce: Callable[[str], str]) -> AfterValidator:
    """Check an entry and keep it as it was entered: the registry reduces."""

    def check(entered: str) -> str:
        try:
            reduce(entered)
        except environments.EnvironmentProblem as problem:
            raise PydanticCustomError("environment", "{problem}", {"problem": problem.problem, "hint": problem.hint}) from problem
        return entered

    return AfterValidator(check)


def _service_id(entered: str) -> str:
    if not re.fullmatch(_SERVICE_ID, entered):
        raise PydanticCustomError("service_id", "This is not the id of a service.", {"hint": "Choose ids from the catalog."})
    return entered


def _services(entered: tuple[str, ...]) -> tuple[str, ...]:
    if not entered:
        raise PydanticCustomError("services_empty", "No service is selected.", {"hint": "Select one or more of the catalog."})
    problem = PydanticCustomError("service_repeated", "This service is selected twice.", {"hint": "Name each service once."})
    repeated = [
        InitErrorDetails(type=problem, loc=(index,), input=service)
        for index, service in enumerate(entered)
        if service in entered[:index]
    ]
    if repeated:
        raise ValidationError.from_exception_data("services", repeated)
    return entered


@cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - {"localtime", "posixrules", "Factory"}


def _zone(entered: str) -> str:
    if entered not in _zones():
        raise PydanticCustomError(
            "zone", "This is not an IANA time zone.", {"hint": "Enter for example Asia/Seoul, America/New_York or UTC."}
        )
    return entered


ClientId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{20}$")]
ServiceId = Annotated[str, AfterValidator(_service_id), _described(pattern=f"^{_SERVICE_ID}$")]
SecretId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{32}$")]
TermsVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")]
Zone = Annotated[str, AfterValidator(_zone)]
AppName = Annotated[str, AfterValidator(_app_name), _described(minLength=1, maxLength=NAME_LENGTH_MAX)]
ServiceSelection = Annotated[
    tuple[ServiceId, ...],
    _bounded(SERVICES_MAX, "services"),
    AfterValidator(_services),
    _described(minItems=1, maxItems=SERVICES_MAX, uniqueItems=True),
]
WebEntry = Annotated[str, _environment(environments.reduce_web_url), _described(**environments.WEB_SCHEMA)]
AndroidEntry = Annotated[str, _environment(environments.reduce_android), _described(**environments.ANDROID_SCHEMA)]
IosEntry = Annotated[str, _environment(environments.reduce_ios), _described(**environments.IOS_SCHEMA)]
_ENTRIES: Final = _described(maxItems=environments.ENTRIES_MAX)
WebEntries = Annotated[tuple[WebEntry, ...], _bounded(environments.ENTRIES_MAX, "web service URLs"), _ENTRIES]
AndroidEntries = Annotated[tuple[AndroidEntry, ...], _bounded(environments.ENTRIES_MAX, "Android package names"), _ENTRIES]
IosEntries = Annotated[tuple[IosEntry, ...], _bounded(environments.ENTRIES_MAX, "iOS bundle IDs"), _ENTRIES]


class EnvironmentsEntered(Message):
    """Where the application runs, as a customer enters it: URLs with scheme, package names, bundle IDs; 10 of each at most."""

    web: WebEntries = ()
    android: AndroidEntries = ()
    ios: IosEntries = ()


class EnvironmentsEdited(Message):
    """As `EnvironmentsEntered`; a kind that is left out (or null) stays as it is."""

    web: WebEntries | None = None
    android: AndroidEntries | None = None
    ios: IosEntries | None = None


class OpenAccount(Command):
    """Open the account `account`, with the IANA zone in which its days and months are counted. -> AccountView"""

    zone: Zone = "Asia/Seoul"


class AcceptTerms(Command):
    """Agree to that version of the terms of service, which must be the current one. -> TermsAcceptance"""

    version: TermsVersion


class RegisterApp(Command):
    """Register an application with its first secret. -> AppIssued

    Conflict: the current terms are not accepted, or the account has too many applications. InvalidInput: a service that the
    catalog does not have, or one that requires a mobile environment without one.
    """

    name: AppName
    services: ServiceSelection
    environments: EnvironmentsEntered = EnvironmentsEntered()


class EditApp(Command):
    """Change what is given, leave the rest. A service that stays keeps its tier. -> AppView"""

    client_id: ClientId
    name: AppName | None = None
    services: ServiceSelection | None = None
    environments: EnvironmentsEdited | None = None


class ReissueSecret(Command):
    """Issue a new secret; the one before works for `grace_seconds` more (0: not at all), any older one no longer. -> Reissued"""

    client_id: ClientId
    grace_seconds: Annotated[int, Field(ge=0, le=GRACE_MAX_S, strict=True), BeforeValidator(whole)] = 0


class RevokeSecret(Command):
    """End one secret at once. -> Secrets"""

    client_id: ClientId
    secret_id: SecretId


class DeleteApp(Command):
    """Delete the application; none of its secrets works any longer. -> AppDeletedReply"""

    client_id: ClientId


class GetAccount(Query):
    """-> AccountView"""


class GetTerms(Query):
    """-> Terms"""


class ListServices(Query):
    """-> Services"""


class ListApps(Query):
    """The account's applications, the newest first. -> AppPage"""

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX, strict=True)] = PAGE_DEFAULT
    cursor: Annotated[str, StringConstraints(max_length=200)] | None = None


class GetApp(Query):
    """-> AppView"""

    client_id: ClientId


class GetAppNames(Query):
    """The names of these applications; those that are deleted, or another account's, are left out. -> AppNames"""

    client_ids: Annotated[tuple[ClientId, ...], Field(min_length=1, max_length=PAGE_MAX)]


class GetAuthentication(Query):
    """-> Authentication"""

    client_id: ClientId


class AccountView(Reply):
    """An account. `terms_version` is the version last accepted, `terms_current` whether that is today's."""

    account: str
    zone: str
    opened_at: datetime
    terms_version: str | None = None
    terms_accepted_at: datetime | None = None
    terms_current: bool = False


class Terms(Reply):
    """The terms of service of today, and what this account accepted last."""

    version: str
    text: str
    text_ko: str
    accepted_version: str | None = None
    accepted_at: datetime | None = None


class TermsAcceptance(Reply):
    version: str
    accepted_at: datetime


class CatalogService(Reply):
    """A service that applications can select. `unit`: what one counted unit is. `test_quota`: units a month in tier test."""

    id: str
    name: str
    name_ko: str
    unit: str
    docs: str
    pricing: str
    requires_mobile_environment: bool
    review_required: bool
    test_quota: int | None


class Services(Reply):
    services: tuple[CatalogService, ...]


class SelectedServiceView(Reply):
    """`suspended`: a reviewer has calls of the application to this service refused."""

    service: str
    tier: Literal["test", "live"]
    suspended: bool = False


class EnvironmentsView(Reply):
    """In reduced form (shared.environments), which can be entered again as it is."""

    web: tuple[str, ...] = ()
    android: tuple[str, ...] = ()
    ios: tuple[str, ...] = ()


class AppView(Reply):
    """An application. `edited_at` is when it was last changed (registered, edited, a service activated, suspended or resumed)."""

    client_id: str
    name: str
    services: tuple[SelectedServiceView, ...]
    environments: EnvironmentsView
    registered_at: datetime
    edited_at: datetime
    hints: tuple[str, ...] = ()


class AppIssued(AppView):
    """A new application with its first secret."""

    secret_id: str
    client_secret: str


class AppPage(Reply):
    """`next_cursor` leads to the next page; None: this was the last."""

    apps: tuple[AppView, ...]
    next_cursor: str | None = None


class AppNames(Reply):
    """By Client ID."""

    names: dict[str, str]


class Reissued(Reply):
    """A new secret; `previous_valid_until` is how long the one before it still works (None: it does no longer)."""

    client_id: str
    secret_id: str
    client_secret: str
    issued_at: datetime
    previous_valid_until: datetime | None = None


class SecretView(Reply):
    """A secret that works. `valid_until`: None while it is the current one. `client_secret`: None when it is not kept."""

    secret_id: str
    current: bool
    issued_at: datetime
    valid_until: datetime | None = None
    client_secret: str | None = None


class Secrets(Reply):
    """The ids of the secrets that work after the command, the current one first."""

    client_id: str
    secret_ids: tuple[str, ...]


class Authentication(Reply):
    """What a caller needs. `client_secret` is the current one: None when there is none or it is not kept (`note` says so)."""

    client_id: str
    name: str
    client_secret: str | None
    secrets: tuple[SecretView, ...]
    environments: EnvironmentsView
    secret_kept: bool
    note: str = ""


class AppDeletedReply(Reply):
    client_id: str
