"""The tree of errors and the words for wrong fields."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.commands.base import field_problems
from shared.errors import TollbookError, error_classes


def test_every_error_has_a_code_of_its_own_and_a_status() -> None:
    classes = error_classes()
    assert len({id(cls) for cls in classes.values()}) == len(classes)
    for code, cls in classes.items():
        if not cls.__module__.startswith("shared."):
            continue  # another test's imports: an edge's own errors, which never cross NATS
        assert cls.code == code
        assert 400 <= cls.status <= 599
        assert cls("detail").detail == "detail"
        assert issubclass(cls, TollbookError)


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    web: list[Annotated[str, Field(max_length=3)]]


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    inner: Inner


def test_fields_are_named_by_their_path_with_a_way_out() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {"web": ["ok", "too long", 5], "mob": 1}, "extra": True})
    problems = {problem.field: problem for problem in field_problems(caught.value.errors())}
    assert set(problems) == {"name", "inner.web[1]", "inner.web[2]", "inner.mob", "extra"}
    assert problems["name"].hint == "Add the field."
    assert problems["extra"].hint == "Remove it, or check its spelling."


def test_a_list_is_not_called_too_short_because_its_items_are_wrong_deep_inside() -> None:
    class Item(BaseModel):
        text: Annotated[str, Field(max_length=3)]

    class Listed(BaseModel):
        items: Annotated[tuple[Item, ...], Field(min_length=1)]

    with pytest.raises(ValidationError) as caught:
        Listed.model_validate({"items": [{"text": "too long"}]})
    assert [problem.field for problem in field_problems(caught.value.errors())] == ["items[0].text"]
    with pytest.raises(ValidationError) as caught:
        Listed.model_validate({"items": []})
    assert [problem.field for problem in field_problems(caught.value.errors())] == ["items"]


def test_the_parameter_in_front_of_the_path_can_be_left_out() -> None:
    assert [p.field for p in field_problems([{"loc": ("command", "a", 1), "msg": "m", "type": "t"}], skip=1)] == ["a[1]"]
    assert [p.field for p in field_problems([{"loc": ("command",), "msg": "m", "type": "t"}], skip=1)] == ["(whole)"]
