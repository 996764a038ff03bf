"""The main job on the running stack: register an application, make real calls through a real proxy, see them counted."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import stat
import subprocess
import time

import httpx
import nats
import pytest

from tests.support.stack import Customer, StackProcess

WITHIN_S = 1.0
"""The promise: a refusal takes effect, and usage shows, within a second."""


def run_line(line: str) -> tuple[int, dict[str, object]]:
    """A printed curl line, as it is, with the status of its answer."""
    done = subprocess.run([*shlex.split(line), "-w", "\n%{http_code}"], capture_output=True, timeout=30, check=True)
    body, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(body)


def test_the_printed_lines_work_as_printed(stack: StackProcess) -> None:
    call, usage = stack.curl_lines()
    _, before = run_line(usage)
    status, body = run_line(call)
    assert status == 200
    assert body["text"]
    time.sleep(WITHIN_S)
    _, after = run_line(usage)
    assert after["used"] == int(str(before["used"])) + 1
    secret = call.partition("X-NCP-APIGW-API-KEY: ")[2][:40]
    status, body = run_line(call.replace(secret, secret[::-1]))
    assert (status, body["error"]["errorCode"]) == (401, "200")  # type: ignore[index]


async def test_a_customer_registers_calls_and_sees_exactly_the_calls_that_passed(owner: Customer) -> None:
    client_id, secret = await owner.register()
    assert await owner.used(client_id) == 0
    answers = await asyncio.gather(*(owner.call(client_id, secret) for _ in range(25)))
    assert [answer.status_code for answer in answers] == [200] * 25
    refused = await asyncio.gather(*(owner.call(client_id, "x" * 40) for _ in range(5)))
    assert {(answer.status_code, answer.json()["error"]["errorCode"]) for answer in refused} == {(401, "200")}
    await owner.wait_used(client_id, 25, WITHIN_S)
    assert await owner.used(client_id, "monthly") == 25
    weight = {"X-NCP-APIGW-API-KEY-ID": client_id, "X-NCP-APIGW-API-KEY": secret, "X-Tollbook-Quantity": "4"}
    ignored = await owner.caller.post("/recog/v1/stt?lang=Kor", content=b"some audio", headers=weight)
    assert ignored.status_code == 200, "what a call weighs is the proxy's to say, not the caller's"
    await owner.wait_used(client_id, 26, WITHIN_S)
    async with httpx.AsyncClient(base_url=owner.ready["gate_url"], trust_env=False) as gate:
        assert (await gate.get("/authorize/csr", headers=weight)).status_code == 200
    await owner.wait_used(client_id, 30, WITHIN_S)


async def until_refused(owner: Customer, client_id: str, secret: str, code: str, **headers: str) -> None:
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while True:
        answer = await owner.call(client_id, secret, **headers)
        if answer.status_code != 200:
            assert answer.json()["error"]["errorCode"] == code
            return
        assert asyncio.get_running_loop().time() < deadline, "still passing after a second"


async def test_what_was_ended_is_refused_within_a_second(owner: Customer) -> None:
    client_id, first = await owner.register("Ended")
    assert (await owner.call(client_id, first)).status_code == 200
    reissued = await owner.http.post(f"/v1/apps/{client_id}/secret/reissue", json={"grace_seconds": 0})
    second = reissued.json()["client_secret"]
    await until_refused(owner, client_id, first, "200")
    assert (await owner.call(client_id, second)).status_code == 200
    graceful = await owner.http.post(f"/v1/apps/{client_id}/secret/reissue", json={"grace_seconds": 3600})
    third = graceful.json()["client_secret"]
    await asyncio.sleep(WITHIN_S)
    assert (await owner.call(client_id, second)).status_code == 200
    assert (await owner.call(client_id, third)).status_code == 200
    services = await owner.http.patch(f"/v1/apps/{client_id}", json={"services": ["papago-nmt"]})
    assert services.status_code == 200, services.text
    await until_refused(owner, client_id, third, "210")
    back = {"services": ["csr"], "environments": {"web": ["https://www.example.com"], "android": ["com.example.x"]}}
    assert (await owner.http.patch(f"/v1/apps/{client_id}", json=back)).status_code == 200
    await asyncio.sleep(WITHIN_S)
    assert (await owner.call(client_id, third, Origin="http://shop.example.com:8443")).status_code == 200
    wrong = await owner.call(client_id, third, Origin="https://example.org")
    assert (wrong.status_code, wrong.json()["error"]["errorCode"]) == (401, "210")
    assert (await owner.http.delete(f"/v1/apps/{client_id}")).status_code in (200, 204)
    await until_refused(owner, client_id, third, "200")
    assert (await owner.http.get(f"/v1/apps/{client_id}")).status_code == 404


async def test_the_owner_can_copy_the_secret_again_and_sees_when_it_was_used(owner: Customer) -> None:
    client_id, secret = await owner.register("Copied")
    assert (await owner.call(client_id, secret)).status_code == 200
    await owner.wait_used(client_id, 1, WITHIN_S)
    shown = (await owner.http.get(f"/v1/apps/{client_id}/authentication")).json()
    assert (shown["client_id"], shown["client_secret"]) == (client_id, secret)
    assert [used["last_used_at"] is not None for used in shown["secrets"]] == [True]


async def test_the_body_passes_through_and_the_caller_cannot_forge_who_it_is(owner: Customer) -> None:
    client_id, secret = await owner.register("Passed on")
    answer = await owner.call(client_id, secret, **{"X-Tollbook-Client-Id": "forged", "X-Tollbook-Account": "forged"})
    assert answer.status_code == 200
    assert "forged" not in answer.text + str(answer.headers)
    query = {"X-NCP-APIGW-API-KEY-ID": client_id, "X-NCP-APIGW-API-KEY": secret, "lang": "Kor"}
    assert (await owner.caller.post("/recog/v1/stt", params=query, content=b"x")).status_code == 200
    assert (await owner.caller.post("/recog/v1/stt", content=b"x")).status_code == 401


async def test_usage_of_other_publishers_counts_once(owner: Customer, stack: StackProcess) -> None:
    client_id, _ = await owner.register("Reported")
    seed = next((stack.home / "secrets").glob("*publisher*")).read_text().strip()
    nc = await nats.connect(stack.ready["nats_url"], nkeys_seed_str=seed, inbox_prefix="_INBOX_publisher")
    try:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": f"reported-{client_id}",
            "ce-source": "/batch-job",
            "ce-type": "tollbook.usage.UsageRecorded.v1",
            "ce-time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "content-type": "application/json",
        }
        body = json.dumps({"client_id": client_id, "service": "csr", "quantity": 7}).encode()
        for _ in range(3):
            ack = await nc.request("usage.cloudevents", body, headers=headers, timeout=5)
            assert json.loads(ack.data)["stream"] == "USAGE"
        await owner.wait_used(client_id, 7, WITHIN_S)
    finally:
        await nc.close()


async def test_ready_json_says_where_everything_is_and_only_to_its_owner(stack: StackProcess) -> None:
    file = stack.home / "ready.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ready = stack.ready
    assert {"proxy_url", "console_url", "gate_url", "nats_url", "nats_websocket_url", "postgres_dsn", "account"} < set(ready)
    assert {"owner_token", "reviewer_token", "operator_token", "inbox", "sms", "pids"} < set(ready)
    assert {"registry", "gate", "metering", "alerts", "review", "console", "inbox", "sms"} < set(ready["pids"])
    for pid in ready["pids"].values():
        os.kill(pid, 0)


async def test_a_service_that_is_down_is_named_within_three_seconds(owner: Customer, stack: StackProcess) -> None:
    pid = stack.ready["pids"]["registry"]
    os.kill(pid, 19)
    try:
        started = time.monotonic()
        answer = await owner.http.get("/v1/apps")
        took_s = time.monotonic() - started
    finally:
        os.kill(pid, 18)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert "registry" in answer.json()["detail"]
    assert took_s < 3
    for _ in range(100):
        if (await owner.http.get("/v1/apps")).status_code == 200:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the registry did not come back")


async def test_no_secret_is_in_what_the_stack_printed(owner: Customer, stack: StackProcess) -> None:
    client_id, secret = await owner.register("Quiet")
    await owner.call(client_id, secret)
    await owner.call(client_id, f"{secret[:-1]}#")
    async with httpx.AsyncClient(base_url=stack.ready["gate_url"], trust_env=False) as gate:
        await gate.get(f"/authorize/csr?X-NCP-APIGW-API-KEY-ID={client_id}&X-NCP-APIGW-API-KEY={secret}")
    printed = stack.output()
    assert secret not in printed
    assert secret[:-1] not in printed
    for file in (stack.home / "secrets").iterdir():
        value = file.read_text().strip()
        if "owner" not in file.name and "client-id" not in file.name and len(value) >= 16:
            assert value not in printed, file.name
