"""Answering over NATS: FastStream's subscribers, asked without its middlewares, contexts and injected arguments.

FastStream connects, subscribes, describes each subject in AsyncAPI and lets what is under way end before it stops. What it does
for each message between its subscription and a handler cost more than deciding a command, and none of it is needed here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from faststream.nats import NatsBroker
from faststream.nats.subscriber.usecases import CoreSubscriber
from nats.aio.msg import Msg
from pydantic import ValidationError

from shared.commands.base import ERROR_HEADER, Message, Refusal, RefusedField, Reply, field_problems
from shared.errors import InvalidInput, MalformedRequest, TollbookError
from shared.streams.jetstream import NATS_FAILURES

log = logging.getLogger(__name__)

JSON: Final = {"content-type": "application/json"}

M = TypeVar("M", bound=Message)
Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


def respond_to(
    broker: NatsBroker, subject: str, queue: str, message: type[M], answer: Callable[[M], Awaitable[Reply]], workers: int
) -> None:
    """Have each `message` on `subject` answered, up to `workers` at once; several processes share them (queue group).

    What is wrong with one, and whatever `answer` raises, is replied as a `Refusal`.
    """
    respond(broker, subject, queue, lambda data: read(message, data), answer, written, workers)


def respond(
    broker: NatsBroker,
    subject: str,
    queue: str,
    read: Callable[[bytes], Asked],
    answer: Callable[[Asked], Awaitable[Answered]],
    write: Callable[[Answered], bytes],
    workers: int,
    *,
    in_document: bool = True,
) -> None:
    """The same for messages of any kind, which `read` and `write` make of JSON and JSON of."""
    subscriber = broker.subscriber(subject, queue=queue, include_in_schema=in_document)
    subscriber(answer)
    # Should FastStream call its own in another way one day, that works as before, but for refusals: tests would say so.
    subscriber.consume = _Responder(subscriber, read, answer, write, workers).take  # type: ignore[method-assign]


def read(message: type[M], data: bytes) -> M:
    """A message from its JSON. Raises MalformedRequest or InvalidInput, naming every field that is wrong."""
    try:
        return message.model_validate_json(data)
    except ValidationError:
        return _read_carefully(message, data)


def _read_carefully(message: type[M], data: bytes) -> M:
    """Once more in two steps: what is no JSON at all is told from what is wrong with a field."""
    try:
        return message.model_validate(json.loads(data))
    except ValidationError as error:
        problems = field_problems(error.errors(include_url=False, include_input=False))
        raise InvalidInput("The message breaks the rules named in `fields`.", problems) from error
    except (ValueError, RecursionError) as error:  # the latter: arrays nested thousands deep
        raise MalformedRequest("The message is not JSON in UTF-8.") from error


def written(reply: Reply) -> bytes:
    """A reply as JSON."""
    return reply.model_dump_json().encode()


class _Responder(Generic[Asked, Answered]):
    """Answers the messages of one subscriber."""

    def __init__(
        self,
        subscriber: CoreSubscriber,
        read: Callable[[bytes], Asked],
        answer: Callable[[Asked], Awaitable[Answered]],
        write: Callable[[Answered], bytes],
        workers: int,
    ) -> None:
        self._subscriber = subscriber
        self._read = read
        self._answer = answer
        self._write = write
        self._free = asyncio.Semaphore(workers)
        self._under_way: set[asyncio.Task[None]] = set()

    async def take(self, msg: Msg) -> None:
        """Have a message answered; while too many are, the next ones wait in nats-py's queue."""
        await self._free.acquire()
        if not self._subscriber.running:  # it is stopping: somebody else of the queue group is there, or will be
            self._free.release()
            return
        task = asyncio.create_task(self._respond(msg))
        self._under_way.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._free.release()

    async def _respond(self, message: Msg) -> None:
        with self._subscriber.lock:  # FastStream stops when nobody is in it
            data, headers = await self._outcome(message.data)
            if not message.reply:
                return
            try:
                await self._subscriber.connection.publish(message.reply, data, headers=headers)
            except NATS_FAILURES as error:
                log.warning("a reply to %s was not sent: %s", message.subject, type(error).__name__)

    async def _outcome(self, data: bytes) -> tuple[bytes, dict[str, str]]:
        try:
            return self._write(await self._answer(self._read(data))), JSON
        except TollbookError as error:
            return _refused(error)
        except Exception as error:
            log.exception("a command failed: %s", type(error).__name__)
            return _refused(TollbookError("Something went wrong here; nothing was changed."))


def _refused(error: TollbookError) -> tuple[bytes, dict[str, str]]:
    fields = tuple(RefusedField(field=f.field, problem=f.problem, hint=f.hint) for f in error.fields)
    refusal = Refusal(code=error.code, detail=error.detail, fields=fields, retry_after_s=error.retry_after_s)
    return written(refusal), {**JSON, ERROR_HEADER: error.code}
