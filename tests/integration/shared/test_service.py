"""The frame of a service, as a process of its own on a real NATS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from nats.aio.client import Client

from deploy.servers.program import free_port
from shared.commands.base import ERROR_HEADER
from shared.commands.requester import ask
from shared.errors import Conflict, TollbookError, TooManyRequests, Unavailable
from tests.support.echo_service import Ask, Echo, Echoed
from tests.support.servers import NatsProcess, connect_nats

ROOT = Path(__file__).parents[3]


class EchoProcess:
    def __init__(self, nats_url: str, log: Path) -> None:
        self.port = free_port()
        self.log = log
        env = {**os.environ, "TOLLBOOK_NATS_URL": nats_url, "TOLLBOOK_HTTP_PORT": str(self.port)}
        with log.open("wb") as output:
            arguments = [sys.executable, "-m", "tests.support.echo_service"]
            self.process = subprocess.Popen(arguments, cwd=ROOT, env=env, stderr=output, stdout=subprocess.DEVNULL)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    async def until_ready(self, ready: bool = True) -> dict[str, object]:
        for _ in range(300):
            assert self.process.poll() is None, self.log.read_text()
            try:
                answer = await self.get("/readyz")
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if (answer.status_code == 200) is ready:
                return dict(answer.json())
            await asyncio.sleep(0.1)
        raise AssertionError(self.log.read_text())


@pytest.fixture
async def echo(nats_url: str, tmp_path: Path) -> AsyncIterator[EchoProcess]:
    process = EchoProcess(nats_url, tmp_path / "echo.log")
    try:
        await process.until_ready()
        yield process
    finally:
        process.process.kill()
        process.process.wait(10)


def command(text: str, count: int = 1) -> Echo:
    return Echo(command_id="c1", account="acme", actor="test", text=text, count=count)


async def test_it_answers_commands_and_queries(echo: EchoProcess, nc: Client) -> None:
    assert await ask(nc, "echo", command("hey", 3), Echoed) == Echoed(text="heyheyhey")
    assert await ask(nc, "echo", Ask(account="acme", text="안녕"), Echoed) == Echoed(text="안녕")


async def test_a_refusal_is_the_same_exception_on_the_other_side(echo: EchoProcess, nc: Client) -> None:
    with pytest.raises(Conflict, match="said before") as refused:
        await ask(nc, "echo", command("refuse"), Echoed)
    assert [(f.field, f.problem, f.hint) for f in refused.value.fields] == [("text", "said before", "Say something else.")]


async def test_it_is_told_on_the_other_side_when_to_try_again(echo: EchoProcess, nc: Client) -> None:
    with pytest.raises(TooManyRequests, match="too often") as refused:
        await ask(nc, "echo", command("often"), Echoed)
    assert (refused.value.retry_after_s, refused.value.fields) == (7, ())


async def test_a_fault_is_told_without_its_inside(echo: EchoProcess, nc: Client) -> None:
    with pytest.raises(TollbookError) as fault:
        await ask(nc, "echo", command("break"), Echoed)
    assert type(fault.value) is TollbookError
    assert "sesame" not in fault.value.detail


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b'{"command_id":"c","account":"NO","actor":"t","count":9,"more":1}', {"account", "count", "more", "text"}),
        (b"{}", {"command_id", "account", "actor", "text"}),
        (b"[1, 2]", {"(whole)"}),
        (b'{"command_id":"c","account":"a","actor":"t","text":7}', {"text"}),
    ],
)
async def test_bad_commands_get_every_wrong_field_at_once(echo: EchoProcess, nc: Client, body: bytes, fields: set[str]) -> None:
    answer = await nc.request("echo.commands.Echo", body, timeout=5, headers={"content-type": "application/json"})
    assert answer.headers is not None
    assert answer.headers[ERROR_HEADER] == "invalid_input"
    assert {field["field"] for field in json.loads(answer.data)["fields"]} == fields
    assert (await ask(nc, "echo", command("next"), Echoed)).text == "next"


@pytest.mark.parametrize("body", [b"not json", b"\xff\xfe\x00", b'{"text": "half'])
async def test_what_is_not_json_is_said_to_be_that(echo: EchoProcess, nc: Client, body: bytes) -> None:
    answer = await nc.request("echo.commands.Echo", body, timeout=5, headers={"content-type": "application/json"})
    assert answer.headers is not None
    assert answer.headers[ERROR_HEADER] == "malformed_request"


async def test_whoever_does_not_answer_is_named(echo: EchoProcess, nc: Client) -> None:
    with pytest.raises(Unavailable, match="service echo"):
        await ask(nc, "echo", command("slow"), Echoed, timeout_s=0.3)
    with pytest.raises(Unavailable, match="service nobody"):
        await ask(nc, "nobody", command("hey"), Echoed)


async def test_health_metrics_and_asyncapi_are_served(echo: EchoProcess) -> None:
    assert (await echo.get("/healthz")).json() == {"alive": True}
    ready = (await echo.get("/readyz")).json()
    assert ready["ready"]
    assert ready["parts"]["voice"] == {"ready": True, "detail": "", "lag": {"words": 3}}
    assert (await echo.get("/metrics")).status_code == 200
    document = (await echo.get("/asyncapi.json")).json()
    assert document["asyncapi"].startswith("3.")
    assert any("echo.commands.Echo" in channel for channel in document["channels"])
    assert (await echo.get("/nothing")).status_code == 404


async def test_the_end_of_a_background_task_ends_the_process(echo: EchoProcess, nc: Client) -> None:
    await ask(nc, "echo", Ask(account="acme", text="die"), Echoed)
    assert await asyncio.to_thread(echo.process.wait, 20) == 1
    assert "mortal ended" in echo.log.read_text()


async def test_a_service_that_cannot_start_says_why_and_ends(
    nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOLLBOOK_LOG_LEVEL", "ERROR")  # the echo service's sign to fail
    process = EchoProcess(nats_url, tmp_path / "echo.log")
    assert await asyncio.to_thread(process.process.wait, 20) == 1
    assert "echo: cannot start: ConnectionRefusedError: nobody listens there" in process.log.read_text()


async def test_sigterm_ends_it_cleanly(echo: EchoProcess) -> None:
    echo.process.terminate()
    assert await asyncio.to_thread(echo.process.wait, 20) == 0


async def test_it_outlives_its_nats_server(private_nats: NatsProcess, tmp_path: Path) -> None:
    process = EchoProcess(private_nats.url, tmp_path / "echo.log")
    try:
        await process.until_ready()
        await asyncio.to_thread(private_nats.kill)
        parts = await process.until_ready(False)
        assert parts["parts"]["nats"]["detail"] == "not connected to NATS"  # type: ignore[index]
        await asyncio.to_thread(private_nats.start)
        await process.until_ready()
        nc = await connect_nats(private_nats.url)
        assert (await ask(nc, "echo", command("again"), Echoed)).text == "again"
        await nc.close()
    finally:
        process.process.kill()
        process.process.wait(10)


@pytest.mark.parametrize("port", ["", "0", "many", "70000"])
def test_a_wrong_setting_is_named_before_anything_starts(port: str) -> None:
    env = {**os.environ, "TOLLBOOK_HTTP_PORT": port}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.echo_service"], cwd=ROOT, env=env, capture_output=True, timeout=30
    )
    assert done.returncode == 2
    assert b"TOLLBOOK_HTTP_PORT:" in done.stderr
    assert b"Traceback" not in done.stderr


def test_check_prints_the_settings_with_secrets_hidden() -> None:
    env = {**os.environ, "TOLLBOOK_HTTP_PORT": "8000", "TOLLBOOK_NATS_SEED": "SUOPENSESAME"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.echo_service", "--check"], cwd=ROOT, env=env, capture_output=True, timeout=30
    )
    assert done.returncode == 0
    assert b"TOLLBOOK_HTTP_PORT=8000" in done.stdout
    assert b"SESAME" not in done.stdout + done.stderr
