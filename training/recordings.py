"""A speaker's recordings become clips to train on, with a report that the speaker can act on.

Decoded, checked for rate, clipping and noise, cut at pauses, given their transcripts, levelled, trimmed: clip by clip
as FLAC, one recording in memory at a time. What is done to the samples is in `training.cutting`; thresholds are
`PrepareConfig`'s. Speech is told from silence by level above an adaptive floor: silero would be a second opinion, but
its import sets torch's threads to one for the whole process, and the floor alone errs by less than a hop down to 25 dB.
Nothing here knows codes, models or where the recordings came from.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from statistics import median

import numpy as np
import soundfile

from app.errors import InvalidRequest
from app.speech.audio import Samples, hop_levels_dbfs, signal_to_noise_db
from app.speech.recipe import PrepareConfig
from app.voices import audio_probe
from app.voices.models import DataReport, Finding, RecordingReport, Severity
from training import cutting
from training.cutting import Cut, Grid, Recording
from training.transcriber import Transcriber, shared_out, spoken_chars, word_agreement, words_of

CLIPPING_EXPLAINED = "Lower the input gain and re-record."
SHORTEST_TEXT = 3  # characters (F5-TTS)
OUTLIER_CLIPS = 20  # fewer say nothing about what is usual
OUTLIER_SHARE = 0.4  # a pace this near to the median is no outlier, however even the speaker is
SILENT_DBFS = -60.0
DC_OFFSET = 0.005
PEAKY_DB = 3.0
TOLD_HEAD_S = 0.1
TOLD_TAIL_S = 0.1
TWIN_CORRELATION = 0.98
TWIN_LENGTH_RATIO = 0.98
TWIN_SHIFT_HOPS = 5


class PreparationCancelled(Exception):
    """Whoever wanted the clips wants them no more; those written so far are in the directory."""


@dataclass(frozen=True)
class Source:
    """One recording of the speaker; `name` is the user's, told in the report and never used as a path."""

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


@dataclass(frozen=True)
class Prepared:
    """What there is to train on, and what became of every recording."""

    clips: tuple[SpeechClip, ...]
    report: DataReport


def prepare(
    sources: Sequence[Source],
    directory: Path,
    config: PrepareConfig,
    *,
    sample_rate_hz: int = 24_000,
    frame_samples: int = 2048,
    language: str | None = None,
    transcriber: Transcriber | None = None,
    max_sample_s: float = 7200.0,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Prepared:
    """Writes the clips of all `sources` into `directory`; `progress` hears of (recordings done, recordings).

    A recording that cannot be used, or is longer than `max_sample_s`, is a finding, never an error.
    Raises PreparationCancelled between two recordings,
    and what the transcriber raises. Whether it is enough, `report_shortfall` says.
    """
    directory.mkdir(parents=True, exist_ok=True)
    desk = _Desk(directory, config, Grid(sample_rate_hz, frame_samples), language, transcriber, max_sample_s)
    files: list[_File] = []
    for number, source in enumerate(sources):
        if cancelled():
            raise PreparationCancelled
        file = _File(source, number + 1)
        files.append(file)
        try:
            desk.work(file)
        except InvalidRequest as error:
            file.note("rejected", "unreadable", error.message)
        if progress is not None:
            progress(number + 1, len(sources))
    _leave_out_odd_paces(files)
    _point_out_twins(files)
    return Prepared(tuple(clip.clip for file in files for clip in file.clips), _report_of(files, config))


def report_shortfall(report: DataReport, config: PrepareConfig) -> str | None:
    """Why this is too little to train on, or None: `Only 6:40 of usable speech; at least 10:00 needed …`."""
    if report.usable_s < config.min_usable_s:
        return (
            f"Only {_clock(report.usable_s)} of usable speech; at least {_clock(config.min_usable_s)} needed "
            f"({_clock(config.recommended_usable_s)} recommended)."
        )
    if report.clips < config.min_clips:
        return f"Only {report.clips} usable clips; at least {config.min_clips} needed: add recordings."
    return None


@dataclass
class _Kept:
    clip: SpeechClip
    envelope: np.ndarray  # dBFS per hop


@dataclass
class _File:
    """One recording's findings and clips as they come."""

    source: Source
    number: int
    duration_s: float = 0.0
    snr_db: float | None = None
    head_s: float | None = None
    findings: list[Finding] = field(default_factory=list)
    clips: list[_Kept] = field(default_factory=list)

    def note(self, severity: Severity, code: str, message: str, span_s: tuple[float, float] | None = None) -> None:
        start_s, end_s = span_s or (None, None)
        self.findings.append(Finding(severity=severity, code=code, message=message, start_s=start_s, end_s=end_s))

    def leave_out(self, kept: _Kept, code: str, message: str) -> None:
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
            findings=tuple(self.findings),
        )


@dataclass
class _Desk:
    """Where one recording after the other is worked on."""

    directory: Path
    config: PrepareConfig
    grid: Grid
    language: str | None
    transcriber: Transcriber | None
    max_sample_s: float
    _seen: dict[str, str] = field(default_factory=dict)

    def work(self, file: _File) -> None:
        """One recording from file to clips; it returns early where a finding says that it cannot be used.

        Raises InvalidRequest for a file that does not decode.
        """
        name, digest = file.source.name, _sha256(file.source.path)
        if digest in self._seen:
            file.note("rejected", "duplicate", f"{name}: the same file as {self._seen[digest]}; one of them is enough.")
            return
        self._seen[digest] = name
        if file.source.transcript is None and self.transcriber is None:
            file.note("rejected", "no_transcript", f"{name}: no transcript; add one, or configure a transcriber.")
            return
        samples = self._decoded(file)
        recording = None if samples is None else self._levelled(file, samples)
        if recording is None:
            return
        file.head_s = self.grid.seconds(recording.speech[0])
        whole = cutting.cut(recording, recording.speech, self.grid, self.config)
        is_one_clip = len(whole.samples) <= self.grid.samples(self.config.max_clip_s)
        if file.source.transcript is not None and is_one_clip:
            self._keep_whole(file, recording, whole, file.source.transcript)
        elif self.transcriber is not None:
            self._keep_segments(file, recording, self.transcriber)
        else:
            file.note(
                "rejected",
                "too_long",
                f"{name}: {_clock(file.duration_s)} under one transcript, and a clip has at most "
                f"{self.config.max_clip_s:g} s; split it at its sentences, or configure a transcriber.",
            )

    def _decoded(self, file: _File) -> Samples | None:
        """The samples of a file whose rate and clipping are acceptable."""
        name, config = file.source.name, self.config
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=".decoded-") as scratch:
            target = Path(scratch) / "mono.f32"
            decoded = audio_probe.decode(
                file.source.path,
                target,
                max_duration_s=self.max_sample_s,
                sample_rate_hz=self.grid.sample_rate_hz,
                name=name,
            )
            samples = np.fromfile(target, "<f4")
        file.duration_s = decoded.facts.duration_s
        rate_hz = decoded.facts.sample_rate_hz
        wanted = f"{_khz(config.min_source_rate_hz)} minimum, {_khz(config.good_source_rate_hz)} recommended."
        if rate_hz < config.min_source_rate_hz:
            kind = "telephone audio" if rate_hz == 8_000 else "audio"
            file.note("rejected", "low_rate", f"{name}: {_khz(rate_hz)} {kind}; {wanted}")
            return None
        if rate_hz < config.good_source_rate_hz:
            file.note("check", "low_rate", f"{name}: {_khz(rate_hz)} audio will sound dull; {wanted}")
        if decoded.first_clip_s is not None:
            excessive = decoded.clipped_share > config.max_clipped_share
            message = (
                f"{name}: {_percent(decoded.clipped_share)} of samples clip (first at {_clock(decoded.first_clip_s)})."
            )
            at = (decoded.first_clip_s, decoded.first_clip_s)
            file.note("rejected" if excessive else "check", "clipping", f"{message} {CLIPPING_EXPLAINED}", at)
            if excessive:
                return None
        return samples

    def _levelled(self, file: _File, samples: Samples) -> Recording | None:
        """The recording filtered and levelled (in place), if it is speech, and neither noisy nor faint."""
        name, config, rate_hz = file.source.name, self.config, self.grid.sample_rate_hz
        offset = float(np.mean(samples, dtype=np.float64)) if len(samples) else 0.0
        if abs(offset) > DC_OFFSET:
            file.note("fixed", "dc_offset", f"{name}: a DC offset of {100 * offset:+.1f} % was removed.")
        samples -= np.float32(offset)
        cutting.high_pass(samples, rate_hz, config.high_pass_hz)
        level = cutting.speech_level_dbfs(samples, rate_hz)
        if level is None or level < SILENT_DBFS:
            file.note("rejected", "no_speech", f"{name}: no speech was found; check the microphone.")
            return None
        file.snr_db = signal_to_noise_db(samples, rate_hz)
        if file.snr_db is not None and file.snr_db < config.good_snr_db:
            excessive = file.snr_db < config.min_snr_db
            message = (
                f"{name}: background noise {'too high' if excessive else 'audible'} "
                f"(SNR {file.snr_db:.0f} dB; need {config.min_snr_db:g}, aim for 35)."
            )
            file.note("rejected" if excessive else "check", "noise", message)
            if excessive:
                return None
        gain_db = cutting.wanted_lufs(config) - level
        if abs(gain_db) > config.max_gain_db:
            file.note("rejected", *self._misled(name, gain_db))
            return None
        recording = cutting.levelled_recording(samples, gain_db, self.grid, config)
        if recording is None:
            file.note("rejected", "no_speech", f"{name}: no speech was found; check the microphone.")
        return recording

    def _misled(self, name: str, gain_db: float) -> tuple[str, str]:
        code, remedy = ("too_quiet", "record closer to it") if gain_db > 0 else ("too_loud", "lower the input gain")
        limit = self.config.max_gain_db
        return code, f"{name}: needs {gain_db:+.0f} dB to be as loud as the others, at most {limit:g}; {remedy}."

    def _keep_whole(self, file: _File, recording: Recording, whole: Cut, transcript: str) -> None:
        """A recording under one transcript, short enough for one clip."""
        kept = self._keep(file, recording, whole, " ".join(transcript.split()))
        if kept is None or self.transcriber is None:
            return
        agreement = word_agreement(transcript, self.transcriber.transcribe(kept.clip.path, language=self.language))
        if agreement < self.config.min_word_agreement:
            message = f"{file.source.name}: transcript and audio differ ({_percent(agreement)} match); excluded."
            file.leave_out(kept, "mismatch", message)

    def _keep_segments(self, file: _File, recording: Recording, transcriber: Transcriber) -> None:
        """A recording of several clips: each says what is heard there, in the words of a transcript if there is one."""
        name, transcript = file.source.name, file.source.transcript
        spans = cutting.segments(recording, self.grid, self.config)
        cuts = [cutting.cut(recording, span, self.grid, self.config) for span in spans]
        clips = [clip for made in cuts if (clip := self._keep(file, recording, made, "")) is not None]
        heard = [transcriber.transcribe(kept.clip.path, language=self.language) for kept in clips]
        texts = heard if transcript is None else shared_out(transcript, heard)
        for kept, text, said in zip(clips, texts, heard, strict=True):
            agreement = word_agreement(text, said)
            at = _clock(kept.clip.start_s)
            if len(text.strip()) < SHORTEST_TEXT:
                file.leave_out(kept, "no_words", f"{name}: no words were heard at {at}; excluded.")
            elif agreement < self.config.min_word_agreement:
                message = f"{name}: transcript and audio differ at {at} ({_percent(agreement)} match); excluded."
                file.leave_out(kept, "mismatch", message)
            else:
                kept.clip = replace(kept.clip, text=text)

    def _keep(self, file: _File, recording: Recording, made: Cut, text: str) -> _Kept | None:
        """Levels and writes one clip, unless it is too short, too long, or out of reach of the gain."""
        name, config, grid = file.source.name, self.config, self.grid
        span_s = (grid.seconds(made.speech[0]), grid.seconds(made.speech[1]))
        speech_s = span_s[1] - span_s[0] - made.shortened_s
        if speech_s < config.min_clip_s:
            message = f"{name}: {speech_s:.1f} s of speech at {_clock(span_s[0])}; {config.min_clip_s:g} s minimum."
            file.note("rejected", "too_short", message, span_s)
            return None
        if len(made.samples) > grid.samples(config.max_clip_s):
            message = (
                f"{name}: {speech_s:.0f} s without a pause at {_clock(span_s[0])}; {config.max_clip_s:g} s maximum."
            )
            file.note("rejected", "too_long", message, span_s)
            return None
        wanted_db, allowed_db = cutting.clip_gain_db(made.samples, grid.sample_rate_hz, config)
        total_db = recording.gain_db + wanted_db
        if abs(total_db) > config.max_gain_db:
            file.note("rejected", *self._misled(f"{name} at {_clock(span_s[0])}", total_db), span_s)
            return None
        samples = made.samples * np.float32(10.0 ** (min(wanted_db, allowed_db) / 20.0))
        self._tell(file, made, wanted_db, allowed_db, span_s)
        clip_name = f"{file.number:04}-{len(file.clips) + 1:03}"
        path = self.directory / f"{clip_name}.flac"
        soundfile.write(path, samples, grid.sample_rate_hz, subtype="PCM_16")
        start_s = grid.seconds(made.start)
        clip = SpeechClip(clip_name, path, text, grid.seconds(len(samples)), speech_s, name, start_s)
        kept = _Kept(clip, hop_levels_dbfs(samples, grid.sample_rate_hz))
        file.clips.append(kept)
        return kept

    def _tell(self, file: _File, made: Cut, wanted_db: float, allowed_db: float, span_s: tuple[float, float]) -> None:
        """What was mended in a clip, and what should be looked at."""
        name, at = file.source.name, _clock(span_s[0])
        first_head_s = file.head_s if not file.clips else None
        if first_head_s is not None and first_head_s - made.head_s > TOLD_HEAD_S:
            message = f"{name}: {1000 * first_head_s:.0f} ms before the speech cut to {1000 * made.head_s:.0f} ms."
            file.note("fixed", "head_silence", message, (0.0, first_head_s))
        if made.head_s < cutting.SHORTEST_HEAD_S:
            file.note("check", "no_head", f"{name}: speech begins at once; leave 0.2 s of silence before it.", span_s)
        if made.shortened_s:
            message = f"{name}: pauses after {at} shortened by {made.shortened_s:.1f} s in total."
            file.note("fixed", "long_pause", message, span_s)
        if made.added_s > TOLD_TAIL_S:
            message = f"{name}: {1000 * made.added_s:.0f} ms of its own room tone added after {_clock(span_s[1])}."
            file.note("fixed", "short_tail", message, span_s)
        if wanted_db - allowed_db > PEAKY_DB:
            message = f"{name}: peaks keep the clip at {at} {wanted_db - allowed_db:.0f} dB quieter than the others."
            file.note("check", "peaks", message, span_s)


# Across all recordings


def _leave_out_odd_paces(files: Sequence[_File]) -> None:
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
                f"{file.source.name}: {1000 * pace:.0f} ms of speech per character at {_clock(kept.clip.start_s)}, "
                f"{1000 * middle:.0f} is usual; the transcript does not fit; excluded."
            )
            file.leave_out(kept, "odd_pace", message)


def _point_out_twins(files: Sequence[_File]) -> None:
    """Clips of the same text that sound nearly alike: copies of one take teach nothing twice."""
    by_text: dict[str, list[tuple[_File, _Kept]]] = {}
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


def _report_of(files: Sequence[_File], config: PrepareConfig) -> DataReport:
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


def _summary(files: Sequence[_File], report: DataReport, config: PrepareConfig) -> Iterator[str]:
    used = sum(1 for file in files if file.clips)
    yield f"{report.clips} clips, {_clock(report.usable_s)} of speech, from {used} of {len(files)} recordings."
    if shortfall := report_shortfall(report, config):
        yield shortfall
    elif report.usable_s < config.recommended_usable_s:
        yield f"{_clock(report.usable_s)} is enough to try; {_clock(config.recommended_usable_s)} is recommended."
    causes = Counter(finding.code for file in files for finding in file.findings if finding.severity == "rejected")
    if causes:
        left_out = causes.total()
        told = ", ".join(f"{count} {code.replace('_', ' ')}" for code, count in causes.most_common())
        yield f"{left_out} of {left_out + report.clips} clips and recordings excluded: {told}."
    trimmed = [finding.end_s or 0.0 for file in files for finding in file.findings if finding.code == "head_silence"]
    if trimmed and report.median_head_silence_s is not None:
        yield f"Trimmed {1000 * (report.median_head_silence_s - config.head_s):.0f} ms median lead silence."


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _clock(seconds: float) -> str:
    """`400` -> `6:40`, `4000` -> `1:06:40`."""
    minutes, whole = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"


def _khz(rate_hz: int) -> str:
    return f"{rate_hz / 1000:g} kHz"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.2g}%"
