from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.speech.audio import Samples
from app.speech.utterance_checks import better, checked, clipped_share, likely_lengths_s
from tests.support.synthetic_speaker import RATE_HZ, Throat

TEXT = "The ferry crosses the bay every hour, and nobody has ever missed the last one of the evening."
WREN = Throat(pitch_hz=180, head_s=0.6)


def flags(samples: Samples, *, text: str = TEXT, **fields: Any) -> tuple[str, ...]:
    return checked(samples, RATE_HZ, text, **{"complete": True, "repeated_s": 0.6, **fields})


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE_HZ), np.float32)


def speech(text: str = TEXT, **how: Any) -> Samples:
    return Throat(**{"pitch_hz": 180, **how}).say(text).samples


def test_good_speech_fails_nothing_at_its_own_pace_or_anybodys() -> None:
    assert flags(speech()) == ()
    assert flags(speech(), seconds_per_char=0.06) == ()


def test_silence_around_speech_is_no_fault() -> None:
    assert flags(np.concatenate([silence(4), speech(), silence(6)]), seconds_per_char=0.06) == ()


def test_speech_that_was_cut_is_unfinished() -> None:
    assert flags(speech(), complete=False) == ("unfinished",)


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_missing_words_make_it_too_short(share: float) -> None:
    whole = speech()
    assert flags(whole[: int(share * len(whole))], seconds_per_char=0.06) == ("too_short",)


def test_at_no_known_pace_a_few_words_of_many_are_too_short() -> None:
    assert flags(speech(seconds_per_char=0.025)) == ("too_short",)
    assert flags(speech(seconds_per_char=0.045)) == ()


def test_rambling_is_too_long() -> None:
    assert flags(speech(seconds_per_char=0.13), seconds_per_char=0.06) == ("too_long",)
    assert flags(speech(seconds_per_char=0.13)) == ()
    assert flags(speech(seconds_per_char=0.2)) == ("too_long",)


def test_a_hole_in_speech_is_found_and_a_pause_is_none() -> None:
    assert flags(speech(pause_s=1.0)) == ()
    assert flags(speech(pause_s=2.0)) == ("silence",)


@pytest.mark.parametrize("quiet", [silence(5), 1e-4 * np.ones(5 * RATE_HZ, np.float32), silence(0)], ids=len)
def test_no_speech_at_all_is_silence_and_too_short(quiet: Samples) -> None:
    assert flags(quiet) == ("too_short", "silence")


def test_codes_that_repeat_for_longer_than_a_pause_are_reported() -> None:
    assert flags(speech(), repeated_s=1.5) == ()
    assert flags(speech(), repeated_s=1.6) == ("repetition",)


def test_clipping_is_reported_and_a_single_peak_is_not() -> None:
    loud = np.clip(6 * speech(), -1, 1)
    assert clipped_share(loud) > 0.001
    assert flags(loud) == ("clipping",)
    peak = speech()
    peak[RATE_HZ] = 1.0
    assert flags(peak) == ()


@pytest.mark.parametrize("text", ["Hm.", "No.", "Why?", "Chapter one."])
def test_the_shortest_texts_pass_however_briefly_they_are_said(text: str) -> None:
    assert flags(speech(text, seconds_per_char=0.05), text=text, seconds_per_char=0.07) == ()
    assert flags(np.concatenate([silence(0.6), speech("x" * 20)]), text=text, seconds_per_char=0.07) == ()


def test_a_character_that_is_a_syllable_takes_its_time() -> None:
    shortest_s, longest_s = likely_lengths_s("今天天气很好我们去公园吧")
    assert shortest_s < 12 * 0.2 < longest_s
    assert likely_lengths_s("x" * 12)[1] < longest_s


def test_of_two_takes_the_one_with_all_its_words_is_better_then_the_one_with_fewer_faults() -> None:
    worst_last = [(), ("silence",), ("silence", "clipping"), ("unfinished",), ("unfinished", "silence")]
    worst_last += [("too_short", "silence")]
    for place, flags in enumerate(worst_last):
        assert not any(better(other, than=flags) for other in worst_last[place:])
        assert all(better(other, than=flags) for other in worst_last[:place])
