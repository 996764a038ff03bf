"""The form: what an application has to say, by a JSON Schema, the guide checklist, and the criteria it is decided by. Pure.

A form that was published stays as it is: applications are shown with the one they were written on.
What does not fit is told in words, each field by its path, and what was entered is never repeated. A draft may leave out
anything, but what is there has to be of the right type and length; a submission has to be whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final

import msgspec

from services.review.content import Content
from services.review.schemas import DRAFT, WHOLE, problem_of
from shared.commands.review import FORM_BYTES_MAX, ChecklistItem, Criterion, FormPublishedReply, PublishForm
from shared.errors import Conflict, FieldProblem, InvalidInput
from shared.eventlog.decision import Decision
from shared.events.review import FormPublished, ReviewEvent

PROBLEMS_MAX: Final = 100
"""So many problems are told of one form; whoever has more corrects these first."""


@dataclass(frozen=True)
class Form:
    """A version of the form. `form_hash`: the SHA-256 of `definition`, the canonical JSON of {schema, checklist, criteria}."""

    version: str
    definition: str
    form_hash: str

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The JSON Schema of what is filled in."""
        schema: Mapping[str, Any] = self._parsed["schema"]
        return schema

    @cached_property
    def checklist(self) -> tuple[ChecklistItem, ...]:
        """What has to be answered Yes."""
        return tuple(ChecklistItem(**_texts(item)) for item in self._parsed["checklist"])

    @cached_property
    def criteria(self) -> tuple[Criterion, ...]:
        """What it is decided by."""
        return tuple(Criterion(**_texts(item)) for item in self._parsed["criteria"])

    @cached_property
    def of_draft(self) -> Any:
        """Checks a draft."""
        return DRAFT(self.schema)

    @cached_property
    def of_submission(self) -> Any:
        """Checks what is submitted."""
        return WHOLE(self.schema)

    def has_field(self, path: str) -> bool:
        """Whether `model`, `task`, `form.<field>` or `checklist.<item>` is there; of a path the first name is looked at."""
        part, _, rest = path.partition(".")
        if part == "checklist":
            return rest in {item.id for item in self.checklist}
        name = rest.partition(".")[0].partition("[")[0]
        return path in ("model", "task") or (part == "form" and name in self.schema["properties"])

    @cached_property
    def _parsed(self) -> dict[str, Any]:
        parsed: dict[str, Any] = msgspec.json.decode(self.definition)
        return parsed


def form_from_definition(version: str, definition: str) -> Form:
    """The form of FormPublished, or of the file."""
    return Form(version, definition, hashlib.sha256(definition.encode()).hexdigest())


def draft_problems(form: Form, content: Content, prefix: str = "form") -> list[FieldProblem]:
    """What of it does not fit the form. What is missing is no problem yet. `prefix`: what the form's field is called."""
    found = list(islice(_problems(form.of_draft, content.form, prefix), PROBLEMS_MAX))
    if not found and len(msgspec.json.encode(content.form)) > FORM_BYTES_MAX:
        problem = f"The form is larger than {FORM_BYTES_MAX} bytes as JSON."
        found.append(FieldProblem(prefix, problem, "Shorten its texts."))
    return found + checklist_problems(form, content.checklist)


def checklist_problems(form: Form, checklist: Mapping[str, bool]) -> list[FieldProblem]:
    """Answers to what is not asked."""
    items = {item.id for item in form.checklist}
    return [
        FieldProblem(f"checklist.{item}", "The checklist has no such item.", f"Answer these: {', '.join(sorted(items))}.")
        for item in islice((item for item in checklist if item not in items), PROBLEMS_MAX)
    ]


def missing(form: Form, content: Content) -> list[FieldProblem]:
    """What of the form and the checklist is missing or wrong before it can be submitted, all at once."""
    found = list(islice(_problems(form.of_submission, content.form, "form"), PROBLEMS_MAX))
    found += checklist_problems(form, content.checklist)
    found += [
        FieldProblem(f"checklist.{item.id}", "This is not answered Yes.", "Answer it with true when it is so.")
        for item in form.checklist
        if content.checklist.get(item.id) is not True
    ]
    return found


def _problems(validator: Any, entered: Mapping[str, Any], prefix: str) -> Iterator[FieldProblem]:
    for error in validator.iter_errors(entered):
        yield problem_of(error, prefix)


def _texts(item: Mapping[str, Any]) -> dict[str, str]:
    title, explanation = item["title"], item["explanation"]
    return {
        "id": item["id"],
        "title": title["en"],
        "explanation": explanation["en"],
        "title_ko": title["ko"],
        "explanation_ko": explanation["ko"],
    }


# -- its stream


def form_stream(version: str) -> str:
    """The stream of a version of the form: FormPublished, once."""
    return f"form/{version}"


def evolve(state: Form | None, event: ReviewEvent) -> Form | None:
    """The form after one more event of its stream."""
    if isinstance(event, FormPublished):
        return Form(event.form_version, event.definition, event.form_hash)
    return state


def publish(state: Form | None, command: PublishForm) -> Decision[ReviewEvent, FormPublishedReply]:
    """Make it the form of new applications, once. Conflict: the version is another form's already."""
    reply = FormPublishedReply(form_version=command.form_version)
    form = form_from_definition(command.form_version, command.definition)
    if form.form_hash != command.form_hash:
        problem = FieldProblem("form_hash", "This is not the hash of the definition.", "Give its SHA-256.")
        raise InvalidInput("The form and its hash do not belong together.", [problem])
    if state is None:
        published = FormPublished(form_version=form.version, definition=form.definition, form_hash=form.form_hash)
        return Decision([published], reply)
    if state.form_hash != form.form_hash:
        raise Conflict(
            f"Version {form.version} of the form was published with other words. A published form stays as it is:"
            " give the changed one a new version."
        )
    return Decision([], reply)
