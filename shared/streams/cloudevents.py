"""CloudEvents 1.0 on NATS: writing binary mode, reading binary and structured mode from anyone."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final
from urllib.parse import quote, unquote

import msgspec

SPECVERSION: Final = "1.0"
STRUCTURED: Final = "application/cloudevents"
"""Content-Type of structured mode; `+json` and parameters may follow."""
JSON: Final = "application/json"
ATTRIBUTE_MAX: Final = 1024
"""Characters in one attribute, at most."""
DATA_MAX: Final = 1024 * 1024
"""Bytes of one message, at most: nats-server's own default limit."""

_PRINTABLE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_PLAIN_TYPES: Final = ("", JSON)
_TIME: Final[msgspec.json.Decoder[datetime]] = msgspec.json.Decoder(Annotated[datetime, msgspec.Meta(tz=True)])

_HEADERS: Final = {name: f"ce-{name}" for name in ("specversion", "id", "source", "type", "subject", "time", "datacontenttype")}
"""The attributes that are read, and the headers that they come in."""


class CloudEvent(msgspec.Struct, frozen=True):
    """An event from outside. `data` is as `datacontenttype` says; JSON data of structured mode is its text."""

    id: str
    source: str
    type: str
    subject: str | None
    time: datetime | None
    data: bytes
    datacontenttype: str


class Malformed(msgspec.Struct, frozen=True):
    """Why a message is not a CloudEvent, in words for the one who sent it."""

    reason: str


class _Refused(Exception):
    """Carries the reason out of the depths; never leaves this module."""


def cloudevent_headers(
    *,
    id_: str,
    source: str,
    type_: str,
    time: datetime | None = None,
    subject: str | None = None,
    datacontenttype: str = JSON,
    extensions: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Headers of binary mode. Empty extensions are left out, as CloudEvents has no empty attributes.

    Both `ce-datacontenttype` (the NATS binding) and `Content-Type` (what everything else on NATS looks at) are set.
    """
    attributes = {"specversion": SPECVERSION, "id": id_, "source": source, "type": type_}
    if time is not None:
        attributes["time"] = rfc3339(time)
    attributes |= {"subject": subject or "", "datacontenttype": datacontenttype, **(extensions or {})}
    headers = {f"ce-{name}": encode_value(value) for name, value in attributes.items() if value}
    headers["Content-Type"] = datacontenttype
    return headers


def rfc3339(time: datetime) -> str:
    """An aware instant as CloudEvents writes it."""
    if time.tzinfo is None:
        raise ValueError("an instant without its offset says nothing")
    return time.isoformat().replace("+00:00", "Z")


def encode_value(value: str) -> str:
    """An attribute's value for a header: all but printable ASCII percent-encoded."""
    return value if value.isascii() and value.isalnum() else quote(value, safe=_PRINTABLE)


def decode_value(value: str) -> str:
    """A header's value as an attribute: one round of unquoting and percent-decoding. Raises ValueError."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    if "%" not in value:
        return value
    if _BAD_ESCAPE.search(value):
        raise ValueError("a percent sign is not followed by two hexadecimal digits")
    return unquote(value, errors="strict")


def parse_cloudevent(headers: Mapping[str, str], data: bytes) -> CloudEvent | Malformed:
    """The event in a message, whose header names are lower-cased. Structured mode if Content-Type says so or there is no ce-
    header at all; else binary mode. Unknown attributes are ignored."""
    if len(data) > DATA_MAX:
        return Malformed(f"The message has {len(data)} bytes; at most {DATA_MAX} are read.")
    content_type = headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        if media_type.startswith(STRUCTURED):
            if media_type not in (STRUCTURED, STRUCTURED + "+json"):
                return Malformed(f"Structured mode is read as {STRUCTURED}+json, not as {_shown(media_type)}.")
            return _structured(data)
        if "ce-specversion" in headers or any(name.startswith("ce-") for name in headers):
            return _binary(headers, content_type, data)
        return _structured(data)
    except _Refused as refusal:
        return Malformed(str(refusal))


def _binary(headers: Mapping[str, str], content_type: str, data: bytes) -> CloudEvent:
    attributes = {name: headers[header] for name, header in _HEADERS.items() if header in headers}
    plain = _is_plain(attributes) and content_type in _PLAIN_TYPES
    if not plain:
        for name, value in attributes.items():
            try:
                attributes[name] = decode_value(value)
            except ValueError as error:
                raise _Refused(f"The header ce-{name} is not percent-encoded UTF-8: {_reason(error)}.") from error
    attributes.setdefault("datacontenttype", content_type or JSON)
    return _event(attributes, data, plain=plain)


def _is_plain(attributes: Mapping[str, str]) -> bool:
    """Whether the values are printable ASCII that stands for itself, and no longer than they may be: nearly always."""
    text = "".join(attributes.values())
    return len(text) <= ATTRIBUTE_MAX and text.isascii() and text.isprintable() and "%" not in text and '"' not in text


def _structured(data: bytes) -> CloudEvent:
    try:
        envelope = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise _Refused(f"There are no ce- headers, and the body is not a CloudEvent in JSON: {_reason(error)}.") from error
    attributes = {}
    for name in _HEADERS:
        raw = envelope.get(name)
        if raw is None or bytes(raw) == b"null":
            continue
        try:
            attributes[name] = msgspec.json.decode(raw, type=str)
        except msgspec.DecodeError as error:
            raise _Refused(f"The attribute {name} is not a JSON string.") from error
    attributes.setdefault("datacontenttype", JSON)
    return _event(attributes, _structured_data(envelope, attributes["datacontenttype"]))


def _structured_data(envelope: Mapping[str, msgspec.Raw], datacontenttype: str) -> bytes:
    plain, encoded = envelope.get("data"), envelope.get("data_base64")
    if plain is not None and encoded is not None:
        raise _Refused("The event has both data and data_base64; only one may be there.")
    if encoded is not None:
        try:
            return base64.b64decode(msgspec.json.decode(encoded, type=str), validate=True)
        except (msgspec.DecodeError, binascii.Error, ValueError) as error:
            raise _Refused("The attribute data_base64 is not a base64 string.") from error
    if plain is None:
        return b""
    try:
        value = msgspec.json.decode(plain)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _Refused(f"The attribute data cannot be read: {_reason(error)}.") from error
    media_type = datacontenttype.partition(";")[0].strip().lower()
    if isinstance(value, str) and not (media_type.endswith(("/json", "+json"))):
        return value.encode()
    return bytes(plain)


def _event(attributes: Mapping[str, str], data: bytes, *, plain: bool = False) -> CloudEvent:
    """Check the attributes as CloudEvents 1.0 demands. `plain`: that they are is known. Raises _Refused."""
    if attributes.get("specversion") != SPECVERSION:
        found = attributes.get("specversion")
        raise _Refused(f"specversion must be {SPECVERSION}" + (f", not {_shown(found)}." if found else "; it is missing."))
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            raise _Refused(f"The attribute {name} is missing or empty; CloudEvents requires it.")
    if not plain and not _is_plain(attributes):
        for name, value in attributes.items():
            if len(value) > ATTRIBUTE_MAX:
                raise _Refused(f"The attribute {name} has {len(value)} characters; at most {ATTRIBUTE_MAX} are read.")
            if _CONTROL.search(value):
                raise _Refused(f"The attribute {name} has control characters.")
    subject = attributes.get("subject")
    if subject == "":
        raise _Refused("The attribute subject is there but empty; leave it out instead.")
    return CloudEvent(
        attributes["id"],
        attributes["source"],
        attributes["type"],
        subject,
        _time(attributes.get("time")),
        data,
        attributes["datacontenttype"],
    )


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return _TIME.decode(f'"{text}"' if _RFC3339.fullmatch(text) else '""')
    except msgspec.ValidationError as error:
        raise _Refused(f"The attribute time is not an RFC 3339 instant like 2026-01-31T09:00:00Z: {_shown(text)}.") from error


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__
