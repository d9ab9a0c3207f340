"""A second English recogniser, of another make: pocketsphinx, whose models lie in its wheel (the extra `ears`).

It hears worse than Moonshine, but can be bound to what may be said: `answer` picks among the sentences of a grammar.
It took 0.02 s of CPU for a second of speech with a small grammar, and 0.3 to 0.5 s without one.
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
MISSING = "pocketsphinx is not installed; `pip install 'carillon[ears]'` adds it"


def installed() -> bool:
    return importlib.util.find_spec("pocketsphinx") is not None


class Sphinx:
    """A loaded recogniser; it hears one recording at a time."""

    name = "pocketsphinx"
    coarse = True

    def __init__(self, grammar: str | None = None) -> None:
        """Takes 0.2 s with a JSGF `grammar`, and longer with its language model. Raises ConfigurationError."""
        try:
            from pocketsphinx import Decoder
        except ImportError:
            raise ConfigurationError(MISSING) from None
        if grammar is None:
            self._decoder = Decoder(loglevel="FATAL")
        else:
            self._decoder = Decoder(lm=None, loglevel="FATAL")
            self._decoder.add_jsgf_string("answer", grammar)
            self._decoder.activate_search("answer")

    def hear(self, samples: np.ndarray, sample_rate_hz: int) -> Heard:
        """What is said in mono float32 samples, shape (samples,), of any rate; nothing where no sentence fits."""
        at_rate = soxr.resample(samples, sample_rate_hz, RATE_HZ) if sample_rate_hz != RATE_HZ else samples
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(at_rate, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return Heard(found.hypstr if found else "")

    def transcribe(self, path: Path, *, language: str | None = None) -> Heard:
        """Transcribes a trusted file that libsndfile reads."""
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        return self.hear(samples.mean(axis=1), rate_hz)
