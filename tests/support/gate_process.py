"""The gate as a process of its own on a real NATS, for the registry and metering of tests."""

from __future__ import annotations

from pathlib import Path

from deploy.servers.roles import ServiceDsn
from tests.support.metering_process import PARTITIONS
from tests.support.registry_process import PEPPER
from tests.support.service_process import RunningService


class GateProcess(RunningService):
    """The gate. It has no database."""

    service = "gate"

    def __init__(self, nats_url: str, folder: Path, name: str = "one", **settings: str) -> None:
        told = {"TOLLBOOK_PEPPER": PEPPER, "TOLLBOOK_PARTITIONS": str(PARTITIONS)}
        super().__init__(nats_url, ServiceDsn("", ""), folder, name, **{**told, "TOLLBOOK_LOG_LEVEL": "INFO", **settings})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
