"""Every projection equals its rebuild: the tables before and after `--rebuild`, and the KV bucket of applications."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from services.registry.queries import kv_keys, kv_values
from shared.streams.jetstream import api, stored_message
from tests.chaos.checks import Database
from tests.support.stack import ROOT

TABLES: Final = {
    "registry": ("SELECT a::text FROM account AS a", "SELECT a::text FROM app AS a", "SELECT s::text FROM secret AS s"),
    "console": ("SELECT t::text FROM token AS t",),
    "metering": (
        "SELECT c::text FROM counter AS c WHERE calls <> 0 OR units <> 0",
        "SELECT (publisher, partition, seq, retracted, recorded_at, rejected, digest)::text FROM publisher_position"
        " WHERE publisher NOT LIKE 'metering-%'",
        "SELECT (key, digest)::text FROM counted_event",
        "SELECT a::text FROM account AS a",
        "SELECT a::text FROM app AS a",
        "SELECT (client_id, secret_id)::text FROM credential_use",
        "SELECT l::text FROM app_limit AS l",
        "SELECT l::text FROM account_limit AS l",
        "SELECT s::text FROM limit_schedule AS s",
        "SELECT t::text FROM told AS t",
        "SELECT r::text FROM rung_asked AS r",
    ),
    "alerts": tuple(
        f"SELECT t::text FROM {table} AS t"
        for table in ("contact", "contact_method", "contact_group", "group_member", "rule", "recipient", "notification")
    ),
    "review": tuple(f"SELECT t::text FROM {table} AS t" for table in ("application", "tuned_task", "form", "app", "app_service")),
}
"""What is compared. When a single event was recorded, and the minute of a secret's last use, may differ; metering may mark where
partitions end meanwhile."""
REBUILD_S: Final = 180


async def rows(database: Database, service: str) -> list[list[str]]:
    """What the tables of `service` hold, sorted."""
    await database.execute(f"SET search_path = {service}")
    return [sorted(row[0] for row in await database.fetch(query)) for query in TABLES[service]]


def differences(service: str, before: Sequence[Sequence[str]], after: Sequence[Sequence[str]]) -> list[str]:
    """In words."""
    found = []
    for query, old, new in zip(TABLES[service], before, after, strict=True):
        if old != new:
            lost, come = sorted(set(old) - set(new))[:3], sorted(set(new) - set(old))[:3]
            found.append(f"a rebuild of {service} changes `{query}`: {len(old)} rows, then {len(new)}; gone {lost}; new {come}")
    return found


async def rebuild(home: Path, service: str) -> str:
    """Run `python -m services.<service> --rebuild` as an operator does, with the settings that the stack keeps for that."""
    lines = (home / "run" / f"{service}.env").read_text("utf-8").splitlines()
    settings = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    done = await asyncio.to_thread(_run, settings, service)
    assert done.returncode == 0, f"{service} --rebuild: {done.stderr[-2000:]}"
    return done.stdout.strip()


def _run(settings: dict[str, str], service: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TOLLBOOK_")}
    return subprocess.run(
        [sys.executable, "-m", f"services.{service}", "--rebuild"],
        cwd=ROOT,
        env=clean | settings,
        capture_output=True,
        text=True,
        timeout=REBUILD_S,
        check=False,
    )


async def bucket_of_apps(database: Database, nc: Client) -> list[str]:
    """The bucket holds what the registry's table says, and nothing else."""
    await database.execute("SET search_path = registry")
    keys = await kv_keys(database)
    wanted = {key: value for key, value in (await kv_values(database, keys)).items() if value is not None}
    held: dict[str, bytes] = {}
    answer = await api(nc, "STREAM.INFO.KV_apps", {"subjects_filter": "$KV.apps.>"})
    for subject in answer["state"].get("subjects") or {}:
        last = await api(nc, "STREAM.MSG.GET.KV_apps", {"last_by_subj": subject})
        _, _, headers, data = stored_message(last)
        if headers.get("kv-operation") not in ("DEL", "PURGE"):
            held[subject.removeprefix("$KV.apps.")] = data
    return [f"the bucket apps at {key}: {held.get(key)!r}, the table: {wanted.get(key)!r}"
            for key in sorted(held.keys() | wanted.keys()) if held.get(key) != wanted.get(key)][:5]  # fmt: skip
