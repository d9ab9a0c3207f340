"""How much of what is said is understood after the codec: word error rates of a recogniser that was not made here.

Moonshine tiny-en listens to sentences that nothing was trained on, by speakers of the base and two that the codec never
heard: as said, after Opus at 6 kbit/s for scale, made from the codes without a decoder, and after the codec.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from pystoi import stoi
from snac import SNAC

from app.hearing.moonshine import Moonshine
from app.hearing.words import word_error_rate
from training.standin.corpus import FULL_SCALE
from training.standin.latents import LatentSpace
from training.standin.spectra import sound_of
from training.standin.speech import FRAME_SAMPLES, ROOM_TONE_RMS, SAMPLE_RATE_HZ
from training.standin.teachers import HELD_OUT, SPEAKERS

SENTENCES = Path(__file__).with_name("unseen.txt")
LISTENED_TO = ("slt", "rms", "joe", "alpha", "awb", "nezumi-kumo")
OPUS_BITS_PER_S = 6000
PAUSE_SAMPLES = 4800

Channel = Callable[[np.ndarray], np.ndarray]


def measure(
    codec: SNAC | None = None,
    space: LatentSpace | None = None,
    names: tuple[str, ...] = LISTENED_TO,
    sentences: int | None = None,
) -> dict[str, dict[str, float]]:
    """Per speaker: word error rates of the `recording`, of `opus`, of the `codes` of `space` and of the `codec`.

    With a codec also its mean `stoi`, and `pause_db`: how much louder than the recording's its pauses are.
    """
    ear = Moonshine()
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()[:sentences]
    channels: dict[str, Channel] = {"recording": lambda samples: samples, "opus": _opus}
    if space is not None:
        channels["codes"] = _roughly(space)
    if codec is not None:
        channels["codec"] = _through(codec)
    figures: dict[str, dict[str, float]] = {}
    for name in names:
        clips = list(_said(name, texts))
        heard = {label: [channel(clip) for clip in clips] for label, channel in channels.items()}
        row: dict[str, float | None] = {
            label: word_error_rate(
                (text, ear.hear(one.clip(-1, 1), SAMPLE_RATE_HZ).text) for text, one in zip(texts, said, strict=True)
            )
            for label, said in heard.items()
        }
        if codec is not None:
            row["stoi"] = float(
                np.mean([stoi(*pair, SAMPLE_RATE_HZ) for pair in zip(clips, heard["codec"], strict=True)])
            )
            row["pause_db"] = _pause_db(heard["codec"]) - _pause_db(clips)
        figures[name] = {label: round(value, 3) for label, value in row.items() if value is not None}
    return figures


def _pause_db(clips: list[np.ndarray]) -> float:
    """The level before the speech."""
    return float(10 * np.log10(np.mean(np.concatenate([clip[: PAUSE_SAMPLES // 2] for clip in clips]) ** 2) + 1e-12))


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


def _roughly(space: LatentSpace) -> Channel:
    @torch.inference_mode()
    def passed(samples: np.ndarray) -> np.ndarray:
        whole = torch.from_numpy(np.pad(samples, (0, -len(samples) % FRAME_SAMPLES)))[None]
        return sound_of(space.spectra(space.rounded(space.of(whole))[0])).numpy()

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
