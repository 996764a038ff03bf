"""What a command comes to, as data: what `decide` returns, so that it stays pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from shared.commands.base import Reply
from shared.events.codec import Event

E = TypeVar("E", bound=Event)
R = TypeVar("R", bound=Reply)


@dataclass(frozen=True)
class Decision(Generic[E, R]):
    """What a command comes to: its events (none when it is already so) and its reply.

    `begins` maps the names of streams that begin with this decision, besides its own, to their first events.
    `seal` maps vault ids to what is to be kept there; `shred` names vault ids to forget. `reveals` is the id of the secret that
    the reply shows, if it shows one: that stored reply is dropped with the secret, and after 24 hours.
    `at`: the instant it was decided at, if the reply shows it; the events are then recorded at that same instant.
    """

    events: Sequence[E]
    reply: R
    begins: Mapping[str, Sequence[E]] = field(default_factory=dict)
    seal: Mapping[str, bytes] = field(default_factory=dict)
    shred: Sequence[str] = ()
    reveals: str | None = None
    at: datetime | None = None
