"""/v1/apps/{client_id}/services/{service}/notifications, and /v1/services/{service}/notifications: of the account's own limit."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel

from services.console.http.asking import ask_about
from services.console.http.bodies import AsBody, addressed, example
from services.console.http.limits import ChangesQuery
from services.console.http.request import Behind, ClientIdInPath, CommandId, Member, NothingAsked, ServiceInPath, Services
from services.console.tokens import Principal
from shared.commands import contacts, notifications
from shared.events.alerts import Method

router = APIRouter(prefix="/v1", tags=["notifications"])

OF_APP: Final = "/apps/{client_id}/services/{service}/notifications"
OF_ACCOUNT: Final = "/services/{service}/notifications"
SET: Final = example(
    "At 70, 80, 90 and 100 % of the day, at 50, 90 and 100 % of the month",
    daily=70,
    monthly=90,
    daily_custom=[],
    monthly_custom=[50],
    recipients=[],
    expected_version=0,
)
SET_OF_ACCOUNT: Final = example("At 90 and 100 % of the month", monthly=90, recipients=[], expected_version=0)


class RecipientThen(BaseModel):
    """Who was told from that change on. `removed`: the contact or group is gone since, and `name` is null: show it as "removed
    contact" or "removed group"."""

    contact_id: str | None
    group_id: str | None
    name: str | None
    removed: bool
    methods: tuple[Method, ...]


class RuleChange(BaseModel):
    """One change: who (an id), when, and what the rule and its recipients were from then on."""

    version: int
    changed_at: datetime
    changed_by: str
    daily: int | None
    monthly: int | None
    daily_custom: tuple[int, ...]
    monthly_custom: tuple[int, ...]
    recipients: tuple[RecipientThen, ...]


class RuleChanges(BaseModel):
    """One page, the newest first. `next_cursor` leads to the next page; null: this was the last."""

    changes: tuple[RuleChange, ...]
    next_cursor: str | None


@router.get(OF_APP, operation_id="getNotifications")
async def get_notifications(
    principal: Member, behind: Behind, client_id: ClientIdInPath, service: ServiceInPath, _: NothingAsked
) -> notifications.NotificationsView:
    """At which percentages of the application's limits who is told. `warnings` says what will not work as one may expect."""
    return await _rule(behind, principal, client_id, service)


@router.put(OF_APP, operation_id="setNotifications")
async def set_notifications(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    client_id: ClientIdInPath,
    service: ServiceInPath,
    _: NothingAsked,
    body: Annotated[notifications.SetNotifications, AsBody(), Body(openapi_examples=SET)],
) -> notifications.NotificationsView:
    """Set the rule, whole. `daily` 70 tells at 70, 80, 90 and 100 % of the daily limit, `daily_custom` at other percentages; left
    out: that period is not told. A recipient is a contact or a group, and the methods that it is told by: verified ones.

    A rule without recipients is kept, and answered with a warning. `expected_version` as for limits.
    """
    command = addressed(body, principal, command_id, client_id=client_id, service=service)
    return await ask_about(behind, contacts.SERVICE, command, notifications.NotificationsView, client_id)


@router.get(f"{OF_APP}/history", operation_id="listNotificationChanges")
async def list_notification_changes(
    principal: Member,
    behind: Behind,
    client_id: ClientIdInPath,
    service: ServiceInPath,
    page: Annotated[ChangesQuery, Query()],
) -> RuleChanges:
    """Every change of the rule, the newest first: who, when, and what it was from then on."""
    return await _changes(behind, principal, client_id, service, page)


@router.get(OF_ACCOUNT, operation_id="getAccountNotifications")
async def get_account_notifications(
    principal: Member, behind: Behind, service: ServiceInPath, _: NothingAsked
) -> notifications.NotificationsView:
    """At which percentages of the account's own limit at the service who is told."""
    return await _rule(behind, principal, None, service)


@router.put(OF_ACCOUNT, operation_id="setAccountNotifications")
async def set_account_notifications(
    principal: Member,
    behind: Behind,
    command_id: CommandId,
    service: ServiceInPath,
    _: NothingAsked,
    body: Annotated[notifications.AccountRule, Body(openapi_examples=SET_OF_ACCOUNT)],
) -> notifications.NotificationsView:
    """Set the rule of the account's own limit at the service, as for an application: by the month, as that limit is."""
    command = notifications.SetNotifications(
        command_id=command_id, account=principal.account, actor=principal.actor, service=service, **body.model_dump()
    )
    return await ask_about(behind, contacts.SERVICE, command, notifications.NotificationsView, None)


@router.get(f"{OF_ACCOUNT}/history", operation_id="listAccountNotificationChanges")
async def list_account_notification_changes(
    principal: Member, behind: Behind, service: ServiceInPath, page: Annotated[ChangesQuery, Query()]
) -> RuleChanges:
    """Every change of the rule of the account's own limit, the newest first."""
    return await _changes(behind, principal, None, service, page)


async def _rule(behind: Services, principal: Principal, client_id: str | None, service: str) -> notifications.NotificationsView:
    query = notifications.GetNotifications(account=principal.account, client_id=client_id, service=service)
    return await ask_about(behind, contacts.SERVICE, query, notifications.NotificationsView, client_id)


async def _changes(
    behind: Services, principal: Principal, client_id: str | None, service: str, page: ChangesQuery
) -> RuleChanges:
    query = notifications.ListNotificationChanges(
        account=principal.account,
        client_id=client_id,
        service=service,
        limit=page.limit,
        before=None if page.cursor is None else int(page.cursor),
    )
    found = await ask_about(behind, contacts.SERVICE, query, notifications.NotificationChanges, client_id)
    changes = tuple(
        RuleChange(**change.model_dump(exclude={"recipients"}), recipients=tuple(_then(one) for one in change.recipients))
        for change in found.changes
    )
    return RuleChanges(changes=changes, next_cursor=None if found.next_before is None else str(found.next_before))


def _then(recipient: notifications.RecipientView) -> RecipientThen:
    return RecipientThen(**recipient.model_dump(exclude={"unreachable"}), removed=recipient.name is None)
