"""`python -m tests.bench [NAME ...]`: run benchmarks, print the table, write bench-results.json; after all, the docs too."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import uvloop

from tests.bench import alerts, commands, freshness, gate, growth, ingest, limits, memory, replay, stream
from tests.bench.machine import this_machine
from tests.bench.measure import Row, said
from tests.bench.peers import PeerMissing, peer_python
from tests.bench.place import Place, running_place
from tests.bench.report import Report, table, write_docs, write_json

BENCHMARKS: Final[Mapping[str, Callable[[Place], Awaitable[list[Row]]]]] = {
    "ingest": ingest.batches,
    "singles": ingest.singles,
    "growth": growth.many_apps,
    "workers": growth.two_workers,
    "gate": gate.measure,
    "limits": limits.gates,
    "limits-ingest": limits.counting,
    "replay": replay.measure,
    "stream": stream.measure,
    "commands": commands.measure,
    "freshness": freshness.measure,
    "alerts": alerts.measure,
    "memory": memory.measure,
}


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        said(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
        return 2
    chosen = list(names) or list(BENCHMARKS)
    try:
        peer_python()
        machine = this_machine()
        began = time.monotonic()
        rows = _run(chosen)
    except PeerMissing as missing:
        said(str(missing))
        return 1
    report = Report(machine=machine, seconds=round(time.monotonic() - began), rows=rows)
    print(table(report))
    write_json(report)
    if len(chosen) == len(BENCHMARKS):
        write_docs(report)
    return 0


def _run(names: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    with running_place() as place:
        for name in names:
            said(name)
            began = time.monotonic()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                rows += runner.run(_awaited(BENCHMARKS[name](place)))
            said(f"  {time.monotonic() - began:.0f} s")
    return rows


async def _awaited(measured: Awaitable[list[Row]]) -> list[Row]:
    return await measured


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
