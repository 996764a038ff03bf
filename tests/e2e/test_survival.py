"""The stack while parts of it are killed, after all of it was killed, and beside another one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.calling import BACK_WITHIN_S, Calling, until_answering
from tests.support.stack import Customer, StackProcess


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[StackProcess]:
    process = StackProcess(tmp_path / "home")
    yield process.start()
    process.stop()


@pytest.mark.timeout(240)
async def test_calls_that_passed_are_counted_whoever_is_killed_meanwhile(own_stack: StackProcess) -> None:
    async with Customer(own_stack) as owner:
        client_id, secret = await owner.register("Survivor")
        calling = Calling(owner, client_id, secret)
        await calling.until_passing()
        for name in ("metering", "registry", "review", "nats", "postgres", "console"):
            pid = own_stack.ready["pids"][name]
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.5)
            await calling.until_passing()
        answers = await calling.stop()
        assert set(answers) <= {200, 503}, answers
        await until_answering(owner)
        await owner.wait_used(client_id, answers[200], BACK_WITHIN_S)

        calling = Calling(owner, client_id, secret)
        await calling.until_passing()
        os.kill(own_stack.ready["pids"]["gate"], signal.SIGKILL)
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
