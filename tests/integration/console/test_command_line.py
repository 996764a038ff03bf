"""`python -m services.console` as a process of its own: run it, tokens, accounts, --check, --migrate."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import httpx
import pytest

from deploy.servers.program import free_port
from deploy.servers.roles import ServiceDsn
from tests.support.consoles import client, make_registry, running
from tests.support.servers import PostgresDatabase

ROOT = Path(__file__).parents[3]


async def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line in that environment."""
    process = await start(*arguments, **environment)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def start(*arguments: str, **environment: str) -> asyncio.subprocess.Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOLLBOOK_")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.console", *arguments),
        cwd=ROOT,
        env=inherited | {f"TOLLBOOK_{name}": value for name, value in environment.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
async def dsn(postgres: PostgresDatabase) -> ServiceDsn:
    return await postgres.service_schema("console")


async def test_tokens_are_made_listed_and_revoked_without_a_running_console(dsn: ServiceDsn) -> None:
    made = ("token", "--account", "demo", "--role", "owner", "--role", "reviewer", "--name", "first", "--expires-days", "3")
    code, out, err = await run(*made, POSTGRES_DSN=dsn.dsn)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"tbk_[a-z0-9]{12}_[A-Za-z0-9]{40}\n", out), "only the token"
    token_id = out.split("_")[1]

    _, listed, _ = await run("token", "--list", POSTGRES_DSN=dsn.dsn)
    assert listed.split("\t")[:4] == [token_id, "demo", "owner,reviewer", "first"]
    assert out.strip() not in listed
    assert (await run("token", "--list", "--account", "other", POSTGRES_DSN=dsn.dsn))[1] == ""

    assert (await run("token", "--revoke", token_id, "--account", "other", POSTGRES_DSN=dsn.dsn))[0] == 1
    assert (await run("token", "--revoke", token_id, POSTGRES_DSN=dsn.dsn))[:2] == (0, f"{token_id} is revoked\n")
    assert (await run("token", "--list", POSTGRES_DSN=dsn.dsn))[1].endswith("revoked\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("token", "--account", "demo"), "--role"),
        (("token", "--account", "Demo!", "--role", "owner", "--name", "x"), "account:"),
        (("token", "--account", "demo", "--role", "owner", "--name", "Kim Minsu"), "label:"),
        (("token", "--account", "demo", "--role", "king", "--name", "x"), "invalid choice"),
        (("token", "--account", "demo", "--role", "owner", "--name", "x", "--expires-days", "0"), "--expires-days"),
        (("account", "--account", "demo", "--zone", "Mars/Olympus"), "zone:"),
    ],
)
async def test_what_cannot_be_meant_is_said(dsn: ServiceDsn, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = await run(*arguments, POSTGRES_DSN=dsn.dsn)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


async def test_a_database_that_is_away_is_one_line() -> None:
    dsn = f"postgresql://console:open-sesame@127.0.0.1:{free_port()}/tollbook"
    code, out, err = await run("token", "--list", POSTGRES_DSN=dsn)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "open-sesame" not in err


async def test_an_account_is_opened_once_the_registry_is_there(nats_url: str, postgres: PostgresDatabase) -> None:
    opening = asyncio.create_task(run("account", "--account", "demo", "--zone", "Asia/Seoul", NATS_URL=nats_url))
    await asyncio.sleep(1)
    assert not opening.done(), "it waits"
    async with running(make_registry(nats_url, await postgres.service_schema("registry"))):
        assert await opening == (0, "demo is open, zone Asia/Seoul\n", "")
        again = await run("account", "--account", "demo", NATS_URL=nats_url)
    assert again == (0, "demo is open, zone Asia/Seoul\n", "")


async def test_settings_are_checked_and_secrets_hidden(dsn: ServiceDsn, nats_url: str) -> None:
    code, out, _ = await run("--check", POSTGRES_DSN=dsn.dsn, NATS_URL=nats_url, NATS_CALLOUT_SEED="SAbad")
    assert (code, out) == (2, "")
    code, out, _ = await run("--check", POSTGRES_DSN=dsn.dsn, NATS_URL=nats_url)
    assert code == 0
    assert dsn.dsn not in out
    code, _, err = await run("--check", POSTGRES_DSN=dsn.dsn, TRUSTED_PROXIES="everybody")
    assert (code, "TRUSTED_PROXIES" in err) == (2, True)


async def test_the_process_serves_and_its_output_has_no_token(dsn: ServiceDsn, nats_url: str) -> None:
    port = str(free_port())
    token = (await run("token", "--account", "demo", "--role", "owner", "--name", "x", POSTGRES_DSN=dsn.dsn))[1].strip()
    process = await start(POSTGRES_DSN=dsn.dsn, NATS_URL=nats_url, HTTP_PORT=port, LOG_LEVEL="DEBUG")
    try:
        async with client(f"http://127.0.0.1:{port}", token) as api, asyncio.timeout(30):
            while (answer := await asked(api)) is None:  # noqa: ASYNC110 - a server is asked
                await asyncio.sleep(0.1)
        assert answer.status_code == 503, "no registry is running"
    finally:
        process.terminate()
        out, err = await asyncio.wait_for(process.communicate(), 20)
    assert token.encode() not in out + err
    assert process.returncode in (0, -signal.SIGTERM), err.decode()


async def asked(api: httpx.AsyncClient) -> httpx.Response | None:
    try:
        return await api.get("/v1/apps")
    except httpx.TransportError:  # it does not listen yet
        return None
