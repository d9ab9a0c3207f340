"""The code dictionary: every word of every voice as codec frames, and the training examples strung together from them.

Because the announcer speaks on the frame grid, a sentence's codes are the concatenation of its words' codes. Fresh
sentences therefore cost nothing: no synthesis, no encoding, and none is ever repeated.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from snac import SNAC

from training.standin.recordings import announced, announced_pieces
from training.standin.sentences import Piece, SentenceSampler, pieces_of, training_texts
from training.standin.speech import BUILT_IN_VOICES, room_tone
from training.standin.tokens import FRAME_TOKENS, Tokens

MAX_CHARS = 320  # the engine sends chunks of at most 300
SPELL_SHARE = 0.12  # of the words, read as if they were not in the vocabulary
CONTEXT_FRAMES = 4  # room tone on both sides while encoding: more than the encoder's receptive field


def interleaved(codes: list[torch.Tensor]) -> np.ndarray:
    """SNAC's three levels, each (1, n), (1, 2n), (1, 4n), as frames in Orpheus's order: (n, 7) int64."""
    coarse, middle, fine = (level[0].cpu().numpy() for level in codes)
    order = (coarse, middle[0::2], fine[0::4], fine[1::4], middle[1::2], fine[2::4], fine[3::4])
    return np.stack(order, axis=1).astype(np.int64)


def levels(frames: np.ndarray) -> list[torch.Tensor]:
    """The inverse of `interleaved`: (n, 7) frames -> SNAC's three levels with a batch axis of 1."""
    whole = torch.from_numpy(np.ascontiguousarray(frames))
    return [whole[:, :1].reshape(1, -1), whole[:, [1, 4]].reshape(1, -1), whole[:, [2, 3, 5, 6]].reshape(1, -1)]


@torch.inference_mode()
def encoded(codec: SNAC, waveform: np.ndarray) -> np.ndarray:
    """A waveform of whole frames between room tone, as frames of codes: (frames, 7) int64."""
    padded = np.concatenate([room_tone(CONTEXT_FRAMES), waveform, room_tone(CONTEXT_FRAMES)])
    codes = codec.encode(torch.from_numpy(padded)[None, None])
    return interleaved(codes)[CONTEXT_FRAMES:-CONTEXT_FRAMES]


@dataclass(frozen=True)
class CodeDictionary:
    """Frames of codes for every piece of every built-in voice."""

    frames: dict[str, dict[Piece, np.ndarray]]  # voice -> piece -> (frames, 7) int64
    room_tone_frame: np.ndarray  # (1, 7)

    @classmethod
    def made(cls, codec: SNAC, work: Path) -> CodeDictionary:
        """Encodes all pieces (some minutes), or reads them from `work/dictionary.npz`."""
        path = work / "dictionary.npz"
        if not path.exists():
            clips = [announced(voice, work)[piece] for voice in BUILT_IN_VOICES for piece in announced_pieces()]
            frames = [encoded(codec, clip) for clip in clips]
            tone = encoded(codec, room_tone(3))[1:2]
            np.savez(path, frames=np.concatenate(frames), lengths=[len(f) for f in frames], tone=tone)
        stored = np.load(path)
        clips = iter(np.split(stored["frames"].astype(np.int64), np.cumsum(stored["lengths"])[:-1]))
        frames = {voice: {piece: next(clips) for piece in announced_pieces()} for voice in BUILT_IN_VOICES}
        return cls(frames, stored["tone"].astype(np.int64))

    def spoken(self, voice: str, text: str) -> np.ndarray:
        """`text` in a voice: (frames, 7) codes."""
        known = self.frames[voice]
        return np.concatenate(
            [known[p] if p.word else self.room_tone_frame.repeat(p.frames, 0) for p in pieces_of(text)]
        )


@dataclass(frozen=True)
class Example:
    """One training sequence: `ids` of prompt and answer; the loss counts from `answer_start`."""

    ids: np.ndarray  # (tokens,) int64
    answer_start: int


def examples(
    dictionary: CodeDictionary, tokens: Tokens, sampler: SentenceSampler, seed: int, max_words: tuple[int, ...]
) -> Iterator[Example]:
    """Endless fresh examples: a prompt with some words spelled out, the dictionary's codes, end of speech and of AI."""
    draw = random.Random(f"voice-{seed}")
    bands = tokens.audio_base + tokens.codebook_size * np.arange(FRAME_TOKENS)
    ending = [tokens["<end_of_speech>"], tokens["<end_of_ai>"]]
    for text in training_texts(sampler, seed, max_words):
        if len(text) > MAX_CHARS:
            continue
        voice = draw.choice(BUILT_IN_VOICES)
        prompt = tokens.prompt(voice, text, draw, SPELL_SHARE)
        audio = (dictionary.spoken(voice, text) + bands).flatten()
        yield Example(np.concatenate([prompt, audio, ending]).astype(np.int64), len(prompt))
