"""Prevents orphan processes when `carillon up` is killed; run as a script, standard library only.

    reaper.py exec PARENT COMMAND…   becomes COMMAND, which the kernel kills when the process PARENT dies (Linux)
    reaper.py watch                  reads `+GROUP` and `-GROUP` lines; when its input ends, kills the groups left

The first covers a child, at once; the second covers what a child started itself, such as vLLM's engine process, for its
input ends whenever the supervisor does, however that happens. Either alone leaves a gap when it is killed too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def run(parent: int, command: list[str]) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)
    os.execvp(command[0], command)


def watch() -> None:
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        (groups.add if line[0] == "+" else groups.discard)(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    if sys.argv[1] == "exec":
        run(int(sys.argv[2]), sys.argv[3:])
    else:
        watch()
