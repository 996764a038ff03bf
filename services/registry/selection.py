"""What an application selects: services of the catalog, and the environments that it runs in. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from shared import environments
from shared.catalog import Catalog
from shared.commands.registry import EnvironmentsEdited, EnvironmentsEntered, EnvironmentsView, SelectedServiceView
from shared.errors import FieldProblem, InvalidInput
from shared.events.registry import Environments, SelectedService


def select_services(chosen: Sequence[str], before: Sequence[SelectedService], catalog: Catalog) -> tuple[SelectedService, ...]:
    """The services chosen: first those that stay, as they are, then the new ones. InvalidInput names unknown ones."""
    staying = {selected.service: selected for selected in before if selected.service in chosen}
    unknown = [
        FieldProblem(f"services[{index}]", f"The catalog has no service {service}.", f"Choose from: {', '.join(catalog)}.")
        for index, service in enumerate(chosen)
        if service not in catalog and service not in staying
    ]
    if unknown:
        raise InvalidInput("A service is not in the catalog.", unknown)
    added = (
        SelectedService(service, "test" if catalog[service].review_required else "live")
        for service in chosen
        if service not in staying
    )
    return (*staying.values(), *added)


def reduce_environments(entered: EnvironmentsEntered | EnvironmentsEdited, before: Environments) -> Environments:
    """The environments in their reduced form; a kind that is None stays as it was before."""
    return Environments(
        before.web if entered.web is None else environments.reduce_all(entered.web, environments.reduce_web_url),
        before.android if entered.android is None else environments.reduce_all(entered.android, environments.reduce_android),
        before.ios if entered.ios is None else environments.reduce_all(entered.ios, environments.reduce_ios),
    )


def check_mobile_environment(services: Sequence[SelectedService], reduced: Environments, catalog: Catalog) -> None:
    if reduced.android or reduced.ios:
        return
    entries = (catalog.get(selected.service) for selected in services)
    needing = [entry.name.en for entry in entries if entry is not None and entry.requires_mobile_environment]
    if needing:
        problem = FieldProblem(
            "environments",
            f"{', '.join(needing)} requires a mobile environment, and there is none.",
            "Enter an Android package name or an iOS bundle ID.",
        )
        raise InvalidInput("A selected service requires a mobile environment.", [problem])


def services_view(services: Sequence[SelectedService]) -> tuple[SelectedServiceView, ...]:
    return tuple(
        SelectedServiceView(service=selected.service, tier=selected.tier, suspended=bool(selected.suspended))
        for selected in services
    )


def environments_view(reduced: Environments) -> EnvironmentsView:
    return EnvironmentsView(web=reduced.web, android=reduced.android, ios=reduced.ios)
