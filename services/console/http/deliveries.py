"""/v1/deliveries and /v1/apps/{client_id}/deliveries: what was to be sent, and what became of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.console.http.request import Behind, ClientIdInPath, Member, NeverNull, Services
from services.console.tokens import Principal
from shared.commands import contacts, metering, notifications, registry

router = APIRouter(prefix="/v1", tags=["deliveries"])


class DeliveriesQuery(BaseModel):
    """Which deliveries: those with all that is given, at most `limit`, from where `cursor` points."""

    model_config = ConfigDict(extra="forbid")

    state: Annotated[notifications.State | None, NeverNull()] = None
    kind: Annotated[notifications.Kind | None, NeverNull(), Field(description="What it tells of")] = None
    limit: Annotated[int, Field(ge=1, le=notifications.PAGE_MAX, description="How many at most")] = notifications.PAGE_DEFAULT
    cursor: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")] | None,
        NeverNull(),
        Field(description="`next_cursor` of the page before"),
    ] = None


class CountsQuery(BaseModel):
    """Of which application, of which contact; left out: of all."""

    model_config = ConfigDict(extra="forbid")

    client_id: Annotated[metering.ClientId | None, NeverNull()] = None
    contact_id: Annotated[contacts.ContactId | None, NeverNull()] = None


class Delivery(notifications.DeliveryView):
    """One message to one contact by one method, or its part of one that tells several (those have the same `message_id`).

    `about` is what it tells. `attempts` so far; `next_attempt_at` while it waits; `answer` is what the provider said last.
    `contact_removed`: the contact is gone, and `contact_name` is null: show it as "removed contact".
    """

    contact_removed: bool


class DeliveryList(BaseModel):
    """One page, the newest first. `next_cursor` leads to the next page; null: this was the last."""

    deliveries: tuple[Delivery, ...]
    next_cursor: str | None


@router.get("/apps/{client_id}/deliveries", operation_id="listAppDeliveries")
async def list_app_deliveries(
    principal: Member, behind: Behind, client_id: ClientIdInPath, asked: Annotated[DeliveriesQuery, Query()]
) -> DeliveryList:
    """What was to be told of the application, the newest first, and what became of it."""
    return await deliveries_page(behind, principal, asked, client_id=client_id)


@router.get("/deliveries", operation_id="listDeliveries")
async def list_deliveries(principal: Member, behind: Behind, asked: Annotated[DeliveriesQuery, Query()]) -> DeliveryList:
    """What was to be told of all of the account's applications and limits, the newest first, and what became of it."""
    return await deliveries_page(behind, principal, asked)


@router.get("/deliveries/counts", operation_id="countDeliveries")
async def count_deliveries(
    principal: Member, behind: Behind, asked: Annotated[CountsQuery, Query()]
) -> notifications.DeliveryCounts:
    """How many wait, were delivered, and failed."""
    query = notifications.CountDeliveries(account=principal.account, client_id=asked.client_id, contact_id=asked.contact_id)
    return await behind.ask(contacts.SERVICE, query, notifications.DeliveryCounts)


async def deliveries_page(
    behind: Services,
    principal: Principal,
    asked: DeliveriesQuery,
    *,
    client_id: str | None = None,
    contact_id: str | None = None,
) -> DeliveryList:
    """A page of the deliveries of that application, of that contact, or of the whole account.

    Raises NotFound when the account has no such application or contact; what one that is gone was told can still be read.
    """
    query = notifications.ListDeliveries(
        account=principal.account,
        client_id=client_id,
        contact_id=contact_id,
        state=asked.state,
        kind=asked.kind,
        limit=asked.limit,
        before=None if asked.cursor is None else int(asked.cursor),
    )
    page = await behind.ask(contacts.SERVICE, query, notifications.Deliveries)
    if not page.deliveries:
        await _own(behind, principal.account, client_id, contact_id)
    deliveries = tuple(Delivery(**one.model_dump(), contact_removed=one.contact_name is None) for one in page.deliveries)
    return DeliveryList(deliveries=deliveries, next_cursor=None if page.next_before is None else str(page.next_before))


async def _own(behind: Services, account: str, client_id: str | None, contact_id: str | None) -> None:
    """Raises NotFound for what the account does not have: alerts finds no deliveries of it, as of what was told nothing yet."""
    if client_id is not None:
        await behind.ask("registry", registry.GetApp(account=account, client_id=client_id), registry.AppView)
    if contact_id is not None:
        await behind.ask(contacts.SERVICE, contacts.GetContact(account=account, contact_id=contact_id), contacts.ContactView)
