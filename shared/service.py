"""The frame of every service: one AsgiFastStream application with its NATS connection, commands, health, metrics and AsyncAPI,
and the background tasks that live and die with it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final

import msgspec
import uvicorn
from faststream.asgi import AsgiFastStream, AsgiResponse, get
from faststream.nats import NatsBroker
from faststream.nats.security import NatsNKey
from nats.aio.client import Client
from prometheus_client import CollectorRegistry, make_asgi_app

from shared.asyncapi import ServiceDocument
from shared.http_direct import DirectEdge, DirectHttpProtocol
from shared.http_head import DEFAULT_NOT_HTTP, DEFAULT_REFUSAL, BoundedHttpProtocol
from shared.readiness import Readiness, ReadinessCheck, ReadinessMetrics
from shared.settings import ServiceSettings
from shared.streams.elsewhere import Elsewhere

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

GRACE_S: Final = 5
STOP_GRACES_S: Final = (6.0, 1.0, 1.0)
"""How long background tasks may take to finish what they do, each time they are asked to."""
COLLECT_AFTER: Final = 50_000
"""Objects made and not yet gone, after which Python looks for cycles among the new ones. At its own 700 it looks dozens of times
at the messages of one batch, which are about to go by themselves."""
HEALTH_PATHS: Final = frozenset(("/healthz", "/readyz", "/metrics", "/asyncapi", "/asyncapi.json"))


BackgroundTask = Callable[[], Awaitable[None]]


class Service:
    """One service process.

    A service that has an HTTP edge of its own gives `edge`, an ASGI application (console), or `direct`, which answers without
    ASGI (gate); either gets every path that is not the frame's. Parts are added before `run`: `background` tasks start after the
    broker, and the end of any of them, in whatever way, ends the process with exit code 1, for the supervisor to start it again.
    """

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        description: str,
        edge: AsgiApp | None = None,
        direct: DirectEdge | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.metrics = CollectorRegistry()
        self.broker = open_broker(name, settings)
        self.document = ServiceDocument(f"Tollbook {name}", "1.0.0", description)
        self.resources = AsyncExitStack()
        self.failed: BaseException | None = None
        self.head_refusal = DEFAULT_REFUSAL
        self.not_http_refusal = DEFAULT_NOT_HTTP
        self.direct = direct
        self.asgi_paths = HEALTH_PATHS
        self._edge = edge
        self._connection: Client | None = None
        self._checks: dict[str, ReadinessCheck] = {"nats": self._nats_readiness}
        self.metrics.register(ReadinessMetrics(self._checks))
        self._background: dict[str, BackgroundTask] = {"nats server": Elsewhere(lambda: self.nc).run}
        self._starters: list[Callable[[], Awaitable[None]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._server: uvicorn.Server | None = None
        self._stopping = False
        self.app = AsgiFastStream(
            self.broker,
            asgi_routes=[
                ("/healthz", get(self._healthz)),
                ("/readyz", get(self._readyz)),
                ("/metrics", make_asgi_app(self.metrics)),
            ],
            asyncapi_path="/asyncapi",
            specification=self.document,
            logger=None,
            after_startup=[self._start],
            on_shutdown=[self._stop],
        )

    @property
    def nc(self) -> Client:
        """The service's one NATS connection. Raises until the broker has started."""
        if self._connection is None:
            self._connection = self.broker.config.connection_state.connection
        return self._connection

    def starter(self, start: Callable[[], Awaitable[None]]) -> None:
        """Have `start` awaited once NATS is connected, before any background task: declare streams, open pools."""
        self._starters.append(start)

    def background(self, name: str, task: BackgroundTask) -> None:
        """Have `task` run as long as the process does."""
        self._background[name] = task

    def readiness(self, name: str, check: ReadinessCheck) -> None:
        """Have `check` asked whenever /readyz is."""
        self._checks[name] = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._edge is not None and scope["type"] != "lifespan" and scope["path"] not in HEALTH_PATHS:
            await self._edge(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until a background task ends; returns the process's exit code."""
        gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
        server = self.server()
        server.run()
        return 0 if self.failed is None and server.started else 1

    def server(self) -> uvicorn.Server:
        """The HTTP server that `run` runs; for tests that serve in their own event loop."""
        config = uvicorn.Config(
            self,
            host=self.settings.http_host,
            port=self.settings.http_port,
            log_config=None,
            access_log=False,
            loop="uvloop",
            http=BoundedHttpProtocol if self.direct is None else DirectHttpProtocol,
            ws="none",
            lifespan="on",
            server_header=False,
            proxy_headers=False,  # an edge decides itself whose X-Forwarded-For it believes
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=65536,
        )
        self._server = _Server(config)
        return self._server

    async def _start(self) -> None:
        try:
            for start in self._starters:
                await start()
        except Exception as error:
            log.error("%s: cannot start: %s: %s", self.name, type(error).__name__, error, exc_info=error)  # noqa: TRY400
            self._end(error)
            return  # not raised: FastStream would be cancelled before it stops its subscribers, and the loop waits for them
        for name, task in self._background.items():
            running = asyncio.create_task(self._watched(name, task), name=f"{self.name}:{name}")
            self._tasks.append(running)

    def _end(self, error: BaseException) -> None:
        """Have the process stop in order and end with exit code 1, for the supervisor to start it again."""
        self.failed = error
        if self._server is not None:
            self._server.should_exit = True

    async def _watched(self, name: str, task: BackgroundTask) -> None:
        try:
            await task()
            raise RuntimeError(f"the background task {name} ended")  # noqa: TRY301 - an end is a death, told in one place
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log.exception("%s: %s ended: %s", self.name, name, type(error).__name__)
            self._end(error)

    async def _stop(self) -> None:
        self._stopping = True
        pending = set(self._tasks)
        for grace_s in STOP_GRACES_S:
            for task in pending:
                task.cancel()  # again, if need be: Python 3.11's wait_for can swallow a cancellation
            if pending:
                _, pending = await asyncio.wait(pending, timeout=grace_s)
        if pending:
            log.error("%s: left running: %s", self.name, ", ".join(sorted(task.get_name() for task in pending)))
        await self.resources.aclose()

    def _nats_readiness(self) -> Readiness:
        connected = bool(self.broker.config.connection_state) and self.nc.is_connected
        return Readiness(connected, "" if connected else "not connected to NATS")

    async def _healthz(self, scope: Scope) -> AsgiResponse:  # noqa: ARG002 - the framework's signature
        return AsgiResponse(b'{"alive":true}', 200, headers={"content-type": "application/json"})

    async def _readyz(self, scope: Scope) -> AsgiResponse:  # noqa: ARG002 - the framework's signature
        parts = {name: check() for name, check in self._checks.items()}
        ready = all(part.ready for part in parts.values()) and not self._stopping
        body = msgspec.json.encode({"ready": ready, "parts": {name: msgspec.to_builtins(part) for name, part in parts.items()}})
        return AsgiResponse(body, 200 if ready else 503, headers={"content-type": "application/json"})


class _Server(uvicorn.Server):
    """uvicorn's server, which ends with exit code 0 when it was asked to stop: the original raises the signal once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def open_broker(name: str, settings: ServiceSettings) -> NatsBroker:
    """The broker, which reconnects for ever."""

    async def on_error(error: Exception) -> None:
        log.warning("%s: NATS: %s", name, error or type(error).__name__)

    return NatsBroker(
        settings.nats_url.split(","),
        name=f"tollbook-{name}",
        security=NatsNKey.from_seed(settings.nats_seed.get_secret_value()) if settings.nats_seed else None,
        inbox_prefix=f"_INBOX_{name}",
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        ping_interval=5,
        max_outstanding_pings=2,
        error_cb=on_error,
        logger=None,
    )
