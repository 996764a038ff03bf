"""JSON Schema as forms use it: few keywords, checked by the library jsonschema, what is wrong said in words. Pure.

They are few so that every problem has words of its own, nothing is fetched ($ref), and nobody's input can make a check
take long: a text's length is known before a pattern looks at it, and a list's before its items are looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.validators import extend

from shared.commands.review import FORM_DEPTH_MAX, NUMBER_MAX
from shared.errors import FieldProblem

TEXT_MAX: Final = 50_000
LIST_MAX: Final = 1_000

KEYWORDS: Final = frozenset(
    {
        "type",
        "title",
        "description",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "minimum",
        "maximum",
        "enum",
    }
)
"""What a form's schema can have; `description` is shown as the way out where a pattern does not fit."""

_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "string": ("a text", "Give a JSON string."),
    "integer": ("a whole number", "Give a whole JSON number."),
    "number": ("a number", "Give a JSON number."),
    "boolean": ("true or false", "Give true or false."),
    "array": ("a list", "Give a JSON array."),
    "object": ("an object", "Give a JSON object."),
}
_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "required": ("This is missing.", "Fill it in."),
    "additionalProperties": ("The form has no such field.", "Remove it (null does), or check its spelling."),
    "minItems": ("There should be at least {} of these.", "Add what is missing."),
    "maxItems": ("There should be at most {} of these.", "Remove some."),
    "minimum": ("This is less than {}.", "Give {} or more."),
    "maximum": ("This is more than {}.", "Give {} or less."),
}


# -- keywords that are checked otherwise than the library does: the same meaning, but told field by field, and bounded

_Found = Iterator[ValidationError]
_Problems = Iterator[tuple[str, str]]


def _required(_: Any, required: list[str], instance: Any, __: Mapping[str, Any]) -> _Found:
    if isinstance(instance, dict):
        for name in required:
            if name not in instance:
                yield ValidationError("missing", validator="required", path=[name])


def _additional(_: Any, __: Any, instance: Any, schema: Mapping[str, Any]) -> _Found:
    if isinstance(instance, dict):
        for name in instance:
            if name not in schema["properties"]:
                yield ValidationError("unknown", validator="additionalProperties", path=[name])


def _items(validator: Any, items: Mapping[str, Any], instance: Any, schema: Mapping[str, Any]) -> _Found:
    if isinstance(instance, list) and len(instance) <= schema["maxItems"]:
        for place, item in enumerate(instance):
            yield from validator.descend(item, items, path=place)


def _least_length(_: Any, least: int, instance: Any, __: Mapping[str, Any]) -> _Found:
    if isinstance(instance, str) and len(instance.strip()) < least:
        yield ValidationError("short", validator="minLength", validator_value=least, instance=not instance.strip())


def _pattern(_: Any, pattern: str, instance: Any, schema: Mapping[str, Any]) -> _Found:
    """A text that is empty or too short is told to be that; one that is too long may be any length, so no pattern looks at it."""
    if not isinstance(instance, str) or not instance.strip() or len(instance) > schema["maxLength"]:
        return
    if not re.search(pattern, instance):
        yield ValidationError("pattern", validator="pattern", schema=schema)


def _nothing(*_: Any) -> _Found:
    yield from ()


def _finite(_: Any, instance: Any) -> bool:
    return isinstance(instance, int | float) and not isinstance(instance, bool) and abs(instance) < math.inf


_AS_ALWAYS: Final[Mapping[str, Callable[..., _Found]]] = {
    "additionalProperties": _additional,
    "items": _items,
    "pattern": _pattern,
}
_CHECKER: Final = Draft202012Validator.TYPE_CHECKER.redefine("number", _finite)

WHOLE: Final[Any] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {**_AS_ALWAYS, "required": _required, "minLength": _least_length}, type_checker=_CHECKER
)
"""Checks what is submitted. A text of spaces alone is empty."""
DRAFT: Final[Any] = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {**_AS_ALWAYS, "required": _nothing, "minLength": _nothing, "minItems": _nothing},
    type_checker=_CHECKER,
)
"""Checks what is written so far: nothing has to be there."""


# -- schemas of forms


def schema_problems(schema: Any) -> list[str]:
    """What is wrong with a form's schema, each with its place in it; none: every input can be checked and spoken about."""
    found = [f"{place}: {problem}" for place, problem in _wrong(schema, "schema", 0)]
    if isinstance(schema, dict) and schema.get("type") != "object":
        found.append("schema: the form itself is an object")
    if found:
        return found
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return [f"schema.{'.'.join(map(str, error.absolute_path))}: {error.message}"]
    return []


def _wrong(schema: Any, place: str, depth: int) -> _Problems:
    if not isinstance(schema, dict):
        yield place, "this is not a schema"
        return
    if depth > FORM_DEPTH_MAX:
        yield place, f"it is nested deeper than {FORM_DEPTH_MAX}"
        return
    unknown = sorted(str(keyword) for keyword in schema if keyword not in KEYWORDS)
    if unknown:
        yield place, f"{', '.join(unknown)}: not a keyword that a form can have; these are: {', '.join(sorted(KEYWORDS))}"
    check = _WRONG.get(str(schema.get("type")))
    if check is None:
        yield place, f"type has to be one of: {', '.join(_TYPES)}"
    else:
        yield from check(schema, place, depth)


def _wrong_text(schema: Mapping[str, Any], place: str, _: int) -> _Problems:
    if not _is_number(schema.get("maxLength"), 1, TEXT_MAX):
        yield place, f"a text needs a maxLength, up to {TEXT_MAX}"
    try:
        re.compile(schema.get("pattern", ""))
    except (re.error, TypeError):
        yield place, "pattern is no regular expression"


def _wrong_number(schema: Mapping[str, Any], place: str, _: int) -> _Problems:
    for name in ("minimum", "maximum"):
        if not _is_number(schema.get(name), -NUMBER_MAX, NUMBER_MAX):
            yield place, f"a number needs a {name}, between -{NUMBER_MAX} and {NUMBER_MAX}"


def _wrong_list(schema: Mapping[str, Any], place: str, depth: int) -> _Problems:
    if not _is_number(schema.get("maxItems"), 1, LIST_MAX):
        yield place, f"a list needs a maxItems, up to {LIST_MAX}"
    yield from _wrong(schema.get("items"), f"{place}.items", depth + 1)


def _wrong_object(schema: Mapping[str, Any], place: str, depth: int) -> _Problems:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        yield place, "an object needs properties"
        return
    if schema.get("additionalProperties") is not False:
        yield place, "an object needs additionalProperties: false"
    required = schema.get("required", [])
    if not isinstance(required, list) or any(name not in properties for name in required):
        yield place, "required names what is no property"
    for name, inner in properties.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", str(name), re.ASCII):
            yield place, "a property's name is a letter, then letters, digits, _ and -; 64 characters at most"
        yield from _wrong(inner, f"{place}.{name}", depth + 1)


_WRONG: Final[Mapping[str, Callable[[Mapping[str, Any], str, int], _Problems]]] = {
    "string": _wrong_text,
    "integer": _wrong_number,
    "number": _wrong_number,
    "boolean": lambda *_: iter(()),
    "array": _wrong_list,
    "object": _wrong_object,
}


def _is_number(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


# -- words


def problem_of(error: ValidationError, prefix: str) -> FieldProblem:
    """What is wrong, in words that repeat nothing of what was entered but the names of its fields."""
    path = prefix
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return FieldProblem(path, *_words(error))


def _words(error: ValidationError) -> tuple[str, str]:
    bound: Any = error.validator_value
    match error.validator:
        case "type":
            what, hint = _TYPES[bound]
            return f"This is not {what}.", hint
        case "minLength":
            return ("This is empty." if error.instance else "This is too short."), f"Write at least {_count(bound)}."
        case "maxLength":
            return f"This is longer than {_count(bound)}.", "Shorten it."
        case "pattern":
            schema: Any = error.schema
            return "This does not look as it should.", schema.get("description", "See the form's schema.")
        case "enum":
            return "This is none of what can be chosen.", f"Choose from: {', '.join(map(str, bound))}."
        case other:
            problem, hint = _WORDS[str(other)]
            return problem.format(bound), hint.format(bound)


def _count(characters: int) -> str:
    return f"{characters} character" if characters == 1 else f"{characters} characters"
