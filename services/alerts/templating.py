"""The templates: the shipped ones, and an operator's own that stand in for them. Read and compiled when made, not later."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import FunctionLoader, StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import TemplateAssertionError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.events.alerts import Locale

SHIPPED: Final = Path(__file__).parent / "templates"
LOCALES: Final[tuple[Locale, ...]] = ("ko", "en")
PARTS: Final = ("subject.txt", "sentence.txt", "email.txt", "email.html", "sms.txt", "webhook.txt")
NAMES: Final = ("layout.html", *(f"{locale}/{part}" for locale in LOCALES for part in PARTS))
SIZE_MAX: Final = 100_000
"""Bytes of one template."""


class TemplateBroken(ValueError):
    """A template cannot be used; the text names file and line."""


def own_files(folder: Path) -> dict[str, Path]:
    """The templates in an operator's folder, by name. Raises TemplateBroken for a name that would never be read.

    What begins with a dot is passed over: a mounted Kubernetes ConfigMap has its files there, and links to them by name.
    """
    if not folder.is_dir():
        raise TemplateBroken(f"{folder}: there is no such folder")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if not hidden and path.suffix in {".txt", ".html"} and path.is_file() and name.as_posix() not in NAMES:
            raise TemplateBroken(f"{path}: no message is made of it; the names are {', '.join(NAMES)}")
    return {name: folder / name for name in NAMES if (folder / name).is_file()}


class Templates:
    """Every template by name, compiled. Raises TemplateBroken."""

    def __init__(self, own: Mapping[str, Path] | None = None) -> None:
        self._files = {name: SHIPPED / name for name in NAMES} | dict(own or {})
        sources = {name: _read(path) for name, path in self._files.items()}
        self._words = {word for source in sources.values() for word in re.findall(r"\w+", source)}

        def load(name: str) -> tuple[str, str, Any] | None:
            return (sources[name], str(self._files[name]), lambda: True) if name in sources else None

        self._env = ImmutableSandboxedEnvironment(
            loader=FunctionLoader(load),
            autoescape=lambda name: name is not None and name.endswith(".html"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            cache_size=len(NAMES),
        )
        del self._env.filters["safe"]  # the way round escaping
        self._compiled = {name: self._compile(name, source) for name, source in sources.items()}

    def render(self, name: str, variables: Mapping[str, Any]) -> str:
        """The text of one template. Raises TemplateBroken, with the line and the kind of error but none of the contents."""
        try:
            return self._compiled[name].render(variables)
        except Exception as error:  # whatever a template can do wrong
            raise TemplateBroken(f"{self.where(name, error)}: {self._without_contents(error)}") from None

    def where(self, name: str, error: BaseException | None = None) -> str:
        """File and line of `error`: the innermost line that is a template's."""
        files = {str(path) for path in self._files.values()}
        lines = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__ if error else None)]
        return next((line for line in reversed(lines) if line.rpartition(":")[0] in files), str(self._files[name]))

    def _without_contents(self, error: Exception) -> str:
        """What is missing, if it is a word of the templates' own; else the kind of error: its text may quote a name or a code."""
        missing = re.fullmatch(r"'(\w+)' is undefined|'[\w. ]+' has no attribute '(\w+)'", str(error))
        own = isinstance(error, UndefinedError) and missing is not None and (missing[1] or missing[2]) in self._words
        return str(error) if own else type(error).__name__

    def _compile(self, name: str, source: str) -> Template:
        path = self._files[name]
        try:
            tree = self._env.parse(source, name, str(path))
            self._check_escaping(name, path, tree)
            return self._env.get_template(name)
        except (TemplateSyntaxError, TemplateAssertionError) as error:
            raise TemplateBroken(f"{error.filename or path}:{error.lineno}: {error.message}") from None
        except (TemplateError, RecursionError) as error:
            raise TemplateBroken(f"{path}: {error}") from None

    def _check_escaping(self, name: str, path: Path, tree: nodes.Template) -> None:
        """HTML comes of HTML only: what a macro of a text template gives would be taken as escaped, and is not."""
        for scoped in tree.find_all(nodes.ScopedEvalContextModifier):
            raise TemplateBroken(f"{path}:{scoped.lineno}: autoescape cannot be turned on or off")
        for node in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
            for other in meta.find_referenced_templates(nodes.Template([node], lineno=node.lineno)):
                if other is None or other not in NAMES:
                    raise TemplateBroken(f"{path}:{node.lineno}: another template is named by one of {', '.join(NAMES)}")
                if name.endswith(".html") and not other.endswith(".html"):
                    raise TemplateBroken(f"{path}:{node.lineno}: {other} is not escaped, so HTML cannot be made of it")


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > SIZE_MAX:
            raise TemplateBroken(f"{path}: larger than {SIZE_MAX} bytes")
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise TemplateBroken(f"{path}:{line}: is not UTF-8") from None
    except OSError as error:
        raise TemplateBroken(f"{path}: cannot be read: {error.strerror}") from None
