"""Which streams there are and how they are configured. Each is declared by its owner with `ensure_stream`, by nobody else."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from shared.errors import Unavailable
from shared.streams.jetstream import STREAM_NAME_TAKEN, STREAM_NOT_FOUND, TIMEOUT_S, ApiError, StreamRefused, api

USAGE_SUBJECTS: Final = ("usage.records.*", "usage.cloudevents")
DEADLETTER: Final = "DEADLETTER"
_ONLY_AT_CREATION: Final = ("first_seq", "metadata")
_READ_ONLY: Final = ("name",)
_DUE: Final = "tollbook-due"
_DUPLICATE_WINDOW_S: Final = 1.0
STORE_FAILED: Final = 10049
"""Seen for a moment after a stream of the same name was deleted; otherwise a disk that is full or broken."""


class StreamState(msgspec.Struct, frozen=True):
    """Where a stream stands. `first` and `last` are sequences; `created` is when this incarnation of it was made."""

    first: int
    last: int
    messages: int
    created: str
    may_begin_later: bool = False
    """Its configuration lets the oldest messages go, or has it begin above 1, so that a first sequence above 1 is no loss."""
    due: int = 0
    """How far the log reached when it was last begun to be written here again: before that, the stream's end is not the log's."""

    @property
    def whole(self) -> bool:
        """Whether it holds every message from 1 to its last."""
        return self.last == self.messages and (self.last == 0 or self.first == 1)


def log_name(service: str) -> str:
    """The stream that a service's log is relayed to: REGISTRY for registry."""
    return service.upper()


def log_stream(service: str, replicas: int = 1, due: int = 0) -> StreamConfig:
    """The stream of a service's decided facts: nothing ages, nothing can be deleted. `due` (if it is made new): the log's end."""
    config = _base(log_name(service), [f"{service}.events.>"], replicas)
    config.deny_delete = config.deny_purge = True
    config.metadata = {_DUE: str(due)}
    return config


def usage_stream(replicas: int = 1, first_seq: int | None = None) -> StreamConfig:
    """The stream of measured facts. `first_seq` (used only if the stream is made new): above every checkpoint, after a loss."""
    config = _base("USAGE", list(USAGE_SUBJECTS), replicas)
    config.deny_delete = True
    config.first_seq = first_seq
    return config


def deadletter_stream(replicas: int = 1, first_seq: int | None = None) -> StreamConfig:
    """Messages that nobody could read, each with its reason. `first_seq` as for USAGE."""
    config = _base(DEADLETTER, ["deadletter.>"], replicas)
    config.deny_delete = True
    config.first_seq = first_seq
    return config


def kv_name(bucket: str) -> str:
    """The stream behind a KV bucket."""
    return f"KV_{bucket}"


def kv_stream(bucket: str, replicas: int = 1, first_seq: int | None = None) -> StreamConfig:
    """A KV bucket as every NATS client knows it (history 1), that also takes atomic batches. `first_seq`: if it is made new."""
    config = _base(kv_name(bucket), [f"$KV.{bucket}.>"], replicas)
    config.max_msgs_per_subject = 1
    config.allow_rollup_hdrs = True
    config.deny_delete = True
    config.first_seq = first_seq
    return config


async def kv_keys(nc: Client, bucket: str) -> set[str]:
    """Every key that the bucket has a message for, deleted ones too. Raises Unavailable."""
    prefix = f"$KV.{bucket}."
    found: set[str] = set()
    while True:
        asked = {"subjects_filter": f"{prefix}>", "offset": len(found)}
        answer = await api(nc, f"STREAM.INFO.{kv_name(bucket)}", asked)
        page = answer["state"].get("subjects") or {}
        found.update(subject.removeprefix(prefix) for subject in page)
        if not page or len(found) >= answer.get("total", 0):
            return found


def _base(name: str, subjects: list[str], replicas: int) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=subjects,
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        num_replicas=replicas,
        duplicate_window=_DUPLICATE_WINDOW_S,
        allow_direct=True,
        allow_atomic=True,
    )


async def stream_state(nc: Client, name: str, timeout_s: float = TIMEOUT_S) -> StreamState | None:
    """The state of a stream, None when there is no such stream. Raises Unavailable."""
    try:
        return _state(await api(nc, f"STREAM.INFO.{name}", timeout_s=timeout_s))
    except ApiError as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise


def _state(answer: dict[str, Any]) -> StreamState:
    state, config = answer["state"], answer["config"]
    may_begin_later = bool(
        config.get("max_age", 0) > 0
        or config.get("max_bytes", -1) > 0
        or config.get("max_msgs", -1) > 0
        or config.get("max_msgs_per_subject", -1) > 0
        or config.get("first_seq", 0) > 1
    )
    due = int(config.get("metadata", {}).get(_DUE, 0))
    return StreamState(state["first_seq"], state["last_seq"], state["messages"], answer["created"], may_begin_later, due)


async def ensure_stream(nc: Client, config: StreamConfig) -> StreamState:
    """Make the stream if it is missing, update what may be updated, and return its state.

    Raises Unavailable, or StreamRefused when a stream of that name exists and cannot become what is wanted.
    """
    wanted = {key: value for key, value in config.as_dict().items() if value is not None}
    name = wanted["name"]
    try:
        answer = await api(nc, f"STREAM.INFO.{name}")
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        made = await _create(nc, wanted)
        if made is not None:
            return made
        answer = await api(nc, f"STREAM.INFO.{name}")
    existing = answer["config"]
    changed = [
        key
        for key, value in wanted.items()
        if key not in _ONLY_AT_CREATION + _READ_ONLY and existing.get(key, _absent(value)) != value
    ]
    if not changed:
        return _state(answer)
    merged = {**existing, **{key: wanted[key] for key in changed}}
    try:
        return _state(await api(nc, f"STREAM.UPDATE.{name}", merged))
    except ApiError as error:
        raise StreamRefused(
            f"The stream {name} exists with another configuration ({', '.join(sorted(changed))}) and nats-server does not"
            f" change it: {error.description}. Delete the stream (a log's stream is then written again from the log), or"
            " give this stack its own NATS account."
        ) from error


async def set_due(nc: Client, name: str, due: int) -> StreamState:
    """Note on the stream that it ends too early until it holds `due` messages. Raises Unavailable, or ApiError."""
    existing = (await api(nc, f"STREAM.INFO.{name}"))["config"]
    noted = {**existing, "metadata": {**existing.get("metadata", {}), _DUE: str(due)}}
    return _state(await api(nc, f"STREAM.UPDATE.{name}", noted))


def _absent(value: Any) -> Any:
    """What a setting that the server leaves out of its answer is equal to."""
    return False if isinstance(value, bool) else 0 if isinstance(value, int) else None


async def _create(nc: Client, wanted: dict[str, Any]) -> StreamState | None:
    """The new stream's state; None when another has just made it, with what is chosen at creation chosen otherwise."""
    try:
        return _state(await api(nc, f"STREAM.CREATE.{wanted['name']}", wanted))
    except ApiError as error:
        if error.err_code == STREAM_NAME_TAKEN:
            return None
        if error.err_code == STORE_FAILED:
            raise Unavailable(f"nats-server could not make the stream {wanted['name']}: {error.description}.") from error
        raise StreamRefused(
            f"nats-server does not make the stream {wanted['name']}: {error.description}."
            " Replicas above 1 need a NATS cluster of that many servers; overlapping subjects mean that another stream took ours."
        ) from error


async def delete_stream(nc: Client, name: str) -> None:
    """Delete the stream; that there is none is fine."""
    try:
        await api(nc, f"STREAM.DELETE.{name}")
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
