"""A customer's calls while things break, and how they are answered."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx

from tests.support.stack import Customer

BACK_WITHIN_S = 30.0


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


async def until_answering(owner: Customer) -> None:
    for _ in range(int(BACK_WITHIN_S * 10)):
        try:
            if (await owner.http.get("/v1/apps")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("the console did not come back")
