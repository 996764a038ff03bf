"""Asking another service: NATS request/reply with a time limit, refusals as the exceptions they were."""

from __future__ import annotations

from typing import Final, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import ValidationError

from shared.commands.base import ERROR_HEADER, Command, Query, Refusal, Reply
from shared.errors import FieldProblem, TollbookError, Unavailable, error_classes

R = TypeVar("R", bound=Reply)

TIMEOUT_S: Final = 2.5
"""How long an answer may take before its service is called unavailable. Under the 3 s that the console promises."""


def subject_of(service: str, message: Command | Query | type[Command] | type[Query]) -> str:
    """`<service>.commands.<Name>` or `<service>.queries.<Name>`."""
    cls = message if isinstance(message, type) else type(message)
    return f"{service}.{'commands' if issubclass(cls, Command) else 'queries'}.{cls.__name__}"


async def ask(nc: Client, service: str, message: Command | Query, reply: type[R], timeout_s: float = TIMEOUT_S) -> R:
    """Send `message` to `service` and return its reply.

    Raises the TollbookError that the service raised, or Unavailable naming the service when it does not answer in `timeout_s`.
    """
    try:
        answer = await nc.request(
            subject_of(service, message),
            message.model_dump_json().encode(),
            timeout=timeout_s,
            headers={"content-type": "application/json"},
        )
    except (TimeoutError, NatsError, ConnectionError, OSError) as error:
        raise Unavailable(f"The service {service} does not answer now. Trying again later is safe.") from error
    try:
        if answer.headers and ERROR_HEADER in answer.headers:
            raise _as_error(Refusal.model_validate_json(answer.data))
        return reply.model_validate_json(answer.data)
    except ValidationError as error:
        raise Unavailable(f"The service {service} gave an answer that this release cannot read.") from error


def _as_error(refusal: Refusal) -> TollbookError:
    error_class = error_classes().get(refusal.code, TollbookError)
    fields = [FieldProblem(f.field, f.problem, f.hint) for f in refusal.fields]
    return error_class(refusal.detail, fields, refusal.retry_after_s)
