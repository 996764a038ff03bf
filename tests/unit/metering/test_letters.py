"""Dead letters as operators see them, and what a retry sends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.metering import settling
from services.metering.deadletters import letter, sender_of
from services.metering.decoding import Batch, Single, Void, read
from services.metering.lapses import LapsedPlace
from services.metering.letters import RETRY_HEADER, Letter, original_headers, places_of, plan_retry, preview, read_letter
from services.metering.rejection import Rejected, Why
from shared.commands.deadletters import DeadLetterView, DiscardDeadLetter, RetryDeadLetter
from shared.errors import Conflict, NotFound
from shared.events.metering import DeadLetterDiscarded, DeadLetterRetried
from shared.events.usage import UsageRecord
from shared.streams.message import Message
from shared.streams.publish import Outgoing
from shared.windows import to_us

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 3, tzinfo=UTC)
CLIENT = "a" * 20
RECORD = [CLIENT, "csr", to_us(NOW), 2, "s1"]
BYTES_MAX = 1_000_000
MSGPACK, JSON = {"content-type": "application/msgpack"}, {"content-type": "application/json; charset=utf-8"}


def original(data: bytes, headers: dict[str, str], subject: str = "usage.records.3") -> Message:
    return Message("USAGE", subject, 7, headers, data, NOW)


def stored(rejected: Rejected, bytes_max: int = BYTES_MAX, sequence: int = 17) -> Message:
    """The dead letter as DEADLETTER gives it back."""
    kept = letter(rejected, bytes_max, sender_of(rejected.message))
    headers = {name.lower(): value for name, value in kept.headers.items()}
    return Message("DEADLETTER", kept.subject, sequence, headers, kept.data, LATER)


def again(message: Message) -> Message:
    """What a retry of the letter puts into USAGE."""
    planned = plan_retry(message, BYTES_MAX)
    assert isinstance(planned, Outgoing), planned
    headers = {name.lower(): value for name, value in planned.headers.items()}
    return Message("USAGE", planned.subject, 8, headers, planned.data, LATER)


def refusal(message: Message, bytes_max: int = BYTES_MAX) -> str:
    planned = plan_retry(message, bytes_max)
    assert isinstance(planned, str), planned
    return planned


def event(data: Any, type_: str = "UsageRecorded", **attributes: str) -> Message:
    attributes = {"specversion": "1.0", "id": "1", "source": "/meter", "type": f"tollbook.usage.{type_}.v1", **attributes}
    headers = {f"ce-{name}": value for name, value in attributes.items()} | {"content-type": "application/json"}
    return original(msgspec.json.encode(data), headers, "usage.cloudevents")


@pytest.mark.parametrize(("kind", "headers"), [(msgspec.msgpack, MSGPACK), (msgspec.json, JSON)])
def test_a_record_is_read_and_retried_as_the_batch_of_a_publisher_of_its_own(kind: Any, headers: dict[str, str]) -> None:
    batch = original(kind.encode({"publisher": "gate-1", "seq": 5, "records": [RECORD, RECORD]}), headers)
    message = stored(Rejected(batch, Why.UNKNOWN_APPLICATION, "no such", 1, kind.encode(RECORD)))
    assert read_letter(message) == Letter(
        17,
        LATER,
        "unknown_application",
        "no such",
        "usage.records.3",
        7,
        NOW,
        1,
        1,
        len(message.data),
        "gate-1",
        CLIENT,
        None,
        "",
    )
    assert preview(message) is not None
    found = read(again(message))
    assert isinstance(found, Batch)
    assert (found.batch.publisher, found.batch.seq, found.batch.records) == ("retry-17", 1, [UsageRecord(*RECORD)])
    assert (found.partition, found.message.headers[RETRY_HEADER]) == (3, "17")
    failed = stored(Rejected(found.message, Why.TOO_OLD, "r", 0, kind.encode(RECORD)), sequence=18)
    assert (read_letter(failed).retry_of, read_letter(failed).sender) == (17, "retry-17")


def test_several_records_in_one_letter_cannot_be_retried_for_nobody_keeps_their_places() -> None:
    batch = original(msgspec.msgpack.encode({"publisher": "gate-1", "seq": 5, "records": [RECORD] * 3}), MSGPACK)
    message = stored(Rejected(batch, Why.TOO_OLD, "r", 1, msgspec.msgpack.encode([RECORD, RECORD]), 2))
    assert (read_letter(message).records, read_letter(message).client_id) == (2, "")
    assert "2 records" in refusal(message)


def test_what_is_retried_under_another_name_is_left_out_where_it_was() -> None:
    content = msgspec.msgpack.encode({"publisher": "gate-1", "seq": 5, "records": [RECORD] * 3})
    one = stored(Rejected(original(content, MSGPACK), Why.UNKNOWN_APPLICATION, "r", 2, msgspec.msgpack.encode(RECORD)))
    assert places_of(one) == [LapsedPlace("usage.records.3", 7, 2)]
    whole = stored(Rejected(original(content, MSGPACK), Why.UNREADABLE, "r"))
    assert places_of(whole) == [LapsedPlace("usage.records.3", 7, place) for place in range(3)]
    assert places_of(stored(Rejected(event({"client_id": CLIENT}), Why.INVALID_RECORD, "r"))) == []


def test_a_whole_batch_is_retried_under_another_name_for_its_own_would_be_a_repetition() -> None:
    whole = original(msgspec.json.encode({"publisher": "gate-1", "seq": 5, "records": [RECORD], "new": 1}), JSON)
    message = stored(Rejected(whole, Why.UNREADABLE, "r"))
    assert (read_letter(message).record, read_letter(message).sender) == (None, "gate-1")
    found = read(again(message))
    assert isinstance(found, Batch)
    assert (found.batch.publisher, found.batch.records) == ("retry-17", [UsageRecord(*RECORD)])


def test_an_event_is_retried_as_itself_at_the_time_when_it_came_first() -> None:
    data = {"client_id": CLIENT, "service": "csr", "quantity": 3}
    for first in (event(data), event(data, time="2026-11-21T03:00:00Z"), event({**data, "occurred_at": "2026-11-20T03:00:00Z"})):
        message = stored(Rejected(first, Why.UNKNOWN_APPLICATION, "r"))
        assert (read_letter(message).sender, read_letter(message).client_id) == ("/meter", CLIENT)
        before, found = read(first), read(again(message))
        assert isinstance(before, Single)
        assert isinstance(found, Single)
        assert (found.key, found.record) == (before.key, before.record)


def test_an_event_that_states_when_it_was_is_the_same_event_when_it_is_retried() -> None:
    first = event({"client_id": CLIENT, "service": "csr"}, time="2026-11-21T03:00:00.123456789Z", source="/m%C3%A9ter")
    before, found = read(first), read(again(stored(Rejected(first, Why.UNKNOWN_APPLICATION, "r"))))
    assert isinstance(before, Single)
    assert isinstance(found, Single)
    assert (found.key, found.digest) == (before.key, before.digest)


def test_a_correction_that_overtook_its_record_is_retried_as_itself() -> None:
    first = event({"record_id": "9", "reason": "x"}, "UsageVoided")
    before, found = read(first), read(again(stored(Rejected(first, Why.UNKNOWN_RECORD, "r"))))
    assert isinstance(before, Void)
    assert isinstance(found, Void)
    assert (found.key, found.digest, found.record_key) == (before.key, before.digest, before.record_key)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (stored(Rejected(original(b"\xc1", MSGPACK), Why.UNREADABLE, "r")), "cannot be read"),
        (stored(Rejected(original(b"{}", {}), Why.CONTENT_TYPE, "r")), "Content-Type"),
        (
            stored(
                Rejected(
                    original(msgspec.msgpack.encode({"publisher": "p", "seq": 1, "records": [], "retracted": True}), MSGPACK),
                    Why.CONFLICT,
                    "r",
                )
            ),
            "only its publisher",
        ),
        (
            stored(Rejected(original(b"", MSGPACK), Why.LEASE_ENDED, "r", 0, msgspec.msgpack.encode([*RECORD, "lease"]))),
            "call was refused",
        ),
        (stored(Rejected(original(b"hello", {}, "usage.cloudevents"), Why.UNREADABLE, "r")), "not a CloudEvent"),
        (stored(Rejected(event({}, source="/m\u00e9ter"), Why.INVALID_RECORD, "r")), "not ASCII"),
        (stored(Rejected(original(b"x" * 900, MSGPACK), Why.UNREADABLE, "r"), 1_000), "not kept whole"),
        (stored(Rejected(original(b"x", {}, "elsewhere"), Why.UNREADABLE, "r")), "elsewhere"),
    ],
)
def test_what_cannot_be_retried_says_why(message: Message, named: str) -> None:
    assert named in refusal(message)


def test_what_would_be_too_big_with_what_a_retry_adds_is_refused() -> None:
    message = stored(Rejected(event({"client_id": "x" * 5_000}), Why.INVALID_RECORD, "r"))
    assert "5100 bytes" in refusal(message, 5_100)


headers = st.dictionaries(
    st.sampled_from(["content-type", "ce-id", "ce-source", "ce-type", "ce-specversion", "ce-time", "x", "tollbook-retry"]),
    st.sampled_from(["application/msgpack", "application/json", "1.0", "1", "/m", "tollbook.usage.UsageRecorded.v1"])
    | st.text(st.characters(codec="utf-8"), max_size=12),
)
contents = st.binary(max_size=60) | st.sampled_from([msgspec.msgpack.encode(RECORD), msgspec.json.encode(RECORD), b"[" * 3_000])


@given(headers, contents, st.sampled_from(["usage.cloudevents", "usage.records.0"]), st.sampled_from([None, 0]))
def test_whatever_did_not_count_can_be_listed_and_retried_or_says_why_not(
    of_original: dict[str, str], data: bytes, subject: str, number: int | None
) -> None:
    message = stored(
        Rejected(original(data, of_original, subject), Why.UNREADABLE, "r", number, None if number is None else data)
    )
    found = read_letter(message)
    assert not any("\0" in value for value in found if isinstance(value, str))
    assert original_headers(message).keys() == of_original.keys()
    preview(message)
    planned = plan_retry(message, BYTES_MAX)
    assert planned
    if isinstance(planned, Outgoing):
        assert planned.subject == subject
        assert planned.headers[RETRY_HEADER] == "17"


def test_a_message_that_is_no_dead_letter_of_ours_is_listed_as_well() -> None:
    found = read_letter(Message("DEADLETTER", "deadletter.usage", 3, {"tollbook-sequence": "9" * 30}, b"x", NOW))
    assert (found.why, found.original_sequence, found.original_at, found.records) == ("unknown", 0, NOW, 1)


VIEW = DeadLetterView(
    letter=17, recorded_at=NOW, why="too_old", reason="r", subject="s", original_sequence=1, original_at=NOW, record=None,
    records=1, size=1, sender=None, client_id=None, account=None, retry_of=None, left_out=None, state="open", note=None,
    settled_by=None, settled_at=None, sent_as=None,
)  # fmt: skip
RETRY = RetryDeadLetter(command_id="c1", account="ops", actor="token:t1", letter=17, note=" seen ")
DISCARD = DiscardDeadLetter(command_id="c2", account="ops", actor="token:t1", letter=17, note="a test")


def test_each_letter_is_settled_once() -> None:
    facts = settling.Facts(LATER, VIEW)
    retried = settling.retry(settling.OPEN, facts, RETRY, None)
    assert retried.events == [DeadLetterRetried(letter=17, note="seen", settled_by="token:t1")]
    assert (retried.reply.state, retried.reply.note, retried.reply.settled_at) == ("retried", "seen", LATER)
    state = settling.evolve(settling.OPEN, retried.events[0])
    with pytest.raises(Conflict, match="retried before"):
        settling.discard(state, facts, DISCARD)
    discarded = settling.discard(settling.OPEN, facts, DISCARD)
    assert discarded.events == [DeadLetterDiscarded(letter=17, note="a test", settled_by="token:t1")]
    with pytest.raises(Conflict, match="discarded before"):
        settling.retry(settling.evolve(settling.OPEN, discarded.events[0]), facts, RETRY, None)


def test_what_is_not_there_or_cannot_be_sent_is_refused() -> None:
    with pytest.raises(NotFound):
        settling.discard(settling.OPEN, settling.Facts(LATER, None), DISCARD)
    with pytest.raises(Conflict, match="too big"):
        settling.retry(settling.OPEN, settling.Facts(LATER, VIEW), RETRY, "too big")
