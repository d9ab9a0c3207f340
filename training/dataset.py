"""Clips become what a speech language model learns from: prompt, codes, end of speech, end of AI, as token ids.

A codec's directory and a model's describe their tokens in full, so the stand-in and Orpheus go the same way. Codes are
interleaved into frames as Orpheus writes them. The file is plain arrays; how it is learned from, the trainer knows
(`training.clips` reads it and checks it against the model).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import soundfile

from app.errors import ConfigurationError
from app.speech.prompts import PromptEncoder
from app.speech.token_layout import TOKENS_PER_FRAME, SpeechConfig, TokenLayout, read_layout
from training.data_report import SpeechClip
from training.recordings import PreparationCancelled

if TYPE_CHECKING:
    from snac import SNAC

CONTEXT_FRAMES = 7
"""The encoder would take the edge of a clip for the edge of a sound; its receptive field is shorter than this."""


@dataclass(frozen=True)
class Example:
    """One training sequence: `ids`, (tokens,) int32; its answer, codes and both ends, begins at `answer_start`."""

    name: str
    ids: np.ndarray
    answer_start: int


@dataclass(frozen=True)
class Dataset:
    """All examples of a voice; `dropped_frame_share` of the frames were left out as repetitions."""

    examples: tuple[Example, ...]
    dropped_frame_share: float = 0.0

    def save(self, path: Path) -> None:
        """Writes `ids` of all examples in a row, with `lengths`, `answer_starts` and `names` of each: whole or not."""
        unfinished = path.with_name(f".unfinished-{path.name}")
        with unfinished.open("wb") as file:
            np.savez(
                file,
                ids=np.concatenate([np.zeros(0, np.int32), *(example.ids for example in self.examples)]),
                lengths=np.array([len(example.ids) for example in self.examples], np.int64),
                answer_starts=np.array([example.answer_start for example in self.examples], np.int64),
                names=np.array([example.name for example in self.examples], np.str_),
                dropped_frame_share=np.float64(self.dropped_frame_share),
            )
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """What `save` wrote. Raises OSError and ValueError for anything else."""
        with np.load(path, allow_pickle=False) as stored:
            rows = np.split(stored["ids"], np.cumsum(stored["lengths"])[:-1]) if len(stored["lengths"]) else []
            fields = zip(stored["names"].tolist(), rows, stored["answer_starts"].tolist(), strict=True)
            return cls(tuple(Example(*field) for field in fields), float(stored["dropped_frame_share"]))


def build_dataset(
    clips: Sequence[SpeechClip],
    *,
    prompt_name: str,
    model_dir: Path,
    codec_dir: Path,
    speech: SpeechConfig | None = None,
    deduplicate: bool = False,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Dataset:
    """Encodes and tokenizes every clip, one at a time; `progress` gets (clips done, clips).

    Raises ConfigurationError for a model, codec or clips that do not fit together, PreparationCancelled between clips.
    """
    layout = read_layout(model_dir, codec_dir, speech)
    encoder = FrameEncoder(codec_dir, layout, device=device)
    prompt_ids = _prompt_ids(layout, model_dir, prompt_name)
    examples: list[Example] = []
    frames_read = frames_kept = 0
    for number, clip in enumerate(clips):
        if cancelled():
            raise PreparationCancelled
        frames = encoder.frames_of(clip.path)
        frames_read += len(frames)
        if deduplicate:
            frames = without_repetitions(frames)
        frames_kept += len(frames)
        prompt = prompt_ids(clip.text)
        examples.append(Example(clip.name, _sequence(prompt, frames, layout), len(prompt)))
        if progress is not None:
            progress(number + 1, len(clips))
    return Dataset(tuple(examples), 1.0 - frames_kept / frames_read if frames_read else 0.0)


class FrameEncoder:
    """A SNAC's encoding half: audio files to frames of codes."""

    def __init__(self, codec_dir: Path, layout: TokenLayout, *, device: str = "cpu") -> None:
        """Raises ConfigurationError where the directory holds no codec."""
        missing = [name for name in ("config.json", "pytorch_model.bin") if not (codec_dir / name).is_file()]
        if missing:
            raise ConfigurationError(f"no {' and no '.join(missing)} in {codec_dir}: a codec is a directory with both")
        from snac import SNAC

        self._codec: SNAC = SNAC.from_pretrained(str(codec_dir)).to(device)
        self._device = device
        self._layout = layout

    def frames_of(self, path: Path) -> np.ndarray:
        """(frames, 7) int64 codes of a mono file. Raises ConfigurationError for one that is not of whole frames."""
        samples, rate_hz = soundfile.read(path, dtype="float32")
        frame = self._layout.samples_per_frame
        if samples.ndim != 1 or rate_hz != self._layout.sample_rate_hz or not len(samples) or len(samples) % frame:
            raise ConfigurationError(
                f"{path.name} is {len(samples)} samples at {rate_hz} Hz; this codec takes mono at "
                f"{self._layout.sample_rate_hz} Hz in frames of {frame}: prepare the recordings for it"
            )
        return self.frames(samples)

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """(frames, 7) int64 codes of whole frames of float32 samples, encoded between more of their own room tone."""
        import torch

        from training.standin.frames import interleaved

        frame = self._layout.samples_per_frame
        before = np.tile(samples[:frame], CONTEXT_FRAMES)
        after = np.tile(samples[-frame:], CONTEXT_FRAMES)
        padded = torch.from_numpy(np.concatenate([before, samples, after])).to(self._device)
        with torch.inference_mode():
            codes = self._codec.encode(padded[None, None])
        return interleaved(codes)[CONTEXT_FRAMES:-CONTEXT_FRAMES]


def without_repetitions(frames: np.ndarray) -> np.ndarray:
    """The frames whose first code differs from the last kept frame's: every published Orpheus recipe does so."""
    return frames[np.append(True, frames[1:, 0] != frames[:-1, 0])] if len(frames) else frames


def _sequence(prompt: list[int], frames: np.ndarray, layout: TokenLayout) -> np.ndarray:
    firsts = layout.speech.audio_token_base + layout.codebook_size * np.arange(TOKENS_PER_FRAME)
    ends = [layout.speech.end_of_speech_id, layout.speech.end_of_ai_id]
    return np.concatenate([prompt, (frames + firsts).ravel(), ends]).astype(np.int32)


def _prompt_ids(layout: TokenLayout, model_dir: Path, prompt_name: str) -> Callable[[str], list[int]]:
    """From a text to the ids before the answer, as the engine has them."""
    from transformers import AutoTokenizer

    return partial(PromptEncoder(layout, AutoTokenizer.from_pretrained(str(model_dir))).prompt, prompt_name)
