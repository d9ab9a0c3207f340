"""The answer's audio: held until it is released, paused, cut off, and counted as it leaves."""

from __future__ import annotations

import numpy as np

from app.talk.playout import BREATH_SAMPLES, FRAME_SAMPLES, Playout

FRAME = np.full(FRAME_SAMPLES, 3_000, "<i2").tobytes()
SILENCE = bytes(len(FRAME))


class Listener:
    """Pulls, and keeps what was called."""

    def __init__(self, lead_samples: int = 0) -> None:
        self.called: list[str] = []
        self.playout = Playout(
            ready=lambda: self.called.append("ready"),
            heard=lambda: self.called.append("heard"),
            over=lambda: self.called.append("over"),
            lead_samples=lead_samples,
        )


def test_nothing_is_heard_before_the_turn_is_sure() -> None:
    listener = Listener()
    listener.playout.put(FRAME)
    assert listener.playout.pull() is None
    listener.playout.release()
    assert listener.playout.pull() == FRAME
    assert listener.called == ["ready", "heard"]


def test_an_answer_is_over_when_all_of_it_has_left() -> None:
    listener = Listener()
    listener.playout.put(FRAME + FRAME[:100])
    listener.playout.release()
    listener.playout.pull()
    last = listener.playout.pull()
    assert last == FRAME[:100] + bytes(len(FRAME) - 100)
    assert listener.playout.pull() is None
    assert "over" not in listener.called
    listener.playout.end()
    listener.playout.pull()
    listener.playout.pull()
    assert listener.called == ["ready", "heard", "over"]


def test_silence_before_the_first_sound_is_left_out_and_counted_as_played() -> None:
    listener = Listener()
    listener.playout.release()
    for _ in range(10):
        listener.playout.put(SILENCE)
    assert listener.playout.pull() is None
    listener.playout.put(FRAME)
    assert listener.playout.pull() == bytes(2 * BREATH_SAMPLES)[: len(FRAME)]
    assert listener.playout.pull() == FRAME
    assert listener.playout.played_samples == 11 * FRAME_SAMPLES


def test_a_pause_loses_nothing() -> None:
    listener = Listener()
    listener.playout.put(FRAME * 2)
    listener.playout.release()
    listener.playout.pull()
    listener.playout.pause()
    assert listener.playout.pull() is None
    listener.playout.resume()
    assert listener.playout.pull() == FRAME


def test_what_was_cut_off_is_not_in_the_next_answer() -> None:
    listener = Listener()
    listener.playout.put(FRAME * 5)
    listener.playout.release()
    listener.playout.pull()
    listener.playout.clear()
    assert listener.playout.played_samples == 0
    listener.playout.put(FRAME)
    assert listener.playout.pull() is None


def test_what_is_on_its_way_has_not_been_heard() -> None:
    listener = Listener(lead_samples=2 * FRAME_SAMPLES)
    listener.playout.put(FRAME * 5)
    listener.playout.release()
    for _ in range(3):
        listener.playout.pull()
    assert listener.playout.played_samples == FRAME_SAMPLES


def test_an_answer_without_a_sound_is_over_all_the_same() -> None:
    listener = Listener()
    listener.playout.put(SILENCE)
    listener.playout.end()
    listener.playout.release()
    assert listener.playout.pull() is None
    assert listener.called == ["over"]
