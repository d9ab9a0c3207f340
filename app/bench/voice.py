"""`carillon bench voice`: intelligibility and naturalness of voices, by independent recognisers and DNSMOS.

It has sentences spoken by a running fleet, or takes recordings from a directory with their transcripts, and tells the
word error rate of each recogniser that is here, DNSMOS, the head silence and the pace. What is not here is not
measured. Each voice is a row, so a synthesiser's own rendering of the same sentences is one beside it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Protocol, TextIO

import numpy as np
import soundfile

from app.client.http import ApiClient
from app.errors import ConfigurationError
from app.hearing import moonshine, naturalness, sphinx
from app.hearing.ear import Heard
from app.hearing.naturalness import Dnsmos, mean_opinion
from app.hearing.words import word_error_rate
from app.speech.audio import duration_s, head_silence_s

SCALE = (
    "For scale, by Moonshine, voices slt and rms of flite: as synthesised 0.09 and 0.09, by Opus at 6 kbit/s 0.41 and "
    "0.12, by codec2 at 1,200 bit/s 0.76 and 0.29."
)


@dataclass(frozen=True)
class Utterance:
    """What was to be said, and how it sounds: mono float32, shape (samples,)."""

    text: str
    samples: np.ndarray
    sample_rate_hz: int


@dataclass(frozen=True)
class VoiceFigures:
    """Of all utterances of a voice; None is not measured."""

    voice: str
    utterances: int
    word_error_rates: Mapping[str, float | None]
    dnsmos_overall: float | None
    dnsmos_signal: float | None
    dnsmos_background: float | None
    head_silence_p50_ms: float
    seconds_per_char: float


class Ear(Protocol):
    @property
    def name(self) -> str: ...
    def hear(self, samples: np.ndarray, sample_rate_hz: int) -> Heard: ...


def ears() -> list[Ear]:
    """The recognisers that are installed. Raises ConfigurationError where one does not load."""
    found: list[Ear] = [moonshine.Moonshine()] if moonshine.installed() else []
    return [*found, sphinx.Sphinx()] if sphinx.installed() else found


def spoken(client: ApiClient, voice: str, sentences: Sequence[str]) -> Iterator[Utterance]:
    """The sentences as the fleet speaks them."""
    for text in sentences:
        yield _read(text, io.BytesIO(client.voices.speak(voice, text)))


def recorded(directory: Path) -> Iterator[Utterance]:
    """Recordings of a directory that have their words in a `.txt` beside them. Raises ConfigurationError for none."""
    texts = sorted(directory.glob("*.txt"))
    pairs = [(text, audio) for text in texts for audio in directory.glob(f"{text.stem}.*") if audio != text]
    if not pairs:
        raise ConfigurationError(f"{directory} has no recording with its words in a .txt of the same name beside it")
    for text, audio in pairs:
        yield _read(text.read_text("utf-8-sig"), audio)


def _read(text: str, file: Path | io.BytesIO) -> Utterance:
    try:
        samples, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        name = file if isinstance(file, Path) else "what the fleet sent"
        raise ConfigurationError(f"{name} cannot be read: {error}; give WAV or FLAC") from None
    return Utterance(text, samples.mean(axis=1), rate_hz)


def measure(voice: str, utterances: Sequence[Utterance], ears: Sequence[Ear], judge: Dnsmos | None) -> VoiceFigures:
    """All figures of one voice."""
    rates = {
        ear.name: word_error_rate((one.text, ear.hear(one.samples, one.sample_rate_hz).text) for one in utterances)
        for ear in ears
    }
    opinions = [judge.judge(one.samples, one.sample_rate_hz) for one in utterances] if judge else []
    opinion = mean_opinion([one for one in opinions if one is not None])
    return VoiceFigures(
        voice=voice,
        utterances=len(utterances),
        word_error_rates={name: _rounded(rate) for name, rate in rates.items()},
        dnsmos_overall=_rounded(opinion and opinion.overall),
        dnsmos_signal=_rounded(opinion and opinion.signal),
        dnsmos_background=_rounded(opinion and opinion.background),
        head_silence_p50_ms=round(median(1000 * head_silence_s(one.samples, one.sample_rate_hz) for one in utterances)),
        seconds_per_char=round(
            mean(duration_s(one.samples, one.sample_rate_hz) / len(one.text) for one in utterances), 4
        ),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def run(rows: Mapping[str, Sequence[Utterance]], *, out: TextIO) -> list[VoiceFigures]:
    """Measures each voice, and prints the table."""
    listening, judge = ears(), Dnsmos() if naturalness.installed() else None
    figures = [measure(voice, utterances, listening, judge) for voice, utterances in rows.items()]
    out.write(table(figures))
    return figures


def table(figures: Sequence[VoiceFigures]) -> str:
    names = list(figures[0].word_error_rates) if figures else []
    heads = ["voice", *(f"WER {name}" for name in names), "DNSMOS", "voice", "room", "head ms", "s/char"]
    lines = [heads]
    for one in figures:
        values = [*one.word_error_rates.values(), one.dnsmos_overall, one.dnsmos_signal, one.dnsmos_background]
        shown = ["not measured" if value is None else f"{value:.2f}" for value in values]
        lines.append([one.voice, *shown, f"{one.head_silence_p50_ms:.0f}", f"{one.seconds_per_char:.3f}"])
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    missing = [] if names else [moonshine.MISSING]
    if sphinx.Sphinx.name not in names:
        missing.append(sphinx.MISSING)
    if not naturalness.installed():
        missing.append(naturalness.MISSING)
    return "\n".join([*rows, "", *missing, SCALE, ""])
