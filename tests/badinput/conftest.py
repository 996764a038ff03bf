"""After the bad input of a module nothing died or grew, nothing of it was logged, and the next good call passes and counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import nats
import pytest
from nats.aio.client import Client

from tests.support.processes import resident_bytes
from tests.support.stack import Customer, StackProcess

SERVICES = ("registry", "gate", "metering", "alerts", "review", "console")
GROWTH_BYTES_MAX = 120 * 1024 * 1024
PERSONAL = "hong.gildong@example.com"
SECRET = "canary0SecretThatNobodyMayLog0123456789ab"


@pytest.fixture(scope="module", autouse=True)
def unharmed(stack: StackProcess) -> Iterator[None]:
    """Of every module here."""
    asyncio.run(good_call(stack))  # so that what each service keeps for good is there already
    pids = {service: stack.ready["pids"][service] for service in SERVICES}
    before = {service: resident_bytes(pid) for service, pid in pids.items()}
    logged = len(stack.output())
    yield
    asyncio.run(good_call(stack))
    assert {service: stack.ready["pids"][service] for service in SERVICES} == pids, "a service was started anew"
    grown = {service: resident_bytes(pid) - before[service] for service, pid in pids.items()}
    print("growth of memory in MiB:", {service: round(size / 2**20, 1) for service, size in grown.items()})
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown
    written = stack.output()[logged:]
    for hidden in (PERSONAL, SECRET, stack.ready["owner_token"], "Traceback"):
        assert hidden not in written, written[:5_000]


async def good_call(stack: StackProcess) -> None:
    """One application, one call that passes and counts."""
    async with Customer(stack) as customer:
        client_id, secret = await customer.register("Good")
        assert (await customer.call(client_id, secret)).status_code == 200
        await customer.wait_used(client_id, 1, 30)
        assert (await customer.http.delete(f"/v1/apps/{client_id}")).status_code == 204


@asynccontextmanager
async def nats_user(stack: StackProcess, name: str, errors: list[str] | None = None) -> AsyncIterator[Client]:
    """A connection as one of the stack's NATS users; what the server complains about goes into `errors`."""

    async def note(error: Exception) -> None:
        if errors is not None:
            errors.append(str(error))

    seed = (stack.home / "secrets" / f"nats-{name}").read_text().strip()
    url = stack.ready["nats_url"]
    nc = await nats.connect(url, nkeys_seed_str=seed, inbox_prefix=f"_INBOX_{name}", error_cb=note)
    try:
        yield nc
    finally:
        await nc.close()


@pytest.fixture(scope="module")
def console(stack: StackProcess) -> Iterator[httpx.Client]:
    """The owner at the REST API, without waiting."""
    headers = {"authorization": f"Bearer {stack.ready['owner_token']}"}
    with httpx.Client(base_url=stack.ready["console_url"], headers=headers, timeout=20, trust_env=False) as http:
        yield http


async def raw(url: str, request: bytes, *, end: bool = False, within_s: float = 30) -> bytes:
    """Send these very bytes; what comes back until the server closes or has answered. `end`: tell it that no more comes."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        try:
            writer.write(request)
            await writer.drain()
            if end:
                writer.write_eof()
        except ConnectionError:
            pass  # it has answered already
        async with asyncio.timeout(within_s):
            try:
                return await reader.read(65_536)
            except ConnectionError:
                return b""
    finally:
        writer.close()
