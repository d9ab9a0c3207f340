"""What a text sounds like when nothing happens to its session, to hold those against to which something does.

Where audio was sent ahead of the codec's lookahead, at the head of a chunk that a listener awaits, it may be a little
off (workers.provisional_head): how far depends on when each code came. Elsewhere it is the same audio, up to the
rounding of sums in batches of another size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.chaos.listener import Received
from tests.chaos.loose_fleet import LooseFleet
from tests.chaos.tale import TALE, VOICES

HEAD_SAMPLES = 4_096
"""Of a chunk, at most; measured with the stand-in: no head is provisional beyond 3,200."""

HEAD_TOLERANCE = 400
"""How far a provisional sample may be off, of 32,768."""

ROUNDING = 1


class Undisturbed:
    """Each text is spoken once, and kept."""

    def __init__(self, fleet: LooseFleet) -> None:
        self._fleet = fleet
        self._heard: dict[tuple[str, str], Received] = {}

    async def run(self, text: str = TALE, voice: str = VOICES[0]) -> Received:
        if (voice, text) not in self._heard:
            async with self._fleet.speaking(text, voice=voice) as listener:
                self._heard[voice, text] = await listener.done()
        return self._heard[voice, text]


def assert_same(received: Received, undisturbed: Received) -> None:
    """Every word and every sample of `undisturbed`, once and in order, and no error."""
    assert not received.errors, received.errors
    assert received.done and undisturbed.done
    assert received.text == undisturbed.text
    assert _spans(received) == _spans(undisturbed)
    assert received.done.samples == received.end_sample
    assert_same_audio(received.audio, undisturbed)


def assert_same_audio(audio: NDArray[np.int16], undisturbed: Received) -> None:
    assert len(audio) == undisturbed.end_sample
    errors = np.abs(audio.astype(np.int32) - undisturbed.audio)
    for segment in undisturbed.segments:
        head = segment.start_sample + HEAD_SAMPLES
        assert errors[segment.start_sample : head].max() <= HEAD_TOLERANCE, f"the head of {segment.text!r}"
        [wrong] = np.nonzero(errors[head : segment.end_sample] > ROUNDING)
        assert not len(wrong), f"{segment.text!r}: {len(wrong)} wrong samples, the first at {head + wrong[0]}"


def _spans(received: Received) -> list[tuple[str, int, int, bool]]:
    return [(s.text, s.start_sample, s.end_sample, s.complete) for s in received.segments]
