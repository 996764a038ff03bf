"""Become another program: give up root if told to, ask to be ended together with the parent, then exec.

Run as a script on nothing but the standard library (`python -I -S launch.py PARENT SIGNAL UID GID PROGRAM ARGUMENT...`): what it
does must happen in the child, after the fork and before the program, and a `preexec_fn` is not safe beside threads.

UID -1 keeps the user. Otherwise the process becomes that user but keeps, as ambient capabilities, the right to pass directories
that belong to somebody else: PostgreSQL refuses to run as root, and its files may well lie under /root.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_KEEPCAPS: Final = 8
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_RAISE: Final = 2
CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2
CAPABILITY_VERSION_3: Final = 0x20080522

EXIT_NOT_EXECUTABLE: Final = 126


class CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def become(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    """Change to the user, keeping as much of the two file capabilities as root had."""
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = CapHeader(CAPABILITY_VERSION_3, 0)
    held = (CapData * 2)()
    if libc.capget(ctypes.byref(header), held) != 0:
        return
    keep = held[0].permitted & (1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    wanted = (CapData * 2)()
    wanted[0].effective = wanted[0].permitted = wanted[0].inheritable = keep
    if libc.capset(ctypes.byref(header), wanted) != 0:
        return
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if keep & 1 << capability:
            libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def main(arguments: list[str]) -> None:
    parent, death_signal, uid, gid = (int(text) for text in arguments[:4])
    program = arguments[4:]
    libc = ctypes.CDLL(None, use_errno=True)
    if uid >= 0:
        try:
            become(libc, uid, gid)
        except OSError as error:
            sys.stderr.write(f"cannot become user {uid}: {error.strerror}\n")
            sys.exit(EXIT_NOT_EXECUTABLE)
    if sys.platform == "linux":
        # After the change of user, which would clear it.
        libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(0)  # the parent is gone already
    try:
        os.execv(program[0], program)
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]}: {error.strerror}\n")
        sys.exit(EXIT_NOT_EXECUTABLE)


if __name__ == "__main__":
    main(sys.argv[1:])
