"""What schemathesis must be told about the console that no OpenAPI document can say. Its command line loads this, not pytest."""

from __future__ import annotations

import os
import re
from itertools import count
from typing import Any

import schemathesis
from requests import PreparedRequest
from schemathesis import Case, HookContext, Response

RUN = os.environ["TOLLBOOK_CONTRACTS_RUN"]
"""New for each run: the console remembers the keys of the runs before."""
CONTACT = os.environ["TOLLBOOK_CONTRACTS_CONTACT"]
"""The id of one that is there. It stays: only those that a run has made itself are removed."""
TEST_APP = os.environ["TOLLBOOK_CONTRACTS_TEST_APP"]
"""The Client ID of an application that has called a service which is reviewed, and has not applied for it yet."""
APPLIED = os.environ["TOLLBOOK_CONTRACTS_APPLIED"]
"""The id of an application for a service app that was submitted once."""
NUMBERS = count(1)
KNOWN_SERVICES = ("clova-voice", "papago-nmt", "captcha-image", "clova-studio", "csr")
DEPENDS_ON_MORE_THAN_THE_FIELD = re.compile(
    r"services\[\d+\]|service"  # is it in the catalog?
    r"|environments"  # does a selected service require a mobile one?
    r"|environments\.web\[\d+\]"  # is the host in the Public Suffix List registrable?
    r"|cursor"  # was it given out?
    r"|from|to"  # are they in this order, and not too far apart?
    r"|effective_at"  # is it within the next year?
    r"|daily|monthly"  # is the one above the other?
    r"|name"  # is any of its characters visible? Unicode's tables say so
    r"|email|phone|webhook_url|zone"  # can there be such an address, or zone, and is there an address at all?
    r"|quiet_hours\.end"  # is it another time than the start?
    r"|contacts\[\d+\]|recipients(\[\d+\](\.[a-z_]+)?(\[\d+\])?)?"  # does the account have it, verified?
    r"|method|code"  # does the contact have such an address, and was it sent this code?
    r"|(form|checklist|criteria)([.\[].*)?"  # does it fit the form of today, which is data?
    r"|model|task|form_version"  # are there such ones, do they fit each other, is it the newest?
    r"|comments\[\d+\]\.(field|comment)|reason"  # does the form have the field, is there more than space, no control character?
)


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """A key of its own for each wish, and an address of its own for each request: else failed sign-ins are soon answered 429."""
    key = case.headers.get("Idempotency-Key")
    if case.meta is not None and case.meta.generation.mode.is_positive:
        if isinstance(key, str) and re.fullmatch(r"[\x21-\x7e]{1,160}", key):
            case.headers["Idempotency-Key"] = f"{key}-{RUN}-{next(NUMBERS)}"
        name_what_exists(case)
    number = next(NUMBERS)
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def come_from(request: PreparedRequest) -> PreparedRequest:
        request.headers["X-Forwarded-For"] = address
        return request

    # Not among the case's headers: one that is about a header left out would no longer count as such.
    kwargs["auth"] = come_from


def name_what_exists(case: Case) -> None:
    """Services of the catalog, and a contact, a test app and an application that are there, instead of those that only look like
    one; web pages whose host can be registered."""
    for place in (case.query, case.path_parameters):
        if isinstance(place.get("service"), str):
            place["service"] = KNOWN_SERVICES[0]
        if isinstance(place.get("contact_id"), str) and case.method != "DELETE":
            place["contact_id"] = CONTACT
    if isinstance(case.path_parameters.get("review_id"), str):
        case.path_parameters["review_id"] = APPLIED
    body = case.body if isinstance(case.body, dict) else {}
    if case.path == "/v1/service-apps" and isinstance(body.get("client_id"), str):
        body |= {"client_id": TEST_APP, "service": "clova-studio"}
    if isinstance(body.get("model"), str) and isinstance(body.get("task"), str):
        body |= {"model": "HCX-003", "task": "chat"}
    if isinstance(body.get("services"), list):
        body["services"] = list(KNOWN_SERVICES[: len(body["services"])])
    environments = body.get("environments")
    if isinstance(environments, dict) and isinstance(environments.get("web"), list):
        environments["web"] = [f"https://www{n}.example.com/start" for n in range(len(environments["web"]))]


@schemathesis.hook
def filter_failure(context: HookContext, failure: Any, case: Case, response: Response) -> bool:
    """Drop what is as it should be.

    - Valid data was refused, and the refusal names nothing but fields whose value a schema cannot judge.
    - Wrong credentials were refused with 429 instead of 401: schemathesis's own probes come from one address, without hooks.
    """
    kind = type(failure).__name__
    if kind == "IgnoredAuth":
        return "got `429 " not in failure.message
    if kind != "RejectedPositiveData" or response.status_code != 422:
        return True
    fields = response.json().get("fields", [])
    return not fields or not all(DEPENDS_ON_MORE_THAN_THE_FIELD.fullmatch(field["field"]) for field in fields)
