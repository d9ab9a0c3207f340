"""`carillon bench voice` on recordings: a person's, and what is no speech."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from app.bench.voice import recorded, run
from app.errors import ConfigurationError
from tests.support.speech import FIRST_S, FIRST_WORDS, opening


def test_a_person_is_understood_and_noise_is_not(tmp_path: Path) -> None:
    samples, rate_hz = opening()
    for name, sound in (("person", samples), ("noise", 0.05 * np.random.default_rng(0).standard_normal(len(samples)))):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", sound[: round(FIRST_S * rate_hz)], rate_hz)
        (tmp_path / name / "a.txt").write_text(FIRST_WORDS, "utf-8")
    out = io.StringIO()
    rows = {name: list(recorded(tmp_path / name)) for name in ("person", "noise")}
    person, noise = run(rows, out=out)
    assert (person.word_error_rates["Moonshine tiny-en"] or 0.0) <= 0.1
    assert (noise.word_error_rates["Moonshine tiny-en"] or 0.0) >= 0.9
    assert set(person.word_error_rates) == {"Moonshine tiny-en", "pocketsphinx"}
    assert (person.dnsmos_overall or 0) > (noise.dnsmos_overall or 5)
    assert (person.voice, noise.voice) == ("person", "noise")
    assert "WER Moonshine tiny-en" in out.getvalue()
    assert "For scale" in out.getvalue()


def test_a_directory_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no recording with its words"):
        list(recorded(tmp_path))
