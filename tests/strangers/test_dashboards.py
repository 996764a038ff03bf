"""A dashboard with the JavaScript NATS client over WebSocket in Node.js, as docs/how-to/watch-a-dashboard.md shows it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.support.granted import CHECKLIST, FORM, called_test_app
from tests.support.pages import Programs
from tests.support.processes import environment_of
from tests.support.stack import ROOT, Customer, StackProcess

PAGE = "watch-a-dashboard.md"
STATE_WITHIN_S, CHANGE_WITHIN_S = 20.0, 5.0
"""The first includes the start of Node.js; either takes milliseconds on a machine with nothing else to do."""


class Watching:
    """The page's program while it runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.seen: list[tuple[str, str, Any]] = []

    async def until(self, operation: str, key: str, within_s: float, **fields: object) -> Any:
        """Read on until a change of `key` has those fields; its value."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within_s):
            while line := (await self.process.stdout.readline()).decode():
                found, changed, text = line.rstrip("\n").split(" ", 2)
                value = json.loads(text) if text else {}
                self.seen.append((found, changed, value))
                if (found, changed) == (operation, key) and all(value.get(name) == field for name, field in fields.items()):
                    return value
        raise AssertionError(f"the dashboard ended: {self.seen}")


@asynccontextmanager
async def watching(programs: Programs, stack: StackProcess, account: str, token: str, bucket: str) -> AsyncIterator[Watching]:
    told = {"NATS_WEBSOCKET_URL": stack.ready["nats_websocket_url"], "TOKEN": token, "ACCOUNT": account, "BUCKET": bucket}
    process = await asyncio.create_subprocess_exec(
        *programs.command(PAGE, "js"),
        env=programs.environment(told),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Watching(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_dashboard_gets_the_state_then_each_change(programs: Programs, stack: StackProcess, owner: Customer) -> None:
    account, token = stack.ready["account"], stack.ready["owner_token"]
    client_id, secret = await owner.register("Watched in Node.js")
    for _ in range(2):
        assert (await owner.call(client_id, secret)).status_code == 200
    await owner.wait_used(client_id, 2, CHANGE_WITHIN_S)
    usage, app = f"{account}.{client_id}.csr", f"{account}.{client_id}"
    async with (
        watching(programs, stack, account, token, "usage") as usages,
        watching(programs, stack, account, token, "apps") as apps,
    ):
        assert (await usages.until("PUT", usage, STATE_WITHIN_S))["daily"]["used"] == 2
        await apps.until("PUT", app, STATE_WITHIN_S, name="Watched in Node.js")
        assert (await owner.call(client_id, secret)).status_code == 200
        assert (await usages.until("PUT", usage, CHANGE_WITHIN_S))["daily"]["used"] == 3
        await owner.http.patch(f"/v1/apps/{client_id}", json={"name": "Renamed"})
        await apps.until("PUT", app, CHANGE_WITHIN_S, name="Renamed")
        await owner.http.delete(f"/v1/apps/{client_id}")
        await apps.until("DEL", app, CHANGE_WITHIN_S)


async def test_a_dashboard_follows_an_application_for_a_service_app(
    programs: Programs, stack: StackProcess, owner: Customer
) -> None:
    account, token = stack.ready["account"], stack.ready["owner_token"]
    with httpx.Client(base_url=owner.http.base_url, headers=owner.http.headers, timeout=15, trust_env=False) as http:
        client_id = await asyncio.to_thread(called_test_app, stack.ready, http)
    key = f"{account}.{client_id}.clova-studio"
    async with watching(programs, stack, account, token, "reviews") as reviews:
        whole = {"model": "HCX-003", "task": "chat", "form": FORM, "checklist": CHECKLIST}
        body = {"client_id": client_id, "service": "clova-studio", **whole}
        drafted = (await owner.http.post("/v1/service-apps", json=body)).raise_for_status().json()
        seen = await reviews.until("PUT", key, STATE_WITHIN_S, state="draft", review_id=drafted["id"])
        assert FORM["purpose"] not in str(seen)
        await owner.http.post(f"/v1/service-apps/{drafted['id']}/submission")
        seen = await reviews.until("PUT", key, CHANGE_WITHIN_S, state="submitted")
        assert seen["due_at"] is not None


@pytest.fixture(scope="module")
def other(stack: StackProcess) -> tuple[str, str]:
    """Another account and a token of its owner."""

    def run(*arguments: str) -> str:
        command = [str(ROOT / ".venv" / "bin" / "python"), "-m", "services.console", *arguments]
        environment = environment_of(stack, "console")
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    run("account", "--account", "rival", "--zone", "Asia/Seoul")
    return "rival", run("token", "--account", "rival", "--role", "owner", "--name", "watcher")


async def test_a_dashboard_gets_nothing_of_another_account(
    programs: Programs, stack: StackProcess, owner: Customer, other: tuple[str, str]
) -> None:
    account, token = other
    async with Customer(stack, token) as rival, watching(programs, stack, account, token, "apps") as apps:
        version = (await rival.http.get("/v1/terms")).json()["version"]
        assert (await rival.http.put("/v1/terms/acceptance", json={"version": version})).status_code < 300
        await owner.register("Not the rival's")
        mine, _ = await rival.register("The rival's own")
        await apps.until("PUT", f"{account}.{mine}", STATE_WITHIN_S)
        await owner.register("Nor this one")
        await rival.http.delete(f"/v1/apps/{mine}")
        await apps.until("DEL", f"{account}.{mine}", CHANGE_WITHIN_S)
        assert {key for _, key, _ in apps.seen} == {f"{account}.{mine}"}


@pytest.mark.parametrize("bucket", ["usage", "apps", "reviews"])
async def test_a_token_opens_no_other_accounts_keys(
    programs: Programs, stack: StackProcess, other: tuple[str, str], bucket: str
) -> None:
    _, token = other
    async with watching(programs, stack, stack.ready["account"], token, bucket) as asking:
        async with asyncio.timeout(STATE_WITHIN_S):
            printed, complaint = await asking.process.communicate()
        assert (asking.process.returncode, printed) == (1, b"")
        assert b"PermissionViolationError" in complaint, complaint
