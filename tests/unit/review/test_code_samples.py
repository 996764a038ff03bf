"""No value, however hostile, is more than a value in a sample; and a template that forgets one is an error."""

from __future__ import annotations

import ast
import json
import shlex

import pytest
from jinja2 import UndefinedError

from services.review import code_samples
from services.review.code_samples import Call, code_view

HOSTILE = (
    "'; rm -rf / #",
    '"); process.exit(1); ("',
    "`id`$(id)${HOME}",
    "\\'\\\"\\",
    "a\nb\r\n",
    "\u2028\u2029\u202e",
    "</script>",
    "{{ 7 * 7 }}{% raw %}",
    "é😀\ud83d",
    "''' + __import__('os').name + '''",
)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_stays_a_value(value: str) -> None:
    call = Call("r" * 32, value, "clova-studio", f"http://127.0.0.1/{value}", value, value)
    code = {sample.language: sample.code for sample in code_view(call._replace(review_id="r" * 32)).samples}
    words = shlex.split(code["curl"], comments=True)
    assert words[4] == call.endpoint
    assert f"X-NCP-APIGW-API-KEY-ID: {value}" in words
    assert json.loads(words[words.index("--data") + 1]) == {"model": value, "task": value, "text": "Hello"}
    texts = [node.value for node in ast.walk(ast.parse(code["python"])) if isinstance(node, ast.Constant)]
    assert texts.count(value) == 3
    assert call.endpoint in texts
    quoted = json.dumps(value).replace("<", "\\u003c")
    assert code["javascript"].count(f": {quoted},") == 3
    assert code["javascript"].isascii()


def test_a_template_that_says_something_unknown_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        code_samples._TEMPLATES.from_string("{{ nobody_gave_this }}").render()


def test_no_secret_is_in_the_headers() -> None:
    view = code_view(Call("r" * 32, "a" * 20, "clova-studio", "http://127.0.0.1/x", "HCX-003", "chat"))
    assert view.headers["X-NCP-APIGW-API-KEY"] == "<TOLLBOOK_CLIENT_SECRET>"
    assert view.secret_from == "TOLLBOOK_CLIENT_SECRET"
