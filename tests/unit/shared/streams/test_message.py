"""What a delivered message says of itself."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from shared.streams.marks import mark_dirty
from shared.streams.message import from_delivery, message_hash, parse_delivery

SHORT = b"$JS.ACK.P.abc.1.5.2.1795304269029339100.12"
LONG = b"$JS.ACK.hub.Xacc.P.abc.1.5.2.1795304269029339100.12.random"


@pytest.mark.parametrize("reply", [SHORT, LONG])
def test_both_forms_of_reply_subjects(reply: bytes) -> None:
    delivery = parse_delivery(reply)
    assert (delivery.consumer, delivery.sequence, delivery.consumer_sequence, delivery.pending) == ("abc", 5, 2, 12)
    message = from_delivery("P", b"p.0", b"NATS/1.0\r\nCE-Id: 7\r\n\r\n", b"x", delivery)
    assert (message.subject, message.sequence, message.headers, message.data) == ("p.0", 5, {"ce-id": "7"}, b"x")
    assert message.pending == 12
    assert message.recorded_at == datetime.fromtimestamp(1795304269, UTC).replace(microsecond=29339)


def test_hashes() -> None:
    plain = hashlib.sha256(b"s\0data").digest()
    assert message_hash("s", {}, b"data") == plain
    assert message_hash("s", {"ce-hash": "ab" * 32}, b"data") == b"\xab" * 32
    for forged in ("", "ab", "zz" * 32, "ab" * 33):
        assert message_hash("s", {"ce-hash": forged}, b"data") == plain


def test_keys_of_buckets() -> None:
    assert mark_dirty("apps", "acme.k3v9").args == ("apps", "acme.k3v9")
    for bad in ("", ".", "a..b", "a.", "a b", "a*", "ä", "a.>"):
        with pytest.raises(ValueError, match="cannot be the key"):
            mark_dirty("apps", bad)
