"""The same servers as containers (TOLLBOOK_TEST_SERVERS=containers), published on 127.0.0.1 only."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.servers import nats as nats_server
from deploy.servers.program import free_port
from tests.support.servers import PASSWORD, wait_until


@contextmanager
def nats_container() -> Iterator[str]:
    """A NATS container with JetStream as the stack has it: its URL."""
    from testcontainers.core.container import DockerContainer

    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tollbook-nats-") as folder:
        config = nats_server.plain_config(4222, Path("/tmp/jetstream")).replace("127.0.0.1:4222", "0.0.0.0:4222")
        Path(folder).chmod(0o755)
        (Path(folder) / "nats.conf").write_text(config, "utf-8")
        container = DockerContainer(os.environ.get("TOLLBOOK_TEST_NATS_IMAGE", "nats:2.15"))
        container.with_volume_mapping(folder, "/etc/tollbook", "ro").with_command("-c /etc/tollbook/nats.conf")
        publish(container, 4222, port)
        with container:
            wait_until(lambda: nats_server.answers(port), "the NATS container to answer", output=lambda: logs_of(container))
            yield f"nats://127.0.0.1:{port}"


@contextmanager
def postgres_container() -> Iterator[str]:
    """A PostgreSQL container: its superuser's DSN."""
    from testcontainers.core.container import DockerContainer

    from deploy.servers.postgres import answers

    port = free_port()
    container = DockerContainer(os.environ.get("TOLLBOOK_TEST_POSTGRES_IMAGE", "postgres:18"))
    container.with_env("POSTGRES_PASSWORD", PASSWORD).with_command("postgres -c max_connections=200")
    publish(container, 5432, port)
    with container:
        # The image starts the server once for its own set-up, on a socket only: over TCP only the real one answers.
        wait_until(lambda: answers(port), "the PostgreSQL container to answer", output=lambda: logs_of(container))
        yield f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres"


def publish(container: object, inside: int, port: int) -> None:
    """Publish on loopback only: docker-py takes an address with the port, testcontainers' own method does not say so."""
    container.ports[f"{inside}/tcp"] = ("127.0.0.1", port)  # type: ignore[attr-defined]


def logs_of(container: object) -> str:
    out, err = container.get_logs()  # type: ignore[attr-defined]
    return f"{out.decode(errors='replace')}{err.decode(errors='replace')}"[-4000:]
