"""Probes and decodes recordings: untrusted audio is only ever decoded in a sandbox.

`probe` says what a file is, by its first bytes and by really decoding it; `decode` also writes it as raw mono float32.
The decoding is `app.voices.audio_probe_child`'s; ffmpeg is made to open nothing but that file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from app.errors import RecordingUnfit
from app.platform import sandbox
from app.platform.sandbox import Limits
from app.voices.models import AudioFacts

LIMITS = Limits(memory_bytes=2**30, cpu_s=120, wall_s=300.0)
"""What one decoding may take. Ten minutes of stereo MP3 at 48 kHz, resampled and written, took 2.2 s of CPU and 240 MB
of address space; the wall clock leaves room for a busy machine."""

_SCRIPT = Path(__file__).with_name("audio_probe_child.py")
_WORDING = sandbox.Wording(
    verb="decode",
    script="the decoder",
    remedy="convert it to WAV or FLAC",
    crash_remedy="convert it to WAV or FLAC",
    work="decoding",
)
_SPARE_BYTES = 2**20


@dataclass(frozen=True)
class Decoded:
    """What was written: `clipped_share` of the source's samples were at full scale, first at `first_clip_s`.

    `lone_channel` says why one channel of two was taken alone, to be read after the file's name.
    """

    facts: AudioFacts
    clipped_share: float
    first_clip_s: float | None
    lone_channel: str | None = None


async def probe(path: Path, *, max_duration_s: float, name: str | None = None, limits: Limits = LIMITS) -> AudioFacts:
    """What the file is. `name` is what messages call it, its file name unless given.

    Raises RecordingUnfit with the value and the remedy: no audio, an unknown or damaged file, one cut off, of 0 s or
    longer than `max_duration_s`, one that decodes to far more than it holds, with too many channels, an unusual rate or
    values that are no numbers, and one that used up its limits or crashed the decoder. Cancelled, it kills the
    subprocess.
    """
    request = {"source": str(path), "max_duration_s": max_duration_s}
    with _refusals_of(name or path.name):
        answer = await sandbox.run(_SCRIPT, request, limits=limits, wording=_WORDING)
    return AudioFacts(**answer["facts"])


async def decode(
    source: Path,
    target: Path,
    *,
    max_duration_s: float,
    sample_rate_hz: int = 24_000,
    name: str | None = None,
    limits: Limits = LIMITS,
) -> Decoded:
    """Writes the source to `target` as raw mono little-endian float32 at `sample_rate_hz`: read it with `np.fromfile`.

    Channels are averaged, unless one of two is dead or the other's inverse; the codec's delay is removed, so that
    sample 0 is sample 0. Raises what `probe` does, and leaves no target then; cancelled, it kills the subprocess.
    """
    request = {
        "source": str(source),
        "max_duration_s": max_duration_s,
        "target": str(target),
        "sample_rate_hz": sample_rate_hz,
    }
    limits = replace(limits, file_bytes=int(8 * max_duration_s * sample_rate_hz) + _SPARE_BYTES)
    try:
        with _refusals_of(name or source.name):
            answer = await sandbox.run(_SCRIPT, request, limits=limits, wording=_WORDING)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    lone_channel = answer["taken"] and _lone_channel(*answer["taken"])
    return Decoded(AudioFacts(**answer["facts"]), answer["clipped_share"], answer["first_clip_s"], lone_channel)


def _lone_channel(taken: int, why: str) -> str:
    heard, other = ("left", "right") if taken == 0 else ("right", "left")
    if why == "dead":
        return f"the {other} channel is silent; the {heard} one is used alone"
    return f"one channel is the other's inverse, and both together would be silent; the {heard} one is used alone"


@contextmanager
def _refusals_of(name: str) -> Iterator[None]:
    try:
        yield
    except sandbox.Fault as fault:
        raise RecordingUnfit(f"{name} {fault}.", param="file") from None
