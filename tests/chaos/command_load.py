"""Customers at the REST API: every command has a key, and is repeated with it until it is answered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import httpx

from tests.chaos.ledger import Ledger
from tests.chaos.plan import Pace

ANSWER_WITHIN_S: Final = 180.0
REQUEST_S: Final = 10.0
RETRY_S: Final = 0.3
ENVIRONMENTS: Final = {"android": ["com.example.chaos"]}


@dataclass
class App:
    """An application as its customer knows it. `name`: None when an edit was given up whose fate nobody knows."""

    client_id: str
    secret: str
    name: str | None
    deleted: bool = False


@dataclass(frozen=True)
class Sent:
    """One command. `outcome`: accepted, refused, or abandoned (sent once, the answer not waited for)."""

    key: str
    kind: str
    outcome: str


@dataclass
class Customers:
    """`run` gives `commands` commands; afterwards `sent` and `apps` tell what the log has to say."""

    url: str
    token: str
    seed: int
    ledger: Ledger
    pace: Pace
    sent: list[Sent] = field(default_factory=list)
    apps: list[App] = field(default_factory=list)

    async def run(self, commands: int, customers: int = 4) -> None:
        parts = [commands // customers + (number < commands % customers) for number in range(customers)]
        await asyncio.gather(*(self._customer(number, part) for number, part in enumerate(parts)))

    async def register(self, number: int) -> App:
        """One application outside of the play: those that are called."""
        async with self._client() as http:
            body = {"name": f"Load {number}", "services": ["csr", "papago-nmt"], "environments": ENVIRONMENTS}
            answer = await self._until_answered(http, "POST", "/v1/apps", f"load-{self.seed}-{number}", body)
        self.sent.append(Sent(f"load-{self.seed}-{number}", "register", "accepted"))
        return App(answer.json()["client_id"], answer.json()["client_secret"], f"Load {number}")

    async def _customer(self, number: int, commands: int) -> None:
        one = _Customer(self, number)
        async with self._client() as http:
            for step in range(commands):
                await self.pace.turn(step / commands)
                await one.next(http, f"chaos-{self.seed}-{number}-{step}")
        self.apps += one.apps

    def _client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=REQUEST_S, trust_env=False)

    async def _until_answered(self, http: httpx.AsyncClient, method: str, path: str, key: str, body: Any) -> httpx.Response:
        return await until_answered(http, method, path, key, body, self.ledger)


async def until_answered(http: httpx.AsyncClient, method: str, path: str, key: str, body: Any, ledger: Ledger) -> httpx.Response:
    """The first answer that is not "try again"."""
    deadline = asyncio.get_running_loop().time() + ANSWER_WITHIN_S
    while True:
        try:
            answer = await http.request(method, path, json=body, headers={"Idempotency-Key": key})
            if answer.status_code < 500:
                return answer
            if answer.status_code != 503:
                ledger.problem(f"{method} {path} was answered {answer.status_code}: {answer.text[:300]}")
        except httpx.TransportError:
            pass
        ledger.figures["commands tried again"] += 1
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{method} {path} was not answered within {ANSWER_WITHIN_S:.0f} s")
        await asyncio.sleep(RETRY_S)


class _Customer:
    """One customer's applications and wishes; what it wants comes from the seed."""

    def __init__(self, all_: Customers, number: int) -> None:
        self.apps: list[App] = []
        self._all = all_
        self._random = Random(f"{all_.seed} customer {number}")

    async def next(self, http: httpx.AsyncClient, key: str) -> None:
        living = [app for app in self.apps if not app.deleted]
        if len(living) < 3:
            await self._register(http, key)
            return
        app = self._random.choice(living)
        match self._random.choices(
            ("register", "edit", "reissue", "delete", "edit a deleted one", "reuse a key", "abandon"), (20, 30, 20, 10, 6, 6, 8)
        )[0]:
            case "register":
                await self._register(http, key)
            case "edit":
                await self._edit(http, key, app)
            case "reissue":
                answer = await self._accepted(http, key, "reissue", "POST", f"/v1/apps/{app.client_id}/secret/reissue", {})
                app.secret = answer["client_secret"]
            case "delete":
                await self._accepted(http, key, "delete", "DELETE", f"/v1/apps/{app.client_id}", None)
                app.deleted = True
            case "edit a deleted one":
                gone = next((app.client_id for app in self.apps if app.deleted), "a" * 20)
                await self._refused(http, key, 404, "PATCH", f"/v1/apps/{gone}", {"name": "Gone"})
            case "reuse a key":
                await self._reuse(http, key)
            case _:
                await self._abandon(http, key, app)

    async def _register(self, http: httpx.AsyncClient, key: str) -> None:
        name = key[-18:]
        body = {"name": name, "services": ["csr"], "environments": ENVIRONMENTS}
        answer = await self._accepted(http, key, "register", "POST", "/v1/apps", body)
        self.apps.append(App(answer["client_id"], answer["client_secret"], name))

    async def _edit(self, http: httpx.AsyncClient, key: str, app: App) -> None:
        await self._accepted(http, key, "edit", "PATCH", f"/v1/apps/{app.client_id}", {"name": f"E{key[-18:]}"})
        app.name = f"E{key[-18:]}" if app.name is not None else None

    async def _accepted(self, http: httpx.AsyncClient, key: str, kind: str, method: str, path: str, body: Any) -> dict[str, Any]:
        answer = await self._all._until_answered(http, method, path, key, body)
        if answer.status_code not in (200, 201, 204):
            self._all.ledger.problem(f"{method} {path} was answered {answer.status_code}: {answer.text[:300]}")
        self._all.sent.append(Sent(key, kind, "accepted"))
        if self._random.random() < 0.2:
            again = await self._all._until_answered(http, method, path, key, body)
            self._all.ledger.figures["commands repeated"] += 1
            if (again.status_code, again.content) != (answer.status_code, answer.content):
                self._all.ledger.problem(f"{method} {path} repeated was answered {again.status_code}, not as the first time")
        return answer.json() if answer.content else {}

    async def _refused(self, http: httpx.AsyncClient, key: str, status: int, method: str, path: str, body: Any) -> None:
        answer = await self._all._until_answered(http, method, path, key, body)
        if answer.status_code != status:
            self._all.ledger.problem(f"{method} {path} was answered {answer.status_code}, not {status}: {answer.text[:300]}")
        self._all.sent.append(Sent(key, "none", "refused"))

    async def _reuse(self, http: httpx.AsyncClient, key: str) -> None:
        """Another body under a key that was accepted; `key` itself is not used."""
        known = [sent.key for sent in self._all.sent if sent.outcome == "accepted"]
        other = self._random.choice(sorted(known))
        body = {"name": f"Reused {self._random.randint(0, 99)}", "services": ["csr"], "environments": ENVIRONMENTS}
        answer = await self._all._until_answered(http, "POST", "/v1/apps", other, body)
        if answer.status_code != 422:
            self._all.ledger.problem(f"a reused key was answered {answer.status_code}, not 422: {answer.text[:300]}")
        self._all.sent.append(Sent(key, "none", "refused"))

    async def _abandon(self, http: httpx.AsyncClient, key: str, app: App) -> None:
        """Sent once, and hung up on after a moment."""
        app.name = None
        self._all.sent.append(Sent(key, "edit", "abandoned"))
        try:
            await http.patch(
                f"/v1/apps/{app.client_id}",
                json={"name": f"A{key[-18:]}"},
                headers={"Idempotency-Key": key},
                timeout=self._random.uniform(0.001, 0.05),
            )
        except httpx.TransportError:
            return
