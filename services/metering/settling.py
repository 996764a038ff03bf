"""What operators decide about dead letters: each is retried or discarded, once. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from shared.commands.deadletters import DeadLetterView, DiscardDeadLetter, RetryDeadLetter, State
from shared.errors import Conflict, NotFound
from shared.eventlog.decision import Decision
from shared.events.metering import DeadLetterDiscarded, DeadLetterRetried, MeteringEvent

OPEN: State = "open"


class Facts(NamedTuple):
    """What a decision needs besides the letter's stream. `view` None: there is no such letter."""

    now: datetime
    view: DeadLetterView | None


def stream_of(letter: int) -> str:
    """The letter's stream in the log."""
    return f"deadletter/{letter}"


def evolve(state: State, event: MeteringEvent) -> State:
    """The letter after the event."""
    if isinstance(event, DeadLetterRetried):
        return "retried"
    return "discarded" if isinstance(event, DeadLetterDiscarded) else state


def retry(state: State, facts: Facts, command: RetryDeadLetter, refused: str | None) -> Decision[MeteringEvent, DeadLetterView]:
    """To send it again. `refused`: why that cannot be done."""
    view = _open(state, facts, command.letter)
    if refused is not None:
        raise Conflict(f"The dead letter {command.letter} cannot be retried: {refused}.")
    event = DeadLetterRetried(letter=command.letter, note=command.note, settled_by=command.actor)
    return _settled(event, view, "retried", facts.now)


def discard(state: State, facts: Facts, command: DiscardDeadLetter) -> Decision[MeteringEvent, DeadLetterView]:
    """To leave it at that."""
    view = _open(state, facts, command.letter)
    event = DeadLetterDiscarded(letter=command.letter, note=command.note, settled_by=command.actor)
    return _settled(event, view, "discarded", facts.now)


def no_letter(letter: int) -> NotFound:
    """What is said of one that is not there."""
    return NotFound(f"There is no dead letter {letter}.")


def _open(state: State, facts: Facts, letter: int) -> DeadLetterView:
    if facts.view is None:
        raise no_letter(letter)
    if state != OPEN:
        raise Conflict(f"The dead letter {letter} was {state} before.")
    return facts.view


def _settled(
    event: DeadLetterRetried | DeadLetterDiscarded, view: DeadLetterView, state: State, now: datetime
) -> Decision[MeteringEvent, DeadLetterView]:
    update = {"state": state, "note": event.note, "settled_by": event.settled_by, "settled_at": now}
    return Decision([event], view.model_copy(update=update), at=now)
