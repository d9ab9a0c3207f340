"""`carillon bench mastering`: takes of synthetic speech mastered into one file; seconds, and memory above the start.

The takes are those of a book: 8 to 20 s each, 40 to a chapter, with pauses between. A few are made once, as FLAC files,
and come again and again; so the figures are of the mastering: trimming, joining, levelling, encoding, and listening to
the file.
"""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import soundfile
from scipy.signal import lfilter

from app.narration.mastering import Mastered, master
from app.narration.models import NarrationOptions, Script, ScriptChapter, ScriptSegment, Take
from app.speech.audio import Samples
from app.speech.choices import NarrationFormat

RATE_HZ = 24_000
TAKES = 12
SEGMENTS_PER_CHAPTER = 40
_SYLLABLE_S = 0.22


@dataclass(frozen=True)
class Report:
    """`memory_bytes` is the process's peak above what it held when mastering began."""

    format: NarrationFormat
    audio_s: float
    wall_s: float
    cpu_s: float
    memory_bytes: int
    size_bytes: int
    loudness_lufs: float
    true_peak_dbtp: float

    def __str__(self) -> str:
        hours = self.audio_s / 3600
        return (
            f"{self.format}: {hours:.2f} h of audio in {self.wall_s:.0f} s, {self.cpu_s / hours:.0f} s of CPU an hour, "
            f"{self.memory_bytes / 2**20:.0f} MB above start, {self.size_bytes / 2**20:.0f} MB, "
            f"{self.loudness_lufs:.2f} LUFS, {self.true_peak_dbtp:.2f} dBTP"
        )


def run(
    *, hours: float, format: NarrationFormat, directory: Path, progress: Callable[[float], None] | None = None
) -> Report:
    """Master about `hours` of synthetic takes in `directory`, which keeps the file."""
    pool = [_flac(_take(np.random.default_rng(number))) for number in range(TAKES)]
    script, takes = _book(hours, [samples for samples, _ in pool])
    began, cpu_began, memory = time.perf_counter(), time.process_time(), psutil.Process().memory_info().rss
    mastered: Mastered = master(
        script,
        takes,
        NarrationOptions(),
        format,
        fetch=lambda take: pool[int(take.key)][1],
        directory=directory,
        progress=progress,
    )
    return Report(
        format=format,
        audio_s=mastered.timeline.samples / mastered.timeline.sample_rate_hz,
        wall_s=time.perf_counter() - began,
        cpu_s=time.process_time() - cpu_began,
        memory_bytes=max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - memory, 0),
        size_bytes=mastered.path.stat().st_size,
        loudness_lufs=mastered.loudness_lufs,
        true_peak_dbtp=mastered.true_peak_dbtp,
    )


def _book(hours: float, lengths: list[int]) -> tuple[Script, dict[int, Take]]:
    """So many segments that the speech alone plays for `hours`."""
    chapters: list[ScriptChapter] = []
    takes: dict[int, Take] = {}
    remaining = hours * 3600 * RATE_HZ
    while remaining > 0:
        segments = []
        while remaining > 0 and len(segments) < SEGMENTS_PER_CHAPTER:
            number = len(takes) + 1
            samples = lengths[number % TAKES]
            takes[number] = Take(
                key=str(number % TAKES),
                samples=samples,
                sample_rate_hz=RATE_HZ,
                speech_s=samples / RATE_HZ,
                voice="synthetic",
                worker="bench",
                busy_s=0.0,
            )
            segments.append(ScriptSegment(number=number, written="Speech.", spoken="Speech.", gap_s=0.5))
            remaining -= samples
        chapters.append(ScriptChapter(number=len(chapters) + 1, title="", segments=tuple(segments)))
    return Script(title="Bench", author="Bench", language="en", chapters=tuple(chapters)), takes


def _take(draw: np.random.Generator) -> Samples:
    """Syllables of a buzz through three random formants, every seventh one a pause, over a quiet room."""
    syllables = [
        _syllable(draw) if number % 7 else np.zeros(round(_SYLLABLE_S * RATE_HZ))
        for number in range(round(draw.uniform(8, 20) / _SYLLABLE_S))
    ]
    speech = np.concatenate([np.zeros(RATE_HZ // 2), *syllables, np.zeros(RATE_HZ // 3)])
    return (0.4 * speech + 3e-4 * draw.standard_normal(len(speech))).astype(np.float32)


def _syllable(draw: np.random.Generator) -> np.ndarray:
    count = round(_SYLLABLE_S * RATE_HZ)
    pitch_hz = draw.uniform(90, 180)
    sound = np.diff(np.floor(np.arange(count + 1) * pitch_hz / RATE_HZ)) + 0.01 * draw.standard_normal(count)
    for formant_hz in (draw.uniform(300, 800), draw.uniform(900, 2300), draw.uniform(2400, 3200)):
        radius, angle = np.exp(-np.pi * 90 / RATE_HZ), 2 * np.pi * formant_hz / RATE_HZ
        sound = np.asarray(lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound))
    return sound / np.abs(sound).max() * draw.uniform(0.4, 1.0) * np.hanning(count)


def _flac(samples: Samples) -> tuple[int, bytes]:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format="FLAC", subtype="PCM_16")
    return len(samples), file.getvalue()
