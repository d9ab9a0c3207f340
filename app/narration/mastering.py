"""From the takes of a script to one mastered file: joined, levelled, encoded, then decoded and measured.

    1. The takes are fetched one by one, trimmed and joined into a spool on disk, and measured on the way.
    2. What was measured gives the one gain, limited around peaks, that the target asks for.
    3. The spool is read through that gain into the encoder.
    4. The file is decoded and measured. Where the encoder moved loudness or peaks out of bounds, step 2 is repeated
       with the measurement, so that the bounds hold for what a listener decodes, not for what was encoded.

Memory holds one take, one block and two numbers for every 10 ms of audio, however long the book is. Everything blocks;
nothing is written outside the directory given. It knows no store, no job and no models.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import av
import av.container
import numpy as np
import soundfile
import soxr

from app.errors import CarillonError, ManuscriptUnfit, ObjectMissing
from app.narration.audiobook import ENCODINGS, Encoding, Mark, Tags, read_cover, write_audiobook
from app.narration.gain import Gain, gain_for
from app.narration.joins import gap_samples, trim
from app.narration.models import (
    NarrationOptions,
    Script,
    ScriptSegment,
    Take,
    TextFinding,
    Timeline,
    TimelineChapter,
    TimelineSegment,
)
from app.narration.word_times import with_words
from app.platform.loudness import LoudnessCurve, Meter
from app.speech.audio import Samples, pcm16_of, samples_of
from app.speech.choices import NarrationFormat

TOLERANCE_LU = 0.2
"""How near the loudness has to come; half a unit is promised."""

ATTEMPTS = 4
PEAK_MARGIN_DB = 0.05  # meters differ: ffmpeg's oversamples to 192 kHz with another filter
LENGTH_TOLERANCE_S = 0.1  # decoders give up to a codec's frame more
BLOCK_SAMPLES = 2**17
_JOINING = 0.2  # a share of the work
_ENCODING, _ATTEMPT = 0.6, 0.9  # shares of what then remains: the encoding, and the whole first attempt

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Mastered:
    """The finished file. Loudness and peak are those of the file, decoded; the timeline's rate may differ from it.

    `findings` say what the file lacks of what was asked for: its cover, marks, the peak.
    """

    path: Path
    content_type: str
    timeline: Timeline
    loudness_lufs: float
    true_peak_dbtp: float
    findings: tuple[TextFinding, ...] = ()


def master(
    script: Script,
    takes: Mapping[int, Take],
    options: NarrationOptions,
    format: NarrationFormat,
    *,
    fetch: Callable[[Take], bytes],
    directory: Path,
    cover: Path | None = None,
    progress: Progress | None = None,
) -> Mastered:
    """Make `directory/audiobook.{format}` of the takes, which `fetch` gives as FLAC files.

    A segment without a take is left out. `progress` is called with a growing fraction of 1, several times a second;
    what it raises stops the work. Where loudness and true peak cannot both be had the peak holds, and the result says
    so.

    Raises ManuscriptUnfit for a script without a single take, ObjectMissing for a take that `fetch` does not find or
    that is damaged (`param` is its key), and CarillonError if the file decodes to another length.
    """
    findings = []
    tags = Tags(
        title=options.title or script.title,
        author=options.author or script.author,
        language=options.language or script.language,
    )
    if cover:
        try:
            tags = replace(tags, cover=read_cover(cover.read_bytes()))
        except ManuscriptUnfit as error:  # a book without its cover is better than no book
            findings.append(_finding("left_out", "cover_left_out", f"the file has no cover: {error.message}"))
    report = _Monotone(progress or (lambda share: None))
    spool = directory / "joined.pcm"
    path = directory / f"audiobook.{format}"
    try:
        joined = _join(script, takes, fetch, spool, report.within(0.0, _JOINING))
        tags = replace(tags, marks=_marks(joined.timeline))
        heard = _encode(joined, path, format, options=options, tags=tags, report=report)
        findings += lacking(heard, tags.marks, format, options)
    finally:
        spool.unlink(missing_ok=True)
    report(1.0)
    return Mastered(
        path=path,
        content_type=ENCODINGS[format].content_type,
        timeline=joined.timeline,
        loudness_lufs=heard.integrated_lufs,
        true_peak_dbtp=heard.true_peak_dbtp,
        findings=tuple(findings),
    )


def lacking(
    heard: LoudnessCurve, marks: Sequence[Mark], format: NarrationFormat, options: NarrationOptions
) -> Iterator[TextFinding]:
    """What the file has not of what was asked for. How loud it is, the caller can see."""
    most = ENCODINGS[format].max_marks
    if most is not None and len(marks) > most:
        message = f"{format} files have room for {most} chapter marks; {len(marks) - most} have none: choose m4b"
        yield _finding("left_out", "marks_left_out", message)
    if heard.true_peak_dbtp > options.max_true_peak_dbtp:
        message = (
            f"the true peak is {heard.true_peak_dbtp:.2f} dBTP, above the {options.max_true_peak_dbtp:g} asked for: "
            f"{format} moves peaks too far; choose flac, or a lower max_true_peak_dbtp"
        )
        yield _finding("check", "peak_missed", message)


def _finding(severity: Literal["left_out", "check"], code: str, message: str) -> TextFinding:
    return TextFinding(severity=severity, code=code, message=message)


class _Monotone:
    """Passes progress on as long as it rises: another attempt begins where the last one was thought to end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._told = 0.0

    def __call__(self, share: float) -> None:
        self._told = min(max(self._told, share), 1.0)
        self._progress(self._told)

    def within(self, begin: float, end: float) -> Progress:
        """For one part of the work, which reports its own share of 1."""
        return lambda share: self(begin + (end - begin) * share)


# Joining.


@dataclass(frozen=True)
class _Joined:
    """All of the audio at `spool`, as 16-bit PCM, before any gain."""

    spool: Path
    timeline: Timeline
    curve: LoudnessCurve

    def blocks(self, report: Progress) -> Iterator[tuple[int, Samples]]:
        """The audio in blocks, each with the number of its first sample."""
        with self.spool.open("rb") as file:
            first = 0
            while pcm := file.read(2 * BLOCK_SAMPLES):
                yield first, samples_of(pcm)
                first += len(pcm) // 2
                report(first / self.timeline.samples)


def _join(
    script: Script, takes: Mapping[int, Take], fetch: Callable[[Take], bytes], spool: Path, report: Progress
) -> _Joined:
    wanted = [(chapter, segment) for chapter in script.chapters for segment in chapter.segments]
    rendered = [takes[segment.number] for _, segment in wanted if segment.number in takes]
    if not rendered:
        raise ManuscriptUnfit("no segment of this text was rendered; see the narration's findings")
    rate_hz = max(take.sample_rate_hz for take in rendered)
    placed: list[TimelineSegment] = []
    with spool.open("wb") as file:
        joined = _Spool(file, rate_hz)
        gap_s = 0.0
        for done, (chapter, segment) in enumerate(wanted, start=1):
            take = takes.get(segment.number)
            if take is None:
                gap_s = max(gap_s, segment.gap_s) if placed else 0.0
                continue
            joined.silence(gap_s)
            start = joined.samples
            samples = _samples_of(take, segment, fetch(take), rate_hz)
            kept, cut = trim(samples, rate_hz)
            joined.write(kept)
            lies = _placed(segment, chapter.number, take, start, joined.samples)
            placed.append(with_words(lies, take.words, samples, sample_rate_hz=rate_hz, cut=cut))
            gap_s = segment.gap_s
            report(done / len(wanted))
        joined.silence(gap_s)
    titles = {chapter.number: chapter.title for chapter in script.chapters}
    timeline = Timeline(
        sample_rate_hz=rate_hz, samples=joined.samples, chapters=_chapters(placed, titles), segments=tuple(placed)
    )
    return _Joined(spool, timeline, joined.measured())


class _Spool:
    """The joined audio as 16-bit PCM in a file, measured as it is written."""

    def __init__(self, file: BinaryIO, sample_rate_hz: int) -> None:
        self.samples = 0
        self._file = file
        self._sample_rate_hz = sample_rate_hz
        self._meter = Meter(sample_rate_hz)

    def write(self, samples: Samples) -> None:
        self._file.write(pcm16_of(samples))
        self._meter.push(samples)
        self.samples += len(samples)

    def silence(self, gap_s: float) -> None:
        self.write(np.zeros(gap_samples(gap_s, self._sample_rate_hz), np.float32))

    def measured(self) -> LoudnessCurve:
        return self._meter.finish()


def _samples_of(take: Take, segment: ScriptSegment, flac: bytes, sample_rate_hz: int) -> Samples:
    try:
        samples, rate_hz = soundfile.read(io.BytesIO(flac), dtype="float32")
    except soundfile.SoundFileError as error:
        raise ObjectMissing(
            f"segment {segment.number}: {take.key!r} is no FLAC; render it again", param=take.key
        ) from error
    if samples.ndim != 1 or (len(samples), rate_hz) != (take.samples, take.sample_rate_hz):
        raise ObjectMissing(
            f"segment {segment.number}: {take.key!r} holds {samples.shape} samples at {rate_hz} Hz, where "
            f"{take.samples} at {take.sample_rate_hz} Hz were rendered; render it again",
            param=take.key,
        )
    samples = samples.astype(np.float32, copy=False)
    return samples if rate_hz == sample_rate_hz else soxr.resample(samples, rate_hz, sample_rate_hz)


def _placed(segment: ScriptSegment, chapter: int, take: Take, start: int, end: int) -> TimelineSegment:
    return TimelineSegment(
        number=segment.number,
        chapter=chapter,
        character=segment.character,
        voice=take.voice,
        written=segment.written,
        spoken=segment.spoken,
        start_sample=start,
        end_sample=end,
        flags=take.flags,
    )


def _chapters(placed: list[TimelineSegment], titles: Mapping[int, str]) -> tuple[TimelineChapter, ...]:
    """Each chapter from its first segment to its last; of which nothing was rendered, there is none."""
    bounds: dict[int, tuple[int, int]] = {}
    for segment in placed:
        start, _ = bounds.get(segment.chapter, (segment.start_sample, 0))
        bounds[segment.chapter] = (start, segment.end_sample)
    return tuple(
        TimelineChapter(number=number, title=titles[number], start_sample=start, end_sample=end)
        for number, (start, end) in bounds.items()
    )


def _marks(timeline: Timeline) -> list[Mark]:
    """Chapter marks that leave nothing out: each goes on to where the next begins."""
    ends = [chapter.start_sample for chapter in timeline.chapters[1:]] + [timeline.samples]
    return [
        Mark(chapter.title or f"Chapter {chapter.number}", chapter.start_sample, end)
        for chapter, end in zip(timeline.chapters, ends, strict=True)
    ]


# Encoding, and measuring the result.


def _encode(
    joined: _Joined, path: Path, format: NarrationFormat, *, options: NarrationOptions, tags: Tags, report: _Monotone
) -> LoudnessCurve:
    """Encode until the decoded file is within its bounds. Returns what was measured of the file."""
    begin = _JOINING

    def encode(gain: Gain) -> LoudnessCurve:
        nonlocal begin
        half, end = begin + _ENCODING * (1 - begin), begin + _ATTEMPT * (1 - begin)
        levelled = _levelled(joined.blocks(report.within(begin, half)), gain)
        write_audiobook(levelled, path, format, sample_rate_hz=joined.timeline.sample_rate_hz, tags=tags)
        heard = _heard(path, joined.timeline, report.within(half, end))
        begin = end
        return heard

    return within_bounds(joined.curve, encode, ENCODINGS[format], options)


def within_bounds(
    curve: LoudnessCurve, encode: Callable[[Gain], LoudnessCurve], encoding: Encoding, options: NarrationOptions
) -> LoudnessCurve:
    """Encode until what `encode` measures with a gain is within the options' bounds; returns the last measurement.

    A peak that other gains do not bring down is lowered with all of the rest: the loudness is missed rather.
    """
    aim_lufs = options.loudness_lufs - encoding.level_db
    ceiling_dbtp = options.max_true_peak_dbtp - encoding.level_db - encoding.overshoot_db - PEAK_MARGIN_DB
    attempt = 1
    while True:
        gain = gain_for(curve, target_lufs=aim_lufs, ceiling_dbtp=ceiling_dbtp)
        heard = encode(gain)
        excess_db = heard.true_peak_dbtp - options.max_true_peak_dbtp
        missing_lu = options.loudness_lufs - heard.integrated_lufs
        near = abs(missing_lu) <= TOLERANCE_LU or gain.expected_lufs < aim_lufs - TOLERANCE_LU
        if excess_db <= 0 and (near or attempt == ATTEMPTS):
            return heard
        if attempt == ATTEMPTS:
            return encode(gain.lowered(excess_db + PEAK_MARGIN_DB))
        if excess_db > 0:
            ceiling_dbtp -= excess_db + PEAK_MARGIN_DB
        if not near:
            aim_lufs += missing_lu
        attempt += 1


def _levelled(blocks: Iterable[tuple[int, Samples]], gain: Gain) -> Iterator[Samples]:
    return (gain.apply(block, first) for first, block in blocks)


def _heard(path: Path, timeline: Timeline, report: Progress) -> LoudnessCurve:
    """What a listener's decoder makes of the file. Raises CarillonError if that is not as long as it should be."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        meter = Meter(stream.rate)
        wanted = timeline.samples * stream.rate / timeline.sample_rate_hz
        samples = 0
        for block in _decoded(container, stream):
            meter.push(block)
            samples += len(block)
            report(min(samples / wanted, 1.0))
        if abs(samples - wanted) > LENGTH_TOLERANCE_S * stream.rate:
            raise CarillonError(f"{path.name} decodes to {samples} samples instead of {wanted:.0f}; master it again")
    return meter.finish()


def _decoded(container: av.container.InputContainer, stream: av.AudioStream) -> Iterator[Samples]:
    """The audio in blocks: codecs' own frames are so short that each one's overhead is what would be felt."""
    frames: list[Samples] = []
    held = 0
    for frame in container.decode(stream):
        values = frame.to_ndarray().reshape(-1)
        frames.append((values / 32768 if values.dtype == np.int16 else values).astype(np.float32, copy=False))
        held += len(values)
        if held >= BLOCK_SAMPLES:
            yield np.concatenate(frames)
            frames, held = [], 0
    if frames:
        yield np.concatenate(frames)
