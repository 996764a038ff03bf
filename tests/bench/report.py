"""The table: on the screen, as JSON, and in docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from tests.bench.machine import Machine
from tests.bench.measure import Aim, Row
from tests.bench.peers import ROOT

RESULTS: Final = ROOT / "bench-results.json"
DOCS: Final = ROOT / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- make bench writes from here -->"
END: Final = "<!-- to here -->"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    machine: Machine
    seconds: int
    rows: list[Row]


def table(report: Report) -> str:
    """Markdown: the rows, then what they were measured on."""
    lines = [
        "| benchmark | measured | figure | reference in the same run | its figure | ratio | aim | |",
        "|---|---|---:|---|---:|---:|---|---|",
    ]
    for row in report.rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        reference = "" if row.reference is None else _number(row.reference, row.unit)
        verdict = {True: "met", False: "**missed**", None: ""}[row.met()]
        what = f"{row.what} ({row.note})" if row.note else row.what
        cells = (
            row.benchmark,
            what,
            _number(row.figure, row.unit),
            row.reference_name,
            reference,
            ratio,
            _aim(row.aim, row.unit),
        )
        lines.append(f"| {' | '.join(cells)} | {verdict} |")
    return "\n".join([*lines, "", *_about(report)])


def write_json(report: Report) -> None:
    """All of it, every repetition too, for machines."""
    document = msgspec.to_builtins(report)
    for row, written in zip(report.rows, document["rows"], strict=True):
        written |= {"ratio": row.ratio, "met": row.met()}
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def write_docs(report: Report, path: Path = DOCS) -> None:
    """Put the table between the markers. Raises ValueError when they are not there."""
    before, begin, rest = path.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has lost the lines {BEGIN!r} and {END!r} between which the table is written")
    path.write_text(f"{before}{BEGIN}\n\n{table(report)}\n\n{END}{after}", "utf-8")


def _about(report: Report) -> list[str]:
    machine = report.machine
    return [
        f"Taken {machine.taken_at} at {machine.commit}, in {report.seconds} s, on {machine.cores} cores ({machine.processor}),"
        f" {machine.memory_gib} GiB, {machine.system}, Python {machine.python}; load before: {machine.load_before}.",
        "",
        f"Tollbook: {_versions(machine.versions)}. Peers: {_versions(machine.peers)}.",
    ]


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def _aim(aim: Aim | None, unit: str) -> str:
    if aim is None:
        return ""
    parts = []
    if aim.ratio is not None:
        parts.append(f"ratio ≥ {aim.ratio:g}")
    if aim.least is not None:
        parts.append(f"≥ {_number(aim.least, unit)}")
    if aim.most is not None:
        parts.append(f"≤ {_number(aim.most, unit)}")
    return ", ".join(parts)
