"""What every route has at hand: who asks, under which command id, and the services behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Header, Path, Query, Request
from fastapi.security import HTTPBearer
from nats.aio.client import Client
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from services.console.tokens import Principal
from shared.commands import base
from shared.commands.base import Reply
from shared.commands.metering import ServiceId
from shared.commands.requester import TIMEOUT_S, ask
from shared.errors import Forbidden, NotFound
from shared.events.console import Role
from shared.ids import new_id

R = TypeVar("R", bound=Reply)

_COMMAND_ID: Final = re.compile(r"[\x21-\x7e]{1,200}")
_CLIENT_ID: Final = re.compile(r"[a-z0-9]{20}")
_SECRET_ID: Final = re.compile(r"[a-z0-9]{32}")
_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")
_TUNED_TASK_ID: Final = re.compile(r"tuned-[0-9a-f]{32}")
_REVISION: Final = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)

bearer = HTTPBearer(auto_error=False, scheme_name="api_token", description="An API token, `tbk_...`")
"""Only tells OpenAPI about the token: http/boundary.py has checked it by then."""


@dataclass(frozen=True)
class Services:
    """The services behind, over the console's own NATS connection."""

    nc: Callable[[], Client]

    async def ask(self, service: str, message: base.Command | base.Query, reply: type[R], timeout_s: float = TIMEOUT_S) -> R:
        """As shared.commands.requester.ask."""
        return await ask(self.nc(), service, message, reply, timeout_s)


class Notice(BaseModel):
    """Something that is missing from an answer that is otherwise complete."""

    code: str
    detail: str


class NoQuery(BaseModel):
    """The query parameters of a route that has none: so an unknown one is told, with all other errors."""

    model_config = ConfigDict(extra="forbid")


class NeverNull:
    """Metadata of a query parameter that may be left out (None), which OpenAPI would show as one that may be null."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        [shown] = [one for one in handler(schema)["anyOf"] if one != {"type": "null"}]
        return dict(shown)


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


def _principal(request: Request, _: Annotated[Any, Depends(bearer)]) -> Principal:
    principal: Principal = request.state.principal
    return principal


def _with_role(*allowed: Role) -> Callable[[Principal], Principal]:
    def check(principal: Annotated[Principal, Depends(_principal)]) -> Principal:
        if principal.roles.isdisjoint(allowed):
            raise Forbidden(
                f"This needs one of the roles {', '.join(allowed)}; your token has {', '.join(sorted(principal.roles))}."
            )
        return principal

    return check


def _command_id(key: str) -> str:
    if not _COMMAND_ID.fullmatch(key):
        hint = "Give 1 to 200 printable ASCII characters without spaces, new for each wish; a UUID for instance."
        raise PydanticCustomError("idempotency_key", "This is not a key", {"hint": hint})
    return key


def _new_or_given(
    idempotency_key: Annotated[
        Annotated[str, AfterValidator(_command_id), Field(json_schema_extra={"pattern": f"^{_COMMAND_ID.pattern}$"})] | None,
        Header(alias="Idempotency-Key", description="The same key again gives the first answer and changes nothing."),
    ] = None,
) -> str:
    return new_id() if idempotency_key is None else idempotency_key


def _client_id(
    client_id: Annotated[
        str, Path(description="The application's Client ID", json_schema_extra={"pattern": f"^{_CLIENT_ID.pattern}$"})
    ],
) -> str:
    if not _CLIENT_ID.fullmatch(client_id):
        raise no_such_app()
    return client_id


def _secret_id(secret_id: Annotated[str, Path(json_schema_extra={"pattern": f"^{_SECRET_ID.pattern}$"})]) -> str:
    if not _SECRET_ID.fullmatch(secret_id):
        raise NotFound("The application has no such secret.")
    return secret_id


def _schedule_id(schedule_id: Annotated[str, Path(json_schema_extra={"pattern": f"^{_HEX_ID.pattern}$"})]) -> str:
    if not _HEX_ID.fullmatch(schedule_id):
        raise NotFound("There is no such scheduled change.")
    return schedule_id


def _contact_id(contact_id: Annotated[str, Path(json_schema_extra={"pattern": f"^{_HEX_ID.pattern}$"})]) -> str:
    if not _HEX_ID.fullmatch(contact_id):
        raise NotFound("There is no such contact.")
    return contact_id


def _group_id(group_id: Annotated[str, Path(json_schema_extra={"pattern": f"^{_HEX_ID.pattern}$"})]) -> str:
    if not _HEX_ID.fullmatch(group_id):
        raise NotFound("There is no such group.")
    return group_id


def _review_id(
    review_id: Annotated[
        str, Path(description="The id of an application for a service app", json_schema_extra={"pattern": f"^{_HEX_ID.pattern}$"})
    ],
) -> str:
    if not _HEX_ID.fullmatch(review_id):
        raise NotFound("There is no such application for a service app.")
    return review_id


def _tuned_task_id(task_id: Annotated[str, Path(json_schema_extra={"pattern": f"^{_TUNED_TASK_ID.pattern}$"})]) -> str:
    if not _TUNED_TASK_ID.fullmatch(task_id):
        raise NotFound("There is no such tuned task.")
    return task_id


def _revision(
    revision: Annotated[str, Path(description="1, 2, 3 ...", json_schema_extra={"pattern": f"^{_REVISION.pattern}$"})],
) -> int:
    if not _REVISION.fullmatch(revision):
        raise NotFound("There is no such revision.")
    return int(revision)


def no_such_app() -> NotFound:
    """As the registry says it, for an id that cannot be one."""
    return NotFound("There is no such application.")


Behind = Annotated[Services, Depends(_services)]
SignedIn = Annotated[Principal, Depends(_principal)]
Member = Annotated[Principal, Depends(_with_role("owner", "member"))]
Operator = Annotated[Principal, Depends(_with_role("operator"))]
Reviewer = Annotated[Principal, Depends(_with_role("reviewer"))]
CommandId = Annotated[str, Depends(_new_or_given)]
ClientIdInPath = Annotated[str, Depends(_client_id)]
ScheduleIdInPath = Annotated[str, Depends(_schedule_id)]
ContactIdInPath = Annotated[str, Depends(_contact_id)]
GroupIdInPath = Annotated[str, Depends(_group_id)]
ReviewIdInPath = Annotated[str, Depends(_review_id)]
TunedTaskIdInPath = Annotated[str, Depends(_tuned_task_id)]
RevisionInPath = Annotated[int, Depends(_revision)]
ServiceInPath = Annotated[ServiceId, Path(alias="service", description="The service's id, as GET /v1/services lists it")]
SecretIdInPath = Annotated[str, Depends(_secret_id)]
NothingAsked = Annotated[NoQuery, Query()]
