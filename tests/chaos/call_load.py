"""Callers of the sample API, through the proxy and the gate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

import httpx

from tests.chaos.faults import Processes
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Pace

SERVICE: Final = "csr"
CALL_S: Final = 20.0
PROXY_SAYS: Final = "The gate or the API behind does not answer now."
"""The proxy's own 503. Any other is the gate's, which has then refused the call."""
AFTER_REFUSAL_S: Final = 0.1


class Key(NamedTuple):
    client_id: str
    secret: str


@dataclass
class Refused:
    """The gate's 503 of one application: not counted, once the gate has taken its batch back; in doubt if it dies before."""

    client_id: str
    gate: int
    at: float


@dataclass
class Callers:
    """`run` makes `calls` calls that pass, and keeps account of those that did not."""

    url: str
    keys: Sequence[Key]
    seed: int
    processes: Processes
    ledger: Ledger
    pace: Pace
    _unsettled: list[Refused] = field(default_factory=list)

    async def run(self, calls: int, callers: int = 6) -> None:
        """Side by side; then settles what the gate refused."""
        parts = [calls // callers + (number < calls % callers) for number in range(callers)]
        await asyncio.gather(*(self._call(number, part) for number, part in enumerate(parts)))

    def settle(self) -> None:
        """When all is quiet: whatever a gate refused that has died since may have been counted."""
        gate = self._gate()
        for refused in self._unsettled:
            if refused.gate != gate:
                self.ledger.figures["calls refused by a gate that died then"] += 1
                self.ledger.perhaps(refused.client_id, SERVICE)
        self._unsettled.clear()

    async def _call(self, number: int, calls: int) -> None:
        random = Random(f"{self.seed} caller {number}")
        async with httpx.AsyncClient(base_url=self.url, timeout=CALL_S, trust_env=False) as http:
            passed = 0
            while passed < calls:
                await self.pace.turn(passed / calls)
                if await self._once(http, random.choice(self.keys)):
                    passed += 1
                else:
                    await asyncio.sleep(AFTER_REFUSAL_S)

    async def _once(self, http: httpx.AsyncClient, key: Key) -> bool:
        """Whether it passed."""
        began, gate = asyncio.get_running_loop().time(), self._gate()
        headers = {"X-NCP-APIGW-API-KEY-ID": key.client_id, "X-NCP-APIGW-API-KEY": key.secret}
        try:
            answer = await http.post("/recog/v1/stt?lang=Kor", content=b"some audio", headers=headers)
        except httpx.ConnectError:
            self.ledger.figures["calls that no proxy took"] += 1
            return False
        except httpx.TransportError:
            return self._unanswered(key)
        if answer.status_code == 200:
            self.ledger.counted(key.client_id, SERVICE)
            self.ledger.figures["calls passed"] += 1
            # The gate takes back before it records anything new: so what this one refused before is settled.
            self._unsettled = [one for one in self._unsettled if one.gate != gate or one.at >= began]
            return True
        if answer.status_code == 503 and PROXY_SAYS in answer.text:
            return self._unanswered(key)
        if answer.status_code == 503:
            self.ledger.figures["calls refused"] += 1
            self._unsettled.append(Refused(key.client_id, gate, asyncio.get_running_loop().time()))
            return False
        self.ledger.problem(f"a good call was answered {answer.status_code}: {answer.text[:200]}")
        return False

    def _unanswered(self, key: Key) -> bool:
        self.ledger.figures["calls unanswered"] += 1
        self.ledger.perhaps(key.client_id, SERVICE)
        return False

    def _gate(self) -> int:
        found = self.processes.find("gate")
        return found.pid if found else 0
