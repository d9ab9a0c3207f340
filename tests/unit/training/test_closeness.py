from __future__ import annotations

import numpy as np
import pytest

from app.speech.audio import Samples
from tests.support.synthetic_speaker import RATE_HZ, Throat
from training.closeness import distance, pitch_hz, voice_print

BASS = Throat(pitch_hz=110)


def recordings(throat: Throat, session: str) -> list[Samples]:
    """Some 12 s of speech; another session says something else."""
    return [throat.say(f"{session} {number} of five short sentences").samples for number in range(5)]


@pytest.fixture(scope="module")
def bass() -> list[Samples]:
    return recordings(BASS, "monday")


@pytest.fixture(scope="module")
def itself(bass: list[Samples]) -> float:
    """The distance of the bass to itself on another day."""
    return apart(bass, recordings(BASS, "tuesday"))


def apart(one: list[Samples], other: list[Samples]) -> float:
    prints = voice_print(one, RATE_HZ), voice_print(other, RATE_HZ)
    assert prints[0] is not None and prints[1] is not None
    return distance(prints[0], prints[1])


def test_a_speaker_is_much_nearer_to_himself_saying_something_else_than_to_another(
    bass: list[Samples], itself: float
) -> None:
    assert itself < 0.2 * apart(bass, recordings(Throat(pitch_hz=200, length=0.8), "tuesday"))


def test_another_throat_is_detected_at_the_same_pitch(bass: list[Samples], itself: float) -> None:
    assert itself < 0.5 * apart(bass, recordings(Throat(pitch_hz=110, length=0.8), "tuesday"))


def test_another_pitch_is_detected_in_the_same_throat(bass: list[Samples], itself: float) -> None:
    assert itself < 0.5 * apart(bass, recordings(Throat(pitch_hz=165), "tuesday"))


def test_distance_is_symmetric_and_zero_to_the_same_recordings(bass: list[Samples]) -> None:
    other = recordings(Throat(pitch_hz=200), "tuesday")
    assert apart(bass, other) == pytest.approx(apart(other, bass))
    assert apart(bass, bass) == pytest.approx(0.0, abs=1e-9)


def test_neither_loudness_nor_silence_around_the_speech_is_timbre(bass: list[Samples], itself: float) -> None:
    silence = 1e-4 * np.random.default_rng(1).standard_normal(RATE_HZ).astype(np.float32)
    quieter = [np.concatenate([silence, 0.5 * samples, silence]) for samples in bass]
    assert apart(bass, quieter) < 0.5 * itself


def test_too_little_speech_has_no_print(bass: list[Samples]) -> None:
    assert voice_print([bass[0][:RATE_HZ]], RATE_HZ) is None
    assert voice_print([], RATE_HZ) is None
    assert voice_print([np.zeros(10 * RATE_HZ, np.float32)], RATE_HZ) is None


@pytest.mark.parametrize("hz", [75.0, 120.0, 210.0, 350.0])
@pytest.mark.parametrize("rate_hz", [16_000, 24_000])
def test_pitch_is_found_to_a_semitone_and_not_an_octave_off(hz: float, rate_hz: int) -> None:
    phase = np.arange(rate_hz) * hz / rate_hz
    harmonics = [np.sin(2 * np.pi * number * phase) / number for number in range(1, 8)]
    found = pitch_hz((0.2 * np.sum(harmonics, axis=0)).astype(np.float32), rate_hz)
    assert abs(12 * np.log2(np.nanmedian(found) / hz)) < 0.5


def test_noise_is_not_voiced() -> None:
    noise = 0.1 * np.random.default_rng(2).standard_normal(RATE_HZ).astype(np.float32)
    assert np.mean(np.isfinite(pitch_hz(noise, RATE_HZ))) < 0.1
