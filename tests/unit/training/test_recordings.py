"""From recordings to clips: what is kept and cut to the sample, what is refused, and what a person reads about it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from app.errors import ConfigurationError, DeadlineExceeded
from app.hearing.ear import Heard, Transcriber
from app.platform.loudness import measure
from app.speech.audio import Samples, onset_s, signal_to_noise_db, silence_runs, speech_runs
from app.speech.recipe import PrepareConfig
from app.voices.models import DataReport
from training import cutting
from training.cutting import Grid
from training.data_report import Source, report_shortfall
from training.demo.record import RECORDINGS
from training.recordings import PreparationCancelled, Prepared, prepare
from training.transcriber import EndpointTranscriber
from training.transcripts import shared_out

RATE_HZ = 24_000
FRAME = 2048
FRAME_S = FRAME / RATE_HZ
GRID = Grid(RATE_HZ, FRAME)
SMALL = PrepareConfig(min_usable_s=0, min_clips=1)


def speech(length_s: float, level: float = 0.1, rate_hz: int = RATE_HZ) -> Samples:
    """A buzz with the rhythm of syllables and a sharp beginning."""
    t = np.arange(round(length_s * rate_hz)) / rate_hz
    buzz = sum((np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12)), np.zeros_like(t))
    return (level * buzz * (0.55 + 0.45 * np.cos(2 * np.pi * 4 * t))).astype(np.float32)


def room(length_s: float, level: float = 0.0005, seed: int = 0, rate_hz: int = RATE_HZ) -> Samples:
    return (level * np.random.default_rng(seed).standard_normal(round(length_s * rate_hz))).astype(np.float32)


def take(*parts_s: float, noise: float = 0.0005, level: float = 0.1, rate_hz: int = RATE_HZ) -> Samples:
    """Silence, speech, silence, speech … of these lengths, over noise."""
    parts = [
        (speech(length, level, rate_hz) if number % 2 else np.zeros(round(length * rate_hz), np.float32))
        for number, length in enumerate(parts_s)
    ]
    said = np.concatenate(parts)
    return said + room(len(said) / rate_hz, noise, rate_hz=rate_hz)[: len(said)]


def read(path: Path) -> Samples:
    samples, rate_hz = soundfile.read(path, dtype="float32")
    assert rate_hz == RATE_HZ
    return np.asarray(samples, np.float32)


class Parrot:
    """A transcriber with these answers, in this order."""

    name = "a parrot"
    coarse = False

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def transcribe(self, path: Path, *, language: str | None = None) -> Heard:
        assert path.suffix == ".flac"
        return Heard(self.texts.pop(0))


def prepared(
    directory: Path,
    takes: Mapping[str, Samples],
    *,
    transcript: str | None = "This is what the buzz says here",
    config: PrepareConfig = SMALL,
    transcriber: Transcriber | None = None,
    rate_hz: int = RATE_HZ,
) -> Prepared:
    for name, samples in takes.items():
        soundfile.write(directory / name, samples, rate_hz, subtype="PCM_16")
    sources = [Source(name, directory / name, transcript) for name in takes]
    return prepare(sources, directory / "clips", config, transcriber=transcriber)


def codes(report: DataReport, severity: str) -> list[str]:
    return [finding.code for file in report.recordings for finding in file.findings if finding.severity == severity]


def messages(report: DataReport) -> str:
    return "\n".join(finding.message for file in report.recordings for finding in file.findings)


# What becomes of the samples


@pytest.mark.parametrize(
    ("head_s", "tail_s"), [(0.0, 0.3), (0.03, 0.1), (0.2, 0.0), (0.3, 0.1), (0.597, 0.0), (1.111, 1.0)]
)
def test_a_clip_is_whole_frames_on_the_recordings_own_grid(tmp_path: Path, head_s: float, tail_s: float) -> None:
    clip = prepared(tmp_path, {"a.wav": take(head_s, 3.0, tail_s)}).clips[0]
    samples = read(clip.path)
    assert len(samples) % FRAME == 0
    assert round(clip.start_s * RATE_HZ) % FRAME == 0
    head = onset_s(samples, RATE_HZ)
    assert head is not None
    assert abs(head - min(0.08, head_s)) <= FRAME_S / 2 + 0.02
    assert len(samples) / RATE_HZ >= head + 3.0 + SMALL.tail_s - 0.03


def test_a_tail_is_made_longer_with_the_rooms_own_noise_and_not_with_zeros(tmp_path: Path) -> None:
    clip = prepared(tmp_path, {"a.wav": take(0.5, 3.0, 0.0, noise=0.002)}).clips[0]
    samples = read(clip.path)
    tail, head = samples[-1600:], samples[400:1200]
    assert 0.5 < np.std(tail) / np.std(head) < 2.0


@pytest.mark.parametrize("pause_s", [0.3, 0.7, 1.0, 2.4])
def test_a_pause_is_shortened_by_whole_frames_and_the_words_around_it_are_not_touched(pause_s: float) -> None:
    samples = take(0.5, 2.0, pause_s, 2.0, 0.5)
    recording = cutting.levelled_recording(samples.copy(), 0.0, GRID, SMALL)
    assert recording is not None
    cut = cutting.cut(recording, recording.speech, GRID, SMALL)
    pauses = [end - start for start, end in silence_runs(cut.samples, RATE_HZ, min_s=0.25) if 1.0 < start < 3.0]
    assert len(pauses) == 1
    assert pauses[0] <= SMALL.max_pause_s + FRAME_S / 2 + 0.02
    assert round(cut.shortened_s * RATE_HZ) % FRAME == 0
    first, last = RATE_HZ // 2, round((2.5 + pause_s) * RATE_HZ)
    np.testing.assert_array_equal(cut.samples[first - cut.start :][:RATE_HZ], samples[first:][:RATE_HZ])
    shift = cut.start + round(cut.shortened_s * RATE_HZ)
    np.testing.assert_array_equal(cut.samples[last - shift :][:RATE_HZ], samples[last:][:RATE_HZ])


@pytest.mark.parametrize("level", [0.06, 0.1, 0.3])
def test_clips_are_equally_loud_and_none_exceeds_the_peak(tmp_path: Path, level: float) -> None:
    clip = prepared(tmp_path, {"a.wav": take(0.5, 4.0, 0.5, level=level, noise=level / 200)}).clips[0]
    samples = read(clip.path)
    curve = measure(samples, RATE_HZ)
    assert curve.integrated_lufs == pytest.approx(-23.0, abs=0.3)
    assert curve.true_peak_dbtp <= -3.0


def test_a_click_keeps_a_clip_below_the_peak_and_is_pointed_out(tmp_path: Path) -> None:
    samples = take(0.5, 4.0, 0.5, level=0.06)
    samples[RATE_HZ] = 0.9
    done = prepared(tmp_path, {"a.wav": samples})
    clip = read(done.clips[0].path)
    assert measure(clip, RATE_HZ).true_peak_dbtp <= -2.99
    assert codes(done.report, "check") == ["peaks"]


def test_the_high_pass_is_the_same_in_blocks_as_at_once_and_moves_nothing() -> None:
    samples = room(130.0, 0.1) + np.float32(0.2)
    whole = samples.copy()
    cutting.high_pass(samples, RATE_HZ, 48.0)
    assert abs(samples.mean()) < 1e-4
    short = whole[59 * RATE_HZ : 62 * RATE_HZ].copy()
    cutting.high_pass(short, RATE_HZ, 48.0)
    np.testing.assert_allclose(samples[60 * RATE_HZ : 61 * RATE_HZ], short[RATE_HZ : 2 * RATE_HZ], atol=1e-5)


@pytest.mark.parametrize("snr_db", [35.0, 25.0, 15.0])
def test_the_ratio_of_speech_to_noise_is_found_within_two_decibels(snr_db: float) -> None:
    said = speech(4.0)
    noise = float(np.sqrt(np.mean(said**2))) * 10 ** (-snr_db / 20)
    found = signal_to_noise_db(take(0.7, 4.0, 0.7, noise=noise), RATE_HZ)
    assert found == pytest.approx(snr_db, abs=2.0)


def test_speech_runs_ignore_a_click_and_short_pauses() -> None:
    samples = take(1.0, 1.0, 0.15, 1.0, 0.6, 1.0, 0.5)
    samples[RATE_HZ // 2] = 0.5
    found = speech_runs(samples, RATE_HZ, pause_s=0.3)
    np.testing.assert_allclose(found, [(1.0, 3.15), (3.75, 4.75)], atol=0.03)


# What is refused


@pytest.mark.parametrize(
    ("samples", "rate_hz", "code", "words"),
    [
        (take(0.3, 3.0, 0.3, rate_hz=8_000), 8_000, "low_rate", "8 kHz telephone audio; 16 kHz minimum"),
        (np.clip(take(0.3, 3.0, 0.3) * 9, -1, 1), RATE_HZ, "clipping", "samples clip (first at 0:00). Lower the input"),
        (take(0.6, 3.0, 0.6, noise=0.03), RATE_HZ, "noise", "background noise too high (SNR"),
        (take(0.6, 3.0, 0.6, level=0.005, noise=1e-5), RATE_HZ, "too_quiet", "record closer"),
        (room(3.0, 0.0001), RATE_HZ, "no_speech", "no speech was found"),
        (np.zeros(3 * RATE_HZ, np.float32), RATE_HZ, "no_speech", "no speech was found"),
        (take(0.5, 1.0, 0.5), RATE_HZ, "too_short", "of speech at 0:00; 1.5 s minimum"),
        (take(0.3, *[9.0, 0.5] * 3), RATE_HZ, "too_long", "split it at its sentences, or configure a transcriber"),
    ],
)  # fmt: skip
def test_an_unfit_recording_is_refused_with_the_value_and_the_remedy(
    tmp_path: Path, samples: Samples, rate_hz: int, code: str, words: str
) -> None:
    done = prepared(tmp_path, {"a.wav": samples}, rate_hz=rate_hz)
    assert codes(done.report, "rejected") == [code]
    assert words in messages(done.report)
    assert not done.clips
    assert not list((tmp_path / "clips").iterdir())


def test_a_hostile_file_is_one_finding_and_the_others_are_used(tmp_path: Path) -> None:
    (tmp_path / "evil.wav").write_text("this is no audio")
    sources = [Source("../../evil.wav", tmp_path / "evil.wav", "Hello there")]
    soundfile.write(tmp_path / "a.wav", take(0.5, 3.0, 0.5), RATE_HZ)
    done = prepare([*sources, Source("a.wav", tmp_path / "a.wav", "Hello")], tmp_path / "clips", SMALL)
    assert [file.clips for file in done.report.recordings] == [0, 1]
    assert codes(done.report, "rejected") == ["unreadable"]
    assert [clip.path.parent for clip in done.clips] == [tmp_path / "clips"]


def test_the_same_file_twice_is_used_once_and_nearly_the_same_take_is_pointed_out(tmp_path: Path) -> None:
    done = prepared(
        tmp_path,
        {"a.wav": take(0.5, 3.0, 0.5), "b.wav": take(0.5, 3.0, 0.5), "c.wav": 0.7 * take(0.53, 3.0, 0.5)},
    )
    assert codes(done.report, "rejected") == ["duplicate"]
    assert codes(done.report, "check") == ["near_duplicate"]
    assert len(done.clips) == 2


def test_a_transcript_far_from_the_speakers_pace_is_excluded_among_twenty(tmp_path: Path) -> None:
    takes = {f"{n:02}.wav": take(0.4, 3.0 + n / 50, 0.4) for n in range(20)}
    for name, samples in takes.items():
        soundfile.write(tmp_path / name, samples, RATE_HZ)
    texts = {name: f"one two three four five six number {name[:2]}" for name in takes} | {"07.wav": "one"}
    sources = [Source(name, tmp_path / name, texts[name]) for name in takes]
    done = prepare(sources, tmp_path / "clips", SMALL)
    assert [file.file_name for file in done.report.recordings if not file.clips] == ["07.wav"]
    assert codes(done.report, "rejected") == ["odd_pace"]
    assert "1 of 20 clips and recordings excluded: 1 odd pace." in done.report.summary


# Transcripts


def test_without_a_transcript_or_a_transcriber_a_recording_is_refused(tmp_path: Path) -> None:
    done = prepared(tmp_path, {"a.wav": take(0.5, 3.0, 0.5)}, transcript=None)
    assert "add one, or configure a transcriber" in messages(done.report)


def test_a_long_recording_is_cut_at_its_pauses_and_each_clip_reports_what_was_played(tmp_path: Path) -> None:
    samples = take(0.5, 5.0, 0.5, 6.0, 0.5, 1.0, 0.5, 9.0, 0.6)
    parrot = Parrot("One two three.", "Four five six.", "Seven eight nine.")
    done = prepared(tmp_path, {"a.wav": samples}, transcript=None, transcriber=parrot)
    assert [clip.text for clip in done.clips] == ["One two three.", "Four five six.", "Seven eight nine."]
    assert [round(clip.speech_s) for clip in done.clips] == [5, 8, 9]
    for clip in done.clips:
        assert len(read(clip.path)) % FRAME == 0
        assert round(clip.start_s * RATE_HZ) % FRAME == 0


def test_a_transcript_that_says_something_else_excludes_the_clip(tmp_path: Path) -> None:
    parrot = Parrot("the cat sat down on some other mat")
    done = prepared(
        tmp_path, {"a.wav": take(0.5, 3.0, 0.5)}, transcript="A dog ran off with every mat", transcriber=parrot
    )
    assert "transcript and audio differ" in messages(done.report)
    assert codes(done.report, "rejected") == ["mismatch"]
    assert not list((tmp_path / "clips").iterdir())


def test_a_transcript_is_shared_out_word_for_word_among_the_clips_that_were_recognised() -> None:
    given = "Good morning, everybody! Twenty-two bells rang; nobody <laugh> listened."
    parts = shared_out(given, ["good morning everyboy", "twenty two bells rang", "nobody listened"])
    assert parts == ["Good morning, everybody!", "Twenty-two bells rang;", "nobody <laugh> listened."]
    assert " ".join(parts) == given


def test_an_endpoint_is_called_as_openai_defines_it_and_again_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    answers = iter([httpx.Response(503), httpx.Response(200, json={"text": " Hello. "})])
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return next(answers)

    with httpx.Client(base_url="http://asr/v1", transport=httpx.MockTransport(answer)) as client:
        endpoint = EndpointTranscriber(client, model="whisper-1")
        assert endpoint.transcribe(tmp_path / "a.flac", language="en").text == "Hello."
    assert [str(request.url) for request in requests] == ["http://asr/v1/audio/transcriptions"] * 2
    assert all(part in requests[1].content for part in (b"whisper-1", b"fLaC", b"language"))


@pytest.mark.parametrize(("status", "error"), [(401, ConfigurationError), (500, DeadlineExceeded)])
def test_an_endpoint_that_refuses_is_an_error_of_the_operator(
    tmp_path: Path, status: int, error: type[Exception]
) -> None:
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    transport = httpx.MockTransport(lambda request: httpx.Response(status))
    with httpx.Client(base_url="http://asr/v1", transport=transport) as client, pytest.raises(error):
        EndpointTranscriber(client, model="whisper-1").transcribe(tmp_path / "a.flac")


# The whole


def test_too_little_speech_is_reported_with_the_number_and_the_need(tmp_path: Path) -> None:
    report = DataReport(recordings=(), clips=70, usable_s=400.0)
    expected = "Only 6:40 of usable speech; at least 10:00 needed (30:00 recommended)."
    assert report_shortfall(report, PrepareConfig()) == expected
    assert report_shortfall(report, PrepareConfig(min_usable_s=300)) == (
        "Only 70 usable clips; at least 100 needed: add recordings."
    )
    assert report_shortfall(report, SMALL) is None


def test_preparing_stops_between_recordings_when_it_is_cancelled(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    soundfile.write(tmp_path / "a.wav", take(0.5, 3.0, 0.5), RATE_HZ)
    sources = [Source(name, tmp_path / "a.wav", "Hello there") for name in ("a", "b", "c")]
    with pytest.raises(PreparationCancelled):
        prepare(
            sources,
            tmp_path / "clips",
            SMALL,
            progress=lambda *pair: done.append(pair),
            cancelled=lambda: len(done) == 2,
        )
    assert done == [(1, 3), (2, 3)]


def test_the_bundled_recordings_lose_their_600_ms_and_nothing_is_refused(tmp_path: Path) -> None:
    with (RECORDINGS / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == sorted(path.name for path in RECORDINGS.glob("*.ogg"))
    sources = [Source(row["file"], RECORDINGS / row["file"], row["text"]) for row in rows[:8]]
    done = prepare(sources, tmp_path / "clips", SMALL)
    assert len(done.clips) == 8
    assert not codes(done.report, "rejected")
    assert done.report.median_head_silence_s == pytest.approx(0.6, abs=0.03)
    heads = [onset_s(read(clip.path), RATE_HZ) for clip in done.clips]
    assert np.median(np.array(heads, float)) <= 0.1 + 1e-9
    assert {clip.start_s / FRAME_S for clip in done.clips} <= {5.0, 6.0}
