"""The catalog: which services can be selected, what one counted unit of each is, and what each asks of an application.

And the terms of service, which are agreed to before the first registration. Both are YAML files, read once at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, StringConstraints, ValidationError, model_validator

from shared.commands.base import field_problems
from shared.commands.registry import SERVICES_MAX, ServiceId, TermsVersion

FILE_SIZE_MAX: Final = 1_000_000

Unit = Literal["call", "second15", "character", "token", "image"]
"""What is counted: a call, 15 seconds of audio begun, a character or token processed, an image processed."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]
M = TypeVar("M", bound=BaseModel)


class CatalogBroken(ValueError):
    """The catalog, or another file like it, cannot be used; the text names the file and each field."""


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LocalText(Closed):
    """A text in the languages of the console."""

    en: Text
    ko: Text


class CatalogEntry(Closed):
    """One service.

    `proxy_path` is the path prefix under which the reverse proxy has it, `upstream` the name of what the proxy forwards to (the
    deployment knows its address). `test_quota`: units a month that an application may use in tier test; None: no test tier.
    """

    id: ServiceId
    name: LocalText
    unit: Unit
    docs: HttpUrl
    pricing: HttpUrl
    requires_mobile_environment: bool = False
    review_required: bool = False
    test_quota: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    proxy_path: Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9._~-]+)+$")]
    upstream: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]

    @model_validator(mode="after")
    def _reviewed_services_have_a_test_tier(self) -> CatalogEntry:
        if self.review_required and self.test_quota is None:
            raise ValueError("a service with review_required needs a test_quota")
        return self


class _CatalogFile(Closed):
    services: Annotated[tuple[CatalogEntry, ...], Field(min_length=1, max_length=SERVICES_MAX)]

    @model_validator(mode="after")
    def _ids_and_paths_are_unique(self) -> _CatalogFile:
        for field in ("id", "proxy_path"):
            values = [getattr(entry, field) for entry in self.services]
            repeated = sorted({value for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(f"{field} must be unique, but {', '.join(repeated)} is there twice")
        return self


class TermsOfService(Closed):
    """The terms of today. A new `version` has to be accepted again before the next registration."""

    version: TermsVersion
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200_000)]
    text_ko: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200_000)]


Catalog = Mapping[str, CatalogEntry]
"""The services by id, in the order of the file."""


def load_catalog(path: Path) -> Catalog:
    """Read and check the catalog. Raises CatalogBroken naming the file and every field that is wrong."""
    return MappingProxyType({entry.id: entry for entry in load_yaml(path, _CatalogFile).services})


def load_terms(path: Path) -> TermsOfService:
    """Read and check the terms of service. Raises CatalogBroken as `load_catalog` does."""
    return load_yaml(path, TermsOfService)


def load_yaml(path: Path, model: type[M]) -> M:
    """Read and check any file of the deployment. Raises CatalogBroken naming the file and every field that is wrong."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_SIZE_MAX + 1)
        if len(raw) > FILE_SIZE_MAX:
            raise CatalogBroken(f"{path}: larger than {FILE_SIZE_MAX} bytes")
        content: Any = yaml.load(raw, _UniqueKeyLoader)  # noqa: S506 - a safe loader that refuses repeated keys
    except OSError as error:
        raise CatalogBroken(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise CatalogBroken(f"{path}: is not YAML: {error}") from error
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = field_problems(error.errors(include_url=False, include_input=False))
        lines = [f"{path}: {found.field}: {found.problem}" + (f" {found.hint}" if found.hint else "") for found in problems]
        raise CatalogBroken("\n".join(lines)) from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """A key that is written twice is an error: YAML's default keeps the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)
