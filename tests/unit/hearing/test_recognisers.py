"""The recognisers and the judge that lie in wheels, on speech that a person read and on what is no speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.hearing.moonshine import Moonshine
from app.hearing.naturalness import Dnsmos, mean_opinion
from app.hearing.sphinx import Sphinx
from app.hearing.words import word_error_rate
from tests.support.speech import FIRST_S, FIRST_WORDS, OPENING, opening

RATE_HZ = 24_000


@pytest.fixture(scope="module")
def ear() -> Moonshine:
    return Moonshine()


def test_a_person_reading_a_novel_is_understood(ear: Moonshine, tmp_path: Path) -> None:
    samples, rate_hz = opening()
    rate = word_error_rate([(OPENING, ear.hear(samples, rate_hz).text)])
    assert rate is not None
    assert rate <= 0.15
    short = samples[: 5 * rate_hz]
    soundfile.write(tmp_path / "a.flac", np.stack([short, short], axis=1), rate_hz)
    assert ear.transcribe(tmp_path / "a.flac").text == ear.hear(short, rate_hz).text


def test_nothing_is_heard_in_nothing(ear: Moonshine) -> None:
    assert ear.hear(np.zeros(0, np.float32), RATE_HZ).text == ""
    hum = np.sin(np.arange(3 * RATE_HZ) * 440 * 2 * np.pi / RATE_HZ).astype(np.float32)
    assert len(ear.hear(0.3 * hum, RATE_HZ).text.split()) <= 2


def test_a_second_recogniser_hears_the_same_words() -> None:
    samples, rate_hz = opening()
    heard = Sphinx().hear(samples[: round(FIRST_S * rate_hz)], rate_hz)
    rate = word_error_rate([(FIRST_WORDS, heard.text)])
    assert rate is not None
    assert rate < 0.5


def test_a_grammar_binds_what_may_be_heard() -> None:
    samples, rate_hz = opening()
    sentences = "it was the best of times it was the worst of times | the cat sat on the mat"
    grammar = f"#JSGF V1.0; grammar a; public <a> = {sentences};"
    heard = Sphinx(grammar).hear(samples[: round(FIRST_S * rate_hz)], rate_hz)
    assert heard.text.startswith("it was the best of times")


def test_speech_is_judged_worse_with_noise_behind_it() -> None:
    samples, rate_hz = opening()
    clean = samples[: 10 * rate_hz]
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    judge = Dnsmos()
    better, worse = judge.judge(clean, rate_hz), judge.judge(clean + noise, rate_hz)
    assert better is not None
    assert worse is not None
    assert better.background > worse.background + 0.5
    assert mean_opinion([better, worse]).overall < better.overall  # pyright: ignore[reportOptionalMemberAccess]
    assert judge.judge(np.zeros(0, np.float32), rate_hz) is None
    assert mean_opinion([]) is None
