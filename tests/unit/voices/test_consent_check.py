"""Recorded consents: what is heard in them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.errors import RecordingUnfit
from app.hearing.spoken import Spoken
from app.voices.audio_probe import LIMITS
from app.voices.consent_check import heard_consent, says
from tests.support.speech import opening, spoken_consent

pytestmark = pytest.mark.anyio
NUMBER = "57306914"


async def heard(path: Path, *, number: str = NUMBER, language: str = "en-GB") -> str | None:
    return await heard_consent(
        path, name=path.name, language=language, number=number, max_duration_s=60.0, limits=LIMITS
    )


async def test_the_phrase_with_its_number_is_heard(tmp_path: Path) -> None:
    (tmp_path / "me.wav").write_bytes(spoken_consent(NUMBER))
    text = await heard(tmp_path / "me.wav")
    assert text is not None
    assert "synthetic voice" in text
    assert [path.name for path in tmp_path.iterdir()] == ["me.wav"]


async def test_another_text_and_silence_are_refused_with_what_was_heard(tmp_path: Path) -> None:
    samples, rate_hz = opening()
    soundfile.write(tmp_path / "novel.wav", samples[: 6 * rate_hz], rate_hz)
    with pytest.raises(RecordingUnfit, match=r"is not the consent: heard was “.*best of times"):
        await heard(tmp_path / "novel.wav")
    soundfile.write(tmp_path / "silence.wav", np.zeros(4 * rate_hz, np.float32), rate_hz)
    with pytest.raises(RecordingUnfit, match="is not the consent"):
        await heard(tmp_path / "silence.wav")


async def test_a_language_without_a_recogniser_is_not_heard(tmp_path: Path) -> None:
    assert await heard(tmp_path / "absent.wav", language="de") is None


@pytest.mark.parametrize(
    ("text", "bound", "right"),
    [
        ("My number is 57306914.", None, True),
        ("my number is five, seven, three, oh, six, nine, one, four", None, True),
        ("My number is 573-069-1444444444444", None, True),
        ("My number is 57306", None, False),
        ("My number is 12345678", None, False),
        ("My number is the cake", "my number is five seven three zero six nine one four", True),
        ("My number is the cake", "my number is one two three four five six seven eight", False),
        ("My number is the cake", "", False),
    ],
)
def test_a_number_is_right_with_two_digits_misheard_and_no_more(text: str, bound: str | None, right: bool) -> None:
    assert says(Spoken(text, bound), NUMBER) is right
