"""Following a stream: pull requests by hand onto one inbox, with back-pressure, and a new consumer after anything odd."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from shared.errors import TollbookError, Unavailable
from shared.events.usage import STREAM as USAGE
from shared.ids import new_id
from shared.streams.buffer import Buffer, Share, weight
from shared.streams.declare import StreamState, stream_state
from shared.streams.headers import parse_headers, parse_status
from shared.streams.jetstream import (
    MESSAGE_NOT_FOUND,
    NATS_FAILURES,
    STREAM_NOT_FOUND,
    ApiError,
    Connected,
    StreamRefused,
    api,
    raise_if_cancelled,
    stored_message,
)
from shared.streams.message import Message, from_delivery, message_hash, parse_delivery
from shared.streams.wire import WireParser, wire_of

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 1.0
TICK_S: Final = 0.5
SILENT_TICKS_MAX: Final = int(2 * HEARTBEAT_S / TICK_S) + 1
EXPIRES_S: Final = 30.0
INACTIVE_S: Final = 60.0
BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0
REST_MESSAGES: Final = 200
"""Asked for when hardly anything is there: enough for what may come before one looks again."""
OVERHEAD_BYTES: Final = 64 * 1024
_NS: Final = 1_000_000_000


class Ended(Exception):
    """The ephemeral consumer is of no more use; the text says why. Another one goes on where it stopped."""


class Missing(Ended):
    """There is no such stream."""

    def __init__(self, stream: str) -> None:
        super().__init__(f"The stream {stream} does not exist yet.")


class Puller:
    """Puts every message of `stream` (of `subjects` only, if given) after sequence `after` into `buffer`, in order, each once.

    `after_hash` is the hash of the message at `after`: when the stream holds another one there, or ends before it, or has lost
    what comes next, nothing more is pulled and `trouble` says what is wrong and what to do; it is looked at again until it is
    mended. `missing`: the stream is not there. `run` returns by itself only when the stream is another one and `overtaken` says
    that somebody has decided meanwhile where to go on. `name` is for logs and the server's list of
    consumers: letters, digits, `-` and `_`.
    """

    def __init__(
        self,
        nc: Connected,
        stream: str,
        *,
        subjects: tuple[str, ...],
        after: int,
        buffer: Buffer,
        name: str,
        after_hash: bytes = b"",
        overtaken: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.stream = stream
        self.subjects = subjects
        self.name = name
        self.buffer = buffer
        self.last = after
        self.trouble = "not started yet"
        self.missing = False
        self.pending = 0
        self._nc = nc
        self._after_hash = after_hash
        self._overtaken = overtaken
        self._last_message: Message | None = None
        self._life: _Life | None = None

    def wake(self) -> None:
        """There is room in the buffer again."""
        if self._life is not None:
            self._life.wake.set()

    def asked(self) -> Share:
        """What was asked for and has not come yet."""
        life = self._life
        return Share(max(0, life.outstanding), max(0, life.reserved)) if life is not None else Share(0, 0)

    def resting(self) -> bool:
        """Whether everything that the stream had is here: what waits in the buffer counts there, more than that is not needed."""
        return self.pending == 0

    def lag(self) -> int:
        """Messages that are stored but not yet taken from the buffer, as of the last one delivered."""
        return self.pending + self.buffer.held(self)

    def expected_hash(self) -> bytes:
        """The hash of the message at `last`; empty when nobody told."""
        return self._last_message.hash if self._last_message is not None else self._after_hash

    def received(self, message: Message) -> None:
        """Called by the life for each message, in order."""
        self.last = message.sequence
        self.pending = message.pending
        self._last_message = message
        self.buffer.put(self, message)

    async def run(self) -> None:
        """Follow the stream until cancelled, or overtaken."""
        self.buffer.open(self)
        backoff_s = BACKOFF_MIN_S
        try:
            while True:
                before = self.last
                missing = False
                try:
                    await self._follow()
                except Ended as ended:
                    if self.trouble != str(ended):  # a stream that is not there yet may not be for weeks
                        log.info("%s: %s: new consumer after %d: %s", self.name, self.stream, self.last, ended)
                    self.trouble = str(ended)
                    missing = isinstance(ended, Missing)
                except StreamRefused as refusal:
                    if self.trouble != str(refusal):
                        log.error("%s: %s", self.name, refusal)  # noqa: TRY400 - the words say it all
                    self.trouble = str(refusal)
                    if self._overtaken is not None and await self._overtaken():
                        return
                except Exception as error:
                    self.trouble = f"{self.stream}: {error or type(error).__name__}"
                    if not isinstance(error, (TollbookError, ApiError, *NATS_FAILURES)):
                        log.exception("%s: following %s failed", self.name, self.stream)
                self.missing = missing
                backoff_s = BACKOFF_MIN_S if self.last != before else min(backoff_s * 2, BACKOFF_MAX_S)
                await asyncio.sleep(backoff_s)
        finally:
            self.buffer.close(self)

    async def _follow(self) -> None:
        nc = self._nc()
        if not nc.is_connected:
            raise Unavailable("NATS is not connected.")
        life = _Life(self, nc)
        self._life = life
        try:
            await life.run()
        finally:
            self._life = None
            await life.close()

    async def verify(self, nc: Client) -> None:
        """Whether the stream still holds what was read from it and what comes next. Raises StreamRefused, Ended, Unavailable."""
        state = await stream_state(nc, self.stream)
        if state is None:
            raise Missing(self.stream)
        if state.last < self.last:
            raise StreamRefused(
                f"The stream {self.stream} ends at {state.last}, but {self.name} has read up to {self.last}. {self._way_out()}"
            )
        if state.first > self.last + 1 and not state.may_begin_later:
            raise StreamRefused(
                f"The stream {self.stream} begins at {state.first}, but {self.name} needs {self.last + 1}: it was emptied. Its"
                " log's relay writes it again; if it does not, delete the stream."
            )
        expected = self.expected_hash()
        if self.last >= max(1, state.first) and expected:
            await self._verify_hash(nc, state, expected)

    def _way_out(self) -> str:
        if self.stream == USAGE:
            return (
                "NATS was restored from an older copy than this database: restore the newer copy. Or delete the stream: USAGE"
                " then begins again above what was counted, and what was stored in it since the copy is given up."
                " docs/reliability.md shows how."
            )
        return (
            "If it is being written again from its log, this passes by itself. If not, NATS was restored from an older copy than"
            " this database: restore the newer copy; or, if events were given up, rebuild what was made from this stream"
            " (--rebuild). docs/reliability.md shows how."
        )

    async def _verify_hash(self, nc: Client, state: StreamState, expected: bytes) -> None:
        try:
            answer = await api(nc, f"STREAM.MSG.GET.{self.stream}", {"seq": self.last})
        except ApiError as error:
            if error.err_code != MESSAGE_NOT_FOUND:
                raise
            if state.may_begin_later:
                return
            found = b""
        else:
            subject, _, headers, data = stored_message(answer)
            found = message_hash(subject, headers, data)
        if found != expected:
            what = "has lost the message" if not found else "holds another message than the one that was read"
            raise StreamRefused(
                f"The stream {self.stream} {what} at sequence {self.last}, where {self.name} stands (stream of {state.created})."
                " Either NATS or a database was restored from another copy. Restore the two from the same moment, or rebuild"
                " what was made from this stream (--rebuild). docs/reliability.md shows how."
            )


class _Life:
    """One ephemeral consumer, from its creation to whatever ends it.

    Bookkeeping: `outstanding` counts the messages asked for that have not come, `reserved` the bytes set aside for them.
    """

    def __init__(self, puller: Puller, nc: Client) -> None:
        self.puller = puller
        self.nc = nc
        self.wake = asyncio.Event()
        self.consumer = f"{puller.name}-{new_id()}"
        self.inbox = nc.new_inbox()
        self.wire: WireParser | None = None
        self.subscription: Subscription | None = None
        self.delivered = 0
        self.outstanding = 0
        self.reserved = 0
        self.requests = 0
        self.heard = True
        self.ended = ""
        self.created = False
        self.bytes_min = nc.max_payload + OVERHEAD_BYTES
        self.reconnects = nc.stats["reconnects"]

    async def run(self) -> None:
        """Create, verify, pull. Raises Ended when it is over, and whatever creating and verifying raise."""
        self.wire = await wire_of(self.nc)
        self.subscription = await self.nc.subscribe(f"{self.inbox}.*")
        self.wire.deliver[self.subscription._id] = self._on_message
        await self._create()
        await self.puller.verify(self.nc)
        self.puller.trouble = ""
        self.puller.missing = False
        silent_ticks = 0
        while not self.ended:
            self.wake.clear()
            await self._ask()
            raise_if_cancelled()
            try:
                async with asyncio.timeout(TICK_S):
                    await self.wake.wait()
            except TimeoutError:
                silent_ticks = 0 if self.heard or not self.outstanding else silent_ticks + 1
                self.heard = False
                self._check_connection(silent_ticks)
        raise Ended(self.ended)

    async def _create(self) -> None:
        puller = self.puller
        config = {
            "name": self.consumer,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": puller.last + 1,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(INACTIVE_S * _NS),
            "max_deliver": -1,
        }
        request = f"CONSUMER.CREATE.{puller.stream}.{self.consumer}"
        if len(puller.subjects) == 1:  # the server wants a single one in the request's subject too
            config["filter_subject"] = puller.subjects[0]
            request += f".{puller.subjects[0]}"
        elif puller.subjects:
            config["filter_subjects"] = list(puller.subjects)
        body = {"stream_name": puller.stream, "config": config, "action": "create"}
        try:
            answer = await api(self.nc, request, body)
        except ApiError as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise Missing(puller.stream) from error
            raise
        self.created = True
        puller.pending = answer["num_pending"]

    def _check_connection(self, silent_ticks: int) -> None:
        if not self.nc.is_connected:
            raise Ended("NATS is not connected")
        if self.nc.stats["reconnects"] != self.reconnects:
            raise Ended("the connection to NATS was made again")
        if silent_ticks > SILENT_TICKS_MAX:
            raise Ended("the server has stopped sending heartbeats")

    async def _ask(self) -> None:
        """Ask for as much as fits, if that is worth a request: half of what may be had, or anything when nothing is under way.

        But never for more than there is: what a request leaves over is kept from all others until it expires.
        """
        if self.outstanding <= 0:
            self.outstanding = self.reserved = 0
        few = self.puller.pending <= REST_MESSAGES
        if few and self.outstanding >= REST_MESSAGES // 2:
            return
        room = self.puller.buffer.room(self.puller)
        messages, bytes_ = room.messages - self.outstanding, room.bytes - self.reserved
        if messages < 1 or (self.outstanding and messages < self.outstanding):
            return
        if bytes_ < self.bytes_min and (self.outstanding or self.puller.buffer.held(self.puller)):
            return
        max_bytes = max(self.bytes_min, bytes_ // 2)
        if few:
            messages, max_bytes = min(messages, REST_MESSAGES), self.bytes_min
        else:
            messages = min(messages, self.puller.pending - self.outstanding)
            if messages < 1:
                return
        request = {
            "batch": messages,
            "max_bytes": max_bytes,
            "expires": int(EXPIRES_S * _NS),
            "idle_heartbeat": int(HEARTBEAT_S * _NS),
        }
        self.requests += 1
        self.outstanding += messages
        self.reserved += max_bytes
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.puller.stream}.{self.consumer}"
        await self.nc.publish(subject, msgspec.json.encode(request), reply=f"{self.inbox}.{self.requests}")

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        self.heard = True
        if self.ended:
            return
        if not reply.startswith(b"$JS.ACK."):
            self._on_status(*parse_status(headers), parse_headers(headers))
            return
        delivery = parse_delivery(reply)
        if delivery.consumer_sequence != self.delivered + 1:
            self._end(f"delivery {delivery.consumer_sequence} came after {self.delivered}: messages were lost on the way")
            return
        message = from_delivery(self.puller.stream, subject, headers, data, delivery)
        self.delivered += 1
        self.outstanding -= 1
        self.reserved -= weight(message)
        self.puller.received(message)
        if self.outstanding <= 0:
            self.wake.set()

    def _on_status(self, status: str, description: str, headers: dict[str, str]) -> None:
        """Heartbeat, or the end of a request, or the end of the consumer."""
        if status == "100":
            if int(headers.get("nats-last-consumer", self.delivered)) > self.delivered:
                self._end("a heartbeat tells of messages that never came")
            return
        if status in ("404", "408") or description.startswith(("Message Size", "Batch Completed")):
            self.outstanding -= int(headers.get("nats-pending-messages", 0))
            self.reserved -= int(headers.get("nats-pending-bytes", 0))
            self.wake.set()
        else:
            self._end(f"{status} {description or 'no such consumer'}")

    def _end(self, reason: str) -> None:
        self.ended = reason
        self.wake.set()

    async def close(self) -> None:
        """Leave nothing behind: no subscription here, no consumer on the server. Both go by themselves if this fails."""
        self.ended = self.ended or "closed"
        if self.wire is not None and self.subscription is not None:
            self.wire.deliver.pop(self.subscription._id, None)
            with contextlib.suppress(*NATS_FAILURES):
                await self.subscription.unsubscribe()
        if self.created and self.nc.is_connected:
            with contextlib.suppress(*NATS_FAILURES):
                await self.nc.publish(f"$JS.API.CONSUMER.DELETE.{self.puller.stream}.{self.consumer}")
