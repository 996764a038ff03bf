"""CloudEvents in and out: the bindings' rules, and that nothing anyone sends can do more than be refused."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as OfficialEvent
from hypothesis import given
from hypothesis import strategies as st

from shared.streams.cloudevents import (
    ATTRIBUTE_MAX,
    DATA_MAX,
    CloudEvent,
    Malformed,
    cloudevent_headers,
    decode_value,
    encode_value,
    parse_cloudevent,
)

AT = datetime(2026, 1, 31, 9, 30, 15, 123456, tzinfo=UTC)
REQUIRED = {"specversion": "1.0", "id": "7", "source": "/meter", "type": "tollbook.usage.UsageRecorded.v1"}
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), min_size=1, max_size=200)


def binary(**changes: str | None) -> dict[str, str]:
    attributes = {**REQUIRED, **changes}
    return {f"ce-{name}": value for name, value in attributes.items() if value is not None}


def structured(**changes: object) -> bytes:
    return json.dumps({name: value for name, value in {**REQUIRED, **changes}.items() if value is not None}).encode()


def reason(found: CloudEvent | Malformed) -> str:
    assert isinstance(found, Malformed), found
    return found.reason


def event(found: CloudEvent | Malformed) -> CloudEvent:
    assert isinstance(found, CloudEvent), found
    return found


def test_the_bindings_own_example_of_encoding() -> None:
    assert encode_value("Euro € 😀") == "Euro%20%E2%82%AC%20%F0%9F%98%80"
    assert decode_value("Euro%20%e2%82%ac%20%F0%9F%98%80") == "Euro € 😀"
    assert decode_value('"quoted \\"text\\""') == 'quoted "text"'
    assert decode_value("unnecessarily%41") == "unnecessarilyA"
    for bad in ("%C0%A0", "%E2%82", "%", "%4", "%zz"):
        with pytest.raises(ValueError):
            decode_value(bad)


@given(TEXT)
def test_values_come_back_and_are_printable_ascii(text: str) -> None:
    encoded = encode_value(text)
    assert decode_value(encoded) == text
    assert all("!" <= character <= "~" and character != '"' for character in encoded)


@given(id_=TEXT, source=TEXT, type_=TEXT, subject=st.none() | TEXT, data=st.binary(max_size=300), time=st.datetimes())
def test_what_is_written_in_binary_mode_is_read(
    id_: str, source: str, type_: str, subject: str | None, data: bytes, time: datetime
) -> None:
    at = time.replace(tzinfo=UTC)
    headers = cloudevent_headers(id_=id_, source=source, type_=type_, time=at, subject=subject)
    lowered = {name.lower(): value for name, value in headers.items()}
    assert parse_cloudevent(lowered, data) == CloudEvent(id_, source, type_, subject, at, data, "application/json")


@given(headers=st.dictionaries(st.sampled_from([f"ce-{n}" for n in (*REQUIRED, "time", "subject")]), st.text()), data=st.binary())
def test_whatever_headers_come_an_answer_is_given(headers: dict[str, str], data: bytes) -> None:
    assert isinstance(parse_cloudevent(headers, data), CloudEvent | Malformed)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*REQUIRED, "data", "data_base64", "time"]), inner),
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_body_comes_an_answer_is_given(data: bytes) -> None:
    assert isinstance(parse_cloudevent({}, data), CloudEvent | Malformed)
    assert isinstance(parse_cloudevent({"content-type": "application/cloudevents+json"}, data), CloudEvent | Malformed)


@pytest.mark.parametrize("content_type", [None, "application/cloudevents+json", "Application/CloudEvents+JSON; charset=utf-8"])
def test_structured_mode(content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    body = structured(data={"n": [1, 2]}, time="2026-01-31T18:30:15.123456+09:00", subject="s", myextension=5)
    found = event(parse_cloudevent(headers, body))
    assert (found.id, found.source, found.type, found.subject) == ("7", "/meter", REQUIRED["type"], "s")
    assert found.time == AT
    assert json.loads(found.data) == {"n": [1, 2]}
    assert found.datacontenttype == "application/json"


def test_structured_data_in_its_forms() -> None:
    encoded = base64.b64encode(b"\x00\xff").decode()
    assert event(parse_cloudevent({}, structured(data_base64=encoded, datacontenttype="application/msgpack"))).data == b"\x00\xff"
    assert event(parse_cloudevent({}, structured(data="plain", datacontenttype="text/plain"))).data == b"plain"
    assert event(parse_cloudevent({}, structured(data="json text"))).data == b'"json text"'
    assert event(parse_cloudevent({}, structured())).data == b""
    assert "both data and data_base64" in reason(parse_cloudevent({}, structured(data=1, data_base64="AA==")))
    assert "base64" in reason(parse_cloudevent({}, structured(data_base64="not base64!")))
    assert "base64" in reason(parse_cloudevent({}, structured(data_base64=5)))


def test_the_content_types_of_binary_mode() -> None:
    assert event(parse_cloudevent(binary(), b"{}")).datacontenttype == "application/json"
    assert event(parse_cloudevent({**binary(), "content-type": "text/x"}, b"")).datacontenttype == "text/x"
    both = {**binary(datacontenttype="application/msgpack"), "content-type": "text/x"}
    assert event(parse_cloudevent(both, b"")).datacontenttype == "application/msgpack"
    assert "+xml" in reason(parse_cloudevent({**binary(), "content-type": "application/cloudevents+xml"}, b""))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"specversion": None}, "specversion must be 1.0; it is missing"),
        ({"specversion": "0.3"}, "specversion must be 1.0, not '0.3'"),
        ({"id": None}, "id is missing or empty"),
        ({"id": ""}, "id is missing or empty"),
        ({"source": None}, "source is missing"),
        ({"type": ""}, "type is missing"),
        ({"subject": ""}, "subject is there but empty"),
        ({"id": "x" * (ATTRIBUTE_MAX + 1)}, f"at most {ATTRIBUTE_MAX}"),
        ({"id": "a\x00b"}, "control characters"),
        ({"time": "yesterday"}, "not an RFC 3339 instant like 2026-01-31T09:00:00Z: 'yesterday'"),
        ({"time": "2026-01-31T09:00:00"}, "RFC 3339"),
        ({"time": "2026-02-30T09:00:00Z"}, "RFC 3339"),
        ({"time": "2026-01-31"}, "RFC 3339"),
        ({"time": "1" * 500}, "..."),
    ],
)
def test_what_is_wrong_is_said_the_same_way_in_both_modes(changes: dict[str, str | None], words: str) -> None:
    assert words in reason(parse_cloudevent(binary(**changes), b"{}"))
    assert words in reason(parse_cloudevent({}, structured(**changes)))


def test_what_is_no_cloudevent_at_all() -> None:
    for body in (b"", b"hello", b"[]", b"5", b'{"id":', b"\xff\xfe", b"[" * 100_000):
        assert "There are no ce- headers, and the body is not a CloudEvent" in reason(parse_cloudevent({}, body))
    assert "The attribute id is not a JSON string" in reason(parse_cloudevent({}, structured(id=5)))
    assert "percent-encoded" in reason(parse_cloudevent(binary(id="%zz"), b""))
    assert f"at most {DATA_MAX}" in reason(parse_cloudevent(binary(), bytes(DATA_MAX + 1)))


def test_times_need_an_offset() -> None:
    with pytest.raises(ValueError, match="offset"):
        cloudevent_headers(id_="1", source="/", type_="t", time=datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point
    local = AT.astimezone(timezone(timedelta(hours=9)))
    headers = cloudevent_headers(id_="1", source="/", type_="t", time=local)
    assert headers["ce-time"] == "2026-01-31T18:30:15.123456%2B09:00" or "+09:00" in headers["ce-time"]


def test_the_official_sdks_events_are_read() -> None:
    attributes = {**REQUIRED, "time": AT, "subject": "über alles", "datacontenttype": "application/json", "traceid": "x y"}
    official = OfficialEvent(attributes, {"client_id": "a", "quantity": 3})
    for message in (to_structured(official, JSONFormat()), to_binary(official, JSONFormat())):
        headers = {name.lower(): value for name, value in message.headers.items()}
        found = event(parse_cloudevent(headers, message.body))
        assert (found.id, found.source, found.type) == (REQUIRED["id"], REQUIRED["source"], REQUIRED["type"])
        assert (found.subject, found.time, found.datacontenttype) == ("über alles", AT, "application/json")
        assert json.loads(found.data) == {"client_id": "a", "quantity": 3}
