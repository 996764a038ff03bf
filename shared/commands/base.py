"""The base of every command, query and reply, and the words for what is wrong with a field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shared.errors import FieldProblem

AccountId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
"""An account's name in subjects and keys: 1 to 32 characters a-z, 0-9 and dash."""
CommandId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,200}$")]
"""Chosen by the caller (HTTP: Idempotency-Key): 1 to 200 printable ASCII characters without space."""
ActorId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,100}$")]
"""Who asks: `token:<id>`, `member:<id>` or `service:<name>`; an id, never a name or an address."""

ERROR_HEADER: Final = "tollbook-error"
"""On a reply: present when the command was refused; its value is the error's code, the body a `Refusal`."""


class Message(BaseModel):
    """Frozen, and closed: a field that nobody reads is an error, not a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Command(Message):
    """A wish to change something. The same `command_id` again gives the first reply and changes nothing."""

    command_id: CommandId
    account: AccountId
    actor: ActorId


class Query(Message):
    """A wish to know something about one account."""

    account: AccountId


class Reply(Message):
    """What a command or query gives back. Open to new fields, so that an older caller still understands a newer service."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RefusedField(Reply):
    field: str
    problem: str
    hint: str = ""


class Refusal(Reply):
    """Why a command was refused, on the wire."""

    code: str
    detail: str
    fields: tuple[RefusedField, ...] = ()
    retry_after_s: int | None = None


_HINTS: Final[Mapping[str, str]] = {
    "missing": "Add the field.",
    "extra_forbidden": "Remove it, or check its spelling.",
    "string_type": "Give it as a JSON string.",
    "int_type": "Give it as a whole JSON number.",
    "int_parsing": "Give it as a whole number.",
    "int_from_float": "Give it as a whole number.",
    "bool_type": "Give true or false.",
    "bool_parsing": "Give true or false.",
    "dict_type": "Give a JSON object.",
    "list_type": "Give a JSON array.",
    "tuple_type": "Give a JSON array.",
    "literal_error": "Give one of these.",
    "model_type": "Give a JSON object.",
    "model_attributes_type": "Give a JSON object.",
    "datetime_parsing": "Give an instant with its offset from UTC: 2026-01-31T09:00:00Z.",
    "datetime_from_date_parsing": "Give an instant with its offset from UTC: 2026-01-31T09:00:00Z.",
}

_WORDS: Final[Mapping[str, str]] = {
    "too_short": "There should be at least {min_length} of these.",
    "too_long": "There should be at most {max_length} of these.",
}
"""In place of pydantic's, which speak of tuples."""


def field_problems(errors: Iterable[Mapping[str, Any]], skip: int = 0) -> tuple[FieldProblem, ...]:
    """pydantic's errors as FieldProblems; `skip` drops that many leading parts of each path (a parameter's name, `body`).

    A validator may raise `PydanticCustomError(type, message, {"hint": ...})`: its hint is shown. One of a whole model, which
    finds that fields contradict each other, names them besides: `{"fields": ["daily", "monthly"]}` makes a problem of each.
    """
    problems = []
    errors = list(errors)
    with_bad_items = {
        tuple(error["loc"])[:depth] for error in errors for depth, part in enumerate(error["loc"]) if isinstance(part, int)
    }
    for error in errors:
        if error["type"] == "too_short" and tuple(error["loc"]) in with_bad_items:
            continue  # pydantic counts the good items only; the bad ones are named
        context = error.get("ctx") or {}
        words = _WORDS.get(error["type"], "").format_map(context) or str(error["msg"])
        hint = str(context.get("hint", _HINTS.get(error["type"], "")))
        place = tuple(error["loc"])[skip:]
        for named in context.get("fields", [None]):
            path = _path(place if named is None else (*place, named))
            problems.append(FieldProblem(path or "(whole)", words, hint))
    return tuple(problems)


class Shaped:
    """Metadata of a text that matches `pattern`, whole; what is wrong with any other, and the way out, in words."""

    def __init__(self, pattern: str, problem: str, hint: str) -> None:
        self._pattern = re.compile(pattern, re.ASCII)
        self._problem, self._hint = problem, hint

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": f"^{self._pattern.pattern}$"}

    def _check(self, entered: str) -> str:
        if not self._pattern.fullmatch(entered):
            raise PydanticCustomError("pattern", "{problem}", {"problem": self._problem, "hint": self._hint})
        return entered


def whole(entered: Any) -> Any:
    """For a BeforeValidator of a strict int. JSON has one kind of number: 60.0 is the integer 60. Nothing else becomes one, true
    and "60" least of all."""
    return int(entered) if isinstance(entered, float) and entered.is_integer() else entered


def each_once(entered: tuple[Any, ...]) -> tuple[Any, ...]:
    """For an AfterValidator of a collection whose items are named once."""
    if len(set(entered)) != len(entered):
        raise PydanticCustomError("repeated", "Something is there twice.", {"hint": "Name each once."})
    return entered


def _path(parts: Iterable[Any]) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
