"""Applications with limits in front of a gate, and what the gate says of itself."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx

from tests.support.gates import Gate, Issued, Registry, until
from tests.support.granting import Metering


async def limited(gate: Gate, registry: Registry, metering: Metering, daily: int | None, monthly: int | None = None) -> Issued:
    """An application that the gate knows, with its limits."""
    issued = await registry.registers()
    await metering.limits(issued.client_id, daily, monthly)
    await known(gate)
    return issued


async def known(gate: Gate, applications: int = 0) -> None:
    """Everything that was published is known to the gate: what is pulled comes within milliseconds, so two looks agree."""

    async def quiet() -> bool:
        before = await gate_metrics(gate)
        await asyncio.sleep(0.1)
        after = await gate_metrics(gate)
        names = ("tollbook_gate_applications", "tollbook_gate_limits")
        return all(before[name] == after[name] for name in names) and after[names[0]] >= max(1, applications)

    await until(quiet, "the gate to know what was published")


async def gate_metrics(gate: Gate) -> dict[str, float]:
    lines = (await gate.http.get("/metrics")).text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}


def statuses(responses: list[httpx.Response]) -> Counter[int]:
    return Counter(response.status_code for response in responses)


async def passes(gate: Gate, issued: Issued) -> bool:
    return (await gate.call(issued)).status_code == 200
