"""Gaps that a listener would hear, and those that are not ours."""

from __future__ import annotations

import pytest

from app.realtime.underruns import PREBUFFER_S, Underruns

RATE_HZ = 24_000


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def underruns(clock: Clock) -> Underruns:
    return Underruns(RATE_HZ, clock)


def test_audio_that_comes_in_time_leaves_no_gap(underruns: Underruns, clock: Clock) -> None:
    underruns.begun()
    for _ in range(10):
        underruns.received(RATE_HZ // 10)
        clock.advance(0.1)
    assert underruns.count == 0


def test_audio_that_comes_late_within_a_chunk_is_a_gap_of_that_length(underruns: Underruns, clock: Clock) -> None:
    underruns.begun()
    underruns.received(RATE_HZ)
    clock.advance(1 + PREBUFFER_S + 0.5)
    underruns.received(RATE_HZ)
    clock.advance(1.25)
    underruns.received(RATE_HZ)
    assert underruns.count == 2
    assert underruns.seconds == pytest.approx(0.75)


def test_text_that_comes_late_is_no_gap_of_ours(underruns: Underruns, clock: Clock) -> None:
    underruns.begun()
    underruns.received(RATE_HZ)
    underruns.ended()
    clock.advance(5)
    underruns.begun()
    clock.advance(0.2)
    underruns.received(RATE_HZ)
    assert underruns.count == 0


def test_a_chunk_that_was_begun_in_time_and_comes_late_is_a_gap(underruns: Underruns, clock: Clock) -> None:
    underruns.begun()
    underruns.received(RATE_HZ)
    underruns.ended()
    clock.advance(0.5)
    underruns.begun()
    clock.advance(0.5 + PREBUFFER_S + 0.3)
    underruns.received(RATE_HZ)
    assert underruns.count == 1
    assert underruns.seconds == pytest.approx(0.3)


def test_after_a_cancel_the_listener_begins_again(underruns: Underruns, clock: Clock) -> None:
    underruns.begun()
    underruns.received(RATE_HZ)
    underruns.stopped()
    clock.advance(9)
    underruns.begun()
    underruns.received(RATE_HZ)
    assert underruns.count == 0
