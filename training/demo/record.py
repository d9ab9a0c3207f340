"""The bundled recordings of the held-out speaker: `python -m training.demo.record` makes them again (a few minutes).

The speaker is synthetic: flite's `awb`, heard by neither the stand-in's codec nor its language model. Each recording is
one sentence behind 597 ms of room tone, so that a clone has a pause to lose; it ends on a whole codec frame and is
stored as Ogg/Opus without any delay. Nothing here knows how they are used.
"""

from __future__ import annotations

import csv
import math
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from training.standin.speech import FRAME_SAMPLES, SAMPLE_RATE_HZ, flite, levelled, room_tone, trimmed
from training.standin.texts import sentences as examples

RECORDINGS = Path(__file__).with_name("recordings")
MANIFEST = "manifest.csv"
SEED = 20_240_717
VOICE = "awb"
HEAD_FRAMES, TAIL_FRAMES = 7, 4
LENGTH_S = (3.0, 8.0)
SPEECH_S = 690.0  # the default minimum is 600
BIT_RATE_BPS = 24_000


def sentences(seed: int = SEED) -> Iterator[str]:
    """WordNet's examples of use in an order of their own."""
    every = examples()
    yield from random.Random(seed).sample(every, len(every))


def spoken(text: str) -> np.ndarray:
    """`text` between room tone: (samples,) float32 of whole frames."""
    speech = levelled(trimmed(flite(text, VOICE)))
    recording = room_tone(HEAD_FRAMES + math.ceil(len(speech) / FRAME_SAMPLES) + TAIL_FRAMES)
    first = HEAD_FRAMES * FRAME_SAMPLES
    recording[first : first + len(speech)] += speech
    return recording


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
    for old in directory.glob("*.ogg"):
        old.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    rows, speech_s = [], 0.0
    for text in sentences():
        samples = spoken(text)
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
