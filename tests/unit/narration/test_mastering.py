"""Takes made into one file: where everything lies, how loud it is once decoded, and what happens to bad takes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyloudnorm
import pytest
import soundfile
from scipy.signal import lfilter

from app.bench.mastering import run
from app.errors import ManuscriptUnfit, ObjectMissing
from app.narration.audiobook import ENCODINGS, Mark
from app.narration.gain import Gain
from app.narration.joins import gap_samples, trim
from app.narration.mastering import ATTEMPTS, Mastered, lacking, master, within_bounds
from app.narration.models import NarrationOptions, Script, ScriptChapter, ScriptSegment, Take
from app.platform.loudness import LoudnessCurve, Meter
from app.speech.audio import Samples
from app.speech.choices import NarrationFormat

RATE_HZ = 24_000
SYLLABLE = RATE_HZ // 5
LOSSLESS = (NarrationFormat.FLAC, NarrationFormat.WAV)


def speech(seed: int, syllables: int, gain: float) -> Samples:
    """Syllables of a voice with formants between two silences, in a quiet room; as peaky as speech is."""
    draw = np.random.default_rng(seed)
    sounds = [np.zeros(RATE_HZ // 2)]
    for hz in draw.uniform(100, 170, syllables):
        buzz = np.diff(np.floor(np.arange(SYLLABLE + 1) * hz / RATE_HZ)) + 0.01 * draw.standard_normal(SYLLABLE)
        for formant_hz in (draw.uniform(300, 800), draw.uniform(900, 2300)):
            radius, angle = np.exp(-np.pi * 90 / RATE_HZ), 2 * np.pi * formant_hz / RATE_HZ
            buzz = np.asarray(lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], buzz))
        sounds.append(buzz / np.abs(buzz).max() * draw.uniform(0.3, 1) * np.hanning(SYLLABLE))
    spoken = gain * np.concatenate([*sounds, np.zeros(RATE_HZ // 3)])
    return (spoken + 2e-4 * draw.standard_normal(len(spoken))).astype(np.float32)


@dataclass
class Book:
    """A script of two chapters and its takes, in a store that is a dictionary."""

    gain: float = 0.3
    rates_hz: Sequence[int] = (RATE_HZ,)
    gaps_s: Sequence[float] = (0.35, 0.7, 2.0, 0.0, 0.123456, 1.0)
    stored: dict[str, bytes] = field(default_factory=dict)
    takes: dict[int, Take] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in range(1, 7):
            rate_hz = self.rates_hz[number % len(self.rates_hz)]
            self.record(number, speech(number, 20, self.gain), rate_hz)

    def record(self, number: int, samples: Samples, rate_hz: int = RATE_HZ) -> None:
        file = io.BytesIO()
        soundfile.write(file, samples, rate_hz, format="FLAC", subtype="PCM_16")
        self.stored[f"take-{number}"] = file.getvalue()
        self.takes[number] = Take(
            key=f"take-{number}",
            samples=len(samples),
            sample_rate_hz=rate_hz,
            speech_s=1.0,
            voice="ada" if number % 2 else "bob",
            worker="w",
            busy_s=1.0,
            flags=("clipping",) if number == 3 else (),
        )

    @property
    def script(self) -> Script:
        segments = [
            ScriptSegment(number=n, written=f"Written {n}.", spoken=f"spoken {n}", gap_s=gap_s)
            for n, gap_s in enumerate(self.gaps_s, start=1)
        ]
        chapters = (
            ScriptChapter(number=1, title="The First", segments=tuple(segments[:3])),
            ScriptChapter(number=2, title="", segments=tuple(segments[3:])),
        )
        return Script(title="A Book", author="Nobody", language="en", chapters=chapters)

    def master(self, directory: Path, format: str = "wav", **more: Any) -> Mastered:
        return master(
            self.script,
            self.takes,
            more.pop("options", NarrationOptions()),
            NarrationFormat(format),
            fetch=lambda take: self.stored[take.key],
            directory=directory,
            **more,
        )


def decoded(path: Path) -> tuple[Samples, int]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        values = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(stream)])
        return (values / 32768 if values.dtype == np.int16 else values).astype(np.float32), stream.rate


def true_peak_dbtp(samples: Samples, rate_hz: int) -> float:
    meter = Meter(rate_hz)
    meter.push(samples)
    return meter.finish().true_peak_dbtp


# Where everything lies.


def test_the_file_is_the_segments_and_the_gaps_and_nothing_else(tmp_path: Path) -> None:
    book = Book()
    mastered = book.master(tmp_path)

    spoken = [soundfile.read(io.BytesIO(flac), dtype="float32")[0] for flac in book.stored.values()]
    lengths = [len(trim(np.asarray(samples, np.float32), RATE_HZ)[0]) for samples in spoken]
    gaps = [gap_samples(gap_s, RATE_HZ) for gap_s in book.gaps_s]
    placed = mastered.timeline.segments
    assert [s.end_sample - s.start_sample for s in placed] == lengths
    assert [b.start_sample - a.end_sample for a, b in pairwise(placed)] == gaps[:-1]
    assert mastered.timeline.samples == sum(lengths) + sum(gaps)
    assert len(decoded(mastered.path)[0]) == mastered.timeline.samples


def test_gaps_are_digital_silence_and_segments_are_not(tmp_path: Path) -> None:
    mastered = Book().master(tmp_path)
    samples, _ = decoded(mastered.path)

    spoken = np.zeros(len(samples), bool)
    for segment in mastered.timeline.segments:
        spoken[segment.start_sample : segment.end_sample] = True
        assert np.abs(samples[segment.start_sample : segment.end_sample]).max() > 0.05
    assert np.all(samples[~spoken] == 0)


def test_no_join_clicks(tmp_path: Path) -> None:
    """Even where two segments touch, the samples move less at the join than anywhere in the speech."""
    mastered = Book().master(tmp_path)
    samples, _ = decoded(mastered.path)
    steps = np.abs(np.diff(samples))

    edges = [edge for s in mastered.timeline.segments for edge in (s.start_sample, s.end_sample)]
    at_joins = max(steps[max(edge - 3, 0) : edge + 3].max(initial=0) for edge in edges)
    assert at_joins < 0.01 * steps.max()


def test_the_timeline_says_who_said_what_in_which_chapter(tmp_path: Path) -> None:
    timeline = Book().master(tmp_path).timeline
    third = timeline.segments[2]
    assert (third.number, third.chapter, third.voice, third.written, third.flags) == (
        3,
        1,
        "ada",
        "Written 3.",
        ("clipping",),
    )
    first, second = timeline.chapters
    assert (first.number, first.title, second.number, second.title) == (1, "The First", 2, "")
    assert (first.start_sample, first.end_sample) == (0, third.end_sample)
    assert (second.start_sample, second.end_sample) == (
        timeline.segments[3].start_sample,
        timeline.segments[5].end_sample,
    )


def test_the_marks_in_the_file_leave_nothing_between_chapters(tmp_path: Path) -> None:
    mastered = Book().master(tmp_path, "m4b")
    with av.open(str(mastered.path)) as container:
        marks = [(mark["metadata"]["title"], mark["start"], mark["end"]) for mark in container.chapters()]
        assert container.metadata["title"] == "A Book"
    start = mastered.timeline.chapters[1].start_sample
    assert marks == [("The First", 0, start), ("Chapter 2", start, mastered.timeline.samples)]


def test_a_segment_without_a_take_is_left_out_and_the_longer_gap_stays(tmp_path: Path) -> None:
    book = Book()
    del book.takes[2], book.takes[3]
    placed = book.master(tmp_path).timeline.segments
    assert [segment.number for segment in placed] == [1, 4, 5, 6]
    assert placed[1].start_sample - placed[0].end_sample == 2 * RATE_HZ


def test_a_chapter_of_which_nothing_was_rendered_is_not_in_the_timeline(tmp_path: Path) -> None:
    book = Book()
    book.takes = {number: take for number, take in book.takes.items() if number > 3}
    timeline = book.master(tmp_path).timeline
    assert [chapter.number for chapter in timeline.chapters] == [2]
    assert timeline.segments[0].start_sample == 0


def test_takes_of_several_rates_play_at_the_highest(tmp_path: Path) -> None:
    mastered = Book(rates_hz=(16_000, 24_000)).master(tmp_path)
    assert mastered.timeline.sample_rate_hz == 24_000
    lengths = {s.number: s.end_sample - s.start_sample for s in mastered.timeline.segments}
    assert lengths[2] > 1.3 * lengths[1]  # as many samples, of a lower rate


# How loud it is.


@pytest.mark.parametrize("format", NarrationFormat)
@pytest.mark.parametrize(("gain", "target_lufs", "peak_dbtp"), [(0.03, -19, -3), (0.6, -18, -3), (0.6, -23, -6)])
def test_the_decoded_file_is_as_loud_as_asked_and_peaks_no_higher(
    tmp_path: Path, format: NarrationFormat, gain: float, target_lufs: float, peak_dbtp: float
) -> None:
    options = NarrationOptions(loudness_lufs=target_lufs, max_true_peak_dbtp=peak_dbtp)
    mastered = Book(gain=gain).master(tmp_path, format, options=options)

    samples, rate_hz = decoded(mastered.path)
    by_pyloudnorm = pyloudnorm.Meter(rate_hz, filter_class="DeMan").integrated_loudness(samples)
    assert by_pyloudnorm == pytest.approx(target_lufs, abs=0.3)
    assert mastered.loudness_lufs == pytest.approx(by_pyloudnorm, abs=0.05)
    assert true_peak_dbtp(samples, rate_hz) <= peak_dbtp
    assert mastered.true_peak_dbtp == pytest.approx(true_peak_dbtp(samples, rate_hz), abs=0.02)


@pytest.mark.parametrize("format", NarrationFormat)
def test_where_both_cannot_be_had_the_peak_holds_and_the_result_tells(tmp_path: Path, format: NarrationFormat) -> None:
    options = NarrationOptions(loudness_lufs=-9, max_true_peak_dbtp=-12)
    mastered = Book().master(tmp_path, format, options=options)
    assert mastered.true_peak_dbtp <= -12
    assert mastered.loudness_lufs < -15


def curve_of(samples: Samples) -> LoudnessCurve:
    meter = Meter(RATE_HZ)
    meter.push(samples)
    return meter.finish()


def peaking_at(curve: LoudnessCurve, dbtp: float) -> LoudnessCurve:
    return replace(curve, peaks=np.full_like(curve.peaks, 10 ** (dbtp / 20)))


@pytest.mark.parametrize("overshoot_db", [0.2, 20.0])
def test_a_peak_that_no_limiting_brings_down_is_lowered_with_all_of_the_rest(overshoot_db: float) -> None:
    curve, gains = curve_of(speech(1, 20, 0.3)), list[Gain]()

    def stubborn(gain: Gain) -> LoudnessCurve:
        """What is heard of an encoder whose peaks stand as high however far they were limited."""
        gains.append(gain)
        lowered_db = 0.0 if len(gains) <= ATTEMPTS else gains[-2].static_db - gain.static_db
        heard = peaking_at(curve, -3.0 + overshoot_db - lowered_db)
        return replace(heard, energies=curve.energies * np.square(gain.factors))

    heard = within_bounds(curve, stubborn, ENCODINGS[NarrationFormat.OPUS], NarrationOptions())
    assert heard.true_peak_dbtp <= -3.0
    assert len(gains) == ATTEMPTS + 1
    np.testing.assert_allclose(gains[-2].factors / gains[-1].factors, 10 ** ((overshoot_db + 0.05) / 20), rtol=1e-4)


def test_a_peak_that_stays_too_high_is_told() -> None:
    heard = curve_of(speech(1, 3, 0.3))
    [finding] = lacking(peaking_at(heard, -2.9), (), NarrationFormat.OPUS, NarrationOptions())
    assert (finding.severity, finding.code) == ("check", "peak_missed")
    assert "-2.90 dBTP, above the -3 asked for" in finding.message
    assert list(lacking(peaking_at(heard, -3.01), (), NarrationFormat.OPUS, NarrationOptions())) == []


def test_more_chapters_than_an_mp3_can_list_are_told() -> None:
    heard = curve_of(speech(1, 3, 0.01))
    marks = [Mark("One", 0, 1)] * 300
    [finding] = lacking(heard, marks, NarrationFormat.MP3, NarrationOptions())
    assert finding.message == "mp3 files have room for 255 chapter marks; 45 have none: choose m4b"
    assert list(lacking(heard, marks, NarrationFormat.M4B, NarrationOptions())) == []


@pytest.mark.parametrize("format", NarrationFormat)
def test_a_book_of_silence_is_mastered_to_silence(tmp_path: Path, format: NarrationFormat) -> None:
    book = Book()
    for number in book.takes:
        book.record(number, np.zeros(RATE_HZ, np.float32))
    mastered = book.master(tmp_path, format)
    assert (mastered.loudness_lufs, mastered.true_peak_dbtp) == (-70.0, -120.0)


# Once more, and when something is wrong.


@pytest.mark.parametrize("format", NarrationFormat)
def test_the_same_takes_give_the_same_bytes(tmp_path: Path, format: NarrationFormat) -> None:
    data = []
    for name in ("once", "again"):
        (tmp_path / name).mkdir()
        data.append(Book().master(tmp_path / name, format).path.read_bytes())
    assert data[0] == data[1]


def test_progress_rises_from_nothing_to_one(tmp_path: Path) -> None:
    told: list[float] = []
    Book().master(tmp_path, "opus", progress=told.append)
    assert told == sorted(told)
    assert 0 < told[0] < 0.1
    assert told[-1] == 1.0
    assert len(told) > 10


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.95])
def test_what_progress_raises_stops_the_work_and_leaves_no_spool(tmp_path: Path, at: float) -> None:
    class Stopped(Exception):
        pass

    def stop(share: float) -> None:
        if share >= at:
            raise Stopped

    with pytest.raises(Stopped):
        Book().master(tmp_path, "mp3", progress=stop)
    assert [path.name for path in tmp_path.iterdir() if path.name != "audiobook.mp3"] == []


def test_only_the_file_is_left(tmp_path: Path) -> None:
    mastered = Book().master(tmp_path, "flac")
    assert list(tmp_path.iterdir()) == [mastered.path]
    assert (mastered.path.name, mastered.content_type) == ("audiobook.flac", "audio/flac")


def test_a_script_without_a_take_is_refused(tmp_path: Path) -> None:
    book = Book()
    book.takes = {}
    with pytest.raises(ManuscriptUnfit, match="no segment of this text was rendered"):
        book.master(tmp_path)


@pytest.mark.parametrize("data", [b"no image", b"\xff\xd8\xff" + bytes(100)], ids=["text", "jpeg_without_size"])
def test_a_cover_that_cannot_be_had_is_left_out_and_told(tmp_path: Path, data: bytes) -> None:
    """All of the speech is there by then: it is not lost for a picture."""
    cover = tmp_path / "cover"
    cover.write_bytes(data)
    mastered = Book().master(tmp_path, "m4b", cover=cover)
    assert [(finding.severity, finding.code) for finding in mastered.findings] == [("left_out", "cover_left_out")]
    with av.open(str(mastered.path)) as container:
        assert container.streams.video == ()


@pytest.mark.parametrize("damage", ["no_flac", "cut", "other"])
def test_a_damaged_take_is_named(tmp_path: Path, damage: str) -> None:
    book = Book()
    whole = book.stored["take-4"]
    book.stored["take-4"] = {
        "no_flac": b"<Error>NoSuchKey</Error>",
        "cut": whole[: len(whole) // 2],
        "other": Book(rates_hz=(16_000,)).stored["take-4"],
    }[damage]
    with pytest.raises(ObjectMissing, match=r"segment 4: 'take-4'.*render it again"):
        book.master(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_bench_masters_about_as_many_hours_as_it_was_told(tmp_path: Path) -> None:
    report = run(hours=0.02, format=NarrationFormat.FLAC, directory=tmp_path)
    assert report.audio_s == pytest.approx(72, rel=0.3)
    assert report.size_bytes == (tmp_path / "audiobook.flac").stat().st_size
    assert "flac: 0.02 h of audio in" in str(report)
