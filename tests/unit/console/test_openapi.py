"""The OpenAPI document: complete, and true about what it refers to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from services.console.http.api import _methods_at, make_api
from services.console.http.bodies import FILLED_IN
from services.console.http.request import Services
from services.console.http.unsubscribe import Attempts
from services.console.problems import head_refusal, not_http_refusal
from shared.clock import FixedClock


def no_connection() -> Any:
    raise AssertionError("the document needs no NATS")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return make_api(Services(no_connection), Attempts(FixedClock(datetime(2026, 1, 1, tzinfo=UTC)).monotonic, ())).openapi()


OPERATIONS = {
    ("get", "/v1/terms"),
    ("put", "/v1/terms/acceptance"),
    ("get", "/v1/services"),
    ("get", "/v1/account"),
    ("get", "/v1/apps"),
    ("post", "/v1/apps"),
    ("get", "/v1/apps/{client_id}"),
    ("patch", "/v1/apps/{client_id}"),
    ("delete", "/v1/apps/{client_id}"),
    ("get", "/v1/apps/{client_id}/authentication"),
    ("post", "/v1/apps/{client_id}/secret/reissue"),
    ("delete", "/v1/apps/{client_id}/secrets/{secret_id}"),
    ("get", "/v1/apps/{client_id}/corrections"),
    ("get", "/v1/deadletters"),
    ("get", "/v1/deadletters/counts"),
    ("get", "/v1/deadletters/{letter}"),
    ("post", "/v1/deadletters/{letter}/retry"),
    ("post", "/v1/deadletters/{letter}/discard"),
    ("get", "/v1/apps/{client_id}/usage"),
    ("get", "/v1/apps/{client_id}/usage/history"),
    ("get", "/v1/usage/history"),
    ("get", "/v1/contacts"),
    ("post", "/v1/contacts"),
    ("get", "/v1/contacts/{contact_id}"),
    ("patch", "/v1/contacts/{contact_id}"),
    ("delete", "/v1/contacts/{contact_id}"),
    ("post", "/v1/contacts/{contact_id}/verification"),
    ("put", "/v1/contacts/{contact_id}/verification"),
    ("post", "/v1/contacts/{contact_id}/test"),
    ("get", "/v1/contacts/{contact_id}/webhook-secret"),
    ("post", "/v1/contacts/{contact_id}/webhook-secret/reissue"),
    ("get", "/v1/contacts/{contact_id}/deliveries"),
    ("get", "/v1/contact-groups"),
    ("post", "/v1/contact-groups"),
    ("get", "/v1/contact-groups/{group_id}"),
    ("patch", "/v1/contact-groups/{group_id}"),
    ("delete", "/v1/contact-groups/{group_id}"),
    ("get", "/v1/apps/{client_id}/deliveries"),
    ("get", "/v1/deliveries"),
    ("get", "/v1/deliveries/counts"),
    ("get", "/v1/notification-templates"),
    ("get", "/v1/notification-templates/{kind}/preview"),
    ("get", "/v1/service-apps/form"),
    ("get", "/v1/service-apps"),
    ("post", "/v1/service-apps"),
    ("get", "/v1/service-apps/{review_id}"),
    ("patch", "/v1/service-apps/{review_id}"),
    ("post", "/v1/service-apps/{review_id}/submission"),
    ("delete", "/v1/service-apps/{review_id}/submission"),
    ("post", "/v1/service-apps/{review_id}/amendment"),
    ("get", "/v1/service-apps/{review_id}/revisions/{revision}"),
    ("get", "/v1/service-apps/{review_id}/code"),
    ("get", "/v1/test-apps"),
    ("get", "/v1/tuned-tasks"),
    ("post", "/v1/tuned-tasks"),
    ("delete", "/v1/tuned-tasks/{task_id}"),
    ("get", "/v1/reviews"),
    ("get", "/v1/reviews/{review_id}"),
    ("put", "/v1/reviews/{review_id}/claim"),
    ("delete", "/v1/reviews/{review_id}/claim"),
    ("post", "/v1/reviews/{review_id}/changes"),
    ("post", "/v1/reviews/{review_id}/decision"),
    ("put", "/v1/reviews/{review_id}/suspension"),
    ("delete", "/v1/reviews/{review_id}/suspension"),
} | {
    (method, f"/v1/{scope}services/{{service}}/{rest}")
    for scope in ("apps/{client_id}/", "")
    for method, rest in (
        ("get", "limits"),
        ("put", "limits"),
        ("get", "limits/history"),
        ("get", "limits/scheduled"),
        ("post", "limits/scheduled"),
        ("delete", "limits/scheduled/{schedule_id}"),
        ("get", "notifications"),
        ("put", "notifications"),
        ("get", "notifications/history"),
    )
}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_every_path_of_the_contract_is_there(document: dict[str, Any]) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == OPERATIONS


def test_every_reference_leads_somewhere_and_every_schema_is_used(document: dict[str, Any]) -> None:
    found = set(references(document))
    for reference in found:
        part: Any = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert schemas <= found


def test_operations_are_named_secured_and_tell_their_problems(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for method, path, operation in operations(document):
        assert operation["security"] == [{"api_token": []}], path
        assert operation["description"], path
        problems = {"401", "403", "404", "422", "429", "500", "503"} | (
            {"400", "408", "409", "413"} if method != "get" else set()
        )
        assert problems < set(operation["responses"]), path
        for status in problems:
            assert operation["responses"][status] == {"$ref": f"#/components/responses/Problem{status}"}
    assert document["components"]["responses"]["Problem422"]["content"].keys() == {"application/problem+json"}


def test_bodies_show_nothing_that_the_edge_fills_in(document: dict[str, Any]) -> None:
    limits = ("SetLimits", "SetAccountLimit", "ScheduleLimits", "ScheduleAccountLimit")
    alerts = ("AddContact", "EditContact", "RequestVerification", "ConfirmVerification", "SendTest", "AddGroup", "EditGroup")
    review = ("EditApplication", "SaveTunedTask", "RequestChanges", "DecideReview", "SuspendServiceApp", "LiftSuspension")
    for name in ("RegisterApp", "EditApp", "ReissueSecret", "AcceptTerms", *limits, *alerts, "SetNotifications", *review):
        schema = document["components"]["schemas"][name]
        assert schema["properties"].keys().isdisjoint(FILLED_IN)
        assert schema["additionalProperties"] is False
        paths = [operation for _, _, operation in operations(document) if name in str(operation.get("requestBody"))]
        assert all("examples" in operation["requestBody"]["content"]["application/json"] for operation in paths)
    assert document["components"]["schemas"]["RegisterApp"]["required"] == ["name", "services"]


def test_a_body_shows_the_ids_that_no_path_has(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["DraftApplication"]
    assert schema["required"] == ["client_id", "service"]
    assert FILLED_IN.keys() & schema["properties"].keys() == {"client_id", "service"}


def test_the_form_is_not_an_application() -> None:
    """Whose address knows more methods than the form's."""
    assert _methods_at("/v1/service-apps/form") == {"GET"}
    assert _methods_at(f"/v1/service-apps/{'0' * 32}") == {"GET", "PATCH"}


def test_a_body_that_may_be_left_out_says_so(document: dict[str, Any]) -> None:
    lifting = document["paths"]["/v1/reviews/{review_id}/suspension"]["delete"]["requestBody"]
    assert not lifting.get("required")
    assert document["components"]["schemas"]["LiftSuspension"].get("required") is None


def test_bodies_tell_the_bounds_that_are_checked(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    fields = schemas["RegisterApp"]["properties"]
    assert (fields["name"]["minLength"], fields["name"]["maxLength"]) == (1, 20)
    assert (fields["services"]["minItems"], fields["services"]["uniqueItems"]) == (1, True)
    assert "pattern" in fields["services"]["items"]
    entered = schemas["EnvironmentsEntered"]["properties"]
    assert [entered[kind]["maxItems"] for kind in ("web", "android", "ios")] == [10, 10, 10]
    for kind, good, bad in (("android", "com.example.app", "app"), ("ios", "com.example.App-1", "under_score")):
        pattern = entered[kind]["items"]["pattern"]
        assert re.search(pattern, good)
        assert not re.search(pattern, bad)
    assert schemas["ReissueSecret"]["properties"]["grace_seconds"]["minimum"] == 0


def test_every_changing_operation_takes_an_idempotency_key(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        headers = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "header"]
        assert ("Idempotency-Key" in headers) is (method != "get"), path


@pytest.mark.parametrize(("answer", "status"), [(head_refusal(), b"431"), (not_http_refusal(), b"400")])
def test_the_answer_to_what_cannot_be_read_is_a_whole_http_answer(answer: bytes, status: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b" ")
    assert f"content-length: {len(body)}".encode() in head
