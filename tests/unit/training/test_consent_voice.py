"""A consent by the speaker of the recordings, and one by somebody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.platform.settings import CloningSettings
from app.voices.models import DataReport
from tests.support.synthetic_speaker import RATE_HZ, Throat
from training.consent_voice import consent_voice
from training.data_report import SpeechClip
from training.prepare import with_consent

SPEAKER, OTHER = Throat(pitch_hz=110), Throat(pitch_hz=210, length=0.82)
CONSENT = "I am the owner of this voice, and I consent to the making of a synthetic version of it by Carillon. 4711."
SENTENCES = [
    f"This is sentence {number} of a long story of bells, boats and the harbour by night." for number in "abcdefgh"
]


def clips_of(speaker: Throat, directory: Path) -> list[SpeechClip]:
    clips = []
    for number, text in enumerate(SENTENCES):
        path = directory / f"{number}.flac"
        soundfile.write(path, speaker.say(text).samples, RATE_HZ)
        clips.append(SpeechClip(path.name, path, text, 5.0, 5.0, "a", 0.0))
    return clips


def reported(directory: Path, consent: Throat | None, settings: CloningSettings | None = None) -> DataReport:
    if consent is not None:
        (directory / "consent").mkdir()
        soundfile.write(directory / "consent" / "con_1.wav", consent.say(CONSENT).samples, RATE_HZ)
    report = DataReport(recordings=(), clips=8, usable_s=40.0)
    return with_consent(report, directory, clips_of(SPEAKER, directory), settings or CloningSettings())


def test_the_speakers_own_consent_matches(tmp_path: Path) -> None:
    report = reported(tmp_path, SPEAKER)
    assert (report.voice_matches, report.shortfall) == (True, None)
    assert report.consent_distance is not None and report.consent_distance <= 10


def test_anothers_consent_is_reported_with_its_distance_and_what_to_do(tmp_path: Path) -> None:
    report = reported(tmp_path, OTHER)
    assert (report.voice_matches, report.shortfall) == (False, None)
    assert f"{report.consent_distance:g} nats" in report.summary[-1] and "microphone" in report.summary[-1]


def test_an_operator_may_have_it_refuse_the_recordings(tmp_path: Path) -> None:
    report = reported(tmp_path, OTHER, CloningSettings(consent_voice="refuse"))
    assert report.shortfall and "another voice" in report.shortfall


def test_an_operators_word_has_no_voice_to_compare(tmp_path: Path) -> None:
    report = reported(tmp_path, None)
    assert (report.voice_matches, report.consent_distance, report.summary) == (None, None, ())


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_too_little_speech_says_nothing(seconds: float) -> None:
    silence = np.zeros(round(seconds * RATE_HZ), np.float32)
    assert consent_voice(silence, [SPEAKER.say(CONSENT).samples], RATE_HZ) is None
