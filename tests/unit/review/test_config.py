"""models.yaml and review.yaml: what is wrong with them is said when the service starts, by file and field."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from services.review.config import load_models, load_review
from services.review.forms import form_from_definition
from shared.catalog import CatalogBroken
from tests.support.review_examples import CATALOG, DEPLOY


def written(tmp_path: Path, name: str, change: Callable[[Any], object]) -> Path:
    content = yaml.safe_load((DEPLOY / name).read_text("utf-8"))
    change(content)
    path = tmp_path / name
    path.write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    return path


def test_the_delivered_files_are_read() -> None:
    models = load_models(DEPLOY / "models.yaml", CATALOG)
    assert models.models["EMB-001"].tasks == ("embedding",)
    assert models.tasks["chat"].name_ko == "대화"
    config = load_review(DEPLOY / "review.yaml", CATALOG)
    assert config.form.version == "2026-11"
    assert config.calendar.closes == time(18)
    assert config.calendar.due_soon == timedelta(hours=8)
    assert config.reviewers == {}


def test_the_definition_is_the_same_however_the_file_is_written(tmp_path: Path) -> None:
    as_is = load_review(DEPLOY / "review.yaml", CATALOG).form
    sorted_anew = load_review(written(tmp_path, "review.yaml", lambda _: None), CATALOG).form
    assert sorted_anew == as_is == form_from_definition(as_is.version, as_is.definition)
    definition = msgspec.json.decode(as_is.definition)
    assert set(definition) == {"schema", "checklist", "criteria"}
    assert msgspec.json.encode(definition, order="sorted").decode() == as_is.definition


def test_any_change_of_words_is_another_form(tmp_path: Path) -> None:
    changed = written(tmp_path, "review.yaml", lambda c: c["checklist"][0]["title"].update(en="I have read it"))
    assert load_review(changed, CATALOG).form.form_hash != load_review(DEPLOY / "review.yaml", CATALOG).form.form_hash


def test_reviewers_and_closed_days_are_read(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["reviewers"] = {"clova-studio": 2}
        content["calendar"]["closed_on"] = [date(2026, 12, 31)]

    config = load_review(written(tmp_path, "review.yaml", change), CATALOG)
    assert config.reviewers == {"clova-studio": 2}
    assert config.calendar.closed_on == {date(2026, 12, 31)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(reviewers={"csr": 2}), "reviewers: not a service of the catalog with review_required: csr"),
        (lambda c: c.update(reviewers={"nope": 1}), "nope"),
        (lambda c: c.update(reviewers={"clova-studio": 3}), "reviewers.clova-studio"),
        (lambda c: c.update(version="2026 11"), "version"),
        (lambda c: c.pop("criteria"), "criteria"),
        (lambda c: c.update(criteria=[]), "criteria"),
        (lambda c: c["criteria"].append(c["criteria"][0]), "code_of_ethics is there twice"),
        (lambda c: c["checklist"].append(c["checklist"][0]), "ethics is there twice"),
        (lambda c: c["checklist"][0].update(id="Ethics"), "checklist[0].id"),
        (lambda c: c["checklist"][0]["title"].pop("ko"), "checklist[0].title.ko"),
        (lambda c: c["schema"]["properties"]["name"].pop("maxLength"), "schema.name: a text needs a maxLength"),
        (lambda c: c["schema"]["properties"]["samples"].pop("maxItems"), "schema.samples: a list needs a maxItems"),
        (lambda c: c["schema"].update(required=["nope"]), "required names what is no property"),
        (lambda c: c["calendar"].update(zone="Seoul"), "calendar.zone"),
        (lambda c: c["calendar"].update(country="XX"), "calendar.country"),
        (lambda c: c["calendar"].update(closes="24:00"), "calendar.closes"),
        (lambda c: c["calendar"].update(closes=1080), "calendar.closes"),
        (lambda c: c["calendar"].update(business_days=0), "calendar.business_days"),
        (lambda c: c["calendar"].update(closed_on=["soon"]), "calendar.closed_on[0]"),
        (lambda c: c.update(more=1), "more"),
    ],
)
def test_what_is_wrong_with_the_form_is_named(tmp_path: Path, change: Callable[[Any], object], says: str) -> None:
    path = written(tmp_path, "review.yaml", change)
    with pytest.raises(CatalogBroken) as broken:
        load_review(path, CATALOG)
    assert str(path) in str(broken.value)
    assert says in str(broken.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["models"][0].update(service="csr"), "models: not a service of the catalog with review_required: csr"),
        (lambda c: c["models"][0].update(service="nope"), "nope"),
        (lambda c: c["models"][0].update(tasks=["nope"]), "HCX-003 has tasks that are not there: nope"),
        (lambda c: c["models"][0].update(tasks=[]), "models[0].tasks"),
        (lambda c: c["models"][0].update(tasks=["chat", "chat"]), "chat is there twice"),
        (lambda c: c["models"].append(c["models"][0]), "HCX-003 is there twice"),
        (lambda c: c["tasks"].append(c["tasks"][0]), "completion is there twice"),
        (lambda c: c["tasks"][0].update(id="tuned-" + "a" * 32), "ids that begin with tuned-"),
        (lambda c: c["models"][0].update(id="HCX 003"), "models[0].id"),
        (lambda c: c.pop("models"), "models"),
    ],
)
def test_what_is_wrong_with_the_models_is_named(tmp_path: Path, change: Callable[[Any], object], says: str) -> None:
    path = written(tmp_path, "models.yaml", change)
    with pytest.raises(CatalogBroken) as broken:
        load_models(path, CATALOG)
    assert str(path) in str(broken.value)
    assert says in str(broken.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogBroken, match="cannot be read"):
        load_models(tmp_path / "models.yaml", CATALOG)
