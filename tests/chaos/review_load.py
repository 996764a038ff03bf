"""Applicants and a reviewer while everything dies: service apps are applied for, decided, suspended; and what must hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import httpx

from shared.events.registry import ServiceActivated, ServiceResumed, ServiceSuspended
from shared.events.review import ApplicationSubmitted, ReviewDecided, ServiceAppSuspended, SuspensionLifted
from tests.chaos.checks import LOGS, TOLD_MAX, Database, read_log
from tests.chaos.command_load import until_answered
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Pace
from tests.support.granted import APPROVED, CHECKLIST, FORM, PATH, rejected

SERVICE: Final = "clova-studio"
CALLED_WITHIN_S: Final = 10.0
REQUEST_S: Final = 10.0
CHANGES: Final = {"comments": [{"field": "form.purpose", "comment": "For whom is it?"}]}
REASON: Final = {"reason": "Harmful output was reported."}


@dataclass
class Applied:
    """A test app, and what came of it. `state` None: nothing was decided."""

    client_id: str
    review_id: str = ""
    state: str | None = None
    decisions: int = 0
    suspensions: int = 0
    lifted: int = 0


@dataclass
class Reviewing:
    """`run` plays as many stories as there are test apps; afterwards `check` says what does not fit what was answered."""

    ready: Mapping[str, Any]
    seed: int
    ledger: Ledger
    pace: Pace
    apps: list[Applied] = field(default_factory=list)

    async def prepare(self, stories: int) -> None:
        """Before the faults: so many test apps, each of which has called the service."""
        async with self._client("owner") as http, httpx.AsyncClient(base_url=self.ready["proxy_url"], trust_env=False) as proxy:
            for number in range(stories):
                body = {"name": f"Story {number}", "services": [SERVICE]}
                app = (await http.post("/v1/apps", json=body)).raise_for_status().json()
                await _called(proxy, app)
                self.apps.append(Applied(app["client_id"]))
                self.ledger.counted(app["client_id"], SERVICE)

    async def run(self) -> None:
        """One story after the other."""
        async with self._client("owner") as applicant, self._client("reviewer") as reviewer:
            for number, app in enumerate(self.apps):
                await self.pace.turn(number / len(self.apps))
                await _Story(self, app, number, applicant, reviewer).tell()

    async def check(self, database: Database) -> list[str]:
        """The log has each decision once, the registry followed each once, and the applications show it."""
        review = [LOGS["review"].decode(recorded) for recorded in await read_log(database, "review")]
        registry = [LOGS["registry"].decode(recorded) for recorded in await read_log(database, "registry")]
        ours = {app.client_id for app in self.apps}
        counted = Counter((type(event), event.client_id) for event in [*review, *registry]
                          if getattr(event, "client_id", "") in ours)  # fmt: skip
        found = []
        async with self._client("owner") as http:
            for app in self.apps:
                approved = app.state in ("approved", "suspended")
                expected = {
                    ReviewDecided: app.decisions,
                    ServiceAppSuspended: app.suspensions,
                    SuspensionLifted: app.lifted,
                    ServiceActivated: int(approved),
                    ServiceSuspended: app.suspensions,
                    ServiceResumed: app.lifted,
                }
                found += [f"{kind.__name__} of {app.client_id} is there {counted[kind, app.client_id]} times, not {times}"
                          for kind, times in expected.items() if counted[kind, app.client_id] != times]  # fmt: skip
                shown = (await http.get(f"/v1/apps/{app.client_id}")).raise_for_status().json()["services"][0]
                seen = (shown["tier"], shown["suspended"])
                if seen != ("live" if approved else "test", app.state == "suspended"):
                    found.append(f"{app.client_id} is {app.state}, but the registry shows {seen}")
        self.ledger.figures["service apps submitted"] = sum(isinstance(event, ApplicationSubmitted) for event in review)
        return found[:TOLD_MAX]

    def _client(self, role: str) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {self.ready[f'{role}_token']}"}
        return httpx.AsyncClient(base_url=self.ready["console_url"], headers=headers, timeout=REQUEST_S, trust_env=False)


class _Story:
    """One application for a service app, from its draft to its end. What happens comes from the seed, except who wins a race."""

    def __init__(
        self, all_: Reviewing, app: Applied, number: int, applicant: httpx.AsyncClient, reviewer: httpx.AsyncClient
    ) -> None:
        self._all = all_
        self._app = app
        self._name = f"story-{all_.seed}-{number}"
        self._random = Random(self._name)
        self._applicant = applicant
        self._reviewer = reviewer
        self._steps = 0

    async def tell(self) -> None:
        app = self._app
        body = {"client_id": app.client_id, "service": SERVICE, "model": "HCX-003", "task": "chat", "form": FORM}
        app.review_id = (await self._done(self._applicant, "POST", "/v1/service-apps", body))["id"]
        mine, theirs = f"/v1/service-apps/{app.review_id}", f"/v1/reviews/{app.review_id}"
        await self._done(self._applicant, "PATCH", mine, {"checklist": CHECKLIST})
        before = self._random.choice(("nothing", "withdraw", "reject", "change"))
        await self._done(self._applicant, "POST", f"{mine}/submission", None)
        if before == "withdraw":
            await self._done(self._applicant, "DELETE", f"{mine}/submission", None)
        elif before != "nothing":
            await self._done(self._reviewer, "PUT", f"{theirs}/claim", None)
            if before == "reject":
                await self._done(self._reviewer, "POST", f"{theirs}/decision", rejected("monitoring"))
                app.decisions += 1
            else:
                await self._done(self._reviewer, "POST", f"{theirs}/changes", CHANGES)
        if before != "nothing":
            await self._done(self._applicant, "PATCH", mine, {"form": {"purpose": "Another purpose, for all of our employees"}})
            await self._done(self._applicant, "POST", f"{mine}/submission", None)
        await self._done(self._reviewer, "PUT", f"{theirs}/claim", None)
        await self._race(f"{theirs}/decision")
        await self._suspend(f"{theirs}/suspension", self._random.randint(0, 2))

    async def _race(self, path: str) -> None:
        """Approved and rejected at the same time: one of them holds."""
        bodies = (APPROVED, rejected("safe_case"))
        answers = await asyncio.gather(*(self._ask(self._reviewer, "POST", path, body) for body in bodies))
        statuses = sorted(answer.status_code for answer in answers)
        if statuses != [200, 409]:
            self._all.ledger.problem(f"of two decisions at once the answers were {statuses}")
            return
        self._app.decisions += 1
        self._app.state = next(answer.json()["state"] for answer in answers if answer.status_code == 200)

    async def _suspend(self, path: str, steps: int) -> None:
        """Nothing, suspended, or suspended and lifted again."""
        app = self._app
        if app.state != "approved" or steps == 0:
            return
        app.state = (await self._done(self._reviewer, "PUT", path, REASON))["state"]
        app.suspensions += 1
        if steps == 2:
            app.state = (await self._done(self._reviewer, "DELETE", path, None))["state"]
            app.lifted += 1

    async def _done(self, http: httpx.AsyncClient, method: str, path: str, body: Any) -> dict[str, Any]:
        answer = await self._ask(http, method, path, body)
        if answer.status_code not in (200, 201):
            raise AssertionError(f"{self._name}: {method} {path} was answered {answer.status_code}: {answer.text[:500]}")
        return dict(answer.json())

    async def _ask(self, http: httpx.AsyncClient, method: str, path: str, body: Any) -> httpx.Response:
        """Repeated under its key until it is answered; sometimes once more, which has to give the same answer."""
        self._steps += 1
        key = f"{self._name}-{self._steps}"
        answer = await until_answered(http, method, path, key, body, self._all.ledger)
        if answer.is_success and self._random.random() < 0.2:
            again = await until_answered(http, method, path, key, body, self._all.ledger)
            self._all.ledger.figures["commands repeated"] += 1
            if (again.status_code, _lasting(again)) != (answer.status_code, _lasting(answer)):
                self._all.ledger.problem(f"{method} {path} repeated was answered {again.status_code}, not as the first time")
        return answer


def _lasting(answer: httpx.Response) -> dict[str, Any]:
    """An answer without `age_s`, which is of the moment: the second may have turned between two answers."""
    return {name: value for name, value in answer.json().items() if name != "age_s"}


async def _called(proxy: httpx.AsyncClient, app: Mapping[str, str]) -> None:
    """One call that passes: the gate has heard of the application a moment after the registry's answer."""
    headers = {"X-NCP-APIGW-API-KEY-ID": app["client_id"], "X-NCP-APIGW-API-KEY": app["client_secret"]}
    async with asyncio.timeout(CALLED_WITHIN_S):
        while (await proxy.post(PATH, content=b"Hello", headers=headers)).status_code != 200:  # noqa: ASYNC110 - a proxy is asked
            await asyncio.sleep(0.05)


async def all_reviewed(database: Database) -> str:
    """Which follower of review's log, or review itself, has not come to the end."""
    for follower, service in (("registry", "review"), ("alerts", "review"), ("review", "registry")):
        head = await database.fetchval(f"SELECT position FROM {service}.log_head")
        read = await database.fetchval(f"SELECT max(sequence) FROM {follower}.checkpoint WHERE stream = $1", service.upper())
        if (read or 0) != head:
            return f"{service.upper()}: log {head}, {follower} {read}"
    return ""
