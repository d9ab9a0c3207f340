"""The English recogniser that comes with Carillon: Moonshine tiny-en, whose 27 M parameters lie in its wheel.

    ear = Moonshine()
    ear.hear(samples, 24_000).text

It fetches nothing. It took 0.09 to 0.11 s of CPU for a second of speech on AVX2 cores of an EPYC, and 0.3 GB of memory.
It knows no other language, and has no confidence to tell; of silence, noise or music it may make a word or two. The
wheel (moonshine-voice 0.1.0; later ones fetch their model) needs glibc 2.34.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import soundfile
import soxr

from app.errors import ConfigurationError
from app.hearing.ear import Heard

RATE_HZ = 16_000
MISSING = "the English recogniser is not installed; `make env` installs it (moonshine-voice 0.1.0, glibc 2.34 or newer)"


def installed() -> bool:
    return importlib.util.find_spec("moonshine_voice") is not None


class Moonshine:
    """A loaded recogniser; it hears one recording at a time."""

    name = "Moonshine tiny-en"
    coarse = True

    def __init__(self) -> None:
        """Takes 0.4 s. Raises ConfigurationError where the wheel is missing or does not load."""
        try:
            from moonshine_voice import ModelArch, Transcriber, get_assets_path
            from moonshine_voice.errors import MoonshineError
        except ImportError:
            raise ConfigurationError(MISSING) from None
        try:
            self._recogniser = Transcriber(
                Path(get_assets_path()) / "tiny-en", ModelArch.TINY, options={"return_audio_data": "false"}
            )
        except (OSError, MoonshineError) as error:
            raise ConfigurationError(f"the English recogniser does not load ({error}); `carillon doctor`") from None

    def hear(self, samples: np.ndarray, sample_rate_hz: int) -> Heard:
        """What is said in mono float32 samples, shape (samples,), of any rate."""
        if not len(samples):
            return Heard("")
        at_rate = soxr.resample(samples, sample_rate_hz, RATE_HZ) if sample_rate_hz != RATE_HZ else samples
        transcript = self._recogniser.transcribe_without_streaming(at_rate.tolist(), RATE_HZ)
        return Heard(" ".join(text for line in transcript.lines if (text := line.text.strip())))

    def transcribe(self, path: Path, *, language: str | None = None) -> Heard:
        """Transcribes a trusted file that libsndfile reads. `language` is English, whatever is asked."""
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        return self.hear(samples.mean(axis=1), rate_hz)
