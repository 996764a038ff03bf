"""Dead letters of usage, as operators see them and settle them. Subjects metering.queries.<Name>, metering.commands.<Name>.

`account` is the operator's own: it only bounds the command id. A letter belongs to no account that could be known for certain.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints

from shared.commands.base import Command, Query, Reply

PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 20
NOTE_MAX: Final = 500

State = Literal["open", "retried", "discarded"]
LetterId = Annotated[int, Field(ge=1, lt=2**63)]
Why = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
Note = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=NOTE_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")]


class ListDeadLetters(Query):
    """Dead letters, the newest first; those with reason `why`, in `state`, of `sender`, stored from `from` to `to` (included).

    `before` is `next_before` of the page before.
    """

    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True, serialize_by_alias=True)

    why: Why | None = None
    state: State | None = None
    sender: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    from_: Annotated[AwareDatetime | None, Field(alias="from")] = None
    to: AwareDatetime | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    before: LetterId | None = None


class CountDeadLetters(Query):
    """How many dead letters there are, by reason and state."""


class GetDeadLetter(Query):
    """One dead letter with its bytes. Refused with NotFound."""

    letter: LetterId


class RetryDeadLetter(Command):
    """Publish what the letter holds again. Refused with NotFound, and with Conflict when it was settled before or cannot be sent.

    What does not count this time either becomes a dead letter of its own, whose `retry_of` is this one.
    """

    letter: LetterId
    note: Note


class DiscardDeadLetter(Command):
    """Leave it at that: the letter stays, and says why. Refused with NotFound, and with Conflict when it was settled before."""

    letter: LetterId
    note: Note


class DeadLetterView(Reply):
    """What did not count, and what became of it.

    `letter` is its sequence in DEADLETTER, and its name. `why` is the reason for programs, `reason` for people. `subject`,
    `original_sequence` and `original_at` say where the original is in USAGE and when it was stored; `record` is its place in its
    batch (null: a whole message), `records` how many there are in this letter, `size` its bytes. `sender` is the batch's
    publisher or the event's source, `client_id` and `account` whose application it is: null where that cannot be known.
    `retry_of` is the letter that this one is the retry of, `left_out` what was not kept. `note`, `settled_by` and `settled_at`
    are of who retried or discarded it; `sent_as` is the sequence in USAGE under which it was sent again, null: not yet.
    """

    letter: int
    recorded_at: datetime
    why: str
    reason: str
    subject: str
    original_sequence: int
    original_at: datetime
    record: int | None
    records: int
    size: int
    sender: str | None
    client_id: str | None
    account: str | None
    retry_of: int | None
    left_out: str | None
    state: State
    note: str | None
    settled_by: str | None
    settled_at: datetime | None
    sent_as: int | None


class DeadLetterPage(Reply):
    """Reply to ListDeadLetters. `next_before` leads to the next page; None: this was the last."""

    letters: tuple[DeadLetterView, ...]
    next_before: int | None = None


class DeadLetterCount(Reply):
    """How many letters have this reason, by state."""

    why: str
    open: int
    retried: int
    discarded: int


class DeadLetterCounts(Reply):
    """Reply to CountDeadLetters, by reason in alphabetical order."""

    counts: tuple[DeadLetterCount, ...]


class DeadLetterContent(DeadLetterView):
    """Reply to GetDeadLetter.

    `data` is the beginning of its `size` bytes in base64; null: the stream has lost them. `headers` are the original's. `decoded`
    is the same as JSON to read, null if it is neither JSON nor msgpack, or too long. `retry_refused`: why it cannot be retried,
    null if it can.
    """

    headers: dict[str, str]
    data: str | None
    decoded: str | None
    retry_refused: str | None
