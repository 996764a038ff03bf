"""What everybody has in common who answers commands and queries over NATS, in a service that may still be starting."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeAlias, TypeVar

from faststream.nats import NatsBroker

from shared.commands.base import Command, Query
from shared.commands.requester import subject_of
from shared.commands.responder import respond_to
from shared.errors import TollbookError, Unavailable
from shared.postgres import Connection, Pool
from shared.readiness import Readiness
from shared.streams.passing import may_pass

WORKERS_MAX: Final = 16
ACQUIRE_S: Final = 2.0

S = TypeVar("S")
Answers: TypeAlias = Mapping[type[Command | Query], Callable[..., Awaitable[Any]]]
"""What answers each command and query."""


class Answering(Generic[S]):
    """The base of a service's handlers. Before `start` everything is answered with Unavailable.

    `S` is what there is once the service has started.
    """

    service: str

    def __init__(self) -> None:
        self._started: S | None = None

    @property
    def answers(self) -> Answers:
        """By command or query."""
        raise NotImplementedError

    def subscribe(self, broker: NatsBroker, workers: int = WORKERS_MAX) -> None:
        """Take the commands and queries, up to `workers` of a kind at once; several processes share them (queue group)."""
        for message, answer in self.answers.items():
            respond_to(broker, subject_of(self.service, message), self.service, message, answer, workers)

    def start(self, started: S) -> None:
        """Answer from now on."""
        self._started = started

    def readiness(self) -> Readiness:
        """Not ready until started."""
        started = self._started is not None
        return Readiness(started, "" if started else "starting")

    @property
    def running(self) -> S:
        """What there is. Raises Unavailable before `start`."""
        if self._started is None:
            raise Unavailable(f"The service {self.service} is starting. Trying again in a moment is safe.")
        return self._started


@asynccontextmanager
async def reading(pool: Pool) -> AsyncIterator[Connection]:
    """A connection; a lost database as what may be tried again."""
    try:
        async with pool.acquire(timeout=ACQUIRE_S) as connection:
            yield connection
    except TollbookError:
        raise
    except Exception as error:
        if not may_pass(error):
            raise
        raise Unavailable("The service's database does not answer now. Trying again later is safe.") from error


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncIterator[Connection]:
    """`reading` that sees one state of the tables, however many reads follow."""
    async with reading(pool) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection
