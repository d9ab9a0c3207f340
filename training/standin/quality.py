"""Measures a stand-in checkpoint: how much of what it says is understood by a recogniser that nobody here made.

The built-in voices speak sentences that nothing was trained on, sampled as the engine samples; beside them stand the
synthesisers that they learnt from, saying the same, and those after the codec. Nothing here trains.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pystoi import stoi
from snac import SNAC
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)

from app.hearing.moonshine import Moonshine
from app.hearing.words import word_error_rate
from training.standin.base import SPEAKER_OF
from training.standin.examples import HEAD_FRAMES
from training.standin.frames import levels
from training.standin.phonemes import FRAME_TOKENS
from training.standin.speech import FRAME_SAMPLES, ROOM_TONE_RMS, SAMPLE_RATE_HZ
from training.standin.teachers import SPEAKERS
from training.standin.understood import PAUSE_SAMPLES, SENTENCES

TEXTS = 24
MAX_FRAMES = 160  # 13.7 s, about three times what a sentence needs
AUDIBLE_RMS = 0.004  # five times the room tone
BATCH = 12


class BandMask(LogitsProcessor):
    """Allows the code band of the frame position whose turn it is, or end of speech at a frame boundary."""

    def __init__(self, audio_base: int, codebook_size: int, end_of_speech: int) -> None:
        self.audio_base, self.codebook_size, self.end_of_speech = audio_base, codebook_size, end_of_speech
        self.step = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """(batch, vocabulary) scores -> the same, minus infinity outside the band."""
        position = self.step % FRAME_TOKENS
        first = self.audio_base + position * self.codebook_size
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        allowed[first : first + self.codebook_size] = True
        allowed[self.end_of_speech] = position == 0
        self.step += 1
        return scores.masked_fill(~allowed, -torch.inf)


@dataclass(frozen=True)
class Voice:
    """A loaded checkpoint directory: language model, tokenizer, codec, and the model's `speech` settings."""

    model: Any  # LlamaForCausalLM, whose mixed-in `generate` type checkers do not see
    tokenizer: PreTrainedTokenizerBase
    codec: SNAC
    speech: dict[str, Any]

    @classmethod
    def loaded(cls, model: Path, codec: Path) -> Voice:
        """Reads the two directories of a checkpoint."""
        llama = LlamaForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
        return cls(llama, tokenizer, SNAC.from_pretrained(str(codec)).eval(), llama.config.speech)

    def id(self, role: str) -> int:
        """The token id of a role such as `start_of_speech`."""
        return int(self.speech[f"{role}_id"])

    def prompt(self, voice: str, text: str) -> list[int]:
        """The ids the engine would send."""
        said = self.tokenizer(str(self.speech["prompt_form"]).format(voice=voice, text=text))["input_ids"]
        opening, closing = ("start_of_human", "start_of_text"), ("end_of_text", "end_of_human", "start_of_ai")
        return [*map(self.id, opening), *said, *map(self.id, closing), self.id("start_of_speech")]

    @torch.inference_mode()
    def generated(self, voice: str, texts: list[str], **sampling: Any) -> tuple[list[np.ndarray], list[bool]]:
        """Samples all texts at once: frames (n, 7), and whether each ended by itself."""
        prompts = [self.prompt(voice, text) for text in texts]
        longest, end, base = max(map(len, prompts)), self.id("end_of_speech"), int(self.speech["audio_token_base"])
        ids = torch.full((len(prompts), longest), self.id("pad"))
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        written = self.model.generate(
            ids,
            attention_mask=(ids != self.id("pad")).long(),
            logits_processor=LogitsProcessorList([BandMask(base, self.codec.codebook_size, end)]),
            max_new_tokens=MAX_FRAMES * FRAME_TOKENS + 1,
            **({"top_k": 0} | sampling),
        )[:, longest:]  # (texts, tokens)
        frames, ended = [], []
        for row in written.tolist():
            ended.append(end in row)
            codes = row[: row.index(end)] if end in row else row[: MAX_FRAMES * FRAME_TOKENS]
            grid = np.array(codes, dtype=np.int64).reshape(-1, FRAME_TOKENS)
            frames.append(grid - base - self.codec.codebook_size * np.arange(FRAME_TOKENS))
        return frames, ended

    @torch.inference_mode()
    def decoded(self, frames: np.ndarray) -> np.ndarray:
        """(n, 7) codes -> (n * FRAME_SAMPLES,) float32."""
        if not len(frames):
            return np.zeros(FRAME_SAMPLES, np.float32)
        return self.codec.decode(levels(frames))[0, 0].numpy()

    @torch.inference_mode()
    def recoded(self, waveform: np.ndarray) -> np.ndarray:
        """A waveform through the codec and back."""
        return self.codec(torch.from_numpy(waveform)[None, None])[0][0, 0].numpy()


def head_silence_ms(waveform: np.ndarray) -> float:
    """Milliseconds before the first 10 ms louder than AUDIBLE_RMS."""
    return float(_audible(waveform)[0] * 10)


def spoken_s(waveform: np.ndarray) -> float:
    """Seconds from the first audible 10 ms to the last."""
    first, last = _audible(waveform)
    return (last - first) / 100


def _audible(waveform: np.ndarray) -> tuple[int, int]:
    """The first audible 10 ms and the one after the last; both the end where nothing is."""
    windows = waveform[: len(waveform) // 240 * 240].reshape(-1, 240)
    loud = np.flatnonzero(np.sqrt((windows**2).mean(axis=1)) > AUDIBLE_RMS)
    return (int(loud[0]), int(loud[-1]) + 1) if len(loud) else (len(windows), len(windows))


def measure(voice: Voice, texts: list[str], seed: int = 1) -> dict[str, Any]:
    """All figures on `texts`, for each built-in voice."""
    ear = Moonshine()
    figures: dict[str, Any] = {
        "texts": len(texts),
        "temperature": voice.model.generation_config.temperature,
        "head_silence_ms_made": round(HEAD_FRAMES * FRAME_SAMPLES / SAMPLE_RATE_HZ * 1000),
        "voices": {},
    }
    for name in voice.speech["voices"]:
        torch.manual_seed(seed)
        spoken = [voice.generated(name, texts[first : first + BATCH]) for first in range(0, len(texts), BATCH)]
        frames = [one for some, _ in spoken for one in some]
        ended = [one for _, some in spoken for one in some]
        said = [voice.decoded(grid) for grid in frames]
        own = [_said(SPEAKER_OF[name], text, number) for number, text in enumerate(texts)]
        coded = [voice.recoded(wave) for wave in own]
        heard = {
            label: word_error_rate(
                (text, ear.hear(wave.clip(-1, 1), SAMPLE_RATE_HZ).text) for text, wave in zip(texts, waves, strict=True)
            )
            for label, waves in (("synthesiser", own), ("codec", coded), ("model", said))
        }
        ratios = [spoken_s(wave) / spoken_s(other) for wave, other in zip(said, own, strict=True)]
        figures["voices"][name] = {
            **{f"word_error_rate_{label}": _rounded(rate or 0.0) for label, rate in heard.items()},
            "codec_stoi": _rounded(np.mean([stoi(a, b, SAMPLE_RATE_HZ) for a, b in zip(own, coded, strict=True)])),
            "ended_share": _rounded(np.mean(ended)),
            "in_band_share": _rounded(
                np.mean([((grid >= 0) & (grid < voice.codec.codebook_size)).all() for grid in frames])
            ),
            "length_ratio_median": _rounded(np.median(ratios)),
            "length_ratio_least": _rounded(np.min(ratios)),
            "length_ratio_most": _rounded(np.max(ratios)),
            "head_silence_ms_median": _rounded(np.median([head_silence_ms(wave) for wave in said])),
        }
    return figures


def _said(name: str, text: str, seed: int) -> np.ndarray:
    """`text` by a speaker between pauses of room tone."""
    speaker = next(speaker for speaker in SPEAKERS if speaker.name == name)
    speech = np.pad(speaker.speak(text), PAUSE_SAMPLES)
    return speech + np.random.default_rng(seed).standard_normal(len(speech), dtype=np.float32) * ROOM_TONE_RMS


def _rounded(value: float | np.floating) -> float:
    return round(float(value), 3)


def write_quality(checkpoint: Path) -> dict[str, Any]:
    """Measures `checkpoint` on the unseen sentences and writes `checkpoint/quality.json`."""
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()[:TEXTS]
    figures = measure(Voice.loaded(checkpoint / "model", checkpoint / "codec"), texts)
    (checkpoint / "quality.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures
