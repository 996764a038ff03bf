"""Which tests run beside each other: `pytest -n 2 --dist loadfile`, which is what `make test` runs.

A worker of pytest-xdist has servers of its own (fixtures of the session), so files do not meet. A file stays with one worker: its
tests share what it set up. Tests of a whole stack or of many processes stay with one worker too, all of them: never are there two
of those at once, whatever the number of workers.
"""

from __future__ import annotations

from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.support.servers import server_source

BUSY: Final = ("badinput", "chaos", "contracts", "e2e", "exactness", "strangers")
"""Folders of tests/ whose tests start a stack, share one, or start more processes than the machine has cores."""
LONG: Final = "integration"


def rank(folder: str) -> int:
    """When the tests of that folder of tests/ are begun: what takes longest first, so that the workers end together."""
    return (folder not in BUSY) + (folder not in (*BUSY, LONG))


class SideBySide(LoadFileScheduling):
    """A worker gets a file at a time. What is busy is as one file, and so are all that use the one NATS they were told to use."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # by `rank`, not by the number of tests

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.split("/")[1]
        alone = (*BUSY, LONG) if server_source() == "external" else BUSY
        return "alone" if folder in alone else super()._split_scope(nodeid)
