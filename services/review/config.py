"""What the deployment says about reviews: models.yaml and review.yaml, checked against the catalog, read once at start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal

import holidays
import msgspec
from pydantic import Field, JsonValue, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from services.review.business_days import Calendar
from services.review.forms import Form, form_from_definition
from services.review.models import Models
from services.review.schemas import schema_problems
from shared.catalog import Catalog, CatalogBroken, Closed, LocalText, load_yaml
from shared.commands.registry import ServiceId, Zone
from shared.commands.review import CHECKLIST_MAX, FormVersion, ItemId, ModelId, ModelView, TaskId, TaskView

MODELS_MAX: Final = 100
CLOSED_MAX: Final = 1_000


class ReviewConfig(msgspec.Struct, frozen=True):
    """What review.yaml says. `reviewers`: how many have to approve, by service; 1 where nothing is said."""

    form: Form
    calendar: Calendar
    reviewers: Mapping[str, int]


class _LongText(Closed):
    en: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]
    ko: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)]


class _Item(Closed):
    id: ItemId
    title: LocalText
    explanation: _LongText


class _Calendar(Closed):
    zone: Zone
    country: str
    closes: Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    business_days: Annotated[int, Field(ge=1, le=60, strict=True)]
    due_soon_hours: Annotated[int, Field(ge=1, le=720, strict=True)]
    closed_on: Annotated[tuple[date, ...], Field(max_length=CLOSED_MAX)] = ()

    @field_validator("country")
    @classmethod
    def _with_holidays(cls, country: str) -> str:
        if country not in holidays.list_supported_countries():
            raise PydanticCustomError(
                "country", "The holidays of this country are not known.", {"hint": "Give an ISO 3166 code, such as KR."}
            )
        return country


class _ReviewFile(Closed):
    version: FormVersion
    form: Annotated[dict[str, JsonValue], Field(alias="schema")]
    checklist: Annotated[tuple[_Item, ...], Field(min_length=1, max_length=CHECKLIST_MAX)]
    criteria: Annotated[tuple[_Item, ...], Field(min_length=1, max_length=CHECKLIST_MAX)]
    calendar: _Calendar
    reviewers: dict[ServiceId, Literal[1, 2]]

    @field_validator("form")
    @classmethod
    def _can_be_checked(cls, schema: dict[str, JsonValue]) -> dict[str, JsonValue]:
        problems = schema_problems(schema)
        if problems:
            raise PydanticCustomError("form_schema", "{problems}.", {"problems": "; ".join(problems)})
        return schema

    @field_validator("checklist", "criteria")
    @classmethod
    def _unique(cls, items: tuple[_Item, ...]) -> tuple[_Item, ...]:
        _check_unique(item.id for item in items)
        return items


class _Task(Closed):
    id: TaskId
    name: LocalText


class _Model(Closed):
    id: ModelId
    service: ServiceId
    name: LocalText
    tasks: Annotated[tuple[TaskId, ...], Field(min_length=1, max_length=MODELS_MAX)]

    @field_validator("tasks")
    @classmethod
    def _unique(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        _check_unique(tasks)
        return tasks


class _ModelsFile(Closed):
    tasks: Annotated[tuple[_Task, ...], Field(min_length=1, max_length=MODELS_MAX)]
    models: Annotated[tuple[_Model, ...], Field(min_length=1, max_length=MODELS_MAX)]

    @field_validator("tasks", "models")
    @classmethod
    def _unique(cls, items: tuple[_Task | _Model, ...]) -> tuple[_Task | _Model, ...]:
        _check_unique(item.id for item in items)
        if any(re.match("tuned-", item.id) for item in items):
            raise ValueError("ids that begin with tuned- are those of tuned tasks")
        return items

    @model_validator(mode="after")
    def _tasks_are_there(self) -> _ModelsFile:
        known = {task.id for task in self.tasks}
        for model in self.models:
            unknown = sorted(set(model.tasks) - known)
            if unknown:
                raise ValueError(f"the model {model.id} has tasks that are not there: {', '.join(unknown)}")
        return self


def load_models(path: Path, catalog: Catalog) -> Models:
    """Read and check models.yaml. Raises CatalogBroken naming the file and what is wrong."""
    read = load_yaml(path, _ModelsFile)
    _check_reviewed(path, "models", (model.service for model in read.models), catalog)
    models = {
        one.id: ModelView(id=one.id, service=one.service, name=one.name.en, name_ko=one.name.ko, tasks=one.tasks)
        for one in read.models
    }
    tasks = {one.id: TaskView(id=one.id, name=one.name.en, name_ko=one.name.ko) for one in read.tasks}
    return Models(MappingProxyType(models), MappingProxyType(tasks))


def load_review(path: Path, catalog: Catalog) -> ReviewConfig:
    """Read and check review.yaml. Raises CatalogBroken naming the file and what is wrong."""
    read = load_yaml(path, _ReviewFile)
    _check_reviewed(path, "reviewers", read.reviewers, catalog)
    content = {
        "schema": read.form,
        "checklist": [item.model_dump() for item in read.checklist],
        "criteria": [item.model_dump() for item in read.criteria],
    }
    definition = msgspec.json.encode(content, order="sorted").decode()
    calendar = Calendar(
        zone=read.calendar.zone,
        country=read.calendar.country,
        closes=time.fromisoformat(read.calendar.closes),
        business_days=read.calendar.business_days,
        due_soon=timedelta(hours=read.calendar.due_soon_hours),
        closed_on=frozenset(read.calendar.closed_on),
    )
    return ReviewConfig(form_from_definition(read.version, definition), calendar, MappingProxyType(dict(read.reviewers)))


def _check_unique(ids: Iterable[str]) -> None:
    seen = list(ids)
    repeated = sorted({id_ for id_ in seen if seen.count(id_) > 1})
    if repeated:
        raise ValueError(f"ids must be unique, but {', '.join(repeated)} is there twice")


def _check_reviewed(path: Path, field: str, services: Iterable[str], catalog: Catalog) -> None:
    wrong = sorted({service for service in services if service not in catalog or not catalog[service].review_required})
    if wrong:
        raise CatalogBroken(f"{path}: {field}: not a service of the catalog with review_required: {', '.join(wrong)}")
