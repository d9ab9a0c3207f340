"""What `carillon demo` makes of its measurements."""

from __future__ import annotations

from app.cli.demo_sessions import PROMPTS, AudioSpan, MeasuredVoice, beside, prompts
from app.speech.latency import Ledger


def test_what_was_not_measured_is_left_out_of_the_medians_and_never_a_zero() -> None:
    ledgers = [
        Ledger(first_audio_ms=100, head_silence_ms=20),
        Ledger(first_audio_ms=300, head_silence_ms=40),
        Ledger(first_audio_ms=500, head_silence_ms=None),
    ]
    assert MeasuredVoice.of("slt", ledgers) == MeasuredVoice("slt", 3, 300, 30, 230)
    assert MeasuredVoice.of("slt", [Ledger()]) == MeasuredVoice("slt", 1, None, None, None)


def test_two_sessions_were_at_once_only_where_audio_of_both_came_in_one_stretch() -> None:
    first = AudioSpan("slt", audio_s=9.0, first_at=1.0, last_at=5.0)
    during, after = (AudioSpan("heron", audio_s=3.0, first_at=at, last_at=at + 2.5) for at in (3.0, 6.0))
    assert beside(first, during) == "two sessions at once, for 2.0 s: slt 9.0 s, heron 3.0 s of audio"
    assert beside(first, after).startswith("two sessions, not at once")
    assert beside(first, AudioSpan("heron")).startswith("two sessions, not at once")


def test_the_prompts_are_sentences_of_their_own() -> None:
    assert len(set(prompts())) == PROMPTS
    assert all(text.endswith((".", "?", "!")) for text in prompts())
