"""The stack while parts of it are killed, after all of it was killed, and beside another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.ids import new_id
from tests.chaos.faults import Processes
from tests.support.calling import BACK_WITHIN_S, Calling, until_answering
from tests.support.granted import APPROVED, CHECKLIST, FORM
from tests.support.stack import Customer, StackProcess

WITHIN_S = 1.0
"""The promise: an approval, and a suspension, take effect within a second."""


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackProcess]:
    """For the tests here that kill parts of it."""
    process = StackProcess(tmp_path_factory.mktemp("survival") / "home")
    yield process.start()
    process.stop()


@pytest.mark.timeout(240)
async def test_calls_that_passed_are_counted_whoever_is_killed_meanwhile(own_stack: StackProcess) -> None:
    processes = Processes(own_stack.home)
    async with Customer(own_stack) as owner:
        client_id, secret = await owner.register("Survivor")
        calling = Calling(owner, client_id, secret)
        await calling.until_passing()
        for name in ("metering", "registry", "review", "nats", "postgres", "console"):
            await processes.kill(name)
            await asyncio.sleep(0.5)
            await calling.until_passing()
        answers = await calling.stop()
        assert set(answers) <= {200, 503}, answers
        await until_answering(owner)
        await owner.wait_used(client_id, answers[200], BACK_WITHIN_S)

        calling = Calling(owner, client_id, secret)
        await calling.until_passing()
        await processes.kill("gate")
        await asyncio.sleep(0.5)
        await calling.until_passing()
        more = await calling.stop()
        await asyncio.sleep(1)
        used = await owner.used(client_id)
        passed, unanswered = answers[200] + more[200], sum(n for status, n in more.items() if status != 200)
        assert passed <= used <= passed + unanswered, "only calls that got no answer from the killed gate may be counted besides"


@pytest.mark.timeout(240)
async def test_after_kill_9_of_everything_it_starts_as_it_was_and_beside_another_one(tmp_path: Path) -> None:
    first, second = StackProcess(tmp_path / "first"), StackProcess(tmp_path / "second", ports={})
    await asyncio.to_thread(first.start)
    try:
        async with Customer(first) as owner:
            client_id, secret = await owner.register("Kept")
            for _ in range(5):
                assert (await owner.call(client_id, secret)).status_code == 200
            token, lines = first.ready["owner_token"], first.curl_lines()
        await asyncio.to_thread(first.kill)
        await asyncio.to_thread(second.start)
        await asyncio.to_thread(first.start)
        assert first.ready["owner_token"] == token
        assert first.curl_lines() == lines * 2
        async with Customer(first) as owner, Customer(second) as other:
            assert (await owner.call(client_id, secret)).status_code == 200
            await owner.wait_used(client_id, 6, BACK_WITHIN_S)
            assert (await other.call(client_id, secret)).status_code == 401, "the other stack knows nothing of it"
            assert (await other.call(*(await other.register("Other")))).status_code in (200, 401)
        assert await asyncio.to_thread(second.stop) == 0
        assert not (second.home / "ready.json").exists()
    finally:
        for stack in (first, second):
            if stack.process is not None and stack.process.poll() is None:
                await asyncio.to_thread(stack.stop)


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


@pytest.mark.timeout(240)
async def test_the_story_goes_on_though_review_is_killed_at_every_turn(own_stack: StackProcess) -> None:
    async with Customer(own_stack) as owner, Customer(own_stack, own_stack.ready["reviewer_token"]) as reviewer:
        issued = (await owner.http.post("/v1/apps", json={"name": "Survivor", "services": ["clova-studio"]})).json()
        headers = {"X-NCP-APIGW-API-KEY-ID": issued["client_id"], "X-NCP-APIGW-API-KEY": issued["client_secret"]}
        await until_tier(owner, headers, "test", BACK_WITHIN_S)
        sides = Sides(own_stack, owner.http, reviewer.http)
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
