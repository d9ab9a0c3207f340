"""When a turn ended, as a client tells it, and what the ledger makes of it."""

from __future__ import annotations

import pytest

from app.speech.latency import Ledger
from app.speech.turn import MAX_TURN_S, Turn

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("ended_at", "sent_at", "age_s"),
    [
        (NOW - 0.5, None, 0.5),
        (NOW - 0.5, NOW - 0.1, 0.4),  # 0.1 s on its way
        (NOW + 3600 - 0.5, NOW + 3600, 0.5),  # a clock that is an hour ahead
        (NOW + 3600, None, None),
        (NOW - MAX_TURN_S - 1, None, None),
        (NOW, NOW - 1, None),
    ],
)
def test_a_turn_is_as_old_as_the_clients_clock_says_within_bounds(
    ended_at: float, sent_at: float | None, age_s: float | None
) -> None:
    assert Turn(ended_at=ended_at, sent_at=sent_at).age_s(NOW) == (None if age_s is None else pytest.approx(age_s))


def test_the_ledger_counts_from_the_end_of_the_turn() -> None:
    ledger = Ledger().at_the_edge(10.0, 10.25, 10.6)
    assert (ledger.turn_text_ms, ledger.first_audio_ms, ledger.turn_ms) == (250, 350, 600)


def test_a_part_whose_moments_are_not_known_is_left_as_it_was() -> None:
    ledger = Ledger(first_audio_ms=7).at_the_edge(None, None, 10.6)
    assert (ledger.turn_text_ms, ledger.first_audio_ms, ledger.turn_ms) == (None, 7, None)
