"""Events to bytes and back, whatever schema version they were written in."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from shared.events.codec import Codec, Event, UnknownEvent, parse_ce_type


class Moved(Event, frozen=True, kw_only=True):
    schema: ClassVar[int] = 3
    place: str
    metres: float


class Stopped(Event, frozen=True, kw_only=True):
    place: str


def feet_to_metres(data: dict[str, Any]) -> dict[str, Any]:
    return {"to": data["to"], "metres": data["feet"] * 0.3048}


def to_is_place(data: dict[str, Any]) -> dict[str, Any]:
    return {"place": data["to"], "metres": data["metres"]}


@pytest.fixture
def codec() -> Codec[Moved | Stopped]:
    return Codec("walk", Moved | Stopped, {("Moved", 1): feet_to_metres, ("Moved", 2): to_is_place})


def test_what_is_encoded_decodes_to_the_same(codec: Codec[Moved | Stopped]) -> None:
    event = Moved(place="서울", metres=2.5)
    assert codec.decode("Moved", 3, codec.encode(event)) == event
    assert codec.encode(event) == '{"place":"서울","metres":2.5}'.encode()


def test_old_versions_are_lifted_one_by_one(codec: Codec[Moved | Stopped]) -> None:
    assert codec.decode("Moved", 1, b'{"to": "home", "feet": 10}') == Moved(place="home", metres=3.048)
    assert codec.decode("Moved", 2, b'{"to": "home", "metres": 7}') == Moved(place="home", metres=7)


@pytest.mark.parametrize(("type_", "schema"), [("Flew", 1), ("Moved", 4), ("Moved", 0), ("Stopped", 2), ("", 1)])
def test_what_a_newer_release_wrote_is_unknown(codec: Codec[Moved | Stopped], type_: str, schema: int) -> None:
    with pytest.raises(UnknownEvent):
        codec.decode(type_, schema, b"{}")


@pytest.mark.parametrize("data", [b"{}", b'{"place": 1}', b'{"place": null}', b"[]"])
def test_data_of_another_shape_is_refused(codec: Codec[Moved | Stopped], data: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        codec.decode("Stopped", 1, data)


def test_a_schema_without_a_way_up_to_it_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"Moved is at schema 3 but has no upcaster from \[2\]"):
        Codec("walk", Moved | Stopped, {("Moved", 1): feet_to_metres})


def test_cloudevent_types_name_service_event_and_version(codec: Codec[Moved | Stopped]) -> None:
    assert codec.ce_type("Moved", 3) == "tollbook.walk.Moved.v3"
    assert parse_ce_type("tollbook.walk.Moved.v3") == ("walk", "Moved", 3)


@pytest.mark.parametrize("text", ["", "walk.Moved.v3", "tollbook.walk.Moved", "tollbook.walk.Moved.3", "tollbook.walk.Moved.vx"])
def test_other_types_are_not_ours(text: str) -> None:
    with pytest.raises(UnknownEvent):
        parse_ce_type(text)
