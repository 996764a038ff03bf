"""/v1/apps: applications and their credentials."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Body, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.console.http.bodies import AsBody, addressed, empty, example
from services.console.http.request import (
    Behind,
    ClientIdInPath,
    CommandId,
    Member,
    NothingAsked,
    Notice,
    SecretIdInPath,
    Services,
)
from services.console.http.usage import USAGE_TIMEOUT_S, AppUsage, metering_away, usage_of_apps
from services.console.tokens import Principal
from shared.commands import metering, registry
from shared.errors import NotFound, Unavailable

router = APIRouter(prefix="/v1/apps", tags=["apps"])

REGISTER: Final = example(
    "A mobile application that recognises speech",
    name="My app",
    services=["csr"],
    environments={"web": ["http://example.com"], "android": ["com.example.app"], "ios": ["com.example.App"]},
)
EDIT: Final = example("Another name, the rest as it is", name="Our app")
REISSUE: Final = example("The old secret works for another hour", grace_seconds=3600)


class PageQuery(BaseModel):
    """How lists page: at most `limit` items, from where `cursor` points."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=registry.PAGE_MAX, description="How many at most")] = registry.PAGE_DEFAULT
    cursor: Annotated[str, Field(min_length=1, max_length=200, description="`next_cursor` of the page before")] | None = None


class ListedApp(registry.AppView):
    """An application as the list shows it, with what it used today and this month at each of its services."""

    usage: tuple[AppUsage, ...] = ()


class AppList(BaseModel):
    """One page, the newest first. `next_cursor` leads to the next page; null: this was the last."""

    apps: list[ListedApp]
    next_cursor: str | None
    warnings: list[Notice] = Field(default_factory=list)


class SecretUsed(registry.SecretView):
    """A secret that works. `last_used_at` is accurate to a minute; null: never used, or not known now (see `warnings`)."""

    last_used_at: datetime | None = None


class AuthenticationInformation(registry.Authentication):
    """What goes into the headers X-NCP-APIGW-API-KEY-ID (`client_id`) and X-NCP-APIGW-API-KEY (`client_secret`) of a call."""

    secrets: tuple[SecretUsed, ...]
    warnings: tuple[Notice, ...] = ()


@router.post("", operation_id="registerApp", status_code=201)
async def register_app(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    response: Response,
    _: NothingAsked,
    body: Annotated[registry.RegisterApp, AsBody(), Body(openapi_examples=REGISTER)],
) -> registry.AppIssued:
    """Register an application. The answer has its Client ID and its first Client Secret."""
    issued = await behind.ask("registry", addressed(body, principal, command_id), registry.AppIssued)
    response.headers["Location"] = f"/v1/apps/{issued.client_id}"
    return issued


@router.get("", operation_id="listApps")
async def list_apps(principal: Member, behind: Behind, page: Annotated[PageQuery, Query()]) -> AppList:
    """The account's applications, the newest first, each with its usage of today and of this month."""
    query = registry.ListApps(account=principal.account, limit=page.limit, cursor=page.cursor)
    found = await behind.ask("registry", query, registry.AppPage)
    usage, warnings = await usage_of_apps(behind, principal.account, found.apps)
    apps = [ListedApp(**app.model_dump(), usage=usage[app.client_id]) for app in found.apps]
    return AppList(apps=apps, next_cursor=found.next_cursor, warnings=warnings)


@router.get("/{client_id}", operation_id="getApp")
async def get_app(principal: Member, behind: Behind, client_id: ClientIdInPath, _: NothingAsked) -> registry.AppView:
    """One application."""
    return await behind.ask("registry", registry.GetApp(account=principal.account, client_id=client_id), registry.AppView)


@router.patch("/{client_id}", operation_id="editApp")
async def edit_app(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    client_id: ClientIdInPath,
    _: NothingAsked,
    body: Annotated[registry.EditApp, AsBody(), Body(openapi_examples=EDIT)],
) -> registry.AppView:
    """Change what is given; what is left out, or null, stays as it is."""
    command = addressed(body, principal, command_id, client_id=client_id)
    return await behind.ask("registry", command, registry.AppView)


@router.delete("/{client_id}", operation_id="deleteApp", status_code=204)
async def delete_app(
    principal: Member, behind: Behind, command_id: CommandId, client_id: ClientIdInPath, _: NothingAsked
) -> None:
    """Delete the application, which ends its subscription: none of its secrets works any longer."""
    command = addressed(empty(registry.DeleteApp), principal, command_id, client_id=client_id)
    await behind.ask("registry", command, registry.AppDeletedReply)


@router.get("/{client_id}/authentication", operation_id="getAuthentication")
async def get_authentication(
    principal: Member, behind: Behind, client_id: ClientIdInPath, _: NothingAsked
) -> AuthenticationInformation:
    """The authentication information: Client ID, Client Secret, service environments, and when each secret was last used."""
    query = registry.GetAuthentication(account=principal.account, client_id=client_id)
    found, (used, warnings) = await asyncio.gather(
        behind.ask("registry", query, registry.Authentication), _credential_use(behind, principal, client_id)
    )
    secrets = tuple(
        SecretUsed(**secret.model_dump(), last_used_at=used.secrets.get(secret.secret_id)) for secret in found.secrets
    )
    return AuthenticationInformation(**found.model_dump(exclude={"secrets"}), secrets=secrets, warnings=warnings)


@router.post("/{client_id}/secret/reissue", operation_id="reissueSecret")
async def reissue_secret(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    client_id: ClientIdInPath,
    _: NothingAsked,
    body: Annotated[
        registry.ReissueSecret, AsBody(), Body(default_factory=lambda: empty(registry.ReissueSecret), openapi_examples=REISSUE)
    ],
) -> registry.Reissued:
    """Issue a new secret. The one before works for `grace_seconds` more; without any, it ends at once."""
    command = addressed(body, principal, command_id, client_id=client_id)
    return await behind.ask("registry", command, registry.Reissued)


@router.delete("/{client_id}/secrets/{secret_id}", operation_id="revokeSecret")
async def revoke_secret(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    client_id: ClientIdInPath,
    secret_id: SecretIdInPath,
    _: NothingAsked,
) -> registry.Secrets:
    """End one secret at once, for instance one that has leaked while its grace period lasts."""
    command = registry.RevokeSecret(
        command_id=command_id, account=principal.account, actor=principal.actor, client_id=client_id, secret_id=secret_id
    )
    return await behind.ask("registry", command, registry.Secrets)


async def _credential_use(
    behind: Services, principal: Principal, client_id: str
) -> tuple[metering.CredentialUse, tuple[Notice, ...]]:
    """When the secrets were last used: nothing, and a notice, when metering is away."""
    query = metering.GetCredentialUse(account=principal.account, client_id=client_id)
    try:
        return await behind.ask(metering.SERVICE, query, metering.CredentialUse, USAGE_TIMEOUT_S), ()
    except NotFound:  # too new for metering to have heard of it, so never used
        return metering.CredentialUse(), ()
    except Unavailable:
        return metering.CredentialUse(), (metering_away("last_used_at"),)
