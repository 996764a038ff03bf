"""/v1/notification-templates: what messages look like."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict

from services.console.http.request import Behind, Member, NothingAsked
from shared.commands import contacts, notifications
from shared.events.alerts import Locale, Method

router = APIRouter(prefix="/v1/notification-templates", tags=["notifications"])

KindInPath = Annotated[notifications.TemplateKind, Path(description="What the message tells of")]


class PreviewQuery(BaseModel):
    """By which method, and in which language."""

    model_config = ConfigDict(extra="forbid")

    method: Method = "email"
    locale: Locale = contacts.LOCALE_DEFAULT


@router.get("", operation_id="listNotificationTemplates")
async def list_templates(principal: Member, behind: Behind, _: NothingAsked) -> notifications.Templates:
    """The kinds of messages that there are, by which methods, and in which languages."""
    query = notifications.ListTemplates(account=principal.account)
    return await behind.ask(contacts.SERVICE, query, notifications.Templates)


@router.get("/{kind}/preview", operation_id="previewNotificationTemplate")
async def preview_template(
    principal: Member, behind: Behind, kind: KindInPath, asked: Annotated[PreviewQuery, Query()]
) -> notifications.TemplatePreview:
    """What a message of that kind looks like, with made-up content."""
    query = notifications.PreviewTemplate(account=principal.account, kind=kind, method=asked.method, locale=asked.locale)
    return await behind.ask(contacts.SERVICE, query, notifications.TemplatePreview)
