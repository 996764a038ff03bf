"""Review as a process of its own on a real NATS and PostgreSQL, those who apply and decide, and a look at what it keeps."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import msgspec
import yaml
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import SecretStr

from deploy.servers.roles import ServiceDsn
from shared.commands.base import Reply
from shared.commands.metering import FirstCall
from shared.commands.requester import ask
from shared.commands.reviews import ClaimReview, DecideReview, ReviewView
from shared.commands.service_apps import ApplicationView, DraftApplication, SubmitApplication
from shared.eventlog.vault import Vault
from shared.events.registry import AppDeleted, AppEdited, AppRegistered, Environments, SecretIssued, SelectedService, Tier
from shared.events.review import CODEC, ReviewEvent
from shared.ids import new_id
from tests.support.service_process import ROOT, RunningService

VAULT_KEY: Final = "d8" * 32
APP: Final = "a" * 20
STUDIO: Final = "clova-studio"
FORM: Final[dict[str, Any]] = {
    "name": "Helper",
    "purpose": "Answers questions about our products.",
    "intended_users": "Customers",
    "expected_daily_volume": 1000,
    "samples": [{"prompt": "What is it?", "output": "A product."}],
    "risky_output_prevention": "A filter looks at each output.",
    "abuse_monitoring": "Somebody looks at a sample each day.",
    "abuse_response": "Whoever abuses it is locked out.",
    "contact": {"name": "Kim", "email": "kim@example.com"},
}
CHECKLIST: Final = dict.fromkeys(("ethics", "tested", "no_harm", "output_filter", "abuse", "told"), True)
CRITERIA: Final = ("code_of_ethics", "safe_case", "risk_response", "monitoring", "accuracy_and_fairness")
MET: Final = {criterion: {"met": True} for criterion in CRITERIA}
NOT_MET: Final = {**MET, "monitoring": {"met": False, "reason": "Nobody looks at night."}}
R = TypeVar("R", bound=Reply)


class ReviewProcess(RunningService):
    """Review, with the catalog, models and form of the embedded stack."""

    service = "review"

    def __init__(self, nats_url: str, dsn: ServiceDsn, folder: Path, name: str = "one", **settings: str) -> None:
        told = {
            "TOLLBOOK_MODELS": str(ROOT / "deploy" / "models.yaml"),
            "TOLLBOOK_REVIEW": str(ROOT / "deploy" / "review.yaml"),
            "TOLLBOOK_VAULT_KEY": VAULT_KEY,
        }
        super().__init__(nats_url, dsn, folder, name, **{**told, **settings})


def review_file(folder: Path, **fields: Any) -> str:
    """The path of a review.yaml that says something else than that of the embedded stack."""
    content = yaml.safe_load((ROOT / "deploy" / "review.yaml").read_text("utf-8")) | fields
    path = folder / f"review-{new_id()}.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    return str(path)


class Calls:
    """Stands in for metering, which is asked whether a call was made."""

    def __init__(self, nc: Client) -> None:
        self.made = {(APP, STUDIO)}
        self.asked = 0
        self.as_of: datetime | None = None
        self._nc = nc

    async def answer(self) -> Calls:
        """Answer from now on."""
        await self._nc.subscribe("metering.queries.GetFirstCall", cb=self._answer)
        return self

    async def _answer(self, message: Msg) -> None:
        self.asked += 1
        query = msgspec.json.decode(message.data)
        called = (query["client_id"], query["service"]) in self.made
        await message.respond(FirstCall(called=called, as_of=self.as_of or datetime.now(UTC)).model_dump_json().encode())


class Asker:
    """Somebody who asks review, each time with a new command id unless one is given."""

    def __init__(self, nc: Client, account: str, actor: str) -> None:
        self.nc = nc
        self.account = account
        self.actor = actor

    async def ask(self, message: type[Any], reply: type[R], **fields: Any) -> R:
        """The reply, or the error that review raised."""
        if "command_id" in message.model_fields:
            fields = {"command_id": new_id(), "actor": self.actor, **fields}
        return await ask(self.nc, "review", message(**{"account": self.account, **fields}), reply, timeout_s=20)


class Applicant(Asker):
    """A member of the account that applies."""

    def __init__(self, nc: Client, account: str = "acme") -> None:
        super().__init__(nc, account, "token:applicant")

    async def draft(self, **fields: Any) -> ApplicationView:
        """An application that could be submitted as it is."""
        filled = {"client_id": APP, "service": STUDIO, "model": "HCX-003", "task": "chat", "form": FORM, "checklist": CHECKLIST}
        return await self.ask(DraftApplication, ApplicationView, **{**filled, **fields})

    async def submitted(self, **fields: Any) -> ApplicationView:
        """One that was submitted."""
        return await self.ask(SubmitApplication, ApplicationView, review_id=(await self.draft(**fields)).id)


class Reviewer(Asker):
    """A reviewer of another account, unless told otherwise."""

    def __init__(self, nc: Client, name: str = "one", account: str = "provider") -> None:
        super().__init__(nc, account, f"token:{name}")

    async def claim(self, review_id: str) -> ReviewView:
        return await self.ask(ClaimReview, ReviewView, review_id=review_id)

    async def decide(self, review_id: str, decision: str = "approved", **fields: Any) -> ReviewView:
        """Claim it and decide."""
        await self.claim(review_id)
        criteria = MET if decision == "approved" else NOT_MET
        return await self.ask(
            DecideReview, ReviewView, **{"review_id": review_id, "decision": decision, "criteria": criteria, **fields}
        )


def registered(
    client_id: str = APP, *, account: str = "acme", services: tuple[str, ...] = (STUDIO,), tier: Tier = "test"
) -> AppRegistered:
    """What the registry says of a new application."""
    return AppRegistered(
        account=account,
        client_id=client_id,
        name="helper",
        services=tuple(SelectedService(service, tier) for service in services),
        environments=Environments(),
        secret=SecretIssued("s1", "00" * 32),
    )


def edited(*services: SelectedService, client_id: str = APP, account: str = "acme") -> AppEdited:
    """What the registry says of an edited one."""
    return AppEdited(account=account, client_id=client_id, name="renamed", services=services, environments=Environments())


def deleted(client_id: str = APP, account: str = "acme") -> AppDeleted:
    """What the registry says of a deleted one."""
    return AppDeleted(account=account, client_id=client_id)


async def rows(dsn: ServiceDsn, query: str, *args: object) -> list[tuple[Any, ...]]:
    """Rows of review's schema."""
    connection = await _connected(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query, *args)]
    finally:
        await connection.close()


async def kept(dsn: ServiceDsn, vault_id: str) -> bytes:
    """What the vault of review keeps under that id. Raises NotFound."""
    connection = await _connected(dsn)
    try:
        return await Vault(SecretStr(VAULT_KEY)).get(connection, vault_id)
    finally:
        await connection.close()


async def logged(dsn: ServiceDsn, type_: str | None = None) -> list[ReviewEvent]:
    """The events of the log, or those of a type."""
    query = "SELECT type, schema, data::text FROM event WHERE $1::text IS NULL OR type = $1 ORDER BY position"
    return [CODEC.decode(*row) for row in await rows(dsn, query, type_)]


async def _connected(dsn: ServiceDsn) -> asyncpg.Connection[asyncpg.Record]:
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn.owner_dsn)
    await connection.execute("SET search_path = review")
    return connection
