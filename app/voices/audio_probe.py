"""A user's audio is only ever decoded in a subprocess that cannot hurt: bounded in memory, CPU, wall clock and disk.

`probe` says what a file is, by its first bytes and by really decoding it, `probe_async` does so for coroutines;
`decode` also writes it as raw mono float32. The subprocess is `app.voices.audio_probe_child`, in a session of its own,
killed whole when its time is up or its caller is cancelled. The kernel does not keep it from the network: ffmpeg is
told to open nothing but that file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import CarillonError, RecordingUnfit
from app.voices.models import AudioFacts

_PROGRAM = Path(__file__).with_name("audio_probe_child.py")
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}  # none of our secrets
_SPARE_BYTES = 2**20


@dataclass(frozen=True)
class Limits:
    """What one decoding may take. Ten minutes of stereo MP3 at 48 kHz, resampled and written, took 2.2 s of CPU
    and 240 MB of address space; the wall clock leaves room for a busy machine."""

    memory_bytes: int = 2**30
    cpu_s: int = 120
    wall_s: float = 300.0


@dataclass(frozen=True)
class Decoded:
    """What was written: `clipped_share` of the source's samples were at full scale, first at `first_clip_s`."""

    facts: AudioFacts
    clipped_share: float
    first_clip_s: float | None


def probe(path: Path, *, max_duration_s: float, name: str | None = None, limits: Limits | None = None) -> AudioFacts:
    """What the file is. `name` is what messages call it, its file name unless given.

    Raises RecordingUnfit with the value and the remedy: no audio, an unknown or damaged file, one cut off, of 0 s or
    longer than `max_duration_s`, one that decodes to far more than it holds, with too many channels, an unusual rate or
    values that are no numbers, and one that used up its limits or crashed the decoder.
    """
    job = _Job(path, name or path.name, limits or Limits(), {"max_duration_s": max_duration_s})
    return job.outcome(*job.run()).facts


async def probe_async(
    path: Path, *, max_duration_s: float, name: str | None = None, limits: Limits | None = None
) -> AudioFacts:
    """`probe` for coroutines; cancelled, it kills the subprocess."""
    job = _Job(path, name or path.name, limits or Limits(), {"max_duration_s": max_duration_s})
    return job.outcome(*await job.run_async()).facts


def decode(
    source: Path,
    target: Path,
    *,
    max_duration_s: float,
    sample_rate_hz: int = 24_000,
    name: str | None = None,
    limits: Limits | None = None,
) -> Decoded:
    """Writes the source to `target` as raw mono little-endian float32 at `sample_rate_hz`: read it with `np.fromfile`.

    Channels are averaged; the codec's delay is removed, so that sample 0 is sample 0. Raises what `probe` does, and
    leaves no target then.
    """
    fields = {"max_duration_s": max_duration_s, "target": str(target), "sample_rate_hz": sample_rate_hz}
    job = _Job(source, name or source.name, limits or Limits(), fields)
    try:
        return job.outcome(*job.run())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class _Job:
    """One run of the subprocess: the same command and the same reading of its answer for both ways of waiting."""

    path: Path
    name: str
    limits: Limits
    fields: dict[str, Any]

    @property
    def command(self) -> list[str]:
        written_bytes = 4 * self.fields["max_duration_s"] * self.fields.get("sample_rate_hz", 0) + _SPARE_BYTES
        bounds = {"AS": self.limits.memory_bytes, "CPU": self.limits.cpu_s, "FSIZE": int(written_bytes)}
        request = {"source": str(self.path), **self.fields, "limits": bounds}
        return [sys.executable, "-I", str(_PROGRAM), json.dumps(request)]

    def run(self) -> tuple[int | None, bytes, bytes]:
        """(return code, its answer, its complaints); the code is None where time was up."""
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        with subprocess.Popen(
            self.command, stdin=nothing, stdout=pipe, stderr=pipe, start_new_session=True, env=_ENVIRONMENT
        ) as process:
            try:
                answer, complaints = process.communicate(timeout=self.limits.wall_s)
                return process.returncode, answer, complaints
            except subprocess.TimeoutExpired:
                return None, b"", b""
            finally:
                if process.poll() is None:
                    _kill_group(process.pid)

    async def run_async(self) -> tuple[int | None, bytes, bytes]:
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *self.command, stdin=nothing, stdout=pipe, stderr=pipe, start_new_session=True, env=_ENVIRONMENT
        )
        try:
            async with asyncio.timeout(self.limits.wall_s):
                answer, complaints = await process.communicate()
            return process.returncode, answer, complaints
        except TimeoutError:
            return None, b"", b""
        finally:
            if process.returncode is None:
                _kill_group(process.pid)
                await asyncio.shield(process.wait())

    def outcome(self, code: int | None, answer: bytes, complaints: bytes) -> Decoded:
        if code is None:
            raise self.refusal(f"took longer than {self.limits.wall_s:g} s to decode; convert it to WAV or FLAC")
        if code == -signal.SIGXCPU:
            raise self.refusal(f"took more than {self.limits.cpu_s} s of CPU to decode; convert it to WAV or FLAC")
        if code < 0:
            raise self.refusal(
                f"made the decoder crash ({signal.Signals(-code).name}); it may be damaged: convert it to WAV or FLAC"
            )
        if code > 0:  # a defect of ours, or no room for the target
            raise CarillonError(f"decoding failed with status {code}: {_last_line(complaints)}")
        said: dict[str, Any] = json.loads(answer)
        if fault := said.get("fault"):
            raise self.refusal(fault)
        return Decoded(AudioFacts(**said["facts"]), said["clipped_share"], said["first_clip_s"])

    def refusal(self, fault: str) -> RecordingUnfit:
        return RecordingUnfit(f"{self.name} {fault}.", param="file")


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _last_line(complaints: bytes) -> str:
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"
