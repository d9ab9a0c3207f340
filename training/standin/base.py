"""The voices of the base model: who they are, how often each is heard in training, and their tags' sounds.

`wren` and `rook` are built in. The others only show that there are many ways to speak, so that an adapter needs to say
who, and never how to speak.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from training.standin.corpus import Shard
from training.standin.examples import Voice
from training.standin.frames import interleaved
from training.standin.latents import LatentSpace
from training.standin.speech import framed, tag_sound
from training.standin.tags import TAGS
from training.standin.teachers import SPEAKERS
from training.standin.utterances import stored

SPEAKER_OF = {"wren": "slt", "rook": "rms"}
BUILT_IN_VOICES = tuple(SPEAKER_OF)
OTHERS = {
    "swift": "slt-90", "crane": "slt-108", "stork": "slt-116", "robin": "rms-84", "finch": "rms-92",
    "raven": "rms-108", "hawk": "kal", "tern": "kal-88", "goose": "kal-110",
}  # fmt: skip
UNTIMED = tuple(speaker.name for speaker in SPEAKERS if speaker.teacher != "flite")
HELD_OUT_VOICES = ("heron",)
SHARES = (0.65, 0.15, 0.2)  # of what is learnt from: the built-in voices, the others, those who tell no times
BUILT_IN_SHARDS, OTHER_SHARDS, UNTIMED_SHARDS = 100, 16, 4


def shards() -> list[tuple[Shard, bool]]:
    """What the base says, in the order in which it is needed; with each whether it is on the grid."""
    speakers = {speaker.name: speaker for speaker in SPEAKERS}
    wanted = [
        (number, Shard(speakers[name], number), name in SPEAKER_OF.values())
        for names, count in (
            (SPEAKER_OF.values(), BUILT_IN_SHARDS),
            (OTHERS.values(), OTHER_SHARDS),
            (UNTIMED, UNTIMED_SHARDS),
        )
        for name in names
        for number in range(count)
    ]
    return [(shard, gridded) for _, shard, gridded in sorted(wanted, key=lambda one: one[0])]


def voices(work: Path, space: LatentSpace) -> list[Voice]:
    """Those that have said anything in `work` by now."""
    groups = (
        [_voice(work, name, speaker, _tags(work, name, space)) for name, speaker in SPEAKER_OF.items()],
        [_voice(work, name, speaker, {}) for name, speaker in OTHERS.items()],
        [_voice(work, name, name, {}) for name in UNTIMED],
    )
    heard = [[voice for voice in group if voice.utterances] for group in groups]
    return [
        replace(voice, weight=share / len(group)) for group, share in zip(heard, SHARES, strict=True) for voice in group
    ]


def _voice(work: Path, name: str, speaker: str, tags: dict[str, np.ndarray]) -> Voice:
    paths = sorted((work / "utterances" / speaker).glob("[0-9]*[0-9].npz"))
    return Voice(name, [one for path in paths for one in stored(path)], tags, name in SPEAKER_OF)


def _tags(work: Path, name: str, space: LatentSpace) -> dict[str, np.ndarray]:
    """The frames of each tag's sound, (n, 7); made once."""
    path = work / "utterances" / f"tags-{name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sounds = {tag: torch.from_numpy(framed(tag_sound(tag, SPEAKER_OF[name])))[None] for tag in TAGS}
        frames = [interleaved(space.codes(space.of(sound))) for sound in sounds.values()]
        np.savez(path, frames=np.concatenate(frames), lengths=[len(one) for one in frames])
    with np.load(path) as kept:
        clips = np.split(kept["frames"].astype(np.int64), np.cumsum(kept["lengths"])[:-1])
    return dict(zip(TAGS, clips, strict=True))
