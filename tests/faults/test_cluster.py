"""Streams on three nodes, R3: a node that leads is killed, or cut off from the others while its clients still reach it; under
load, and with the same accounting as on one node: what was acknowledged is counted, nothing twice, the log is the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import pytest
from nats.aio.client import Client

from deploy.servers.roles import ServiceDsn
from services.metering.ends import Ends
from shared.clock import SystemClock
from shared.commands.registry import AppIssued
from shared.errors import Unavailable
from shared.ids import new_id
from shared.service import Service
from shared.streams.declare import StreamState, ensure_stream, stream_state, usage_stream
from shared.streams.jetstream import ApiError, api, stored_message
from shared.streams.publish import Outgoing, publish_batch
from tests.support.cluster import Cluster, Node, leader_of, running_cluster
from tests.support.gates import Gate, Issued, running_gate, until
from tests.support.metering_process import PARTITIONS, MeteringProcess, eventually, used
from tests.support.registry_process import PEPPER, Customer, RegistryProcess
from tests.support.servers import PostgresDatabase, connect_nats

pytestmark = pytest.mark.timeout(120)
BACK_WITHIN_S = 40.0
REPLICAS = {"TOLLBOOK_NATS_REPLICAS": "3"}


class Load:
    """Calls at every gate, and commands, until told to stop. A command is repeated, as any client would, until it is answered."""

    def __init__(self, gates: Sequence[Gate], issued: Issued, customer: Customer) -> None:
        self.gates = gates
        self.refused = 0
        self.registered: list[str] = []
        self._issued, self._customer = issued, customer
        self._stopped = asyncio.Event()
        self._tasks = [asyncio.create_task(self._call(gate)) for gate in gates for _ in range(4)]
        self._tasks.append(asyncio.create_task(self._register()))

    @property
    def passed(self) -> int:
        return sum(len(gate.passed) for gate in self.gates)

    async def _call(self, gate: Gate) -> None:
        while not self._stopped.is_set():
            answer = await gate.call(self._issued)
            assert answer.status_code in (200, 503), answer.text
            self.refused += answer.status_code == 503
            await asyncio.sleep(0.01)

    async def _register(self) -> None:
        while not self._stopped.is_set():
            command_id = new_id()
            while True:
                try:
                    issued = await self._customer.register(command_id=command_id, name=f"app {len(self.registered)}")
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
            self.registered.append(issued.client_id)
            await asyncio.sleep(0.05)

    async def goes_on(self) -> None:
        """Calls pass at every gate, commands are accepted, and what they caused comes into the stream."""
        passed, registered = [len(gate.passed) for gate in self.gates], len(self.registered)

        async def more() -> bool:
            for task in self._tasks:
                assert not task.done(), task.exception()
            calls = all(len(gate.passed) >= count + 200 for gate, count in zip(self.gates, passed, strict=True))
            return calls and len(self.registered) >= registered + 10 and await self._relayed() >= registered + 10

        await until(more, f"calls to pass and commands to be accepted: {self.passed} passed, {self.refused} not", BACK_WITHIN_S)

    async def _relayed(self) -> int:
        try:
            state = await stream_state(self._customer.nc, "REGISTRY")
        except (Unavailable, ApiError):
            return 0
        return 0 if state is None else state.last

    async def stop(self) -> None:
        self._stopped.set()
        await asyncio.wait_for(asyncio.gather(*self._tasks), 30)


class Stage:
    """Registry, metering and gates on a cluster."""

    def __init__(
        self, cluster: Cluster, nc: Client, registry: RegistryProcess, metering: MeteringProcess, dsn: ServiceDsn
    ) -> None:
        self.cluster = cluster
        self.nc = nc
        self.registry = registry
        self.metering = metering
        self._dsn = dsn
        self._open = AsyncExitStack()

    async def gate(self, *nodes: Node) -> Gate:
        """A gate that may connect to any of these, by default to all."""
        url = ",".join(node.url for node in nodes) or self.cluster.url
        gate = running_gate(url, pepper=PEPPER, partitions=PARTITIONS, nats_replicas=3, commit_timeout_s=1)
        return await self._open.enter_async_context(gate)

    def node_of(self, gate: Gate) -> Node:
        """Where it is connected now."""
        service: Service = gate.server.config.app  # type: ignore[assignment]
        return next(
            node for node in self.cluster.nodes if service.nc.connected_url and node.port == service.nc.connected_url.port
        )

    async def load(self, *gates: Gate) -> Load:
        """Calls at the gates, and commands."""
        customer = await Customer(self.nc).opened()
        issued = await customer.register()
        self.client_id = issued.client_id
        for gate in gates:
            await until(partial(passes, gate, as_caller(issued)), "the gate to know the application")
        load = Load(gates, as_caller(issued), customer)
        await load.goes_on()
        return load

    async def go_through(self, *nodes: Node) -> None:
        """Have the test itself connected to one of these."""
        await self.nc.close()
        self.nc = await connect_nats(",".join(node.url for node in nodes))

    async def close(self) -> None:
        await self.nc.close()
        await self._open.aclose()

    async def account(self, load: Load) -> None:
        """Every call that passed is counted, once; every command that was accepted is in the log, once; the log is the stream."""
        await eventually(lambda: used(self.nc, self.client_id), load.passed, self.metering.log.read_text)
        await asyncio.sleep(0.5)
        assert await used(self.nc, self.client_id) == load.passed
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self._dsn.owner_dsn)
        try:
            events = await connection.fetch("SELECT position, type, data, hash FROM registry.event ORDER BY position")
        finally:
            await connection.close()
        assert sum(event["type"] == "AppRegistered" for event in events) == len(load.registered) + 1

        async def relayed() -> StreamState | None:
            return await stream_state(self.nc, "REGISTRY")

        async def as_long() -> bool:
            state = await relayed()
            return state is not None and state.last == state.messages == len(events)

        await until(as_long, "REGISTRY to have every event", BACK_WITHIN_S)
        for event in events:
            _, sequence, headers, data = stored_message(await api(self.nc, "STREAM.MSG.GET.REGISTRY", {"seq": event["position"]}))
            told = sequence, headers["ce-hash"], data.decode()
            assert told == (event["position"], event["hash"].hex(), event["data"])


async def passes(gate: Gate, issued: Issued) -> bool:
    return (await gate.call(issued)).status_code == 200


def as_caller(issued: AppIssued) -> Issued:
    return Issued(issued.client_id, issued.client_secret)


@pytest.fixture
async def stage(tmp_path: Path, postgres: PostgresDatabase) -> AsyncIterator[Stage]:
    async with running_cluster(tmp_path) as cluster:
        registry_dsn, metering_dsn = await postgres.service_schema("registry"), await postgres.service_schema("metering")
        registry = RegistryProcess(cluster.url, registry_dsn, tmp_path, **REPLICAS)
        metering = MeteringProcess(cluster.url, metering_dsn, tmp_path, **REPLICAS)
        nc = await connect_nats(cluster.url)
        stage = Stage(cluster, nc, registry, metering, registry_dsn)
        try:
            await asyncio.gather(registry.start(), metering.start())
            yield stage
        finally:
            await stage.close()
            registry.kill()
            metering.kill()


async def test_the_node_that_leads_is_killed_and_comes_back(stage: Stage) -> None:
    load = await stage.load(await stage.gate())
    for stream in ("USAGE", "REGISTRY"):
        leader = stage.cluster.node(await leader_of(stage.nc, stream))
        await asyncio.to_thread(leader.kill)
        await load.goes_on()
        await asyncio.to_thread(leader.start)
        await load.goes_on()
    await load.stop()
    await stage.account(load)


async def test_the_node_that_leads_is_cut_off_and_let_in_again(stage: Stage) -> None:
    leader, others = await leader_and_others(stage)
    await stage.go_through(*others)
    beyond, cut_off = await stage.gate(*others), await stage.gate(leader)
    load = await stage.load(beyond, cut_off)
    stage.cluster.isolate(leader)
    await nothing_passes(cut_off)
    passed = len(beyond.passed)

    async def goes_on_beyond() -> bool:
        return len(beyond.passed) > passed + 200

    await until(goes_on_beyond, "calls to pass where two nodes are", BACK_WITHIN_S)
    assert "did not acknowledge" in await why_not_ready(cut_off)
    stage.cluster.heal()
    await load.goes_on()
    await load.stop()
    await stage.account(load)


async def test_whoever_is_connected_to_a_node_that_is_cut_off_goes_to_another(stage: Stage) -> None:
    gate = await stage.gate()
    node = stage.node_of(gate)
    await stage.go_through(*(other for other in stage.cluster.nodes if other is not node))
    load = await stage.load(gate)
    stage.cluster.isolate(node)
    await nothing_passes(gate)
    await load.goes_on()
    assert stage.node_of(gate) is not node
    await load.stop()
    await stage.account(load)


async def test_where_a_partition_ends_is_not_for_a_leader_to_say_that_was_cut_off(tmp_path: Path) -> None:
    """Metering is connected to it, gates to the others, which have another leader by the time it knows."""
    subject = "usage.records.0"
    async with running_cluster(tmp_path) as cluster, AsyncExitStack() as clients:
        nc = await connected(clients, *cluster.nodes)
        await until(partial(usage_is_there, nc), "USAGE to be there", BACK_WITHIN_S)
        leader = cluster.node(await leader_of(nc, "USAGE"))
        here = await connected(clients, leader)
        beyond = await connected(clients, *(node for node in cluster.nodes if node is not leader))
        ends = Ends((), lambda: here, SystemClock())
        assert await ends.end(subject) == await ends.newest(subject) == 1
        cluster.isolate(leader)
        acknowledged = 0

        async def is_stored_beyond() -> bool:
            nonlocal acknowledged
            try:
                message = Outgoing(subject, b"what a gate records", {})
                acknowledged = await publish_batch(beyond, [message], expected_last_sequence=None, timeout_s=0.5)
            except Unavailable:
                return False
            return True

        await until(is_stored_beyond, "another leader", BACK_WITHIN_S)
        async with asyncio.timeout(BACK_WITHIN_S):
            looked_up: int | None = 0
            while looked_up is not None:  # 1, mostly, for a moment
                looked_up, end = await asyncio.gather(ends.newest(subject), ends.end(subject))
                assert end is None or end > acknowledged
        cluster.heal()

        async def is_found() -> bool:
            end = await ends.end(subject)
            assert end is None or end > acknowledged
            return end is not None

        await until(is_found, "the end", BACK_WITHIN_S)


async def connected(clients: AsyncExitStack, *nodes: Node) -> Client:
    nc = await connect_nats(",".join(node.url for node in nodes))
    clients.push_async_callback(nc.close)
    return nc


async def usage_is_there(nc: Client) -> bool:
    try:
        await ensure_stream(nc, usage_stream(replicas=3))
    except (Unavailable, ApiError):
        return False
    return True


async def leader_and_others(stage: Stage) -> tuple[Node, list[Node]]:
    """The node that leads USAGE, and the two that do not."""
    leader = stage.cluster.node(await leader_of(stage.nc, "USAGE"))
    return leader, [node for node in stage.cluster.nodes if node is not leader]


async def nothing_passes(gate: Gate) -> None:
    """Until a second goes by without a call that passes."""

    async def still() -> bool:
        passed = len(gate.passed)
        await asyncio.sleep(1)
        return len(gate.passed) == passed

    await until(still, "calls to pass no more", BACK_WITHIN_S)


async def why_not_ready(gate: Gate) -> str:
    answer: httpx.Response = await gate.http.get("/readyz")
    return "; ".join(part["detail"] for part in answer.json()["parts"].values() if not part["ready"])
