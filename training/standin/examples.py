"""Training sequences for the language model, put together from utterances while it trains, so that few come twice.

A text is pieces of one speaker's sentences with pauses between them. A built-in voice speaks after a head of room tone,
the pause of real base voices, there to be trained away.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.standin.phonemes import FRAME_TOKENS
from training.standin.tokens import Tokens, Word
from training.standin.utterances import Utterance

HEAD_FRAMES = 7  # 597 ms
OTHER_HEAD_FRAMES = 1
LONG_PAUSE_FRAMES = 3
TAG_SHARE = 0.04  # of the joints between pieces
READING_SHARE = 0.3  # of the words whose reading is as long as what was said: they are read as they are spelt
UNMARKED_SHARE = 0.15  # of the texts, without a mark at their end
_STEPS = ((0, 4), (0, 2), (0, 1), (1, 2), (2, 4), (2, 3), (3, 4))
"""Of a frame, which of its four steps each of its seven codes tells of."""


@dataclass(frozen=True)
class Voice:
    """A speaker of the base: how it is called, its utterances, its tags' frames, and how often it is drawn."""

    name: str
    utterances: Sequence[Utterance]
    tags: Mapping[str, np.ndarray]
    gridded: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Example:
    """One training sequence: `ids`, of which the answer begins at `answer_start`.

    `read_from` and `read_to` say which ids of the text each token voices: an empty range where it voices none.
    """

    ids: np.ndarray  # (tokens,) int64
    answer_start: int
    read_from: np.ndarray  # (tokens,) int64
    read_to: np.ndarray  # (tokens,) int64


@dataclass(frozen=True)
class Piece:
    """Some words of an utterance: `frames` (n, 7) and for each step which phone of the piece it says, (n, 4)."""

    words: list[Word]
    frames: np.ndarray
    phones: np.ndarray


def piece_of(one: Utterance, first: int, after: int, draw: random.Random) -> Piece:
    """Words `first` to `after` of an utterance."""
    words = [
        Word(reading if len(reading) == len(said) and draw.random() < READING_SHARE else said, mark)
        for said, reading, mark in list(zip(one.words, one.reading, one.marks, strict=True))[first:after]
    ]
    words[-1] = Word(words[-1].phones, words[-1].mark if after == len(one.words) else "")
    frames = slice(one.starts[first], one.ends[after - 1])
    before = sum(map(len, one.words[:first]))
    count = sum(map(len, one.words[first:after]))
    phones = one.phones[frames] - before
    return Piece(words, one.frames[frames], np.where((phones >= 0) & (phones < count), phones, -1))


def texts(voice: Voice, draw: random.Random, max_words: int) -> Iterator[Piece]:
    """Pieces until the text has some number of words, at most about `max_words`."""
    room = draw.randint(1, max_words)
    while room > 0:
        if voice.tags and draw.random() < TAG_SHARE:
            tag = draw.choice(list(voice.tags))
            frames = voice.tags[tag]
            yield Piece([Word((), tag=tag)], frames, np.zeros((len(frames), 4), np.int64))
        one = draw.choice(voice.utterances)
        count = min(room, len(one.words)) if one.timed else len(one.words)
        first = draw.randint(0, len(one.words) - count)
        yield piece_of(one, first, first + count, draw)
        room -= count


def example(
    voice: Voice, tokens: Tokens, silence: np.ndarray, draw: random.Random, *, max_words: int, head_frames: int
) -> Example:
    """A fresh sequence: a prompt, what is said, end of speech and of AI. `silence` is a frame of it, (1, 7)."""
    words: list[Word] = []
    frames = [silence.repeat(head_frames if voice.gridded else OTHER_HEAD_FRAMES, 0)]
    phones = [np.full((len(frames[0]), 4), -1)]
    closers = [np.full(len(frames[0]), -1)]  # per frame, the word whose mark it voices, or -1
    said = 0
    pieces = list(texts(voice, draw, max_words))
    for number, piece in enumerate(pieces):
        last = number + 1 == len(pieces)
        words += piece.words
        ending = words[-1]
        if not ending.tag:
            mark = ending.mark if ending.mark in tuple(".?!") else draw.choice("....?!")
            words[-1] = Word(ending.phones, "" if last and draw.random() < UNMARKED_SHARE else mark)
        pause = 0 if ending.tag and not last else LONG_PAUSE_FRAMES
        frames += [piece.frames, silence.repeat(pause, 0)]
        phones += [np.where(piece.phones >= 0, piece.phones + said, -1), np.full((pause, 4), -1)]
        closers += [np.full(len(piece.frames), -1), np.full(pause, len(words) - 1)]
        said += sum(1 if word.tag else len(word.phones) for word in piece.words)
    prompt, where, closings = tokens.prompt(voice.name, words)
    bands = tokens.audio_base + tokens.codebook_size * np.arange(FRAME_TOKENS)
    ids = np.concatenate(
        [prompt, (np.concatenate(frames) + bands).ravel(), [tokens["<end_of_speech>"], tokens["<end_of_ai>"]]]
    )
    read_from, read_to = np.zeros_like(ids), np.zeros_like(ids)
    spoken = slice(len(prompt), -2)
    read_from[spoken], read_to[spoken] = _voiced(np.concatenate(phones), np.concatenate(closers), where, closings)
    return Example(ids, len(prompt), read_from, read_to)


def _voiced(
    phones: np.ndarray, closers: np.ndarray, where: Sequence[int], closings: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """For each code of each frame the first id that it voices, and the one after the last: two (7 n,)."""
    index = np.array([*where, 0])
    firsts, afters = [], []
    for first, after in _STEPS:
        heard = phones[:, first:after]
        least = np.where(heard >= 0, heard, len(where)).min(axis=1)
        most = heard.max(axis=1)
        closing = np.array([*closings, 0])[closers]
        silent = most < 0
        paused = silent & (closers >= 0)
        firsts.append(np.where(silent, np.where(paused, closing, 0), index[least.clip(0, len(where))]))
        afters.append(np.where(silent, np.where(paused, closing + 1, 0), index[most] + 1))
    return np.stack(firsts, axis=1).ravel(), np.stack(afters, axis=1).ravel()
