"""The shipped configurations of nginx, Caddy and Traefik, in front of the running stack's gate and the sample API."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import httpx
import pytest

from deploy.servers.program import Program, free_port
from tests.support.pages import block
from tests.support.proxies import CERTIFICATE, PROXIES, Front, running_proxy
from tests.support.servers import ServerProcess
from tests.support.stack import ROOT, Customer, StackProcess

ID, SECRET = "X-NCP-APIGW-API-KEY-ID", "X-NCP-APIGW-API-KEY"
SPEECH, TRANSLATION = "/recog/v1/stt?lang=Kor", "/nmt/v1/translation"
WITHIN_S = 3.0
"""Usage shows within a second on a machine with nothing else to do."""
FORGED = {f"X-Tollbook-{name}": "forged" for name in ("Client-Id", "Account", "Service", "Tier", "Remaining", "Refusal")}


class Key(NamedTuple):
    """An application's credentials."""

    client_id: str
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {ID: self.client_id, SECRET: self.secret}


@pytest.fixture(scope="module")
def api_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The sample API on its own: callers who know its port do not pass the gate."""
    port = free_port()
    program = Program("sample", (sys.executable, "-m", "deploy.sample_api", str(port)), folder=ROOT)

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    process = ServerProcess(program, answers, tmp_path_factory.mktemp("api") / "sample.log")
    process.start()
    yield port
    process.stop()


@pytest.fixture(scope="module", params=PROXIES)
def front(
    request: pytest.FixtureRequest, stack: StackProcess, api_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    gate_port = int(stack.ready["gate_url"].rpartition(":")[2])
    with running_proxy(request.param, tmp_path_factory.mktemp(request.param), gate_port, api_port) as running:
        yield running


def register(stack: StackProcess) -> Key:
    """A new application that has selected both services of the shipped configurations."""
    body = {
        "name": "Behind a proxy",
        "services": ["csr", "papago-nmt"],
        "environments": {"web": ["https://www.example.com"], "android": ["com.example.recorder"]},
    }
    signed_in = {"authorization": f"Bearer {stack.ready['owner_token']}"}
    url = f"{stack.ready['console_url']}/v1/apps"
    answer = httpx.post(url, json=body, headers=signed_in, timeout=15, trust_env=False)
    assert answer.status_code == 201, answer.text
    time.sleep(0.5)  # the gate learns of it from the stream, milliseconds after this answer
    return Key(answer.json()["client_id"], answer.json()["client_secret"])


@pytest.fixture(scope="module")
def key(stack: StackProcess) -> Key:
    """An application for the tests that do not look at its usage."""
    return register(stack)


@pytest.fixture
def new_key(stack: StackProcess) -> Key:
    """An application that was not used yet."""
    return register(stack)


async def used(owner: Customer, key: Key, service: str = "papago-nmt") -> int:
    answer = await owner.http.get(f"/v1/apps/{key.client_id}/usage", params={"service": service, "period": "daily"})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["used"])


async def wait_used(owner: Customer, key: Key, expected: int) -> None:
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while (found := await used(owner, key)) != expected:
        assert asyncio.get_running_loop().time() < deadline, f"{found} counted, {expected} passed"
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    assert await used(owner, key) == expected


async def test_calls_pass_on_http_1_and_http_2_and_each_is_counted_once(front: Front, owner: Customer, new_key: Key) -> None:
    for http2 in (False, True):
        async with front.client(http2=http2, headers=new_key.headers) as caller:
            answer = await caller.post(SPEECH, content=b"some audio")
            assert (answer.status_code, answer.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1"), answer.text
            assert answer.json() == {"text": "안녕하세요"}
            many = await asyncio.gather(*(caller.post(TRANSLATION, content=b"text") for _ in range(10)))
            assert [each.status_code for each in many] == [200] * 10
    await wait_used(owner, new_key, 20)
    assert await used(owner, new_key, "csr") == 2


async def test_one_connection_carries_call_after_call(front: Front, key: Key) -> None:
    async with front.client(headers=key.headers) as caller:
        ports = set()
        for content in (b"first", b"", os.urandom(100_000), b"last"):
            answer = await caller.post(TRANSLATION, content=content)
            assert (answer.status_code, answer.json()["bytes"]) == (200, len(content))
            ports.add(answer.extensions["network_stream"].get_extra_info("client_addr")[1])
            refused = await caller.post(TRANSLATION, content=content, headers={SECRET: "x" * 40})
            assert refused.status_code == 401
            if content != b"" and len(content) < 1000:
                ports.add(refused.extensions["network_stream"].get_extra_info("client_addr")[1])
        assert len(ports) <= 2, "nearly every call had a connection of its own"


@pytest.mark.parametrize("change", [str.upper, str.lower, str.title])
async def test_header_names_in_any_case(front: Front, key: Key, change: object) -> None:
    assert callable(change)
    async with front.client(headers={change(name): value for name, value in key.headers.items()}) as caller:
        assert (await caller.post(TRANSLATION, content=b"x")).status_code == 200


@pytest.mark.parametrize("http2", [False, True])
async def test_credentials_in_the_query_string(front: Front, key: Key, http2: bool) -> None:
    async with front.client(http2=http2) as caller:
        answer = await caller.post(SPEECH, params=key.headers | {"lang": "Kor"}, content=b"x")
        assert answer.status_code == 200, answer.text
        answer = await caller.post(TRANSLATION, params={ID.lower(): key.client_id, SECRET.lower(): key.secret, "a": "b c/&?"})
        assert answer.status_code == 200
        assert answer.json()["query"].endswith("a=b+c%2F%26%3F"), "the API gets the query string as it was"
        wrong = await caller.post(TRANSLATION, params={ID: key.client_id, SECRET: "x" * 40})
        assert wrong.status_code == 401


@pytest.mark.parametrize("http2", [False, True])
async def test_a_body_passes_through_as_it_is(front: Front, key: Key, http2: bool) -> None:
    body = os.urandom(3_000_000)

    async def in_chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 70_001):
            yield body[start : start + 70_001]

    async with front.client(http2=http2, headers=key.headers) as caller:
        for content in (body, in_chunks()):
            answer = await caller.put(f"{TRANSLATION}/deep/er", content=content)
            assert answer.status_code == 200, answer.text
            arrived = answer.json()
            assert (arrived["method"], arrived["path"]) == ("PUT", "/nmt/v1/translation/deep/er")
            assert (arrived["bytes"], arrived["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


async def test_the_api_is_told_whose_call_it_is_by_the_gate_alone(
    front: Front, owner: Customer, new_key: Key, stack: StackProcess
) -> None:
    told = {
        "x-tollbook-client-id": new_key.client_id,
        "x-tollbook-account": stack.ready["account"],
        "x-tollbook-service": "papago-nmt",
        "x-tollbook-tier": "live",
    }
    lies = [
        {},
        FORGED,
        {name.lower(): value for name, value in FORGED.items()},
        {"X-Tollbook-Quantity": "1000"},
        {"X-Forwarded-Uri": "/?x", "X-Original-URI": "/?x", "X-Forwarded-Method": "DELETE"},
        {"Connection": f"close, {', '.join(FORGED)}"},
    ]
    async with front.client(headers=new_key.headers) as caller:
        for lie in lies:
            answer = await caller.post(TRANSLATION, headers=lie, content=b"x")
            assert answer.status_code == 200, (lie, answer.text)
            assert answer.json()["told"] == told, lie
            assert SECRET.lower() not in answer.json()["headers"]
            assert ID.lower() in answer.json()["headers"]
    await wait_used(owner, new_key, len(lies))


async def test_a_callers_word_about_its_address_is_not_taken_for_its_query(front: Front, key: Key) -> None:
    address = f"/?{ID}={key.client_id}&{SECRET}={key.secret}"
    async with front.client() as caller:
        for name in ("X-Forwarded-Uri", "X-Original-URI"):
            assert (await caller.post(TRANSLATION, headers={name: address}, content=b"x")).status_code == 401, name


@pytest.mark.parametrize("http2", [False, True])
async def test_refusals_are_the_gates_own_and_cost_nothing(front: Front, owner: Customer, new_key: Key, http2: bool) -> None:
    # Over HTTP/2 no more than a stream's first window: httpx waits for room to send even when it has its answer (curl does not).
    body = os.urandom(60_000 if http2 else 200_000)
    async with front.client(http2=http2) as caller, httpx.AsyncClient(base_url=owner.ready["gate_url"], trust_env=False) as gate:
        for headers in ({}, new_key.headers | {SECRET: "x" * 40}, new_key.headers | {"Origin": "https://example.org"}):
            answer = await caller.post(TRANSLATION, headers=headers, content=body)
            own = await gate.get("/authorize/papago-nmt", headers=headers)
            assert (answer.status_code, answer.content) == (own.status_code, own.content)
            assert answer.status_code == 401
        assert (await caller.get("/nothing/here")).status_code == 404
    await wait_used(owner, new_key, 0)


def test_the_page_shows_what_happens(front: Front, new_key: Key) -> None:
    told = {
        "PROXY": front.url,
        "CA": str(front.folder / CERTIFICATE),
        "CLIENT_ID": new_key.client_id,
        "CLIENT_SECRET": new_key.secret,
    }
    page = "put-a-proxy-in-front.md"
    done = subprocess.run(["bash", "-euc", block(page, "sh")], env=os.environ | told, capture_output=True, text=True, timeout=30)
    assert done.stdout == block(page, "text"), done.stderr


async def test_no_proxy_writes_a_secret_down(front: Front, key: Key) -> None:
    async with front.client() as caller:
        assert (await caller.post(TRANSLATION, params=key.headers)).status_code == 200
        assert (await caller.post(TRANSLATION, params=key.headers | {ID: "y" * 20})).status_code == 401
    for file in front.folder.rglob("*"):
        if file.is_file():
            assert key.secret.encode() not in file.read_bytes(), file
