"""Applying for service apps and deciding about them: what both sides name alike, the form, the models and their tasks.

Subjects review.commands.<Name> and review.queries.<Name>. An *application* (for a service app) wants one application, its
`client_id`, to call one service live. It is written piece by piece on a *form*, submitted with the *guide checklist* answered
Yes all through, and decided about by a reviewer, criterion by criterion. Applicants: service_apps.py; reviewers: reviews.py.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, to_json

from shared.commands.base import Command, Query, Reply, Shaped
from shared.commands.registry import AppName, TermsVersion
from shared.events.review import Outcome

SERVICE: Final = "review"

FORM_BYTES_MAX: Final = 200_000
"""A form as JSON, at most: two of them with their schema go into one message of NATS."""
FORM_DEPTH_MAX: Final = 8
NUMBER_MAX: Final = 2**53
"""Beyond this JSON's numbers are not exact everywhere."""
CHECKLIST_MAX: Final = 100
REASON_MAX: Final = 2_000
TUNED_TASKS_MAX: Final = 100
"""Tuned tasks of one account, at most."""

State = Literal[
    "draft",
    "submitted",
    "in_review",
    "changes_requested",
    "approved",
    "suspended",
    "rejected",
    "withdrawn",
    "superseded",
    "retired",
]
"""Of an application. `submitted`: it waits for a reviewer; `in_review`: one has claimed it; `superseded`: an amendment stands in
its place; `retired`: the application behind it was deleted, or has given up the service."""

RevisionOutcome = Literal["approved", "rejected", "withdrawn", "changes_requested", "retired"]
"""What became of a revision."""

TestAppStatus = Literal["test", "live", "superseded", "retired"]

_LINES: Final = frozenset("\n\t")
_REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_DIRECTION: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _text(entered: str) -> str:
    """Composed (NFC); lines and tabs are welcome, other control characters and what turns the writing direction are not."""
    text = unicodedata.normalize("NFC", entered.replace("\r\n", "\n"))
    if any((unicodedata.category(c) in _REFUSED and c not in _LINES) or c in _DIRECTION for c in text):
        hint = "Type it again, as plain text."
        raise PydanticCustomError("characters", "A control character is in it, or one that turns the direction.", {"hint": hint})
    return text


def _plain(value: JsonValue, place: tuple[str | int, ...], problems: list[InitErrorDetails]) -> JsonValue:
    """The value with its texts composed; what is wrong with any of them goes to `problems`."""
    if len(place) > FORM_DEPTH_MAX:
        too_deep = PydanticCustomError("too_deep", "It is nested too deep.", {"hint": "Fill the form in as its schema says."})
        problems.append(InitErrorDetails(type=too_deep, loc=place, input=None))
        return None
    if isinstance(value, str):
        try:
            return _text(value)
        except PydanticCustomError as problem:
            problems.append(InitErrorDetails(type=problem, loc=place, input=None))
            return None
    if isinstance(value, int | float) and not abs(value) <= NUMBER_MAX:  # nor is what is no number (NaN)
        too_large = PydanticCustomError("number", "This number is too large.", {"hint": "Give a smaller one."})
        problems.append(InitErrorDetails(type=too_large, loc=place, input=None))
        return None
    if isinstance(value, list):
        return [_plain(one, (*place, index), problems) for index, one in enumerate(value)]
    if isinstance(value, dict):
        return {_key(name, place, problems): _plain(one, (*place, name), problems) for name, one in value.items()}
    return value


def _key(name: str, place: tuple[str | int, ...], problems: list[InitErrorDetails]) -> str:
    if len(name) > 64 or not name.isascii() or not name.isprintable():
        problem = PydanticCustomError("field_name", "A field in it has no name that a form can have.", {"hint": "Remove it."})
        problems.append(InitErrorDetails(type=problem, loc=place, input=None))
    return name


def _form(entered: dict[str, JsonValue]) -> dict[str, JsonValue]:
    problems: list[InitErrorDetails] = []
    form = _plain(entered, (), problems)
    if problems:
        raise ValidationError.from_exception_data("form", problems)
    if len(to_json(form)) > FORM_BYTES_MAX:
        raise PydanticCustomError(
            "form_too_large",
            "The form is larger than {most} bytes as JSON.",
            {"most": FORM_BYTES_MAX, "hint": "Shorten its texts; the form's schema says how long each may be."},
        )
    assert isinstance(form, dict)
    return form


def few(entered: Any) -> Any:
    """Before anything is looked at: how many fields there are."""
    if isinstance(entered, dict) and len(entered) > CHECKLIST_MAX:
        raise PydanticCustomError(
            "too_many", "There are {given} of these; at most {most} are possible.", {"given": len(entered), "most": CHECKLIST_MAX}
        )
    return entered


_ID: Final = r"[0-9a-f]{32}"
_NAME: Final = r"[a-z0-9][a-z0-9-]{0,63}"

ReviewId = Annotated[str, Shaped(_ID, "This is not an application's id.", "GET /v1/service-apps lists them.")]
TunedTaskId = Annotated[str, Shaped(rf"tuned-{_ID}", "This is not a tuned task's id.", "GET /v1/tuned-tasks lists them.")]
ModelId = Annotated[
    str, Shaped(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "This is not a model's id.", "GET /v1/service-apps/form lists them.")
]
TaskId = Annotated[str, Shaped(_NAME, "This is not a task's id.", "GET /v1/service-apps/form lists them.")]
FormVersion = TermsVersion
ItemId = Annotated[
    str, Shaped(r"[a-z][a-z0-9_]{0,63}", "This is not an id of the checklist or the criteria.", "The form has them.")
]
FormEntered = Annotated[dict[str, JsonValue], BeforeValidator(few), AfterValidator(_form)]
"""What is written on the form, by field. Whether it fits the form's schema is the service's to say."""
YesOrNo = Annotated[bool, Field(strict=True)]
ChecklistEntered = Annotated[dict[ItemId, YesOrNo], BeforeValidator(few)]
"""Yes (true) or No by item of the guide checklist."""
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=REASON_MAX), AfterValidator(_text)]
Said = Annotated[str, StringConstraints(strip_whitespace=True, max_length=REASON_MAX), AfterValidator(_text)]


class SaveTunedTask(Command):
    """Save a task of a model that the account has tuned, so that it can be chosen. -> TunedTask"""

    name: AppName
    model: ModelId
    task: TaskId


class RemoveTunedTask(Command):
    """It cannot be chosen any longer; applications that chose it stay. -> TunedTaskRemovedReply"""

    task_id: TunedTaskId


class PublishForm(Command):
    """Of the service itself: have applications made with this form from now on. -> FormPublishedReply"""

    form_version: FormVersion
    definition: str
    form_hash: str


class GetForm(Query):
    """The form of today, with the models and tasks that the account can choose. -> FormView"""


class ListTunedTasks(Query):
    """-> TunedTasks"""


class ModelView(Reply):
    """A model, and the ids of the tasks that it allows: the catalog's, and those that the account has tuned."""

    id: str
    service: str
    name: str
    name_ko: str
    tasks: tuple[str, ...]


class TaskView(Reply):
    """A task of the catalog."""

    id: str
    name: str
    name_ko: str


class TunedTask(Reply):
    """A task that the account has tuned, of a model's task."""

    task_id: str
    name: str
    model: str
    task: str
    saved_at: datetime


class TunedTasks(Reply):
    tuned_tasks: tuple[TunedTask, ...]


class TunedTaskRemovedReply(Reply):
    task_id: str


class ChecklistItem(Reply):
    """One item of the guide checklist, to be answered Yes or No."""

    id: str
    title: str
    explanation: str
    title_ko: str
    explanation_ko: str


class Criterion(Reply):
    """What a reviewer decides by."""

    id: str
    title: str
    explanation: str
    title_ko: str
    explanation_ko: str


class FormView(Reply):
    """What an application is made of. `schema` is a JSON Schema (2020-12) of `form`. In Python the field is `schema_`."""

    version: str
    schema_: dict[str, JsonValue] = Field(alias="schema")
    checklist: tuple[ChecklistItem, ...]
    criteria: tuple[Criterion, ...]
    models: tuple[ModelView, ...]
    tasks: tuple[TaskView, ...]
    tuned_tasks: tuple[TunedTask, ...] = ()

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True, serialize_by_alias=True)


class CommentView(Reply):
    field: str
    comment: str


class FindingView(Reply):
    criterion: str
    met: bool
    reason: str


class DecisionView(Reply):
    """What was decided about a revision, and what that was: `content_hash` and `form_hash` as in the event ReviewDecided."""

    decision: Outcome
    findings: tuple[FindingView, ...]
    revision: int
    decided_at: datetime
    content_hash: str
    form_hash: str


class RevisionSummary(Reply):
    """One revision. `outcome`: what became of it; None: it is the present one and open."""

    revision: int
    begun_at: datetime
    submitted_at: datetime | None
    outcome: RevisionOutcome | None
    ended_at: datetime | None


class Happened(Reply):
    """One step of an application's history. `by`: `applicant`, `reviewer` or `service`; never who.

    `what`: drafted, revised, submitted, withdrawn, review_started, review_released, due_soon, changes_requested, first_approval,
    approved, rejected, superseded, suspended, suspension_lifted or retired. `note`: the reason of a suspension or its end.
    """

    at: datetime
    what: str
    revision: int
    by: str
    note: str = ""


class FormPublishedReply(Reply):
    form_version: str
