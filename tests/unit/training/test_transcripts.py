"""Transcripts beside what was heard: of a person who reads, with the right words, with the wrong ones, with none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import soundfile

from app.hearing.ear import Heard
from app.hearing.moonshine import Moonshine
from app.hearing.words import word_error_rate
from app.speech.audio import Samples
from app.speech.recipe import PrepareConfig
from app.voices.models import DataReport
from tests.support.speech import OPENING, opening
from tests.unit.training.test_recordings import RATE_HZ, take
from training.data_report import Source
from training.recordings import Prepared, prepare
from training.transcripts import parting, shared_out

SMALL = PrepareConfig(min_usable_s=0, min_clips=1)
OTHER = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
    "nothing particular to interest me on shore, I thought I would sail about a little and see the watery part."
)


@pytest.fixture(scope="module")
def ear() -> Moonshine:
    return Moonshine()


@dataclass
class Listener:
    """A coarse recogniser with these answers by the name of the clip; it hears the clip's own text without one."""

    answers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    name: str = "a listener"
    coarse: bool = True

    def transcribe(self, path: Path, *, language: str | None = None) -> Heard:
        self.asked.append(path.stem)
        return Heard(self.answers.get(path.stem, "the same words as ever are said here"), 0.8)


def findings(report: DataReport) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for file in report.recordings for finding in file.findings]


def messages(report: DataReport) -> str:
    return "\n".join(finding.message for file in report.recordings for finding in file.findings)


def read_aloud(directory: Path, transcript: str | None, ear: Moonshine, *, gain: float = 1.0) -> Prepared:
    """`gain` is of the first half."""
    samples, rate_hz = opening()
    samples[: 15 * rate_hz] *= gain
    soundfile.write(directory / "chapter.flac", samples, rate_hz)
    sources = [Source("chapter.flac", directory / "chapter.flac", transcript)]
    return prepare(sources, directory / "clips", SMALL, language="en", transcriber=ear)


def test_a_person_reading_is_transcribed_and_the_text_is_offered_for_correction(tmp_path: Path, ear: Moonshine) -> None:
    done = read_aloud(tmp_path, None, ear)
    assert len(done.clips) == 2
    (report,) = done.report.recordings
    assert report.transcription is not None
    assert report.transcription.by == "Moonshine tiny-en"
    rate = word_error_rate([(OPENING, report.transcription.text)])
    assert rate is not None
    assert rate < 0.2
    assert ("check", "transcribed") in findings(done.report)
    assert "1 recordings came without a transcript" in " ".join(done.report.summary)
    assert " ".join(clip.text for clip in done.clips) == report.transcription.text


def test_a_long_recording_under_one_transcript_is_cut_with_the_transcripts_own_words(
    tmp_path: Path, ear: Moonshine
) -> None:
    done = read_aloud(tmp_path, OPENING, ear)
    first, second = (clip.text for clip in done.clips)
    assert first.endswith("it was the season of Light,")
    assert second.startswith("it was the season of Darkness,")
    assert f"{first} {second}" == OPENING
    assert "rejected" not in [severity for severity, _ in findings(done.report)]


def test_the_words_of_a_stretch_that_cannot_be_used_go_with_it_and_not_to_the_next(
    tmp_path: Path, ear: Moonshine
) -> None:
    done = read_aloud(tmp_path, OPENING, ear, gain=0.2)
    assert [code for severity, code in findings(done.report) if severity == "rejected"] == ["too_quiet"]
    texts = [clip.text for clip in done.clips]
    assert all(text in OPENING for text in texts)
    assert len(" ".join(texts)) < 0.8 * len(OPENING)
    assert texts[-1].endswith("the other way")


def test_the_transcript_of_another_book_is_found_and_the_words_where_they_part_are_named(
    tmp_path: Path, ear: Moonshine
) -> None:
    done = read_aloud(tmp_path, OTHER, ear)
    assert not done.clips
    assert [code for severity, code in findings(done.report) if severity == "rejected"] == ["mismatch"]
    assert "the transcript is not of this recording; they part at 0:00: “call me" in messages(done.report)
    assert not list((tmp_path / "clips").iterdir())


# Without a real recogniser


def prepared(directory: Path, texts: Sequence[str], listener: Listener) -> Prepared:
    sources = []
    for number, text in enumerate(texts):
        path = directory / f"{number:02}.flac"
        samples: Samples = take(0.4, 3.0 + number / 50, 0.4)
        soundfile.write(path, samples, RATE_HZ)
        sources.append(Source(path.name, path, text))
    return prepare(sources, directory / "clips", SMALL, transcriber=listener)


SAID = "The same words as ever are said here."
UNSAID = "Quite unlike; zebra quizzed brown foxes, jumping up."


def test_a_coarse_recogniser_hears_some_given_transcripts_and_its_doubts_leave_none_out(tmp_path: Path) -> None:
    listener = Listener()
    done = prepared(tmp_path, [UNSAID, *[SAID] * 11], listener)
    assert len(done.clips) == 12
    assert 8 <= len(listener.asked) < 12
    assert ("check", "transcript") in findings(done.report)
    assert "00.flac: check the transcript: “quite unlike" in messages(done.report)


def test_transcripts_that_were_mixed_up_are_all_heard_and_left_out(tmp_path: Path) -> None:
    listener = Listener()
    done = prepared(tmp_path, [UNSAID] * 12, listener)
    assert len(listener.asked) == 12
    assert not done.clips
    assert [code for severity, code in findings(done.report) if severity == "rejected"] == ["mismatch"] * 12


def test_the_confidence_of_a_recogniser_is_told(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", take(0.4, 3.0, 0.4), RATE_HZ)
    done = prepare([Source("a.flac", tmp_path / "a.flac")], tmp_path / "clips", SMALL, transcriber=Listener())
    assert "a listener heard 8 words with a confidence of 80%. Check them" in messages(done.report)
    assert done.report.recordings[0].transcription is not None
    assert done.report.recordings[0].transcription.confidence == 0.8


@pytest.mark.parametrize(
    ("heard", "parts"),
    [
        (["good morning everybody", "the cat sat"], ["Good morning, everybody!", "The cat sat."]),
        (["good morning everybuddy the", "cat sat"], ["Good morning, everybody! The", "cat sat."]),
        (["good mourning every body", "the cad sad"], ["Good morning, everybody!", "The cat sat."]),
        (["good morning", "a very body", "the cat sat"], ["Good morning,", "everybody!", "The cat sat."]),
        (["", "good morning everybody the cat sat", ""], ["", "Good morning, everybody! The cat sat.", ""]),
    ],
)
def test_words_that_were_misheard_go_where_their_letters_fit(heard: list[str], parts: list[str]) -> None:
    assert shared_out("Good morning, everybody! The cat sat.", heard) == parts


def test_where_texts_part_is_told_by_their_words() -> None:
    assert parting("one two three four", "one two five") == "“three four” in the transcript, “five” in the recording"
    assert parting("one two", "one two") == "no word differs"
    assert parting("one", "one " + "more " * 10) == (
        "nothing in the transcript, “more more more more more more more more …” in the recording"
    )
