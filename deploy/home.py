"""The stack's folder: what lies where in it, and that only one stack uses it."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from deploy.errors import StackError

FREE_BYTES_MIN: Final = 300 * 1024 * 1024
"""Below this the databases would stop in the middle of the work; better not to start."""


class Home:
    """TOLLBOOK_HOME, held by this process until `release`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.postgres = self.folder / "postgres"
        self.jetstream = self.folder / "jetstream"
        self.secrets = self.folder / "secrets"
        self.run = self.folder / "run"
        self.caddy = self.folder / "caddy"
        self.inbox = self.folder / "inbox"
        self.sms = self.folder / "sms"
        self.ready_file = self.folder / "ready.json"
        self._lock: int | None = None

    def hold(self) -> None:
        """Make the folder and take its lock. Raises StackError: not writable, in use, or the disk is full."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            for folder in (self.run, self.caddy, self.inbox, self.sms):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StackError(f"TOLLBOOK_HOME {self.folder} cannot be written: {error.strerror}.") from None
        self.check_space(shutil.disk_usage(self.folder).free)

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_space(self, free_bytes: int) -> None:
        """Raise StackError when the disk is as good as full."""
        if free_bytes < FREE_BYTES_MIN:
            raise StackError(
                f"the disk of {self.folder} is full: {free_bytes // 1024**2} MB left, {FREE_BYTES_MIN // 1024**2} MB are needed."
            )

    def _take_lock(self) -> None:
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode("ascii", errors="replace").strip()
            os.close(lock)
            raise StackError(
                f"{self.folder} is in use by another stack (process {holder}): stop it, or set TOLLBOOK_HOME to another folder."
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock
