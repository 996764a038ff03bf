"""/v1/terms, /v1/services, /v1/account: what a customer reads and agrees to before the first application."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from services.console.http.bodies import AsBody, addressed, example
from services.console.http.request import Behind, CommandId, Member, NothingAsked, SignedIn
from shared.commands import registry
from shared.events.console import Role

router = APIRouter(prefix="/v1")


class Account(registry.AccountView):
    """The account, and what the token that asks may do in it."""

    roles: tuple[Role, ...]
    token_id: str


@router.get("/terms", operation_id="getTerms", tags=["terms"])
async def get_terms(principal: SignedIn, behind: Behind, _: NothingAsked) -> registry.Terms:
    """The API terms of service of today, and the version that the account accepted last."""
    return await behind.ask("registry", registry.GetTerms(account=principal.account), registry.Terms)


@router.put("/terms/acceptance", operation_id="acceptTerms", tags=["terms"])
async def accept_terms(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    _: NothingAsked,
    body: Annotated[registry.AcceptTerms, AsBody(), Body(openapi_examples=example("As GET /v1/terms says", version="2026-01"))],
) -> registry.TermsAcceptance:
    """Agree to the terms, once per account and version. Until then no application can be registered."""
    return await behind.ask("registry", addressed(body, principal, command_id), registry.TermsAcceptance)


@router.get("/services", operation_id="listServices", tags=["services"])
async def list_services(principal: SignedIn, behind: Behind, _: NothingAsked) -> registry.Services:
    """The catalog: every service that an application can select."""
    return await behind.ask("registry", registry.ListServices(account=principal.account), registry.Services)


@router.get("/account", operation_id="getAccount", tags=["account"])
async def get_account(principal: SignedIn, behind: Behind, _: NothingAsked) -> Account:
    """The account of the token that asks."""
    view = await behind.ask("registry", registry.GetAccount(account=principal.account), registry.AccountView)
    return Account(**view.model_dump(), roles=tuple(sorted(principal.roles)), token_id=principal.token_id)
