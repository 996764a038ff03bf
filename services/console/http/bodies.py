"""A command's model as the model of an HTTP body: the same fields without those that the edge fills in.

So a rule is written once, in shared/commands; a body is validated once, by that model, with every error at the place where the
client wrote it; and the routes get the command itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from fastapi.openapi.models import Example
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidatorFunctionWrapHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from services.console.problems import REFUSED_MARK
from services.console.tokens import Principal
from shared.commands.base import Command

C = TypeVar("C", bound=Command)

FILLED_IN: Final[Mapping[str, str | int]] = {
    "command_id": "unset",
    "account": "unset",
    "actor": "unset",
    "client_id": "0" * 20,
    "service": "unset",
    "letter": 1,
    "contact_id": "0" * 32,
    "group_id": "0" * 32,
    "review_id": "0" * 32,
}
"""What stands in the command until `addressed` puts in who asks, and about what: the ids that are in the path."""


class AsBody:
    """Metadata that makes a command the body of a request: `Annotated[RegisterApp, AsBody()]`.

    `given`: ids that this body has itself, because no path has them.
    """

    def __init__(self, *given: str) -> None:
        self._filled_in = {name: value for name, value in FILLED_IN.items() if name not in given}

    def __get_pydantic_core_schema__(self, source: type[Command], handler: GetCoreSchemaHandler) -> CoreSchema:
        stand_in = {name: value for name, value in self._filled_in.items() if name in source.model_fields}

        def fill_in(body: Any, validate: ValidatorFunctionWrapHandler) -> Any:
            if not isinstance(body, dict):
                raise PydanticCustomError("model_type", "The body is not a JSON object", {"hint": "Give a JSON object."})
            # Marked, so that the model refuses them as fields that it does not have, with all other errors.
            sent = {f"{name}{REFUSED_MARK}" if name in stand_in else name: value for name, value in body.items()}
            return validate({**stand_in, **sent})

        return core_schema.no_info_wrap_validator_function(fill_in, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        reference = handler(schema)
        shown = handler.resolve_ref_schema(reference)
        for name in self._filled_in:
            shown.get("properties", {}).pop(name, None)
        required = [name for name in shown.pop("required", []) if name not in self._filled_in]
        if required:
            shown["required"] = required
        return reference


def example(summary: str, **fields: Any) -> dict[str, Example]:
    """One example of a body, as OpenAPI shows it."""
    return {"example": {"summary": summary, "value": fields}}


def empty(command: type[C]) -> C:
    """What a body without any field means."""
    return command.model_validate({name: value for name, value in FILLED_IN.items() if name in command.model_fields})


def addressed(command: C, principal: Principal, command_id: str, **path: str | int | None) -> C:
    """`command` with who asks, under which id, and about what (`path`: those of FILLED_IN that it has besides)."""
    return command.model_copy(update={"command_id": command_id, "account": principal.account, "actor": principal.actor, **path})
