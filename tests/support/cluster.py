"""Three nats-servers on this machine that are one JetStream cluster, and the wires between them, which can be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client

from deploy.servers import nats as nats_server
from deploy.servers.program import free_port
from shared.errors import Unavailable
from shared.streams.jetstream import ApiError, api
from tests.support.servers import ServerProcess, connect_nats

NODES: Final = 3
CHUNK_BYTES: Final = 64 * 1024
NOWHERE: Final = "127.0.0.1:9"
FORMED_WITHIN_S: Final = 40.0


class Wire:
    """Carries one TCP address to another. While it is cut nothing comes through and nothing is refused: as with a pulled plug,
    both ends wait; what they sent meanwhile arrives when it is mended."""

    def __init__(self, to_port: int) -> None:
        self.port = free_port()
        self._to = to_port
        self._whole = asyncio.Event()
        self._whole.set()
        self._server: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            await self._whole.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._carry(reader, far_writer))
                    both.create_task(self._carry(far_reader, writer))
            finally:
                far_writer.close()
        except* (OSError, _HungUp):
            pass
        finally:
            writer.close()
            self._carrying.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        raise _HungUp


class _HungUp(Exception):
    """One end has closed the connection."""


class Node(ServerProcess):
    """One server of the cluster. `routes` are the ports that lead to the nodes it dials."""

    def __init__(self, folder: Path, name: str, port: int, cluster_port: int, routes: list[int]) -> None:
        self.name = name
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        folder.mkdir()
        config = folder / "nats.conf"
        dialed = ", ".join(f'"nats-route://127.0.0.1:{route}"' for route in routes)
        config.write_text(
            f"""\
listen: "127.0.0.1:{port}"
server_name: "{name}"
{nats_server.jetstream_block(folder / "jetstream")}
cluster {{
  name: "tollbook"
  listen: "127.0.0.1:{cluster_port}"
  # What nodes tell each other of further nodes leads nowhere: the wires are the only way.
  advertise: "{NOWHERE}"
  no_advertise: true
  routes: [{dialed}]
}}
""",
            "utf-8",
        )
        super().__init__(nats_server.program(config), lambda: nats_server.answers(port), folder / "nats.log")


class Cluster:
    """Three nodes, a wire from each to each other."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(2 * NODES)]
        self._wires = {(one, other): Wire(ports[NODES + other]) for one in range(NODES) for other in range(NODES) if one != other}
        self.nodes = [
            Node(
                folder / f"node-{number}",
                f"node-{number}",
                ports[number],
                ports[NODES + number],
                [self._wires[number, other].port for other in range(NODES) if other != number],
            )
            for number in range(NODES)
        ]

    @property
    def url(self) -> str:
        """All nodes, comma-separated."""
        return ",".join(node.url for node in self.nodes)

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    async def start(self) -> None:
        """Start all nodes and wait until JetStream answers."""
        for wire in self._wires.values():
            await wire.start()
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.nodes))
        nc = await connect_nats(self.nodes[0].url)
        try:
            async with asyncio.timeout(FORMED_WITHIN_S):
                while True:
                    with contextlib.suppress(Unavailable, ApiError):
                        await api(nc, "STREAM.NAMES", timeout_s=1)
                        return
                    await asyncio.sleep(0.1)
        finally:
            await nc.close()

    async def stop(self) -> None:
        for wire in self._wires.values():
            wire.mend()
        await asyncio.gather(*(asyncio.to_thread(node.stop) for node in self.nodes))
        for wire in self._wires.values():
            await wire.stop()

    def isolate(self, node: Node) -> None:
        """Cut every wire of the node; its clients still reach it."""
        for (one, other), wire in self._wires.items():
            if node in (self.nodes[one], self.nodes[other]):
                wire.cut()

    def heal(self) -> None:
        """Mend every wire."""
        for wire in self._wires.values():
            wire.mend()


@asynccontextmanager
async def running_cluster(folder: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(folder)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


async def leader_of(nc: Client, stream: str) -> str:
    """The name of the node that leads the stream's group."""
    info: dict[str, Any] = await api(nc, f"STREAM.INFO.{stream}")
    return str(info["cluster"]["leader"])
