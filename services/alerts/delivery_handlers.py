"""What was sent, and what it looks like, as accounts ask for it. Subjects alerts.queries.<Name>."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args

from services.alerts import delivery_queries
from services.alerts.messages import EmailContent, SmsContent
from services.alerts.rendering import Renderer
from services.alerts.serving import Started
from shared.answering import Answering, snapshot
from shared.commands.base import Command, Query
from shared.commands.contacts import SERVICE
from shared.commands.notifications import (
    CountDeliveries,
    Deliveries,
    DeliveryCounts,
    ListDeliveries,
    ListTemplates,
    PreviewTemplate,
    TemplatePreview,
    Templates,
    TemplateView,
)
from shared.events.alerts import METHODS, Locale


class DeliveryHandlers(Answering[Started]):
    """Everything that is asked about deliveries and templates."""

    service = SERVICE

    def __init__(self, renderer: Renderer) -> None:
        super().__init__()
        self._renderer = renderer

    @property
    def answers(self) -> Mapping[type[Command | Query], Callable[..., Awaitable[Any]]]:
        """By command or query."""
        return {
            ListDeliveries: self.list_deliveries,
            CountDeliveries: self.count_deliveries,
            ListTemplates: self.list_templates,
            PreviewTemplate: self.preview_template,
        }

    async def list_deliveries(self, query: ListDeliveries) -> Deliveries:
        """Answer ListDeliveries. What an application or contact that is gone was told stays."""
        async with snapshot(self.running.pool) as connection:
            return await delivery_queries.deliveries_of(connection, self.running.vault, query)

    async def count_deliveries(self, query: CountDeliveries) -> DeliveryCounts:
        """Answer CountDeliveries."""
        async with snapshot(self.running.pool) as connection:
            return await delivery_queries.counts_of(connection, query.account, query.client_id, query.contact_id)

    async def list_templates(self, query: ListTemplates) -> Templates:  # noqa: ARG002 - the same for every account
        """Answer ListTemplates."""
        locales = get_args(Locale)
        kinds = self._renderer.kinds()
        return Templates(templates=tuple(TemplateView(kind=kind, methods=METHODS, locales=locales) for kind in kinds))

    async def preview_template(self, query: PreviewTemplate) -> TemplatePreview:
        """Answer PreviewTemplate."""
        content = self._renderer.preview(query.kind, query.method, query.locale)
        if isinstance(content, EmailContent):
            return TemplatePreview(subject=content.subject, text=content.text, html=content.html)
        if isinstance(content, SmsContent):
            return TemplatePreview(text=content.text)
        return TemplatePreview(body=content.body.decode())
