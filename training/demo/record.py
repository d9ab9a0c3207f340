"""The bundled recordings of the held-out speaker: `python -m training.demo.record` makes them again (a few minutes).

The speaker is synthetic: flite's `awb`, announced word by word like the stand-in's own voices but heard by neither its
codec nor its language model. Each recording is one sentence behind 597 ms of room tone, so that a clone has a pause to
lose; it ends on a whole codec frame and is stored as Ogg/Opus without any delay. Nothing here knows how they are used.
"""

from __future__ import annotations

import csv
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from training.standin.sentences import HEAD_FRAMES, SentenceSampler, vocabulary
from training.standin.speech import (
    FLITE_VOICES,
    FRAME_SAMPLES,
    HELD_OUT_VOICES,
    SAMPLE_RATE_HZ,
    Announcer,
)

RECORDINGS = Path(__file__).with_name("recordings")
MANIFEST = "manifest.csv"
SEED = 20_240_717
WORDS = (7, 14)
LENGTH_S = (3.0, 8.0)
SPEECH_S = 690.0  # the default minimum is 600
BIT_RATE_BPS = 24_000
_FEW_WORDS = 60


def sentences(seed: int = SEED) -> Iterator[str]:
    """Endless sentences of 7-14 words, each of words not said yet for as long as there are any."""
    draw = random.Random(seed)
    everything = SentenceSampler(tuple(vocabulary()), tag_share=0.006, digit_share=0.02)
    unsaid = set(everything.words)
    while True:
        if len(unsaid) < _FEW_WORDS:
            unsaid = set(everything.words)
        sampler = replace(everything, words=tuple(sorted(unsaid)))
        phrase = sampler.phrase(draw, draw.randint(*WORDS)).replace(";", ",").replace(":", ",")
        unsaid -= set(phrase.replace(",", "").split())
        yield phrase[0].upper() + phrase[1:] + draw.choice("...?!")


def opus(samples: np.ndarray, path: Path) -> None:
    """Writes float32 mono at 24 kHz as Ogg/Opus; its header says how much of the encoder's delay to skip."""
    with av.open(str(path), "w", format="ogg") as container:
        # Packets of 60 ms cost a third of the overhead.
        stream = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, options={"frame_duration": "60"})
        assert isinstance(stream, av.AudioStream)
        stream.layout, stream.bit_rate = "mono", BIT_RATE_BPS
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for part in (frame, None):
            container.mux(stream.encode(part))


def record(directory: Path = RECORDINGS) -> None:
    """Replaces the directory's recordings and manifest."""
    announcer = Announcer(FLITE_VOICES[HELD_OUT_VOICES[0]])
    for old in directory.glob("*.ogg"):
        old.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    rows, speech_s = [], 0.0
    for text in sentences():
        samples = announcer.speak(text)
        length_s = len(samples) / SAMPLE_RATE_HZ
        if not LENGTH_S[0] <= length_s <= LENGTH_S[1]:
            continue
        rows.append((f"heron-{len(rows) + 1:03}.ogg", text))
        opus(samples, directory / rows[-1][0])
        speech_s += length_s - HEAD_FRAMES * FRAME_SAMPLES / SAMPLE_RATE_HZ
        if speech_s >= SPEECH_S:
            break
    with (directory / MANIFEST).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "text"), *rows])


if __name__ == "__main__":
    if shutil.which("flite") is None:
        raise SystemExit("flite is not installed; on Debian or Ubuntu: apt-get install flite")
    record()
