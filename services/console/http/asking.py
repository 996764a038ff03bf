"""Asking a service that hears of applications and accounts by the registry's events: a moment after the registry has answered."""

from __future__ import annotations

from typing import Final, TypeVar

from services.console.http.request import Services
from shared.commands import registry
from shared.commands.base import Command, Query, Reply
from shared.errors import NotFound, Unavailable

R = TypeVar("R", bound=Reply)

REGISTRY_TIMEOUT_S: Final = 0.75


async def ask_about(behind: Services, service: str, message: Command | Query, reply: type[R], client_id: str | None) -> R:
    """What `service` replies about that application, or (None) about the account.

    That it has not heard of a new one yet is no reason to deny it: what the registry knows and `service` does not is Unavailable.
    """
    try:
        return await behind.ask(service, message, reply)
    except NotFound:
        if client_id is not None:
            app = registry.GetApp(account=message.account, client_id=client_id)
            await behind.ask("registry", app, registry.AppView, REGISTRY_TIMEOUT_S)
        what = "account" if client_id is None else "application"
        raise Unavailable(f"The service {service} has not heard of this {what} yet. Ask again in a second.") from None
