"""The announcers' words on the frame grid, rendered once into the work directory as int16 arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.standin.sentences import TAGS, Piece, vocabulary
from training.standin.speech import (
    FLITE_VOICES,
    Announcer,
)

FULL_SCALE = 32767.0


def announced_pieces() -> list[Piece]:
    """Everything an announcer can say: each word, and each tag."""
    return [Piece(word) for word in (*vocabulary(), *TAGS)]


def _announced(voice: str) -> list[np.ndarray]:
    announcer = Announcer(FLITE_VOICES[voice])
    return [(announcer.piece(piece) * FULL_SCALE).astype(np.int16) for piece in announced_pieces()]


def announced(voice: str, work: Path) -> dict[Piece, np.ndarray]:
    """Every piece of a built-in voice as float32 waveforms of whole frames; rendered once, then read from `work`."""
    path = work / f"announced-{voice}.npz"
    pieces = announced_pieces()
    if not path.exists():
        clips = _announced(voice)
        np.savez(path, samples=np.concatenate(clips), lengths=np.array([len(clip) for clip in clips]))
    stored = np.load(path)
    if len(stored["lengths"]) != len(pieces):
        raise ValueError(f"{path} was rendered from another words.txt; remove it to render anew")
    clips = np.split(stored["samples"], np.cumsum(stored["lengths"])[:-1])
    return {piece: clip.astype(np.float32) / FULL_SCALE for piece, clip in zip(pieces, clips, strict=True)}
