"""Usage records as rows of bytes: records that are laid out alike are counted as bytes, and each that differs is decoded once.

What most records of a publisher differ in is only when they occurred. With those eight bytes blanked, the bytes of a record tell
everything else about it, and counting equal rows needs no decoding. Pure; says None whenever it cannot vouch for a batch, which
is then read the ordinary way.
"""

from __future__ import annotations

from collections import _count_elements  # type: ignore[attr-defined]  # what Counter is made of; it counts into any dict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from shared.events.usage import RECORDS_MAX

RECORDS_MIN: Final = 8
"""Fewer records are read as fast the ordinary way."""
LAYOUTS_MAX: Final = 8
"""Lengths of records in one batch that are told apart; with more it is read the ordinary way."""
LENGTH_MAX: Final = 256
"""Bytes of a record, at most: the largest that counts has less."""
_AT_ONCE: Final = 32
_TIME_BYTES: Final = 8
_NEAR_BITS: Final = 16
_UINT64: Final = 0xCF
_NO_TEXT: Final = 0xA0
_UINT_BYTES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, _UINT64: 8}
_HEAD: Final = b"\x84\xa9publisher"
_SEQ: Final = b"\xa3seq"
_RECORDS: Final = b"\xa7records"
_TAIL: Final = b"\xa9retracted\xc2"
_raws: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Layout(NamedTuple):
    """How a record is laid out: `fixed` are the places of the bytes that say so, `small` that of a quantity of one byte (or -1),
    `time` that of the first of the eight bytes of `occurred_at_us`; `leased`: it names a quota lease."""

    fixed: Sequence[int]
    small: int
    time: int
    leased: bool


class Rows:
    """`count` records of `length` bytes each, laid out alike, their times blanked; these are from `earliest_us` to `latest_us`:
    bounds, at most 66 ms wider on each side than the times are. `leased`: each names a quota lease, else none does."""

    __slots__ = ("content", "count", "earliest_us", "latest_us", "leased", "length")

    def __init__(self, content: bytearray, length: int, count: int, leased: bool, earliest_us: int, latest_us: int) -> None:
        self.content = content
        self.length = length
        self.count = count
        self.leased = leased
        self.earliest_us = earliest_us
        self.latest_us = latest_us

    def __iter__(self) -> Iterator[bytes]:
        whole = self.count // _AT_ONCE * _AT_ONCE * self.length
        view = memoryview(self.content)
        many = _struct(self.length, _AT_ONCE).iter_unpack(view[:whole])
        return chain(chain.from_iterable(many), chain.from_iterable(_struct(self.length, 1).iter_unpack(view[whole:])))

    def count_into(self, counts: dict[bytes, int]) -> None:
        """Add how often each row comes."""
        _count_elements(counts, iter(self))


def rows_of(records: bytes | memoryview) -> Sequence[Rows] | None:
    """The records of an array in msgpack; None if they are not as gates write them. Strings need not be UTF-8."""
    head = _array(records)
    if head is None:
        return None
    count, start = head
    if not RECORDS_MIN <= count <= RECORDS_MAX:
        return None
    content = memoryview(records)[start:]
    length, odd = divmod(len(content), count)
    alike = None if odd else _alike(content, length, count)
    return _of_several_layouts(records) if alike is None else (alike,)


def cut_out(data: bytes) -> tuple[bytes, memoryview] | None:
    """A batch without its records, and the records; None unless it is written just as msgspec writes a UsageBatch that is not
    retracted. Only if the records turn out to be one array (`rows_of`), this is what the batch says."""
    if not data.startswith(_HEAD) or not data.endswith(_TAIL):
        return None
    try:
        at = _after_text(data, len(_HEAD), [])
        if not data.startswith(_SEQ, at):
            return None
        at += len(_SEQ)
        at += 1 if data[at] < 0x80 else 1 + _UINT_BYTES[data[at]]
    except (IndexError, KeyError):
        return None
    if not data.startswith(_RECORDS, at):
        return None
    at += len(_RECORDS)
    return data[:at] + b"\x90" + _TAIL, memoryview(data)[at : -len(_TAIL)]


def _of_several_layouts(records: bytes | memoryview) -> Sequence[Rows] | None:
    raws = _raws(records)
    by_length: dict[int, list[msgspec.Raw]] = {}
    for raw in raws:
        by_length.setdefault(len(raw), []).append(raw)
    if len(by_length) > LAYOUTS_MAX:
        return None
    found = []
    for length, some in by_length.items():
        rows = _alike(memoryview(b"".join(some)), length, len(some))
        if rows is None:
            return None
        found.append(rows)
    return found


def _array(data: bytes | memoryview) -> tuple[int, int] | None:
    """Members of the array that begins here, and where the first of them begins."""
    if len(data) < 3:
        return None
    head = data[0]
    if head & 0xF0 == 0x90:
        return head & 0x0F, 1
    return (data[1] << 8 | data[2], 3) if head == 0xDC else None


def _alike(content: memoryview, length: int, count: int) -> Rows | None:
    """All of the content as rows, if every one is laid out as the first is."""
    layout = layout_of(content[:length]) if length <= LENGTH_MAX else None
    if layout is None:
        return None
    rows = bytearray(content)
    for place in layout.fixed:
        if rows[place::length] != rows[place : place + 1] * count:
            return None
    if layout.small >= 0 and not rows[layout.small :: length].isascii():
        return None
    earliest_us, latest_us = _span(rows, layout.time, length, count)
    blank = bytes(count)
    for place in range(layout.time, layout.time + _TIME_BYTES):
        rows[place::length] = blank
    return Rows(rows, length, count, layout.leased, earliest_us, latest_us)


def _span(rows: bytearray, place: int, length: int, count: int) -> tuple[int, int]:
    """Bounds of the times. They mostly agree in their first bytes; the last two are not looked at."""
    agreed = 0
    for index in range(_TIME_BYTES - _NEAR_BITS // 8):
        column = rows[place + index :: length]
        shift = 8 * (_TIME_BYTES - 1 - index)
        if column == column[:1] * count:
            agreed |= column[0] << shift
        elif shift == _NEAR_BITS:
            found = set(column)
            return agreed | min(found) << shift, agreed | max(found) << shift | (1 << shift) - 1
        else:
            times = [time for (time,) in Struct(f">{place}xQ{length - place - _TIME_BYTES}x").iter_unpack(rows)]
            return min(times), max(times)
    return agreed, agreed | (1 << _NEAR_BITS) - 1


def layout_of(record: bytes | memoryview) -> Layout | None:
    """How this record is laid out; None if not as the fields of a UsageRecord are in their shortest form, or nearly."""
    members = record[0] - 0x90 if len(record) else 0
    if not 3 <= members <= 6:
        return None
    fixed = [0]
    try:
        at = _after_text(record, 1, fixed)
        at = _after_text(record, at, fixed)
        fixed.append(at)
        if record[at] != _UINT64:
            return None
        time = at + 1
        at = time + _TIME_BYTES
        small = -1
        if members >= 4:
            if record[at] < 0x80:
                small, at = at, at + 1
            else:
                fixed.append(at)
                at += 1 + _UINT_BYTES[record[at]]
        text = at
        for _ in range(members - 4):
            text, at = at, _after_text(record, at, fixed)
        leased = members == 6 and record[text] != _NO_TEXT
    except (IndexError, KeyError):
        return None
    return Layout(fixed, small, time, leased) if at == len(record) else None


def _after_text(record: bytes | memoryview, at: int, fixed: list[int]) -> int:
    """The place after the text that begins at `at`. Raises KeyError if there is none, IndexError after the end."""
    head = record[at]
    fixed.append(at)
    if head & 0xE0 == 0xA0:
        return at + 1 + (head & 0x1F)
    if head != 0xD9:
        raise KeyError(head)
    fixed.append(at + 1)
    return at + 2 + record[at + 1]


@lru_cache(maxsize=2 * LENGTH_MAX)
def _struct(length: int, rows: int) -> Struct:
    return Struct(f"{length}s" * rows)
