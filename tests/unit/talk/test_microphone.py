"""When audio was spoken that arrives in bursts, and the detector on a recorded voice."""

from __future__ import annotations

import numpy as np
import pytest

from app.talk.microphone import BURST_S, MOST_LATE_S, Microphone, RealTime, SpokenClock
from app.talk.speech_detector import RATE_HZ, WINDOW_S, SpeechDetector
from app.talk.turn_taking import Hold, Release, Think, TurnRules, TurnTaking
from tests.support.talk_peer import question

BARGE_IN_S = 0.2
"""From the first sound of a person who interrupts to the answer's silence."""


def test_windows_that_arrive_together_were_spoken_one_after_the_other() -> None:
    clock = SpokenClock()
    clock.window(10.0, 0.032)
    together = [clock.window(10.096, 0.032) for _ in range(3)]
    assert together == pytest.approx([10.032, 10.064, 10.096], abs=0.001)


def test_no_window_comes_before_it_was_spoken() -> None:
    clock = SpokenClock()
    clock.window(10.0, 0.032)
    assert clock.window(10.001, 0.032) == 10.001


def test_a_stream_that_stood_still_goes_on_from_now() -> None:
    clock = SpokenClock()
    clock.window(10.0, 0.032)
    assert clock.window(60.0, 0.032) == pytest.approx(60.0 - MOST_LATE_S)


def test_a_clock_that_runs_a_little_slower_is_followed() -> None:
    clock, now, spoken = SpokenClock(), 10.0, 10.0
    for _ in range(20_000):
        now += 0.032 * 1.0002
        spoken = clock.window(now, 0.032)
    assert now - spoken < 0.01


def test_whoever_sends_faster_than_people_speak_is_heard_in_part() -> None:
    flow = RealTime()
    taken = sum(flow.admits(100.0 + second / 100, 1.0) for second in range(500))  # a second each 10 ms, for 5 s
    assert BURST_S <= taken <= BURST_S + 5


def test_a_microphone_is_heard_whole() -> None:
    flow = RealTime()
    assert all(flow.admits(100.0 + packet * 0.02, 0.02) for packet in range(10_000))


def test_a_microphone_of_another_rate_is_heard_at_ours() -> None:
    microphone = Microphone(48_000)
    given = sum(len(microphone.take(np.zeros(960, np.int16))) for _ in range(50))
    assert given == pytest.approx(RATE_HZ, abs=RATE_HZ // 50)


def test_silence_and_a_noisy_room_are_no_speech() -> None:
    room = (np.random.default_rng(0).normal(0, 0.01, 2 * RATE_HZ) * 32767).astype(np.int16)
    assert not any(window.speaking for window in SpeechDetector().windows(np.zeros(RATE_HZ, np.int16)))
    assert not any(window.speaking for window in SpeechDetector().windows(room))


@pytest.mark.parametrize("offset", [0, 170, 340])
def test_a_recorded_voice_stops_an_answer_within_the_promised_time(offset: int) -> None:
    turns, detector = TurnTaking(TurnRules()), SpeechDetector()
    silence = np.zeros(RATE_HZ + offset, np.int16)
    asked = np.concatenate([silence, question("count"), np.zeros(RATE_HZ, np.int16)])
    began_s = (len(asked) + len(silence)) / RATE_HZ
    now, done = 0.0, []
    for window in detector.windows(np.concatenate([asked, silence, question("other")])):
        now += WINDOW_S
        actions = turns.hear(now, speaking=window.speaking, sounding=window.sounding)
        if any(isinstance(action, Think) for action in actions):
            actions = turns.recognised(now, turns.attempt, "Count to three, please.")
        done += [(now, type(action)) for action in actions]
    assert Release in [action for _, action in done]
    [held_at, *_] = [at for at, action in done if action is Hold]
    assert 0 < held_at - began_s <= BARGE_IN_S


def test_the_end_of_a_recorded_voice_is_found_to_a_window_or_two() -> None:
    turns = TurnTaking(TurnRules())
    voice = question("count")
    now = 0.0
    for window in SpeechDetector().windows(
        np.concatenate([np.zeros(RATE_HZ, np.int16), voice, np.zeros(8000, np.int16)])
    ):
        now += WINDOW_S
        turns.hear(now, speaking=window.speaking, sounding=window.sounding)
    loud = np.flatnonzero(np.abs(voice.astype(np.int32)) > 330)
    assert turns.last_speech_at - (1.0 + loud[-1] / RATE_HZ) == pytest.approx(0, abs=2.5 * WINDOW_S)
