"""Service apps on the running stack while services/review is killed: what was answered holds, and the story goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from shared.ids import new_id
from tests.chaos.faults import Processes
from tests.support.calling import BACK_WITHIN_S
from tests.support.granted import APPROVED, CHECKLIST, FORM
from tests.support.stack import Customer, StackProcess

WITHIN_S = 1.0
"""The promise: an approval, and a suspension, take effect within a second."""


class Sides:
    """The applicant and the reviewer, who both try again while review is away."""

    def __init__(self, stack: StackProcess, applicant: httpx.AsyncClient, reviewer: httpx.AsyncClient) -> None:
        self._processes = Processes(stack.home)
        self.applicant = applicant
        self.reviewer = reviewer

    async def done(self, http: httpx.AsyncClient, method: str, path: str, body: Any = None, *, kill: bool = False) -> Any:
        """The answer's body; with `kill`, review dies while it is asked. One key for all tries."""
        headers = {"Idempotency-Key": new_id()}
        asking = asyncio.create_task(http.request(method, path, json=body, headers=headers))
        if kill:
            await asyncio.sleep(0.01)
            await self._processes.kill("review")
        answer = await asking
        async with asyncio.timeout(BACK_WITHIN_S):
            while answer.status_code == 503:
                await asyncio.sleep(0.1)
                answer = await http.request(method, path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()


async def until_tier(owner: Customer, headers: dict[str, str], tier: str | None, within_s: float) -> None:
    """Until a call is live, or in test; None: refused as one of a suspended service app."""
    async with asyncio.timeout(within_s):
        while True:
            answer = await owner.caller.post("/serviceapp/v1/completions", content=b"Hello", headers=headers)
            if answer.status_code == 200 and answer.json()["told"]["x-tollbook-tier"] == tier:
                return
            if answer.status_code == 401 and tier is None:
                assert answer.json()["error"]["errorCode"] == "210", answer.text
                return
            await asyncio.sleep(0.02)


async def test_the_story_goes_on_though_review_is_killed_at_every_turn(stack: StackProcess, owner: Customer) -> None:
    issued = (await owner.http.post("/v1/apps", json={"name": "Survivor", "services": ["clova-studio"]})).json()
    headers = {"X-NCP-APIGW-API-KEY-ID": issued["client_id"], "X-NCP-APIGW-API-KEY": issued["client_secret"]}
    await until_tier(owner, headers, "test", BACK_WITHIN_S)
    async with Customer(stack, stack.ready["reviewer_token"]) as reviewer:
        sides = Sides(stack, owner.http, reviewer.http)
        body = {"client_id": issued["client_id"], "service": "clova-studio", "model": "HCX-003", "task": "chat", "form": FORM}
        drafted = await sides.done(sides.applicant, "POST", "/v1/service-apps", body, kill=True)
        mine, theirs = f"/v1/service-apps/{drafted['id']}", f"/v1/reviews/{drafted['id']}"
        await sides.done(sides.applicant, "PATCH", mine, {"checklist": CHECKLIST})
        await sides.done(sides.applicant, "POST", f"{mine}/submission", kill=True)
        await sides.done(sides.reviewer, "PUT", f"{theirs}/claim")
        decided = await sides.done(sides.reviewer, "POST", f"{theirs}/decision", APPROVED, kill=True)
        assert decided["state"] == "approved"
        await until_tier(owner, headers, "live", BACK_WITHIN_S)
        await sides.done(sides.reviewer, "PUT", f"{theirs}/suspension", {"reason": "Harm."})
        await until_tier(owner, headers, None, WITHIN_S)
        await sides.done(sides.reviewer, "DELETE", f"{theirs}/suspension")
        await until_tier(owner, headers, "live", WITHIN_S)
        listed = (await sides.done(sides.applicant, "GET", f"/v1/service-apps?client_id={issued['client_id']}"))["service_apps"]
        assert [(one["id"], one["state"]) for one in listed] == [(drafted["id"], "approved")]
