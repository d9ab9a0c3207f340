"""Speakers for tests that listen: a buzz of one pitch through the resonances of one throat; they say vowels only."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import dataclass, field

import numpy as np
from scipy.signal import lfilter

from app.realtime.background import Spoken
from app.speech.audio import Samples
from app.speech.voices import Voice

RATE_HZ = 24_000
VOWEL_S = 0.2


@dataclass(frozen=True)
class Throat:
    """How one speaker sounds, and how they speak: what comes before the speech, how fast, and whether they end."""

    pitch_hz: float
    length: float = 1.0
    head_s: float = 0.1
    seconds_per_char: float = 0.06
    pause_s: float = 0.0
    gain: float = 0.3
    complete: bool = True

    def say(self, text: str) -> Spoken:
        """Other vowels for every text; a `pause_s` in the middle; room tone behind it all."""
        draw = np.random.default_rng(zlib.crc32(text.encode()))
        vowels = [self._vowel(draw) for _ in range(max(round(self.seconds_per_char * len(text) / VOWEL_S), 1))]
        half = len(vowels) // 2
        parts = [_silence(self.head_s), *vowels[:half], _silence(self.pause_s), *vowels[half:]]
        samples = self.gain * np.concatenate(parts) + 1e-4 * draw.standard_normal(sum(map(len, parts)))
        return Spoken(text, np.clip(samples, -1, 1).astype(np.float32), RATE_HZ, self.complete)

    def _vowel(self, draw: np.random.Generator) -> Samples:
        """Three random formants, which the throat's length moves, over a pitch that wanders by a semitone."""
        count = round(VOWEL_S * RATE_HZ)
        hz = self.pitch_hz * 2 ** (draw.uniform(-1, 1) / 12)
        buzz = np.diff(np.floor(np.arange(count + 1) * hz / RATE_HZ)) + 0.01 * draw.standard_normal(count)
        for formant_hz in (draw.uniform(300, 800), draw.uniform(900, 2300), draw.uniform(2400, 3200)):
            radius, angle = np.exp(-np.pi * 90 / RATE_HZ), 2 * np.pi * formant_hz / self.length / RATE_HZ
            buzz = np.asarray(lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], buzz))
        return (buzz / np.abs(buzz).max() * (0.2 + 0.8 * np.hanning(count))).astype(np.float32)


def _silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


@dataclass
class SyntheticSpeaker:
    """Speaks with each voice's throat, by the voice's name. `heard` is what was asked, `busiest` how much at once."""

    throats: dict[str, Throat]
    heard: list[tuple[str, str]] = field(default_factory=list)
    busiest: int = 0
    _busy: int = 0

    async def speak(self, voice: Voice, text: str) -> Spoken:
        self.heard.append((voice.name, text))
        self._busy += 1
        self.busiest = max(self.busiest, self._busy)
        await asyncio.sleep(0)
        self._busy -= 1
        return self.throats[voice.name].say(text)
