"""House rules that are counted, not remembered. The exceptions are a ratchet: they may shrink, never grow."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SOURCES = sorted(file for folder in ("shared", "services", "deploy") for file in (PROJECT / folder).rglob("*.py"))
TESTS = sorted((PROJECT / "tests").rglob("*.py"))

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
VAGUE_NAMES = ("util", "utils", "helper", "helpers", "manager", "base_class", "misc", "common")

CLOCK = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns", "time.monotonic",
         "time.monotonic_ns", "time.perf_counter", "time.perf_counter_ns"}  # fmt: skip
RANDOM = {"uuid.uuid1", "uuid.uuid4", "uuid4", "uuid1", "os.urandom", "random.random", "random.choice", "random.randint"}
ALLOWED = {"shared/clock.py": CLOCK, "shared/ids.py": RANDOM}
MAY_IMPORT_SECRETS = {"shared/ids.py"}

LONG_FUNCTIONS: frozenset[str] = frozenset()
LONG_FILES: frozenset[str] = frozenset()


def name_of(file: Path) -> str:
    return file.relative_to(PROJECT).as_posix()


def dotted(node: ast.expr) -> str:
    """`datetime.now` for that expression, also when the module stands in front: the last two names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value).rpartition('.')[2]}.{node.attr}"
    return ""


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node.lineno


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_only_the_clock_reads_the_clock_and_only_ids_makes_random_ids(file: Path) -> None:
    forbidden = (CLOCK | RANDOM) - ALLOWED.get(name_of(file), set())
    tree = parsed(file)
    found = [f"{name_of(file)}:{line} calls {call}" for call, line in calls(tree) if call in forbidden]
    if name_of(file) not in MAY_IMPORT_SECRETS:
        found += [f"{name_of(file)} imports {module}" for module in imports(tree) if module in ("secrets", "random", "uuid")]
    assert not found, "take the time from a Clock and ids from shared.ids:\n" + "\n".join(found)


def test_no_function_is_longer_than_a_screen() -> None:
    long = set()
    for file in SOURCES:
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long.add(f"{name_of(file)}:{node.name}")
    assert long == LONG_FUNCTIONS


def test_no_file_is_too_long_to_be_read() -> None:
    long = {name_of(file) for file in [*SOURCES, *TESTS] if len(file.read_text("utf-8").splitlines()) >= FILE_LINES_MAX}
    assert long == LONG_FILES


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name_of(file) for file in [*SOURCES, *TESTS] if file.stem in VAGUE_NAMES] == []


def test_no_test_is_skipped() -> None:
    skipping = ("pytest.skip", "mark.skip", "mark.skipif", "mark.xfail", "pytest.importorskip", "pytest.xfail")
    found = [f"{name_of(file)}:{line}" for file in TESTS for call, line in calls(parsed(file)) if call in skipping]
    assert found == []


def test_nothing_that_is_set_up_is_in_the_repository() -> None:
    """A committed link in place of `.venv` kept fresh clones from setting themselves up."""
    tracked = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    found = subprocess.run(tracked, cwd=PROJECT, capture_output=True, text=True, timeout=30)
    # In a copy without git's folder there is nothing to say (128).
    assert (found.returncode, found.stdout) in {(0, ""), (128, "")}
