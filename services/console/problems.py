"""Every error of the API as an RFC 9457 problem, whoever raised it: Tollbook, FastAPI, or a mistake in the code."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import asyncpg
import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shared.commands.base import field_problems
from shared.errors import (
    FieldProblem,
    Forbidden,
    InvalidInput,
    MalformedRequest,
    NotFound,
    TollbookError,
    TooLarge,
    Unauthenticated,
    Unavailable,
)

log = logging.getLogger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
RETRY_AFTER_S: Final = "2"
FIELDS_MAX: Final = 100
FIELD_LENGTH_MAX: Final = 200
REFUSED_MARK: Final = " "
"""Stands after the name of a field that a model knows but no client may send (http/bodies.py)."""


class MethodNotAllowed(TollbookError):
    """The path exists, the method on it does not."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class BodyTooSlow(TollbookError):
    """The request's body did not arrive in time."""

    status, code, title = 408, "body_too_slow", "Request body too slow"


class HeadTooLarge(TollbookError):
    """The request line and headers are over the size that is read."""

    status, code, title = 431, "head_too_large", "Request headers too large"


def problem_document(error: TollbookError) -> dict[str, Any]:
    """The problem's members: type, title, status, detail, code, and `fields` when fields are what is wrong."""
    document: dict[str, Any] = {
        "type": f"urn:tollbook:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    if error.fields:
        document["fields"] = [msgspec.to_builtins(field) for field in error.fields]
    return document


def problem_response(error: TollbookError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that tells `error`."""
    extra = dict(headers or {})
    if isinstance(error, Unauthenticated):
        extra["WWW-Authenticate"] = 'Bearer realm="tollbook"'
    if error.retry_after_s is not None:
        extra["Retry-After"] = str(error.retry_after_s)
    elif isinstance(error, Unavailable):
        extra["Retry-After"] = RETRY_AFTER_S
    return Response(msgspec.json.encode(problem_document(error)), error.status, extra, PROBLEM_JSON)


def of_database(error: Exception) -> TollbookError:
    """What a failure of PostgreSQL is to the asker."""
    log.warning("console: PostgreSQL: %s", type(error).__name__)
    return Unavailable("The console's database does not answer now. Trying again later is safe.")


def head_refusal() -> bytes:
    """The whole answer, as it goes over the wire, to a request whose headers do not end."""
    return _as_bytes(HeadTooLarge("The request line and headers are too long."))


def not_http_refusal() -> bytes:
    """The whole answer, as it goes over the wire, to what cannot be read as HTTP."""
    return _as_bytes(MalformedRequest("This is not a request of HTTP/1.1: a character where none may be, or a wrong length."))


def _as_bytes(error: TollbookError) -> bytes:
    body = msgspec.json.encode(problem_document(error))
    head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: {PROBLEM_JSON}\r\n"
    return f"{head}content-length: {len(body)}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n".encode() + body


DATABASE_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError, OSError)
"""InternalClientError is asyncpg's own confusion after a connection broke or a statement was given up."""


def unexpected(error: Exception) -> TollbookError:
    """A mistake of ours: its text stays in the log."""
    # Where, not what: the text of an error can hold what the client sent, secrets too.
    log.error("console: a request failed: %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return TollbookError("Something went wrong here. Trying again with the same Idempotency-Key is safe.")


def of_validation(errors: Sequence[Mapping[str, Any]]) -> TollbookError:
    """FastAPI's findings about path, query, headers and body, all of them at once."""
    if any(error["type"] == "json_invalid" for error in errors):
        return MalformedRequest("The body is not JSON.")
    problems: list[FieldProblem] = []
    of_fields: list[Mapping[str, Any]] = []
    for error in errors[:FIELDS_MAX]:
        if error["loc"] == ("body",) and error["type"] == "missing":
            problems.append(FieldProblem("(whole)", "There is no body", "Send a JSON object."))
        elif error["loc"] == ("body",) and isinstance(error.get("input"), bytes):
            problems.append(FieldProblem("(whole)", "The body is not declared as JSON", "Send Content-Type: application/json."))
        else:
            of_fields.append(error)
    problems.extend(_shortened(problem) for problem in field_problems(of_fields, skip=1))
    if len(errors) > FIELDS_MAX:
        problems.append(FieldProblem("(whole)", f"There are {len(errors) - FIELDS_MAX} more problems", "Correct these first."))
    return InvalidInput("The request breaks the rules named in `fields`.", problems)


def _shortened(problem: FieldProblem) -> FieldProblem:
    """A field's name is the client's, and may be as long as a body: the answer is not."""
    field = problem.field if len(problem.field) <= FIELD_LENGTH_MAX else f"{problem.field[:FIELD_LENGTH_MAX]}..."
    return FieldProblem(field.removesuffix(REFUSED_MARK), problem.problem, problem.hint)


def _of_http(error: HTTPException) -> TollbookError:
    """What the framework itself refuses."""
    match error.status_code:
        case 400:
            return MalformedRequest("The body cannot be read as JSON.")
        case 401:
            return Unauthenticated("Send an API token: Authorization: Bearer tbk_...")
        case 403:
            return Forbidden("Your roles do not allow this.")
        case 404:
            return NotFound("There is nothing at this address.")
        case 405:
            return MethodNotAllowed("This address does not know that method; `Allow` names those it knows.")
        case 413:
            return TooLarge("The body is too large.")
        case _:
            return unexpected(error)


def install(app: FastAPI, methods_at: Callable[[str], Iterable[str]]) -> None:
    """Have every error of `app` answered as a problem. `methods_at` names the methods that a path knows."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, TollbookError)
        return problem_response(error)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(of_validation(error.errors()))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = {"Allow": ", ".join(sorted(methods_at(request.url.path)))} if error.status_code == 405 else None
        return problem_response(_of_http(error), headers)

    async def database(_: Request, error: Exception) -> Response:
        return problem_response(of_database(error))

    async def mistaken(_: Request, error: Exception) -> Response:
        return problem_response(unexpected(error))

    app.add_exception_handler(Exception, mistaken)
    app.add_exception_handler(TollbookError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for database_error in DATABASE_ERRORS:
        app.add_exception_handler(database_error, database)
