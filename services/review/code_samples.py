"""Ready code that calls a service as an approved service app, from the templates in samples/. Nothing of the form is in it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shared.commands.service_apps import CodeView, Sample

FOLDER: Final = Path(__file__).parent / "samples"
SECRET_FROM: Final = "TOLLBOOK_CLIENT_SECRET"  # noqa: S105 - the name of the variable
"""The environment variable that samples read the Client Secret from."""
METHOD: Final = "POST"
TEXT: Final = "Hello"
_LANGUAGES: Final[Mapping[str, tuple[str, str]]] = {
    "curl": ("curl.sh.jinja", "curl"),
    "python": ("python.py.jinja", "Python"),
    "javascript": ("javascript.mjs.jinja", "JavaScript"),
}
"""The template of each language, and what it is called."""


class Call(NamedTuple):
    """What is called, and as what."""

    review_id: str
    client_id: str
    service: str
    endpoint: str
    model: str
    task: str


def _as_json(value: object) -> str:
    """ASCII, so that no line separator or direction mark is in it; `<` escaped, for whoever puts it into a page."""
    return json.dumps(value).replace("<", "\\u003c")


# A value that a template shows without saying for which language it is quoted is an error of the template (code_samples tests).
_TEMPLATES: Final = Environment(  # noqa: S701 - these are programs, not pages: each value is quoted for its language
    loader=FileSystemLoader(FOLDER), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters |= {"sh": shlex.quote, "json": json.dumps, "python": ascii, "javascript": _as_json}


def code_view(call: Call) -> CodeView:
    """The samples in every language, and what they are made of."""
    headers = {
        "X-NCP-APIGW-API-KEY-ID": call.client_id,
        "X-NCP-APIGW-API-KEY": f"<{SECRET_FROM}>",
        "Content-Type": "application/json",
    }
    return CodeView(
        id=call.review_id,
        client_id=call.client_id,
        service=call.service,
        method=METHOD,
        endpoint=call.endpoint,
        headers=headers,
        secret_from=SECRET_FROM,
        samples=tuple(_sample(language, call) for language in _LANGUAGES),
    )


def _sample(language: str, call: Call) -> Sample:
    file, title = _LANGUAGES[language]
    code = _TEMPLATES.get_template(file).render(
        title=title,
        endpoint=call.endpoint,
        client_id=call.client_id,
        secret_from=SECRET_FROM,
        body={"model": call.model, "task": call.task, "text": TEXT},
    )
    return Sample(language=language, title=title, code=code)
