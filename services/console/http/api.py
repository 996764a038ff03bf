"""The API as one ASGI application, and its OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from services.console import problems
from services.console.http import (
    apps,
    contacts,
    corrections,
    deadletters,
    deliveries,
    groups,
    history,
    limits,
    notifications,
    reviews,
    service_apps,
    templates,
    terms,
    tuned_tasks,
    unsubscribe,
    usage,
)
from services.console.http.boundary import BODY_METHODS, BodyBounds, Boundary, SignIn
from services.console.http.request import Services
from services.console.settings import ConsoleSettings
from services.console.tokens import Authenticator
from shared.clock import Clock
from shared.errors import TollbookError
from shared.service import AsgiApp

VERSION: Final = "1.0.0"
DESCRIPTION: Final = """\
Register applications, get their Client ID and Client Secret, limit what they may use, see what they used, have people told
before a limit is reached, and apply for calling live what is reviewed first.

Every request needs an API token: `Authorization: Bearer tbk_...`. Every error is an RFC 9457 problem; `fields` lists everything
that is wrong with the request at once. A changing request may carry an `Idempotency-Key`: sent again with the same key, it gives
the first answer and changes nothing, so repeating it is always safe. Another account's object is 404.
"""
_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "Problem",
    "description": "What went wrong, as RFC 9457 has it.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": ["urn:tollbook:problem:invalid_input"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "In words, for people"},
        "code": {"type": "string", "description": "For programs"},
        "fields": {"type": "array", "items": {"$ref": "#/components/schemas/FieldProblem"}},
    },
    "example": {
        "type": "urn:tollbook:problem:invalid_input",
        "title": "Invalid input",
        "status": 422,
        "detail": "The request breaks the rules named in `fields`.",
        "code": "invalid_input",
        "fields": [
            {"field": "services[0]", "problem": "The catalog has no service csrr.", "hint": "GET /v1/services lists them."}
        ],
    },
}
_FIELD_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "title": "FieldProblem",
    "required": ["field", "problem", "hint"],
    "properties": {
        "field": {"type": "string", "description": "Where it stands in the request, for instance environments.web[3]"},
        "problem": {"type": "string", "description": "What is wrong with it"},
        "hint": {"type": "string", "description": "The way out"},
    },
}
ROUTERS: Final = (
    terms.router,
    apps.router,
    usage.router,
    history.router,
    limits.router,
    corrections.router,
    deadletters.router,
    contacts.router,
    groups.router,
    notifications.router,
    deliveries.router,
    templates.router,
    service_apps.router,
    service_apps.test_apps,
    tuned_tasks.router,
    reviews.router,
    unsubscribe.router,
)
_STATUSES: Final = (400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 500, 503)
_ALWAYS: Final = frozenset({401, 403, 404, 422, 429, 500, 503})
_WITH_BODY: Final = frozenset({400, 408, 409, 413})


def make_api(services: Services, attempts: unsubscribe.Attempts) -> FastAPI:
    """The routes, without what stands before them."""
    api = FastAPI(
        title="Tollbook",
        version=VERSION,
        description=DESCRIPTION,
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    api.state.services = services
    api.state.attempts = attempts
    problems.install(api, _methods_at)
    for router in ROUTERS:
        api.include_router(router)
    api.openapi = lambda: _document(api)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return api


def make_edge(
    settings: ConsoleSettings, clock: Clock, authenticator: Authenticator, services: Services, metrics: CollectorRegistry
) -> AsgiApp:
    """The whole edge: bounds and sign-in first, then the routes."""
    proxies = settings.proxies()
    api = BodyBounds(make_api(services, unsubscribe.Attempts(clock.monotonic, proxies)))
    return Boundary(SignIn(api, authenticator, proxies), metrics)


def _methods_at(path: str) -> set[str]:
    """Of all routes with this path: the framework names only the first one's."""
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}


def _document(api: FastAPI) -> dict[str, Any]:
    if api.openapi_schema is None:
        document = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        for replaced in ("HTTPValidationError", "ValidationError"):
            schemas.pop(replaced, None)
        schemas.update(Problem=_PROBLEM, FieldProblem=_FIELD_PROBLEM)
        components["responses"] = {f"Problem{status}": _problem_response(status) for status in _STATUSES}
        for path in document["paths"].values():
            for method, operation in path.items():
                declared = {int(status) for status in operation["responses"] if int(status) >= 400}
                statuses = _ALWAYS | declared | (_WITH_BODY if method.upper() in BODY_METHODS else frozenset())
                for status in sorted(statuses):
                    operation["responses"][str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
        api.openapi_schema = document
    return api.openapi_schema


def _problem_response(status: int) -> dict[str, Any]:
    title = next(error.title for error in _all_errors() if error.status == status)
    content = {problems.PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    response: dict[str, Any] = {"description": title, "content": content}
    if status in (429, 503):
        schema = {"type": "integer"}
        response["headers"] = {"Retry-After": {"description": "Seconds to wait before trying again", "schema": schema}}
    return response


def _all_errors() -> list[type[TollbookError]]:
    found: list[type[TollbookError]] = []
    waiting: list[type[TollbookError]] = [TollbookError]
    while waiting:
        found.append(error := waiting.pop(0))
        waiting.extend(error.__subclasses__())
    return found
