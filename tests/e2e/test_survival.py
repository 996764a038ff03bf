"""The stack while parts of it are killed, after all of it was killed, and beside another one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.stack import Customer, StackProcess

BACK_WITHIN_S = 30.0


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[StackProcess]:
    process = StackProcess(tmp_path / "home")
    yield process.start()
    process.stop()


class Calling:
    """Calls one after the other, several at a time, until told to stop; counts the answers by status, 0 for none."""

    def __init__(self, customer: Customer, client_id: str, secret: str) -> None:
        self.answers: Counter[int] = Counter()
        self._customer, self._key = customer, (client_id, secret)
        self._stopped = asyncio.Event()
        self._tasks = [asyncio.create_task(self._call()) for _ in range(6)]

    async def _call(self) -> None:
        while not self._stopped.is_set():
            try:
                answer = await self._customer.call(*self._key)
                self.answers[answer.status_code] += 1
            except httpx.TransportError:
                self.answers[0] += 1
            await asyncio.sleep(0.01)

    async def stop(self) -> Counter[int]:
        self._stopped.set()
        await asyncio.gather(*self._tasks)
        return self.answers

    async def until_passing(self) -> None:
        """Until calls pass again."""
        passed = self.answers[200]
        deadline = asyncio.get_running_loop().time() + BACK_WITHIN_S
        while self.answers[200] < passed + 10:
            assert asyncio.get_running_loop().time() < deadline, f"no calls pass any more: {self.answers}"
            await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_calls_that_passed_are_counted_whoever_is_killed_meanwhile(own_stack: StackProcess) -> None:
    async with Customer(own_stack) as owner:
        client_id, secret = await owner.register("Survivor")
        calling = Calling(owner, client_id, secret)
        await calling.until_passing()
        for name in ("metering", "registry", "nats", "postgres", "console"):
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


async def until_answering(owner: Customer) -> None:
    for _ in range(int(BACK_WITHIN_S * 10)):
        try:
            if (await owner.http.get("/v1/apps")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("the console did not come back")


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
