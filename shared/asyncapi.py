"""AsyncAPI documents: what FastStream generates, and the subjects that a service reads and writes without FastStream."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from faststream.specification import AsyncAPI
from faststream.specification.base import Specification

from shared.events.codec import Codec

_SCHEMAS: Final = "#/components/schemas/"
_CE: Final[Mapping[str, str]] = {
    "ce-specversion": "The version of CloudEvents: 1.0",
    "ce-type": "tollbook.<service>.<Event>.v<schema version>",
    "ce-source": "Who published it",
    "ce-id": "Unique together with ce-source",
    "ce-time": "When it happened, RFC 3339",
    "ce-subject": "What it is about",
}
_CE_REQUIRED: Final = ("ce-specversion", "ce-type", "ce-source", "ce-id")


@dataclass(frozen=True)
class MessageDoc:
    """A message: `payload` is its msgspec type (None: bytes of any kind), `headers` what each header says by name."""

    name: str
    payload: Any
    description: str
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChannelDoc:
    """A subject and what the service does there. `parameters` says what each {name} in `address` stands for."""

    name: str
    address: str
    action: Literal["send", "receive"]
    messages: tuple[MessageDoc, ...]
    description: str
    parameters: Mapping[str, str] = field(default_factory=dict)


class ServiceDocument(AsyncAPI):
    """FastStream's document with `channels` added."""

    def __init__(self, title: str, version: str, description: str) -> None:
        super().__init__(title=title, version=version, description=description)
        self.channels: list[ChannelDoc] = []

    def to_specification(self) -> Specification:
        return _Completed(super().to_specification(), self.channels)


class _Completed:
    """FastStream's specification, completed."""

    def __init__(self, generated: Specification, channels: Iterable[ChannelDoc]) -> None:
        self.title = generated.title
        self._generated = generated
        self._channels = tuple(channels)

    def to_jsonable(self) -> Any:
        document = self._generated.to_jsonable()
        for channel in self._channels:
            add_channel(document, channel)
        return document

    def to_json(self) -> str:
        return json.dumps(self.to_jsonable(), indent=2, ensure_ascii=False)

    def to_yaml(self) -> str:
        return self.to_json()  # YAML has all of JSON in it


def event_docs(codec: Codec[Any]) -> tuple[MessageDoc, ...]:
    """A message for each event of a service, in CloudEvents' binary mode for NATS."""
    return tuple(
        MessageDoc(
            name,
            cls,
            inspect.getdoc(cls) or "",
            headers=_CE,
            required=_CE_REQUIRED,
            constants={"ce-type": codec.ce_type(name, cls.schema), "ce-specversion": "1.0"},
        )
        for name, cls in codec.classes.items()
    )


def add_channel(document: dict[str, Any], channel: ChannelDoc) -> None:
    """Add the channel, its operation, its messages and their schemas to an AsyncAPI 3 document."""
    components = document.setdefault("components", {})
    messages, schemas = components.setdefault("messages", {}), components.setdefault("schemas", {})
    for message in channel.messages:
        messages[message.name] = _message(message, schemas)
    described: dict[str, Any] = {
        "address": channel.address,
        "description": channel.description,
        "servers": [{"$ref": f"#/servers/{name}"} for name in document.get("servers", {})],
        "messages": {message.name: {"$ref": f"#/components/messages/{message.name}"} for message in channel.messages},
        "bindings": {"nats": {}},
    }
    if channel.parameters:
        described["parameters"] = {name: {"description": text} for name, text in channel.parameters.items()}
    document["channels"][channel.name] = described
    document["operations"][f"{channel.action}{channel.name}"] = {
        "action": channel.action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{message.name}"} for message in channel.messages],
    }


def _in_asyncapi(schema: Any) -> Any:
    """A schema as AsyncAPI has it: its `discriminator` is the name of the property, OpenAPI's an object."""
    if isinstance(schema, list):
        return [_in_asyncapi(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _in_asyncapi(value) for key, value in schema.items()}
    if isinstance(found.get("discriminator"), dict):
        found["discriminator"] = found["discriminator"]["propertyName"]
    return found


def _message(message: MessageDoc, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": message.name,
        "title": message.name,
        "summary": message.description.partition("\n")[0],
        "description": message.description,
        "contentType": message.content_type,
    }
    if message.payload is not None:
        [payload], found = msgspec.json.schema_components([message.payload], ref_template=f"{_SCHEMAS}{{name}}")
        schemas.update({name: _in_asyncapi(schema) for name, schema in found.items()})
        described["payload"] = _in_asyncapi(payload)
    if message.headers:
        properties = {name: {"type": "string", "description": text} for name, text in message.headers.items()}
        for name, value in message.constants.items():
            properties[name]["const"] = value
        described["headers"] = {"type": "object", "properties": properties, "required": list(message.required)}
    return described
