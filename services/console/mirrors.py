"""The dashboards' NATS account sees the KV buckets as mirrors, so that nothing a dashboard does can reach the services' account.

Why not the buckets themselves: nats-server checks where a client publishes, but not the reply subject of its requests nor the
deliver subject of its consumers. A dashboard in the services' account could have the server write into REGISTRY. README.md has
the account's configuration.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from services.console.callout import BUCKETS
from shared.readiness import Readiness

log = logging.getLogger(__name__)

SOURCE_API: Final = "tollbook.api"
"""How the dashboards' account calls the JetStream API of the services' account (only to make a mirror's consumer)."""
DELIVER_PREFIX: Final = "dashboards.deliver"
"""Where the services' account delivers to the mirrors."""
CHECK_EVERY_S: Final = 10.0
RETRY_S: Final = 1.0
REQUEST_TIMEOUT_S: Final = 5.0


class MirrorFailed(Exception):
    """JetStream refused something, in its words."""


class Mirrors:
    """Keeps a mirror of every bucket in the dashboards' account, whose JetStream API is under the subject prefix `api`."""

    def __init__(self, nc: Callable[[], Client], api: str, replicas: int) -> None:
        self._nc = nc
        self._api = api
        self._replicas = replicas
        self._problem = "the mirrors are not checked yet"

    async def run(self) -> None:
        """Check and repair until cancelled."""
        while True:
            try:
                waiting = [bucket for bucket in BUCKETS if not await self.ensure(bucket)]
            except (NatsError, TimeoutError, OSError, MirrorFailed, msgspec.MsgspecError) as error:
                waiting = []
                self._say(f"the dashboards' mirrors cannot be kept: {error or type(error).__name__}")
            else:
                self._say(f"waiting for {', '.join(waiting)}" if waiting else "")
            await asyncio.sleep(RETRY_S if self._problem else CHECK_EVERY_S)

    def readiness(self) -> Readiness:
        """Always ready: the API works without dashboards. The detail says what they lack."""
        return Readiness(True, self._problem)

    async def ensure(self, bucket: str) -> bool:
        """Make the bucket's mirror if it is missing or of a bucket that is gone; False when there is no bucket yet."""
        stream = f"KV_{bucket}"
        source = await self._call(f"$JS.API.STREAM.INFO.{stream}")
        if source is None:
            return False
        mirror = await self._call(f"{self._api}.STREAM.INFO.{stream}")
        if mirror is not None and mirror["created"] < source["created"]:
            # The bucket was made anew and counts from 1 again: the old mirror would wait for its old number.
            await self._call(f"{self._api}.STREAM.DELETE.{stream}")
            mirror = None
        if mirror is None:
            await self._call(f"{self._api}.STREAM.CREATE.{stream}", mirror_config(bucket, self._replicas))
            log.info("console: the dashboards' mirror of %s is made", stream)
        return True

    async def _call(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The answer of the JetStream API; None when there is no such stream."""
        data = b"" if body is None else msgspec.json.encode(body)
        answer = await self._nc().request(subject, data, timeout=REQUEST_TIMEOUT_S)
        found: dict[str, Any] = msgspec.json.decode(answer.data)
        error = found.get("error")
        if error is None:
            return found
        if error.get("code") == 404:
            return None
        raise MirrorFailed(f"{subject}: {error.get('description')}")

    def _say(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("console: %s", problem)
        self._problem = problem


def mirror_config(bucket: str, replicas: int) -> dict[str, Any]:
    """The mirror's stream: as a KV bucket is, so that KV clients read it as one."""
    name = f"KV_{bucket}"
    return {
        "name": name,
        "description": "For dashboards; kept by the console",
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "mirror": {"name": name, "external": {"api": SOURCE_API, "deliver": DELIVER_PREFIX}},
    }
