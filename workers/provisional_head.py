"""The head of an utterance, spoken before the codec's lookahead allows it and mended as the codes come in.

The first exact sample needs about 200 ms of codes beyond it. Until they are there, a copy of the decoder's state can be
run past the known codes; what comes out is near the truth where few unknown codes are audible, and worse towards the
end of what is known. `HeadRamp` says how much of it to speak, `SampleJoin` fades each provisional packet into its
better successor and the last into the exact stream. No sample is spoken twice and none is left out.

It knows no torch and no codec, only samples and their positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class HeadRamp:
    """How many samples may have been spoken, provisionally, when so many frames are known.

    The defaults are the ramp R14: with 14 tokens (two frames) one frame is spoken, then half of what is known, until
    the exact stream is further. Each packet so has more codes ahead of it than the one before.
    """

    first_frames: int = 2
    share: float = 0.5
    fade_samples: int = 128

    def samples(self, frames: int, samples_per_frame: int) -> int:
        return 0 if frames < self.first_frames else int(frames * samples_per_frame * self.share)


@cache
def _rise(fade_samples: int) -> Samples:
    return ((np.arange(fade_samples) + 1) / (fade_samples + 1)).astype(np.float32)


class SampleJoin:
    """Makes one stream of one utterance's exact and provisional samples.

    Both arrive as consecutive samples; `spoken` counts those given back so far, which are final.
    """

    def __init__(self, fade_samples: int) -> None:
        self.spoken = 0
        self._rise = _rise(fade_samples)
        self._fading: Samples = np.empty(0, dtype=np.float32)

    def exact(self, start: int, samples: Samples) -> Samples:
        """Take exact samples from position `start` ≤ `spoken` on; gives those not yet spoken."""
        return self._speak(samples[self.spoken - start :])

    def provisional(self, samples: Samples) -> Samples:
        """Take provisional samples from position `spoken` on; the last `fade_samples` are kept back for the fade."""
        fade = len(self._rise)
        out = self._speak(samples[:-fade])
        self._fading = samples[-fade:].copy()
        return out

    def _speak(self, samples: Samples) -> Samples:
        count = min(len(self._fading), len(samples))
        if count:
            weight = self._rise[-len(self._fading) :][:count]
            samples = samples.copy()
            samples[:count] += (self._fading[:count] - samples[:count]) * (1 - weight)
            self._fading = self._fading[count:]
        self.spoken += len(samples)
        return samples
