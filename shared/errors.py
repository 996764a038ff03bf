"""One tree of errors. Each class knows its HTTP status and code; the edges map it once, nothing else translates errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec


class FieldProblem(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request.

    `field` is a dotted path (`environments.web[3]`), `problem` says what is wrong with the value, `hint` the way out.
    """

    field: str
    problem: str
    hint: str = ""


class TollbookError(Exception):
    """Anything that Tollbook refuses or fails to do, in words that its user can act on.

    `retry_after_s`: in how many seconds trying again can succeed, where that is known.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "unexpected"
    title: ClassVar[str] = "Unexpected error"

    def __init__(self, detail: str, fields: Sequence[FieldProblem] = (), retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = tuple(fields)
        self.retry_after_s = retry_after_s


class MalformedRequest(TollbookError):
    """The request could not be read at all: not JSON, not UTF-8, not an object."""

    status, code, title = 400, "malformed_request", "The request cannot be read"


class Unauthenticated(TollbookError):
    """No credentials, or credentials that nobody issued."""

    status, code, title = 401, "unauthenticated", "Authentication failed"


class Forbidden(TollbookError):
    """Known caller, but its roles do not allow this."""

    status, code, title = 403, "forbidden", "Not allowed"


class NotFound(TollbookError):
    """No such object, or another account's."""

    status, code, title = 404, "not_found", "Not found"


class Conflict(TollbookError):
    """The object is in a state, or at a version, that does not allow the command."""

    status, code, title = 409, "conflict", "Conflict"


class TooLarge(TollbookError):
    """The request's body is over the size that is read."""

    status, code, title = 413, "too_large", "Request too large"


class InvalidInput(TollbookError):
    """Fields that break a rule, all of them at once in `fields`."""

    status, code, title = 422, "invalid_input", "Invalid input"


class CommandReused(TollbookError):
    """A command id that was used before came back with another body."""

    status, code, title = 422, "command_reused", "Idempotency key reused"


class TooManyRequests(TollbookError):
    """Too many of them, too fast."""

    status, code, title = 429, "too_many_requests", "Too many requests"


class Unavailable(TollbookError):
    """A service or server that is needed does not answer. Trying again later is safe."""

    status, code, title = 503, "unavailable", "Temporarily unavailable"


def error_classes() -> dict[str, type[TollbookError]]:
    """Every class of the tree by its code: how an error that crossed NATS becomes an exception again."""
    found: dict[str, type[TollbookError]] = {}
    waiting: list[type[TollbookError]] = [TollbookError]
    while waiting:
        error_class = waiting.pop()
        found[error_class.code] = error_class
        waiting.extend(error_class.__subclasses__())
    return found
