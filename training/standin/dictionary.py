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
from snac.vq import VectorQuantize

from training.standin.recordings import announced, announced_pieces
from training.standin.sentences import Piece, SentenceSampler, marks_of, pieces_of, training_texts
from training.standin.speech import BUILT_IN_VOICES, room_tone
from training.standin.tokens import FRAME_TOKENS, Tokens

MAX_CHARS = 320  # the engine sends chunks of at most 300
SPELL_SHARE = 0.06  # of the words, read as if they were not in the vocabulary
CONTEXT_FRAMES = 3  # room tone on both sides while encoding: more than the encoder's receptive field


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
        """Encodes all pieces (a minute or two), or reads them from `work/dictionary.npz`."""
        path = work / "dictionary.npz"
        if not path.exists():
            spoken = [announced(voice, work) for voice in BUILT_IN_VOICES]
            frames = [encoded(codec, clips[piece]) for clips in spoken for piece in announced_pieces()]
            tone = encoded(codec, room_tone(3))[1:2]
            np.savez(path, frames=np.concatenate(frames), lengths=[len(f) for f in frames], tone=tone)
        stored = np.load(path)
        clips = iter(np.split(stored["frames"].astype(np.int64), np.cumsum(stored["lengths"])[:-1]))
        frames = {voice: {piece: next(clips) for piece in announced_pieces()} for voice in BUILT_IN_VOICES}
        return cls(frames, stored["tone"].astype(np.int64))

    def spoken_pieces(self, voice: str, text: str) -> list[np.ndarray]:
        """`text` in a voice, piece by piece: (frames, 7) codes each."""
        known = self.frames[voice]
        return [known[p] if p.word else self.room_tone_frame.repeat(p.frames, 0) for p in pieces_of(text)]

    def spoken(self, voice: str, text: str) -> np.ndarray:
        """`text` in a voice: (frames, 7) codes."""
        return np.concatenate(self.spoken_pieces(voice, text))


def sound_features(dictionary: CodeDictionary, codec: SNAC, words: list[str], frames: int = 5) -> torch.Tensor:
    """How each word begins to sound in every voice: (words, features) float32, standardised.

    The features are the unit codebook vectors of the first `frames` frames' codes, room tone where a word is shorter.
    """
    quantizers: list[VectorQuantize] = list(codec.quantizer.quantizers)  # type: ignore[arg-type]
    books = [torch.nn.functional.normalize(quantizer.codebook.weight.detach()) for quantizer in quantizers]
    level_of_position = (0, 1, 2, 2, 1, 2, 2)
    rows = []
    for word in words:
        spoken = []
        for clips in dictionary.frames.values():
            padded = np.concatenate([clips[Piece(word)], dictionary.room_tone_frame.repeat(frames, 0)])[:frames]
            spoken += [books[level_of_position[k]][padded[:, k]].flatten() for k in range(FRAME_TOKENS)]
        rows.append(torch.cat(spoken))
    features = torch.stack(rows)
    return (features - features.mean(dim=0)) / features.std(dim=0).clamp_min(1e-3)


@dataclass(frozen=True)
class Example:
    """One training sequence: `ids`, of which the answer begins at `answer_start` and `counted` ones make the loss.

    `read_from` and `read_to` say which ids of the text each token voices: an empty range where it voices none.
    """

    ids: np.ndarray  # (tokens,) int64
    answer_start: int
    counted: np.ndarray  # (tokens,) bool
    read_from: np.ndarray  # (tokens,) int64
    read_to: np.ndarray  # (tokens,) int64


def examples(
    dictionary: CodeDictionary,
    tokens: Tokens,
    sampler: SentenceSampler,
    seed: int,
    *,
    max_words: tuple[int, ...],
    skimmed_share: float = 0.0,
) -> Iterator[Example]:
    """Endless fresh examples: a prompt with some words spelled out, the dictionary's codes, end of speech and of AI.

    A share of them is skimmed: of each word only its first and last frame remain, of each pause one frame, and only
    the first frames of words count. That is where the next word must be found and read, more than twice as often.
    """
    draw = random.Random(f"voice-{seed}")
    bands = tokens.audio_base + tokens.codebook_size * np.arange(FRAME_TOKENS)
    ending = [tokens["<end_of_speech>"], tokens["<end_of_ai>"]]
    for text in training_texts(sampler, seed, max_words):
        if len(text) > MAX_CHARS:
            continue
        voice = draw.choice(BUILT_IN_VOICES)
        prompt, spans = tokens.aligned_prompt(voice, text, draw, SPELL_SHARE)
        pieces = dictionary.spoken_pieces(voice, text)
        if skimmed := draw.random() < skimmed_share:
            kept = [1 if not piece.word else 2 for piece in pieces_of(text)]
            pieces = [clip[[0, -1][:frames]] for clip, frames in zip(pieces, kept, strict=True)]
        audio = (np.concatenate(pieces) + bands).flatten()
        ids = np.concatenate([prompt, audio, ending]).astype(np.int64)
        counted = np.arange(len(ids)) >= len(prompt)
        starts = len(prompt) + FRAME_TOKENS * np.cumsum([0, *map(len, pieces)])
        if skimmed:
            counted[:] = False
            for piece, clip in enumerate(pieces):
                counted[starts[piece] : starts[piece] + FRAME_TOKENS] = len(clip) > 1
        read_from, read_to = np.zeros_like(ids), np.zeros_like(ids)
        for (first, after), piece in zip(spans, marks_of(text), strict=True):
            read_from[starts[piece] : starts[piece + 1]] = first
            read_to[starts[piece] : starts[piece + 1]] = after
        yield Example(ids, len(prompt), counted, read_from, read_to)
