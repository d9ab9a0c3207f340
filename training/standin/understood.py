"""How much of what is said is understood after the codec: word error rates of a recogniser that was not made here.

Moonshine tiny-en (wheel `moonshine-voice` 0.1.0) listens to sentences that nothing was trained on, by speakers of the
base and two that the codec never heard: as said, after Opus at 6 kbit/s for scale, and after the codec.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from pystoi import stoi
from snac import SNAC

from training.standin.corpus import FULL_SCALE
from training.standin.speech import ROOM_TONE_RMS, SAMPLE_RATE_HZ
from training.standin.teachers import HELD_OUT, SPEAKERS

SENTENCES = Path(__file__).with_name("unseen.txt")
LISTENED_TO = ("slt", "rms", "joe", "alpha", "awb", "nezumi-kumo")
OPUS_BITS_PER_S = 6000
PAUSE_SAMPLES = 4800

Channel = Callable[[np.ndarray], np.ndarray]


def measure(codec_directory: Path, sentences: int | None = None) -> dict[str, dict[str, float]]:
    """Per speaker: word error rates `recording`, `opus` and `codec`, and the codec's mean `stoi`."""
    from moonshine_voice import ModelArch, Transcriber, get_assets_path

    ear = Transcriber(str(Path(get_assets_path()) / "tiny-en"), ModelArch.TINY)

    def heard(samples: np.ndarray) -> str:
        transcript = ear.transcribe_without_streaming(samples.tolist(), SAMPLE_RATE_HZ)
        return " ".join(line.text for line in transcript.lines)

    codec = SNAC.from_pretrained(str(codec_directory))
    channels: dict[str, Channel] = {"recording": lambda samples: samples, "opus": _opus, "codec": _through(codec)}
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()[:sentences]
    figures: dict[str, dict[str, float]] = {}
    for name in LISTENED_TO:
        clips = list(_said(name, texts))
        row = {
            label: word_error_rate(texts, [heard(channel(clip)) for clip in clips])
            for label, channel in channels.items()
        }
        row["stoi"] = float(np.mean([stoi(clip, channels["codec"](clip), SAMPLE_RATE_HZ) for clip in clips]))
        figures[name] = {label: round(value, 3) for label, value in row.items()}
    return figures


def word_error_rate(texts: list[str], heard: list[str]) -> float:
    """Wrong, missing and added words per word of `texts`."""
    pairs = [(_words(text), _words(words)) for text, words in zip(texts, heard, strict=True)]
    return sum(_edits(said, words) for said, words in pairs) / sum(len(said) for said, _ in pairs)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def _edits(said: list[str], heard: list[str]) -> int:
    """Levenshtein's distance in words."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(heard, start=1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (word != other))
    return row[-1]


def _said(name: str, texts: list[str]) -> Iterator[np.ndarray]:
    """`texts` by a speaker between pauses of room tone: whole codec frames need not be."""
    speaker = next(speaker for speaker in (*SPEAKERS, *HELD_OUT) if speaker.name == name)
    for number, text in enumerate(texts):
        speech = np.pad(speaker.speak(text), PAUSE_SAMPLES)
        noise = np.random.default_rng(number).standard_normal(len(speech), dtype=np.float32)
        yield speech + noise * ROOM_TONE_RMS


def _through(codec: SNAC) -> Channel:
    @torch.inference_mode()
    def passed(samples: np.ndarray) -> np.ndarray:
        return codec(torch.from_numpy(samples)[None, None])[0][0, 0].numpy()

    return passed


def _opus(samples: np.ndarray) -> np.ndarray:
    """`samples` through libopus in an Ogg file, without the encoder's delay."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE_HZ)
        stream.bit_rate = OPUS_BITS_PER_S  # type: ignore[union-attr]
        stream.options = {"application": "voip"}
        pcm = (samples.clip(-1, 1) * FULL_SCALE).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        container.mux(stream.encode(frame))  # type: ignore[union-attr]
        container.mux(stream.encode(None))  # type: ignore[union-attr]
    file.seek(0)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    with av.open(file, "r") as recorded:
        heard = [out.to_ndarray()[0] for frame in recorded.decode(audio=0) for out in resampler.resample(frame)]
    decoded = np.concatenate([*heard, *(out.to_ndarray()[0] for out in resampler.resample(None))])
    return np.pad(decoded, (0, max(0, len(samples) - len(decoded))))[: len(samples)]
