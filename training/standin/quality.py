"""Measures a stand-in checkpoint on the 50 reserved texts: is the codec intelligible, does the model speak what it
reads?

The reference is the synthesiser's own announcement of the same text, made afresh with flite. Nothing here trains.
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

from training.standin.dictionary import levels
from training.standin.losses import mel_bank
from training.standin.sentences import HEAD_FRAMES, SentenceSampler, evaluation_texts, vocabulary
from training.standin.speech import FLITE_VOICES, FRAME_SAMPLES, SAMPLE_RATE_HZ, Announcer
from training.standin.tokens import FRAME_TOKENS

TEXTS = 50
MAX_FRAMES = 160  # 13.7 s, twice what the longest reserved text needs
MEL_WINDOW, MEL_BANDS, MEL_HOP = 1024, 40, 600  # 25 ms
AUDIBLE_RMS = 0.004  # five times the room tone


class BandMask(LogitsProcessor):
    """Allows the code band of the frame position whose turn it is, or end of speech at a frame boundary."""

    def __init__(self, audio_base: int, codebook_size: int, end_of_speech: int) -> None:
        self.audio_base, self.codebook_size, self.end_of_speech = audio_base, codebook_size, end_of_speech
        self.step = self.free_choices = self.choices = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """(batch, vocabulary) scores -> the same, minus infinity outside the band; counts choices already inside."""
        position = self.step % FRAME_TOKENS
        first = self.audio_base + position * self.codebook_size
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        allowed[first : first + self.codebook_size] = True
        allowed[self.end_of_speech] = position == 0
        running = (input_ids != self.end_of_speech).all(dim=1)
        self.free_choices += int(allowed[scores[running].argmax(dim=-1)].sum())
        self.choices += int(running.sum())
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
    def loaded(cls, directory: Path) -> Voice:
        """Reads `directory/model` and `directory/codec`."""
        model = LlamaForCausalLM.from_pretrained(directory / "model", dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(directory / "model")
        return cls(model, tokenizer, SNAC.from_pretrained(str(directory / "codec")), model.config.speech)

    def id(self, role: str) -> int:
        """The token id of a role such as `start_of_speech`."""
        return int(self.speech[f"{role}_id"])

    def prompt(self, voice: str, text: str) -> list[int]:
        """The ids the engine would send."""
        said = self.tokenizer(str(self.speech["prompt_form"]).format(voice=voice, text=text))["input_ids"]
        opening, closing = ("start_of_human", "start_of_text"), ("end_of_text", "end_of_human", "start_of_ai")
        return [*map(self.id, opening), *said, *map(self.id, closing), self.id("start_of_speech")]

    @torch.inference_mode()
    def generated(self, voices: list[str], texts: list[str], seed: int) -> tuple[list[np.ndarray], list[bool], float]:
        """Samples all texts at once: frames (n, 7), whether each ended by itself, share of free choices in band."""
        torch.manual_seed(seed)
        prompts = [self.prompt(voice, text) for voice, text in zip(voices, texts, strict=True)]
        longest, end, base = max(map(len, prompts)), self.id("end_of_speech"), int(self.speech["audio_token_base"])
        ids = torch.full((len(prompts), longest), self.id("pad"))
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask = BandMask(base, self.codec.codebook_size, end)
        written = self.model.generate(
            ids,
            attention_mask=(ids != self.id("pad")).long(),
            logits_processor=LogitsProcessorList([mask]),
            max_new_tokens=MAX_FRAMES * FRAME_TOKENS + 1,
            top_k=0,
        )[:, longest:]  # (texts, tokens)
        frames, ended = [], []
        for row in written.tolist():
            ended.append(end in row)
            codes = row[: row.index(end)] if end in row else row[: MAX_FRAMES * FRAME_TOKENS]
            grid = np.array(codes, dtype=np.int64).reshape(-1, FRAME_TOKENS)
            frames.append(grid - base - self.codec.codebook_size * np.arange(FRAME_TOKENS))
        return frames, ended, mask.free_choices / mask.choices

    @torch.inference_mode()
    def decoded(self, frames: np.ndarray) -> np.ndarray:
        """(n, 7) codes -> (n * FRAME_SAMPLES,) float32."""
        if not len(frames):
            return np.zeros(FRAME_SAMPLES, np.float32)
        return self.codec.decode(levels(frames))[0, 0].numpy()

    @torch.inference_mode()
    def recoded(self, waveform: np.ndarray) -> np.ndarray:
        """A waveform of whole frames through the codec and back."""
        return self.codec(torch.from_numpy(waveform)[None, None])[0][0, 0].numpy()


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """(samples,) -> (hops, MEL_BANDS) natural-log mel energies of the speech, leading and trailing quiet cut off."""
    levels_rms = np.sqrt((waveform[: len(waveform) // 480 * 480].reshape(-1, 480) ** 2).mean(axis=1))
    loud = np.flatnonzero(levels_rms > AUDIBLE_RMS)
    if len(loud):
        waveform = waveform[loud[0] * 480 : (loud[-1] + 1) * 480]
    waveform = np.pad(waveform, (0, max(0, MEL_WINDOW - len(waveform))))
    wave = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
    spectrum = torch.stft(wave, MEL_WINDOW, MEL_HOP, window=torch.hann_window(MEL_WINDOW), return_complex=True).abs()
    return (mel_bank(MEL_WINDOW, MEL_BANDS) @ spectrum).clamp_min(1e-3).log().T.numpy()


def warped_distance(heard: np.ndarray, spoken: np.ndarray) -> float:
    """Dynamic-time-warping distance of two feature sequences, (n, d) and (m, d), over n + m."""
    costs = np.sqrt(((heard[:, None] - spoken[None]) ** 2).mean(axis=2))  # (n, m)
    best = np.full(len(spoken) + 1, np.inf)
    best[0] = 0.0
    for row in costs:
        diagonal_or_down = np.minimum(best[:-1], best[1:])  # arriving from the row above
        following = np.full_like(best, np.inf)
        # arriving from the left as well: best over k <= j of diagonal_or_down[k] + sum(row[k..j])
        run = np.cumsum(row)
        following[1:] = run + np.minimum.accumulate(diagonal_or_down - np.concatenate([[0.0], run[:-1]]))
        best = following
    return float(best[-1]) / (len(heard) + len(spoken))


def head_silence_ms(waveform: np.ndarray) -> float:
    """Milliseconds before the first 10 ms louder than AUDIBLE_RMS."""
    windows = waveform[: len(waveform) // 240 * 240].reshape(-1, 240)
    loud = np.flatnonzero(np.sqrt((windows**2).mean(axis=1)) > AUDIBLE_RMS)
    return float(loud[0] * 10) if len(loud) else float(len(windows) * 10)


def measure(checkpoint: Path, texts: list[str], seed: int = 1) -> dict[str, object]:
    """All figures of a checkpoint on `texts`, each spoken by one of the built-in voices in turn."""
    voice = Voice.loaded(checkpoint)
    built_in = list(voice.speech["voices"])
    voices = [built_in[number % len(built_in)] for number in range(len(texts))]
    announcers = {name: Announcer(FLITE_VOICES[name]) for name in built_in}
    references = {name: [announcer.speak(text) for text in texts] for name, announcer in announcers.items()}
    own = [references[name][number] for number, name in enumerate(voices)]
    frames, ended, free_in_band = voice.generated(voices, texts, seed)
    heard = [voice.decoded(grid) for grid in frames]
    features = {name: [log_mel(wave) for wave in waves] for name, waves in references.items()}
    ranks = []
    for number, (name, wave) in enumerate(zip(voices, heard, strict=True)):
        mel = log_mel(wave)
        distances = [warped_distance(mel, other) for other in features[name]]
        ranks.append(int(np.argsort(distances).tolist().index(number)) + 1)
    in_band = [bool(((grid >= 0) & (grid < voice.codec.codebook_size)).all()) for grid in frames]
    codec_stoi = [float(stoi(wave, voice.recoded(wave), SAMPLE_RATE_HZ)) for wave in own]
    same_length = [number for number, grid in enumerate(frames) if len(grid) * FRAME_SAMPLES == len(own[number])]
    spoken_stoi = [float(stoi(own[number], heard[number], SAMPLE_RATE_HZ)) for number in same_length]
    return {
        "texts": len(texts),
        "temperature": voice.model.generation_config.temperature,
        "codec_stoi": _rounded(np.mean(codec_stoi)),
        "codec_stoi_worst": _rounded(np.min(codec_stoi)),
        "identified_share": _rounded(np.mean(np.array(ranks) == 1)),
        "identified_share_by_voice": {
            name: _rounded(
                np.mean([rank == 1 for rank, own_voice in zip(ranks, voices, strict=True) if own_voice == name])
            )
            for name in built_in
        },
        "worst_rank": max(ranks),
        "ended_share": _rounded(np.mean(ended)),
        "in_band_share": _rounded(np.mean(in_band)),
        "in_band_share_without_mask": _rounded(free_in_band),
        "exact_length_share": _rounded(len(same_length) / len(texts)),
        "spoken_stoi_where_length_is_exact": _rounded(np.mean(spoken_stoi)) if spoken_stoi else None,
        "head_silence_ms_median": _rounded(np.median([head_silence_ms(wave) for wave in heard])),
        "head_silence_ms_made": _rounded(HEAD_FRAMES * FRAME_SAMPLES / SAMPLE_RATE_HZ * 1000),
        "misread": [text for text, rank in zip(texts, ranks, strict=True) if rank > 1],
    }


def _rounded(value: float | np.floating) -> float:
    return round(float(value), 4)


def write_quality(checkpoint: Path) -> dict[str, object]:
    """Measures `checkpoint` on the reserved texts and writes `checkpoint/quality.json`."""
    figures = measure(checkpoint, evaluation_texts(SentenceSampler(tuple(vocabulary())), TEXTS))
    (checkpoint / "quality.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures
