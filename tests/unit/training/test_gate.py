"""The gate listening to synthetic voices: what it passes, what it does not, and what it cannot tell."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import DeadlineExceeded, EngineFailed
from app.hearing.ear import Heard
from app.realtime.background import Spoken
from app.speech.recipe import GateConfig
from app.speech.voices import AdapterVersion, Voice
from app.voices.models import GateFigure, GateReport
from tests.support.synthetic_speaker import RATE_HZ, SyntheticSpeaker, Throat
from training.gate import (
    OTHER_BASE_PROMPTS,
    GateSpeech,
    bundled_prompts,
    listen,
    read_reference,
    report_of,
    save,
    transcripts_of,
)

pytestmark = pytest.mark.anyio

HERON = Throat(pitch_hz=130, length=1.1)
WREN = Throat(pitch_hz=210, length=0.85, head_s=0.6)
ROOK = Throat(pitch_hz=95, length=1.0, head_s=0.6)
GATE = GateConfig()
PROMPTS = 4


def voice(name: str, *, adapted: bool = False, trained_as: str | None = None) -> Voice:
    adapter = AdapterVersion(voice_id="v" * 12, version=1, lora_id=1, uri="s3://b/p/", sha256={}, rank=16)
    return Voice(
        id=f"{name}-id", name=name, model="standin", adapter=adapter if adapted else None, trained_as=trained_as
    )


CLONE = voice("clone", adapted=True)
POLISHED = voice("polished", adapted=True, trained_as="rook")
BASES = (voice("wren"), voice("rook"))


def ignore(event: str, **fields: Any) -> None: ...


async def judged(
    throat: Throat, *, candidate: Voice = CLONE, bases: tuple[Voice, ...] = BASES, **fields: Any
) -> GateReport:
    """The report of a candidate that speaks with `throat`, beside Wren and Rook."""
    speaker = SyntheticSpeaker({candidate.name: throat, "wren": WREN, "rook": ROOK})
    speech = await listen(candidate, bases, bundled_prompts()[:PROMPTS], speaker, ignore)
    return report_of(GATE, speech, prompt_name=candidate.prompt_name, **{"reference": reference(), **fields})


def reference() -> list[Spoken]:
    return [HERON.say(f"sentence {number} that was kept back from training") for number in range(6)]


def figure(report: GateReport, name: str) -> GateFigure:
    return next(figure for figure in report.figures if figure.name == name)


async def test_a_clone_that_begins_at_once_and_sounds_like_its_speaker_passes() -> None:
    report = await judged(HERON)
    assert report.passed
    assert report.prompts == PROMPTS
    assert figure(report, "head_silence_p50_ms").measured == pytest.approx(100, abs=20)
    assert figure(report, "ended_share").measured == 1.0


async def test_the_base_voice_is_measured_the_same_way_for_comparison() -> None:
    report = await judged(HERON)
    assert report.base["head_silence_p50_ms"] == pytest.approx(600, abs=20)
    nearness = figure(report, "closeness").measured
    assert nearness is not None and (report.base["closeness"] or 0) > 2 * nearness


@pytest.mark.parametrize(
    ("defect", "fails"),
    [
        ({"head_s": 0.6}, {"head_silence_p50_ms", "head_silence_p95_ms"}),
        ({"complete": False}, {"ended_share"}),
        ({"pause_s": 1.5}, {"longest_silence_s"}),
        ({"seconds_per_char": 0.2}, {"duration_ratio"}),
        ({"pitch_hz": 210, "length": 0.85}, {"closeness"}),
        ({"gain": 20.0}, {"sound_share"}),
    ],
)
async def test_each_defect_fails_its_own_figure_with_a_remedy(defect: dict[str, float], fails: set[str]) -> None:
    report = await judged(replace(HERON, **defect))
    assert {failure.name for failure in report.failures} >= fails
    if "gain" not in defect:  # a clipped voice is another voice too
        assert {failure.name for failure in report.failures} == fails
    assert all(failure.note for failure in report.failures)


async def test_a_silent_clone_is_no_clone_that_begins_at_once() -> None:
    report = await judged(replace(HERON, gain=0.0))
    assert {"head_silence_p50_ms", "sound_share"} <= {failure.name for failure in report.failures}
    assert figure(report, "closeness").passed is None


async def test_an_utterance_without_any_audio_is_not_sound() -> None:
    nothing = [Spoken(text, np.zeros(0, np.float32), RATE_HZ, complete=True) for text in ("one", "two")]
    report = report_of(GATE, GateSpeech(nothing, {}), prompt_name="clone")
    assert figure(report, "sound_share").passed is False


async def test_one_long_head_among_many_short_ones_is_seen_in_the_95th_percentile() -> None:
    clone = [HERON.say(text) for text in bundled_prompts()[:9]] + [replace(HERON, head_s=0.9).say("the last of ten")]
    report = report_of(GATE, GateSpeech(clone, {}), prompt_name="clone")
    assert [failure.name for failure in report.failures] == ["head_silence_p95_ms"]


async def test_the_pace_is_the_speakers_own_where_it_is_known() -> None:
    slow = await judged(HERON, seconds_per_char=0.15)
    assert figure(slow, "duration_ratio").passed is False
    usual = await judged(HERON, seconds_per_char=HERON.seconds_per_char)
    assert figure(usual, "duration_ratio").measured == pytest.approx(1.0, abs=0.2)


async def test_what_cannot_be_measured_is_said_and_neither_passes_nor_fails() -> None:
    report = await judged(HERON, bases=(), reference=())
    unknown = {figure.name for figure in report.figures if figure.passed is None}
    assert unknown == {"band_order", "closeness", "duration_ratio", "word_error_rate"}
    for name in unknown:
        assert figure(report, name).measured is None
        assert figure(report, name).note.startswith("not measured")


async def test_a_polished_voice_is_compared_with_itself_unpolished() -> None:
    report = await judged(replace(ROOK, head_s=0.1), candidate=POLISHED, reference=())
    assert report.passed
    assert figure(report, "closeness").passed is True
    assert "wren" in figure(report, "closeness").note
    assert report.base["head_silence_p50_ms"] == pytest.approx(600, abs=20)


async def test_a_polished_voice_that_became_another_fails() -> None:
    report = await judged(replace(WREN, head_s=0.1), candidate=POLISHED, reference=())
    assert [failure.name for failure in report.failures] == ["closeness"]


@pytest.mark.parametrize(
    ("heard_of_clone", "heard_of_base", "measured", "passed", "note"),
    [
        (4, 4, 0.0, True, "the base voice's is 0.00"),
        (3, 4, 0.25, False, "the base voice's is 0.00; check the transcripts"),
        (3, 3, 0.25, True, "the base voice's is"),
        (2, 3, 0.5, False, "check the transcripts"),
        (0, 0, None, None, "not measured: the base voice itself is not understood (the base voice's is 1.00"),
    ],
)
async def test_words_are_compared_with_the_base_voices(
    heard_of_clone: int, heard_of_base: int, measured: float | None, passed: bool | None, note: str
) -> None:
    """So many of four prompts of equal length are heard, and of the others other words than these."""
    texts = bundled_prompts()[:PROMPTS]
    report = await judged(
        HERON,
        transcripts=[text.upper() if number < heard_of_clone else "x" for number, text in enumerate(texts)],
        base_transcripts=[text if number < heard_of_base else "x" for number, text in enumerate(texts)],
    )
    words = figure(report, "word_error_rate")
    assert words.passed is passed
    assert words.measured == (None if measured is None else pytest.approx(measured, abs=0.1))
    assert note in words.note
    assert words.limit == "≤ the base voice's + 0.15"
    assert report.base["word_error_rate"] == pytest.approx(1 - heard_of_base / 4, abs=0.1)


class Deaf:
    name = "a deaf one"
    coarse = False

    def transcribe(self, path: Path, *, language: str | None = None) -> Heard:
        raise DeadlineExceeded("the endpoint failed 3 times")


def test_a_transcriber_that_fails_is_not_held_against_the_clone(tmp_path: Path) -> None:
    assert transcripts_of([tmp_path / "001.flac"], Deaf(), "en") == "the endpoint failed 3 times"


async def test_every_prompt_goes_to_the_clone_and_one_base_voice_two_at_once() -> None:
    speaker = SyntheticSpeaker(dict.fromkeys(("clone", "wren", "rook"), HERON))
    progress: list[int] = []

    def emit(event: str, **fields: Any) -> None:
        progress.append(fields["spoken"])

    speech = await listen(CLONE, BASES, bundled_prompts()[:8], speaker, emit)
    assert [spoken.text for spoken in speech.clone] == bundled_prompts()[:8]
    assert [spoken.text for spoken in speech.bases["wren"]] == bundled_prompts()[:8]
    assert [spoken.text for spoken in speech.bases["rook"]] == bundled_prompts()[:OTHER_BASE_PROMPTS]
    assert speaker.busiest == 2
    assert progress == list(range(1, 8 + 8 + OTHER_BASE_PROMPTS + 1))


async def test_what_the_fleet_cannot_speak_is_an_error_and_no_report() -> None:
    class Broken:
        async def speak(self, voice: Voice, text: str) -> Spoken:
            raise EngineFailed("the engine is gone")

    with pytest.raises(EngineFailed):
        await listen(CLONE, BASES, bundled_prompts()[:PROMPTS], Broken(), ignore)


def test_renderings_are_kept_as_files_that_can_be_the_reference_of_another_gate(tmp_path: Path) -> None:
    spoken = [HERON.say(text) for text in ("first", "second")]
    (tmp_path / "stale.flac").write_bytes(b"of an earlier attempt")
    assert [path.name for path in save(spoken, tmp_path)] == ["001.flac", "002.flac"]
    again = read_reference(tmp_path)
    assert [len(one.samples) for one in again] == [len(one.samples) for one in spoken]
    np.testing.assert_allclose(again[1].samples, spoken[1].samples, atol=1e-4)


def test_every_prompt_is_one_short_sentence() -> None:
    prompts = bundled_prompts()
    assert len(prompts) == len(set(prompts)) >= 150
    for prompt in prompts:
        words = re.findall(r"[a-z']+", prompt.lower())
        assert 5 <= len(words) <= 12, prompt
        assert re.fullmatch(r"[A-Z][A-Za-z' ]+[.?]", prompt), prompt
