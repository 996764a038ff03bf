"""A folder of what has arrived: each thing a file that is there whole or not at all, and never more of them than a bound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.files import write_private
from shared.clock import Clock
from shared.ids import new_id

FILES_MAX: Final = 1_000
"""To be looked at, not to be kept for ever."""


class KeptFiles:
    """Files `<time>-<id><suffix>` in `folder`, for the owner's eyes only. Their names sort as they came; beyond `files_max` the
    oldest go, which `say` is told once. Safe to use from several threads, not from several processes."""

    def __init__(
        self, folder: Path, suffix: str, clock: Clock, say: Callable[[str], None], *, files_max: int = FILES_MAX
    ) -> None:
        self._folder = folder
        self._suffix = suffix
        self._clock = clock
        self._say = say
        self._files_max = files_max
        self._said = False
        self._have_folder()
        for half in folder.glob(f".*{suffix}.new"):  # of a process that was killed while it wrote
            half.unlink(missing_ok=True)

    def keep(self, content: str | bytes) -> Path:
        """Write a file, durably; where it is. Raises OSError."""
        self._have_folder()
        path = self._folder / f"{self._clock.now():%Y%m%dT%H%M%S.%fZ}-{new_id()}{self._suffix}"
        write_private(path, content)
        self._drop_oldest()
        return path

    def _have_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _drop_oldest(self) -> None:
        kept = sorted(self._folder.glob(f"*{self._suffix}"))
        for path in kept[: -self._files_max]:
            path.unlink(missing_ok=True)
        if len(kept) > self._files_max and not self._said:
            self._said = True
            self._say(f"{self._folder} holds {self._files_max} files: from now on the oldest go")
