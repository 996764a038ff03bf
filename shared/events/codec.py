"""Events to bytes and back: names, schema versions, upcasters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, ClassVar, Final, Generic, TypeVar, get_args

import msgspec

TYPES_REMEMBERED: Final = 1024

E = TypeVar("E", bound="Event")

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""The data of an event at schema version n, made into the data at version n + 1. Pure."""


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The base of every event. Its name is the class's name; `schema` is the version of its shape that is written today.

    Immutable all through, so there are no cycles, and the collector need not walk the hundred thousands that a replay makes.
    """

    schema: ClassVar[int] = 1


class UnknownEvent(ValueError):
    """An event type or schema version that this code does not know: it was written by a newer release."""


class Codec(Generic[E]):
    """Encodes and decodes the events of one service.

    `union` is the service's union of Event classes, for instance `RegistryEvent`. `upcasters` maps (type, schema version) to
    the function that lifts that version by one; a chain of them leads from every version ever written to today's.
    """

    def __init__(self, service: str, union: Any, upcasters: Mapping[tuple[str, int], Upcaster] | None = None) -> None:
        self.service = service
        self.classes: dict[str, type[E]] = {cls.__name__: cls for cls in (get_args(union) or (union,))}
        self._upcasters = dict(upcasters or {})
        self._encoder = msgspec.json.Encoder()
        self._decoders = {name: (cls.schema, msgspec.json.Decoder(cls).decode) for name, cls in self.classes.items()}
        self._check_upcasters()

    def _check_upcasters(self) -> None:
        for name, cls in self.classes.items():
            missing = [v for v in range(1, cls.schema) if (name, v) not in self._upcasters]
            if missing:
                raise ValueError(f"{name} is at schema {cls.schema} but has no upcaster from {missing}")

    def encode(self, event: E) -> bytes:
        """The event's data as JSON; its type and schema version travel beside it."""
        return self._encoder.encode(event)

    def decode(self, type_: str, schema: int, data: bytes | str) -> E:
        """The event of today's shape from data of any schema version. Raises UnknownEvent or msgspec.ValidationError."""
        try:
            current, decode = self._decoders[type_]
        except KeyError:
            raise UnknownEvent(f"{self.service} has no event {type_!r}") from None
        if schema == current:
            return decode(data)
        if not 1 <= schema < current:
            raise UnknownEvent(f"{type_} is known up to schema {current}, not {schema}: this release is older than the event")
        fields: dict[str, Any] = msgspec.json.decode(data)
        for version in range(schema, current):
            fields = self._upcasters[type_, version](fields)
        return msgspec.convert(fields, self.classes[type_])

    def ce_type(self, type_: str, schema: int) -> str:
        """The CloudEvents type, for instance `tollbook.registry.AppRegistered.v1`."""
        return f"tollbook.{self.service}.{type_}.v{schema}"


@lru_cache(TYPES_REMEMBERED)
def parse_ce_type(ce_type: str) -> tuple[str, str, int]:
    """`tollbook.<service>.<Event>.v<n>` taken apart. Raises UnknownEvent when it is anything else."""
    parts = ce_type.split(".")
    if len(parts) != 4 or parts[0] != "tollbook" or not parts[3].startswith("v") or not parts[3][1:].isdecimal():
        raise UnknownEvent(f"{ce_type!r} is not of the form tollbook.<service>.<Event>.v<n>")
    return parts[1], parts[2], int(parts[3][1:])
