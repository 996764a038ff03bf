"""Each service's AsyncAPI document, judged by AsyncAPI's own parser (@asyncapi/parser, on Node.js from a wheel)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.events.metering import CODEC as METERING
from shared.events.registry import CODEC as REGISTRY
from shared.events.review import CODEC as REVIEW
from tests.support.processes import environment_of
from tests.support.stack import ROOT, StackProcess

JS = Path(__file__).parent / "js"
BIN = ROOT / ".venv" / "bin"
SERVICES = ("registry", "metering", "alerts", "review", "gate", "console")
OLDER_VERSION = "asyncapi-latest-version"
"""Advice, not an error: FastStream writes AsyncAPI 3.0.0, and there is a 3.1.0."""


@pytest.fixture(scope="session")
def parser() -> Path:
    """The script that runs the parser, whose packages are installed once as package-lock.json says."""
    lock, installed = JS / "package-lock.json", JS / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = [BIN / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, f"npm could not install what tests/contracts/js/package-lock.json names: {done.stderr}"
        installed.touch()
    return JS / "validate.mjs"


@pytest.fixture(scope="module")
def judged(stack: StackProcess, parser: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By service: the problems, and the operations as the parser understood them."""
    folder = tmp_path_factory.mktemp("asyncapi")
    for service in SERVICES:
        port = environment_of(stack, service)["TOLLBOOK_HTTP_PORT"]
        answer = httpx.get(f"http://127.0.0.1:{port}/asyncapi.json", timeout=10, trust_env=False).raise_for_status()
        (folder / service).write_text(answer.text)
    command = [BIN / "node", parser, *(folder / service for service in SERVICES)]
    done = subprocess.run(command, cwd=JS, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {service: found[str(folder / service)] for service in SERVICES}


@pytest.mark.parametrize("service", SERVICES)
def test_the_document_has_no_fault(judged: dict[str, Any], service: str) -> None:
    assert [problem for problem in judged[service]["problems"] if problem["code"] != OLDER_VERSION] == []


def operations(judged: dict[str, Any], service: str) -> dict[tuple[str, str], list[str]]:
    found = judged[service]["operations"]
    return {(one["action"], address): one["messages"] for one in found for address in one["addresses"]}


def test_every_event_and_every_way_of_usage_is_described(judged: dict[str, Any]) -> None:
    events = list(REGISTRY.classes)
    registry = operations(judged, "registry")
    for name in events:
        assert registry["send", f"registry.events.{name}"] == [name]
    assert ("receive", "registry.commands.RegisterApp") in registry
    gate = operations(judged, "gate")
    assert gate["send", "usage.records.{partition}"] == ["UsageBatch"]
    assert gate["receive", "registry.events.>"] == events
    metering = operations(judged, "metering")
    assert metering["receive", "usage.records.{partition}"] == ["UsageBatchMsgpack", "UsageBatchJson"]
    assert metering["receive", "usage.cloudevents"] == ["UsageRecorded", "UsageVoided"]
    assert metering["receive", "registry.events.>"] == events
    assert metering["send", "deadletter.usage"] == ["DeadLetter"]
    for name in METERING.classes:
        assert metering["send", f"metering.events.{name}"] == [name]
    review = operations(judged, "review")
    for name in REVIEW.classes:
        assert review["send", f"review.events.{name}"] == [name]
    assert review["receive", "registry.events.>"] == events
    assert ("receive", "review.commands.DecideReview") in review
    assert ("receive", "review.queries.ListReviews") in review
    assert ("receive", "metering.queries.GetUsage") in metering
    assert ("receive", "metering.commands.SetLimits") in metering
    assert ("receive", "metering.commands.RetryDeadLetter") in metering
    assert ("receive", "metering.queries.ListCorrections") in metering
