"""The short form of `python -m tests.exactness`."""

from __future__ import annotations

from pathlib import Path

from tests.exactness.run import Size, run


async def test_no_unit_passes_a_limit_and_none_is_stranded(tmp_path: Path) -> None:
    report = await run(7, Size(), tmp_path, print)
    assert not report.violations, report.text()
    assert report.figures["units passed"] > 1000, report.text()
