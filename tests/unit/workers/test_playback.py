"""How far ahead a listener is, and which sessions hurry."""

from __future__ import annotations

from workers.playback import HURRIED_FRAMES, HURRIED_LEAD_S, Haste, Playback

RATE_HZ = 24_000
FRAME = 2048


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def hurried_frames(haste: Haste, playback: Playback, clock: Clock, *, pace: float, frames: int) -> int:
    """How many of so many frames are decoded alone, if the engine writes them at `pace` times real time."""
    alone = waiting = 0
    for _ in range(frames):
        clock.now_s += FRAME / RATE_HZ / pace
        waiting += 1
        hurried = haste.hurried
        if hurried or waiting == 4:
            alone += hurried
            haste.decoded(waiting)
            playback.sent(waiting * FRAME)
            waiting = 0
    return alone


def test_a_session_hurries_until_its_listener_has_enough() -> None:
    clock = Clock()
    playback = Playback(RATE_HZ, clock)
    haste = Haste(playback, patient=False)
    alone = hurried_frames(haste, playback, clock, pace=1.5, frames=200)
    assert 0 < alone < HURRIED_FRAMES
    assert playback.lead_s > HURRIED_LEAD_S


def test_a_session_that_cannot_catch_up_costs_no_more_than_one_that_keeps_up() -> None:
    clock = Clock()
    playback = Playback(RATE_HZ, clock)
    haste = Haste(playback, patient=False)
    assert hurried_frames(haste, playback, clock, pace=0.9, frames=200) == HURRIED_FRAMES
    assert hurried_frames(haste, playback, clock, pace=0.9, frames=200) == 0, "nor later"


def test_it_hurries_again_once_it_has_caught_up_and_after_a_pause() -> None:
    clock = Clock()
    playback = Playback(RATE_HZ, clock)
    haste = Haste(playback, patient=False)
    hurried_frames(haste, playback, clock, pace=0.9, frames=200)
    playback.sent(RATE_HZ)
    assert not haste.hurried
    clock.now_s += 2
    assert haste.hurried
    hurried_frames(haste, playback, clock, pace=0.9, frames=200)
    clock.now_s += 1
    assert not haste.hurried
    haste.begin()
    assert haste.hurried


def test_a_patient_session_never_hurries() -> None:
    clock = Clock()
    assert not Haste(Playback(RATE_HZ, clock), patient=True).hurried
