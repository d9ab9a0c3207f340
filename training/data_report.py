"""The data report of a speaker's recordings: the findings and clips of each, and checks across all.

Texts are for the speaker, who is to act on them. Nothing here reads or writes audio.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np

from app.hearing.words import words_of
from app.speech.recipe import PrepareConfig
from app.voices.models import DataReport, Finding, RecordingReport, Severity, Transcription
from training.transcripts import spoken_chars

OUTLIER_CLIPS = 20  # fewer say nothing about what is usual
OUTLIER_SHARE = 0.4  # a pace this near to the median is no outlier, however even the speaker is
TWIN_CORRELATION = 0.98
TWIN_LENGTH_RATIO = 0.98
TWIN_SHIFT_HOPS = 5


@dataclass(frozen=True)
class Source:
    """One recording of the speaker; `name` is the user's, shown in the report and never used as a path."""

    name: str
    path: Path
    transcript: str | None = None


@dataclass(frozen=True)
class SpeechClip:
    """One clip to train on: FLAC, mono, whole codec frames; `speech_s` is its length without head and tail."""

    name: str
    path: Path
    text: str
    duration_s: float
    speech_s: float
    source: str
    start_s: float


@dataclass
class KeptClip:
    clip: SpeechClip
    envelope: np.ndarray  # dBFS per hop


@dataclass
class RecordingFile:
    """One recording's findings and clips as they come."""

    source: Source
    number: int
    duration_s: float = 0.0
    snr_db: float | None = None
    head_s: float | None = None
    transcription: Transcription | None = None
    findings: list[Finding] = field(default_factory=list)
    clips: list[KeptClip] = field(default_factory=list)

    def note(self, severity: Severity, code: str, message: str, span_s: tuple[float, float] | None = None) -> None:
        start_s, end_s = span_s or (None, None)
        self.findings.append(Finding(severity=severity, code=code, message=message, start_s=start_s, end_s=end_s))

    def leave_out(self, kept: KeptClip, code: str, message: str) -> None:
        """A clip that was written turns out unfit."""
        kept.clip.path.unlink(missing_ok=True)
        self.clips = [other for other in self.clips if other is not kept]
        self.note("rejected", code, message, (kept.clip.start_s, kept.clip.start_s + kept.clip.duration_s))

    def report(self) -> RecordingReport:
        return RecordingReport(
            file_name=self.source.name,
            duration_s=round(self.duration_s, 3),
            used_s=round(sum(kept.clip.duration_s for kept in self.clips), 3),
            clips=len(self.clips),
            snr_db=None if self.snr_db is None else round(self.snr_db, 1),
            transcription=self.transcription,
            findings=tuple(self.findings),
        )


def report_shortfall(report: DataReport, config: PrepareConfig) -> str | None:
    """Why the data is insufficient, or None: `Only 6:40 of usable speech; at least 10:00 needed …`."""
    if report.usable_s < config.min_usable_s:
        return (
            f"Only {clock(report.usable_s)} of usable speech; at least {clock(config.min_usable_s)} needed "
            f"({clock(config.recommended_usable_s)} recommended)."
        )
    if report.clips < config.min_clips:
        return f"Only {report.clips} usable clips; at least {config.min_clips} needed: add recordings."
    return None


def leave_out_odd_paces(files: Sequence[RecordingFile]) -> None:
    """Clips whose seconds of speech per character lie beyond 1.5 interquartile ranges (Emilia): wrong transcripts."""
    everything = [(file, kept) for file in files for kept in file.clips]
    if len(everything) < OUTLIER_CLIPS:
        return
    paces = np.array([kept.clip.speech_s / spoken_chars(kept.clip.text) for _, kept in everything])
    low, middle, high = np.quantile(paces, (0.25, 0.5, 0.75))
    margin = 1.5 * (high - low)
    floor = min(low - margin, middle * (1 - OUTLIER_SHARE))
    ceiling = max(high + margin, middle * (1 + OUTLIER_SHARE))
    for (file, kept), pace in zip(everything, paces, strict=True):
        if not floor <= pace <= ceiling:
            message = (
                f"{file.source.name}: {1000 * pace:.0f} ms of speech per character at {clock(kept.clip.start_s)}, "
                f"{1000 * middle:.0f} is usual; the transcript does not fit; excluded."
            )
            file.leave_out(kept, "odd_pace", message)


def point_out_twins(files: Sequence[RecordingFile]) -> None:
    """Clips of the same text that sound nearly alike: copies of one take teach nothing twice."""
    by_text: dict[str, list[tuple[RecordingFile, KeptClip]]] = {}
    for file in files:
        for kept in file.clips:
            by_text.setdefault(" ".join(words_of(kept.clip.text)), []).append((file, kept))
    for takes in by_text.values():
        for (_, first), (file, second) in combinations(takes, 2):
            if _alike(first.envelope, second.envelope):
                span_s = (second.clip.start_s, second.clip.start_s + second.clip.duration_s)
                message = f"{file.source.name}: nearly the same take as in {first.clip.source}; keep one of them."
                file.note("check", "near_duplicate", message, span_s)


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two clips rise and fall together, shifted by no more than half a frame."""
    shorter, longer = sorted((len(first), len(second)))
    if shorter < TWIN_LENGTH_RATIO * longer - TWIN_SHIFT_HOPS or shorter <= 4 * TWIN_SHIFT_HOPS:
        return False
    inner = first[TWIN_SHIFT_HOPS : shorter - TWIN_SHIFT_HOPS]
    shifted = (second[shift : shift + len(inner)] for shift in range(2 * TWIN_SHIFT_HOPS + 1))
    return any(
        len(other) == len(inner) and float(np.corrcoef(inner, other)[0, 1]) > TWIN_CORRELATION for other in shifted
    )


def report_of(files: Sequence[RecordingFile], config: PrepareConfig) -> DataReport:
    clips = [kept.clip for file in files for kept in file.clips]
    heads = [file.head_s for file in files if file.head_s is not None and file.clips]
    report = DataReport(
        recordings=tuple(file.report() for file in files),
        clips=len(clips),
        usable_s=round(sum(clip.duration_s for clip in clips), 3),
        median_head_silence_s=round(median(heads), 3) if heads else None,
        seconds_per_char=round(median(clip.duration_s / len(clip.text) for clip in clips), 5) if clips else None,
    )
    return report.model_copy(update={"summary": tuple(_summary(files, report, config))})


def _summary(files: Sequence[RecordingFile], report: DataReport, config: PrepareConfig) -> Iterator[str]:
    used = sum(1 for file in files if file.clips)
    yield f"{report.clips} clips, {clock(report.usable_s)} of speech, from {used} of {len(files)} recordings."
    if shortfall := report_shortfall(report, config):
        yield shortfall
    elif report.usable_s < config.recommended_usable_s:
        yield f"{clock(report.usable_s)} is enough to try; {clock(config.recommended_usable_s)} is recommended."
    causes = Counter(finding.code for file in files for finding in file.findings if finding.severity == "rejected")
    if causes:
        left_out = causes.total()
        excluded = ", ".join(f"{count} {code.replace('_', ' ')}" for code, count in causes.most_common())
        yield f"{left_out} of {left_out + report.clips} clips and recordings excluded: {excluded}."
    if heard := [file.transcription for file in files if file.transcription is not None]:
        yield (
            f"{len(heard)} recordings came without a transcript and were transcribed by {heard[0].by}: read what it "
            "heard in this report, and send the right words where it misheard."
        )
    trimmed = [finding.end_s or 0.0 for file in files for finding in file.findings if finding.code == "head_silence"]
    if trimmed and report.median_head_silence_s is not None:
        yield f"Trimmed {1000 * (report.median_head_silence_s - config.head_s):.0f} ms median lead silence."


def clock(seconds: float) -> str:
    """`400` -> `6:40`, `4000` -> `1:06:40`."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"
