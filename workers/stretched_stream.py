"""A stream of the decoder whose audio is played faster or slower, as `<prosody rate>` asks for.

The same codes give the same samples, however they are parted: a worker that goes on with a chunk meets the very sample
at which the one before stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from workers.decoder import DecodeStream

    AudioStream: TypeAlias = "DecodeStream | StretchedStream"


def at_rate(stream: DecodeStream, rate: float, sample_rate_hz: int) -> AudioStream:
    """The stream itself where its tempo stays."""
    return stream if rate == 1 else StretchedStream(stream, sample_rate_hz, rate)


class StretchedStream:
    """`stream` at `rate` times its tempo, with the pitch it has. Its audio comes up to 90 ms late."""

    def __init__(self, stream: DecodeStream, sample_rate_hz: int, rate: float) -> None:
        from app.platform.tempo import Tempo

        self._stream = stream
        self._tempo = Tempo(sample_rate_hz, rate)

    async def push(
        self, codes: Sequence[int], *, final: bool, deadline_s: float | None, provisional: bool
    ) -> NDArray[np.float32]:
        """The audio that these codes complete; `final` ends it. It has no provisional head."""
        audio = self._tempo.push(await self._stream.push(codes, final=final, deadline_s=deadline_s, provisional=False))
        return np.concatenate((audio, self._tempo.finish())) if final else audio

    def close(self) -> None:
        self._stream.close()
