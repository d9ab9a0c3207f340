"""Runs a script on an untrusted file in a sandboxed child process, and returns its result.

    answer = await run(SCRIPT, {"source": …}, limits=Limits(memory_bytes=2**30, cpu_s=60, wall_s=60), wording=WORDING)

The child is bounded in memory, CPU, wall clock and disk, in a session of its own, and killed whole when its time is up
or its caller is cancelled. It gets none of our environment, and a directory for scratch files that goes with it;
`app.platform.sandbox_child` says how a script is written. The kernel does not keep the child from the network. This
module does not know what a script does.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

from app.errors import CarillonError
from app.platform.sandbox_child import Fault

ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
_CHILD = Path(__file__).with_name("sandbox_child.py")
_COMPLAINT_BYTES = 2**16


@dataclass(frozen=True)
class Limits:
    """What one run may take."""

    memory_bytes: int
    """Of address space."""
    cpu_s: int
    wall_s: float
    file_bytes: int = 0
    """The longest file it may write."""
    answer_bytes: int = 2**20

    @property
    def bounds(self) -> dict[str, int]:
        """What the kernel holds the child to, by the names of resource limits."""
        return {"AS": self.memory_bytes, "CPU": self.cpu_s, "FSIZE": self.file_bytes}


@dataclass(frozen=True)
class Wording:
    """The words for a file that broke its script's limits: "took longer than 60 s to {verb}; {remedy}"."""

    verb: str
    script: str
    """As in "made {script} crash"."""
    remedy: str
    crash_remedy: str
    work: str
    """As in "{work} failed", which is no fault of the file."""


async def run(script: Path, request: Mapping[str, Any], *, limits: Limits, wording: Wording) -> dict[str, Any]:
    """The script's answer to the request; cancelled, it kills the child.

    Raises Fault where the file has one or breaks the limits, and CarillonError where the script fails.
    """
    started = command(script, request, limits.bounds)
    try:
        with tempfile.TemporaryDirectory(prefix="carillon-") as directory:  # what a killed child leaves goes with it
            code, answer, complaints = await _communicate(started, {**ENVIRONMENT, "TMPDIR": directory}, limits)
    except TimeoutError:
        raise Fault(f"took longer than {limits.wall_s:g} s to {wording.verb}; {wording.remedy}") from None
    if len(answer) > limits.answer_bytes:
        raise Fault(f"reads as more than {limits.answer_bytes / 2**20:.0f} MB; split it")
    if code == -signal.SIGXCPU:
        raise Fault(f"took more than {limits.cpu_s} s of CPU to {wording.verb}; {wording.remedy}")
    if code < 0:
        name = signal.Signals(-code).name
        raise Fault(f"made {wording.script} crash ({name}); it may be damaged: {wording.crash_remedy}")
    if code > 0:  # a defect of ours, or no room on the disk
        raise CarillonError(f"{wording.work} failed with status {code}: {_last_line(complaints)}")
    reply: dict[str, Any] = await asyncio.to_thread(json.loads, answer)
    if fault := reply.get("fault"):
        raise Fault(fault)
    return reply


def command(script: Path, request: Mapping[str, Any], bounds: Mapping[str, int]) -> list[str]:
    """What runs the script; `bounds` are resource limits by name ("AS", "CPU", …)."""
    argument = json.dumps({"bounds": dict(bounds), "request": dict(request)})
    return [sys.executable, "-I", str(_CHILD), str(script), argument]


def kill_group(leader: int) -> None:
    """Kill a child's whole process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _last_line(complaints: bytes) -> str:
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"


async def _communicate(command: list[str], environment: dict[str, str], limits: Limits) -> tuple[int, bytes, bytes]:
    """(return code, stdout, stderr), each truncated one byte above its limit. Raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, start_new_session=True, env=environment
    )
    try:
        async with asyncio.timeout(limits.wall_s), asyncio.TaskGroup() as group:
            answer = group.create_task(_kept(process.stdout, limits.answer_bytes))
            complaints = group.create_task(_kept(process.stderr, _COMPLAINT_BYTES))
            code = await process.wait()
    except BaseException:
        kill_group(process.pid)
        await asyncio.shield(process.wait())
        raise
    return code, answer.result(), complaints.result()


async def _kept(stream: asyncio.StreamReader | None, most: int) -> bytes:
    """The stream to its end, truncated to `most` bytes and one more; the rest is discarded."""
    kept = bytearray()
    while stream and (piece := await stream.read(2**16)):
        kept += piece[: most + 1 - len(kept)]
    return bytes(kept)
