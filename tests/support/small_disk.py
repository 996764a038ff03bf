"""Disks that a test makes small and full: tmpfs in a mount namespace of its own, for root and for ordinary users alike.

A keeper process holds the namespace; programs are started inside it by putting `SmallDisks.inside` before their command line.
Nothing of it is seen outside, and it is gone with the last process in it.

    python small_disk.py keep FOLDER=MEGABYTES...    mount, then obey lines on stdin
    python small_disk.py join PID COMMAND...         become COMMAND inside the namespaces of the keeper
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
MS_REMOUNT: Final = 32
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MEGABYTE: Final = 1024 * 1024


class SmallDisks:
    """`sizes`: the size in MB of each disk, by the empty folder that it is mounted on, outer folders first.

    Raises RuntimeError where the machine lets nobody mount anything.
    """

    def __init__(self, sizes: Mapping[Path, int]) -> None:
        disks = [f"{folder}={megabytes}" for folder, megabytes in sizes.items()]
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", __file__, "keep", *disks], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        said = self._hear()
        if said != "ok":
            self.close()
            raise RuntimeError(
                f"no small disk can be made here: {said}. It takes root, or user namespaces for ordinary users"
                " (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns; in Docker --privileged)."
            )

    @property
    def inside(self) -> tuple[str, ...]:
        """What to put before a command line to have it run where the disks are."""
        return sys.executable, "-I", __file__, "join", str(self._keeper.pid)

    def seen_from_outside(self, folder: Path) -> Path:
        """The path under which this process finds what is in `folder` inside."""
        return Path(f"/proc/{self._keeper.pid}/root{folder.absolute()}")

    def leave(self, folder: Path, free_bytes: int) -> None:
        """Have the disk on `folder` be just so large that `free_bytes` are left."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{free_bytes} {folder}\n")
        self._keeper.stdin.flush()
        said = self._hear()
        if said != "ok":
            raise RuntimeError(f"the disk on {folder} cannot be made another size: {said}")

    def close(self) -> None:
        """End the keeper. What still runs inside keeps the disks."""
        self._keeper.kill()
        self._keeper.communicate(timeout=10)

    def _hear(self) -> str:
        assert self._keeper.stdout is not None
        return self._keeper.stdout.readline().strip() or "the keeper died"


class _System:
    """The system calls that Python 3.11 does not have. Raises OSError."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def unshare(self, flags: int) -> None:
        self._check(self._libc.unshare(flags), "unshare")

    def setns(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._check(self._libc.setns(handle, 0), f"setns {path}")
        os.close(handle)

    def mount(self, kind: str, target: str, flags: int, options: str = "") -> None:
        arguments = (kind.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode())
        self._check(self._libc.mount(*arguments), f"mount {target}")

    @staticmethod
    def _check(result: int, what: str) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def keep(disks: list[str]) -> None:
    """Make the namespace and its disks, say ok, and obey until stdin ends."""
    system = _System()
    uid, gid = os.getuid(), os.getgid()
    system.unshare(CLONE_NEWNS if uid == 0 else CLONE_NEWNS | CLONE_NEWUSER)
    if uid != 0:
        # The user stays who he is inside: PostgreSQL refuses to run as root, though it be root of nothing.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    system.mount("none", "/", MS_REC | MS_PRIVATE)
    for disk in disks:
        folder, _, megabytes = disk.rpartition("=")
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        system.mount("tmpfs", folder, 0, f"size={megabytes}m,mode=0700")
    sys.stdout.write("ok\n")
    sys.stdout.flush()
    for line in sys.stdin:
        free, _, folder = line.rstrip("\n").partition(" ")
        disk_now = os.statvfs(folder)
        used = (disk_now.f_blocks - disk_now.f_bfree) * disk_now.f_frsize
        try:
            system.mount("tmpfs", folder, MS_REMOUNT, f"size={used + int(free)}")
        except OSError as error:
            sys.stdout.write(f"{error.strerror}\n")
        else:
            sys.stdout.write("ok\n")
        sys.stdout.flush()


def join(keeper: int, command: list[str]) -> None:
    """Become `command` where the keeper is."""
    system = _System()
    folder = Path.cwd()
    if os.getuid() != 0:
        system.setns(f"/proc/{keeper}/ns/user")
    system.setns(f"/proc/{keeper}/ns/mnt")
    os.chdir(folder)
    os.execvp(command[0], command)


if __name__ == "__main__":
    try:
        if sys.argv[1] == "keep":
            keep(sys.argv[2:])
        else:
            join(int(sys.argv[2]), sys.argv[3:])
    except OSError as error:
        sys.stdout.write(f"{error.strerror}\n")
        sys.exit(1)
