"""Every refusal that the gate knows, through every proxy: the status, the body and the headers that callers act on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import uvicorn

from deploy.servers.program import free_port
from services.gate import answers
from services.gate.answers import Answer
from services.gate.domain import Pass, Reason
from shared.commands.quota import Short
from tests.support.proxies import PROXIES, running_proxy

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

PATH = "/nmt/v1/translation"
SAID_TO_CALLERS = ("content-type", "cache-control", "retry-after", "www-authenticate")


def every_answer() -> list[Answer]:
    """All of services/gate/answers.py, with limits that are used up, for now or for two hours."""
    fixed = [value for value in vars(answers).values() if isinstance(value, Answer)]
    by_reason = [*answers.refusals(naver_unselected_answer=False).values()]
    as_naver = answers.refusals(naver_unselected_answer=True)[Reason.SERVICE_NOT_SELECTED]
    reset = "2026-03-02T00:00:00+09:00"
    limited = answers.refusal("limit", 429, "410", "Throttle Limited", 'It\'s "over" $1 {x}.', limit=10, used=10, resets_at=reset)
    return [*fixed, *by_reason, as_naver, limited, quota_short(recallable=False), quota_short(recallable=True)]


def quota_short(*, recallable: bool) -> Answer:
    resets_at = datetime(2026, 3, 2, tzinfo=timezone(timedelta(hours=9)))
    short = Short("monthly", 10, 8, resets_at, 2, recallable, "account")
    return answers.quota_short(short, 3, datetime(2026, 3, 1, 13, tzinfo=UTC))


ANSWERS = every_answer()


async def gate_that_refuses(scope: Scope, receive: object, send: Send) -> None:
    """The gate's own answers, the one whose number the caller's query string has."""
    if scope["type"] != "http":
        return
    uri = dict(scope["headers"])[b"x-forwarded-uri"].decode()
    answer = ANSWERS[int(parse_qs(urlsplit(uri).query)["answer"][0])]
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})


async def gate_that_passes(scope: Scope, receive: object, send: Send) -> None:
    """Every call passes, of a limit of which 7 units are left."""
    decision = Pass("k" * 20, "acme", "papago-nmt", "live", "s", 1)
    headers = [tuple(line.split(b": ")) for line in answers.passed(decision, 7).split(b"\r\n")[1:-1]]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def api_that_tells(scope: Scope, receive: object, send: Send) -> None:
    """The API behind: answers with what it was told of the call."""
    told = {name.decode(): value.decode() for name, value in scope["headers"] if name.startswith(b"x-tollbook-")}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


@asynccontextmanager
async def serving(port: int, app: Callable[..., Awaitable[None]] = gate_that_refuses) -> AsyncIterator[None]:
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    async with asyncio.timeout(20):
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 20)


@pytest.mark.parametrize("proxy", PROXIES)
async def test_callers_get_each_of_the_gates_refusals_as_it_is(proxy: str, tmp_path: Path) -> None:
    assert {answer.status for answer in ANSWERS} == {400, 401, 404, 413, 429, 500, 503}
    gate_port = free_port()
    with running_proxy(proxy, tmp_path, gate_port, api_port=free_port()) as front:
        async with serving(gate_port):
            for http2 in (False, True):
                async with front.client(http2=http2) as caller:
                    for number, answer in enumerate(ANSWERS):
                        got = await caller.post(f"{PATH}?answer={number}", content=b"x" * 10_000)
                        assert (got.status_code, got.content) == (answer.status, answer.body), answer.outcome
                        for name, value in answer.headers:
                            if name.decode() in SAID_TO_CALLERS:
                                assert got.headers.get_list(name.decode()) == [value.decode()], answer.outcome
        async with front.client() as caller:
            got = await caller.post(f"{PATH}?answer=0", content=b"x")
            assert got.status_code == (500 if proxy == "traefik" else 503), "without the gate no call passes"
            if proxy != "traefik":
                assert got.json()["error"]["errorCode"] == "500"


@pytest.mark.parametrize("proxy", PROXIES)
async def test_the_api_is_told_what_is_left_of_the_limit(proxy: str, tmp_path: Path) -> None:
    gate_port, api_port = free_port(), free_port()
    with running_proxy(proxy, tmp_path, gate_port, api_port) as front:
        async with serving(gate_port, gate_that_passes), serving(api_port, api_that_tells), front.client() as caller:
            got = await caller.post(PATH, content=b"x", headers={"X-Tollbook-Remaining": "1000"})
            assert (got.status_code, got.json()["x-tollbook-remaining"]) == (200, "7")
            assert got.json()["x-tollbook-client-id"] == "k" * 20
