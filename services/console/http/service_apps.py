"""/v1/service-apps: applying for calling a reviewed service live, as applicants do; /v1/test-apps: what was tested before."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.convertors import Convertor, register_url_convertor

from services.console.http.apps import PageQuery
from services.console.http.asking import ask_about
from services.console.http.bodies import AsBody, addressed, empty, example
from services.console.http.request import (
    Behind,
    CommandId,
    Member,
    NeverNull,
    NothingAsked,
    ReviewIdInPath,
    RevisionInPath,
)
from shared.commands import registry, review, service_apps

router = APIRouter(prefix="/v1/service-apps", tags=["service apps"])
test_apps = APIRouter(prefix="/v1/test-apps", tags=["service apps"])


class _NotForm(Convertor[str]):
    """What stands where an id does, but is not the address of the form: that knows GET only."""

    regex = "(?!form$)[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("not_form", _NotForm())
ONE: Final = "/{review_id:not_form}"

DRAFT: Final = example(
    "A beginning; the rest is saved piece by piece",
    client_id="k3v9x2m8q1zzk3v9x2m8",
    service="clova-studio",
    model="HCX-003",
    task="summarization",
    form={"name": "Minutes", "purpose": "Summarises the minutes of meetings for those who were not there."},
    checklist={"ethics": True},
    form_version="2026-11",
)
EDIT: Final = example(
    "Two fields and one item; the rest stays. null removes a field of the form",
    form={"intended_users": "Employees of our company", "service_url": None},
    checklist={"tested": True},
)


class ApplicationsQuery(PageQuery):
    """Which applications, and how they page."""

    state: Annotated[review.State | None, NeverNull()] = None
    client_id: Annotated[registry.ClientId | None, NeverNull()] = None
    service: Annotated[registry.ServiceId | None, NeverNull()] = None
    deprecated: Annotated[
        bool | None,
        NeverNull(),
        Field(description="Only those that are superseded or retired (true), or only the others (false)"),
    ] = None


class TestAppsQuery(BaseModel):
    """Which test apps."""

    model_config = ConfigDict(extra="forbid")

    deprecated: Annotated[
        bool, Field(description="Those that are live, superseded, retired or deleted by now (true), or that still test (false)")
    ] = False


@router.get("/form", operation_id="getServiceAppForm")
async def get_form(principal: Member, behind: Behind, _: NothingAsked) -> review.FormView:
    """What an application is made of: the form as a JSON Schema, the guide checklist, and the models with the tasks that each
    allows, those that the account has tuned too."""
    return await behind.ask(review.SERVICE, review.GetForm(account=principal.account), review.FormView)


@router.get("", operation_id="listServiceApps")
async def list_applications(
    principal: Member, behind: Behind, asked: Annotated[ApplicationsQuery, Query()]
) -> service_apps.ApplicationPage:
    """The account's applications for service apps, the newest first, and what has become of each."""
    query = service_apps.ListApplications(account=principal.account, **asked.model_dump())
    return await behind.ask(review.SERVICE, query, service_apps.ApplicationPage)


@router.post("", operation_id="applyForServiceApp", status_code=201)
async def draft_application(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    response: Response,
    _: NothingAsked,
    body: Annotated[service_apps.DraftApplication, AsBody("client_id", "service"), Body(openapi_examples=DRAFT)],
) -> service_apps.ApplicationView:
    """Begin to apply, with as much as is known already. The application must have called the service in tier test."""
    command = addressed(body, principal, command_id)
    drafted = await ask_about(behind, review.SERVICE, command, service_apps.ApplicationView, body.client_id)
    response.headers["Location"] = f"/v1/service-apps/{drafted.id}"
    return drafted


@router.get(ONE, operation_id="getServiceApp")
async def get_application(
    principal: Member, behind: Behind, review_id: ReviewIdInPath, _: NothingAsked
) -> service_apps.ApplicationView:
    """One application, whole: what is written, what is still `missing`, what its reviewer said, and what `may` be done now."""
    query = service_apps.GetApplication(account=principal.account, review_id=review_id)
    return await behind.ask(review.SERVICE, query, service_apps.ApplicationView)


@router.patch(ONE, operation_id="editServiceApp")
async def edit_application(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    review_id: ReviewIdInPath,
    _: NothingAsked,
    body: Annotated[service_apps.EditApplication, AsBody(), Body(openapi_examples=EDIT)],
) -> service_apps.ApplicationView:
    """Save a piece of it. One that was rejected, withdrawn, or of which changes were requested, goes on as a new revision; the
    old one stays readable. 409 while it is under review, and after it was approved."""
    command = addressed(body, principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, service_apps.ApplicationView)


@router.post("/{review_id}/submission", operation_id="submitServiceApp")
async def submit_application(
    principal: Member, behind: Behind, command_id: CommandId, review_id: ReviewIdInPath, _: NothingAsked
) -> service_apps.ApplicationView:
    """Have it reviewed. All that is missing is one 422. The answer says by when it will be decided (`due_at`)."""
    command = addressed(empty(service_apps.SubmitApplication), principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, service_apps.ApplicationView)


@router.delete("/{review_id}/submission", operation_id="withdrawServiceApp")
async def withdraw_application(
    principal: Member, behind: Behind, command_id: CommandId, review_id: ReviewIdInPath, _: NothingAsked
) -> service_apps.ApplicationView:
    """Take it back before it is decided."""
    command = addressed(empty(service_apps.WithdrawApplication), principal, command_id, review_id=review_id)
    return await behind.ask(review.SERVICE, command, service_apps.ApplicationView)


@router.post("/{review_id}/amendment", operation_id="amendServiceApp", status_code=201)
async def amend_application(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    review_id: ReviewIdInPath,
    response: Response,
    _: NothingAsked,
) -> service_apps.ApplicationView:
    """Begin another application with what the approved one says. Until it is approved too, the old one stays live."""
    command = addressed(empty(service_apps.AmendApplication), principal, command_id, review_id=review_id)
    drafted = await behind.ask(review.SERVICE, command, service_apps.ApplicationView)
    response.headers["Location"] = f"/v1/service-apps/{drafted.id}"
    return drafted


@router.get("/{review_id}/revisions/{revision}", operation_id="getServiceAppRevision")
async def get_revision(
    principal: Member, behind: Behind, review_id: ReviewIdInPath, revision: RevisionInPath, _: NothingAsked
) -> service_apps.RevisionView:
    """A revision as it was written, on the form that it was written on, with what was decided about it and the bytes that the
    decision's hashes are of."""
    query = service_apps.GetRevision(account=principal.account, review_id=review_id, revision=revision)
    return await behind.ask(review.SERVICE, query, service_apps.RevisionView)


@router.get("/{review_id}/code", operation_id="getServiceAppCode", responses={409: {}})
async def get_code(principal: Member, behind: Behind, review_id: ReviewIdInPath, _: NothingAsked) -> service_apps.CodeView:
    """How to call what was approved: endpoint, headers, and samples to copy, all without the Client Secret. 409 until it is
    live."""
    query = service_apps.GetCode(account=principal.account, review_id=review_id)
    return await behind.ask(review.SERVICE, query, service_apps.CodeView)


@test_apps.get("", operation_id="listTestApps")
async def list_test_apps(principal: Member, behind: Behind, asked: Annotated[TestAppsQuery, Query()]) -> service_apps.TestApps:
    """The account's applications that test a service which is reviewed; or, to look back at, those that have done so."""
    query = service_apps.ListTestApps(account=principal.account, deprecated=asked.deprecated)
    return await behind.ask(review.SERVICE, query, service_apps.TestApps)
