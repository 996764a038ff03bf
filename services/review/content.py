"""What an applicant wrote, as the exact bytes that are sealed in the vault and whose hash events have. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec


class Content(msgspec.Struct, frozen=True):
    """One revision of an application, whole. `model` and `task` are "" until they are chosen.

    `salt`, 32 random hexadecimal digits, keeps the hash from telling anything to whoever guesses the rest.
    """

    salt: str
    review_id: str
    revision: int
    client_id: str
    service: str
    model: str
    task: str
    form_version: str
    form: dict[str, Any]
    checklist: dict[str, bool]


def encode(content: Content) -> bytes:
    """As canonical JSON: UTF-8, fields sorted by name, no spaces."""
    return msgspec.json.encode(content, order="sorted")


def content_hash(encoded: bytes) -> str:
    """The SHA-256 of what `encode` made, in hexadecimal digits."""
    return hashlib.sha256(encoded).hexdigest()


def decode(encoded: bytes) -> Content:
    """What `encode` made it of. Raises msgspec.ValidationError."""
    return msgspec.json.decode(encoded, type=Content)


def same(one: Content, other: Content) -> bool:
    """Whether both say the same, whatever their salt."""
    return msgspec.structs.replace(one, salt="") == msgspec.structs.replace(other, salt="")


def changed(content: Content, before: Content) -> tuple[str, ...]:
    """The fields that are other than before: `model`, `task`, `form.<field>`, `checklist.<item>`."""
    found = [name for name in ("model", "task") if getattr(content, name) != getattr(before, name)]
    for part, now, then in (("form", content.form, before.form), ("checklist", content.checklist, before.checklist)):
        names = [*now, *(name for name in then if name not in now)]
        found += [f"{part}.{name}" for name in names if (name in now, now.get(name)) != (name in then, then.get(name))]
    return tuple(found)
