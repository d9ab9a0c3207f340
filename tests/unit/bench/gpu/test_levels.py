"""How many streams a card carries: what a level is, and which comes next."""

from __future__ import annotations

import pytest

from app.bench.gpu.levels import Heard, figures_of, next_level

WANTED = (32, 64, 128)


def heard(first_s: float = 0.1, *, silence_s: float = 0.0, dry_s: float = 0.0) -> Heard:
    return Heard(started_s=0.0, first_s=first_s, head_silence_s=silence_s, dry_s=dry_s)


def test_silence_at_the_head_counts_until_the_first_sound() -> None:
    assert heard(0.1, silence_s=0.6).audible_ms == pytest.approx(700)


def test_a_listener_runs_dry_where_packets_come_later_than_the_last_has_played() -> None:
    listener = Heard(started_s=0.0)
    listener.take(24_000, now_s=1.0)
    listener.take(24_000, now_s=1.5)
    assert listener.dry_s == 0
    listener.take(24_000, now_s=3.25)
    assert listener.dry_s == pytest.approx(0.25)
    assert listener.first_s == 1.0


@pytest.mark.parametrize(
    ("sessions", "holds"),
    [
        ([heard()] * 100, True),
        ([heard()] * 90 + [heard(0.3)] * 10, False),
        ([heard()] * 98 + [heard(dry_s=0.01)] * 2, False),
        ([heard()] * 99 + [Heard(0.0, error="refused")], True),
        ([heard()] * 98 + [Heard(0.0, error="refused")] * 2, False),
    ],
    ids=["all in time", "late", "two ran dry", "one failed", "two failed"],
)
def test_a_level_holds_within_both_limits(sessions: list[Heard], holds: bool) -> None:
    assert figures_of(sessions)["holds"] is holds


def test_levels_rise_until_one_does_not_hold_then_the_gap_is_halved() -> None:
    tried: dict[int, bool] = {}
    while (streams := next_level(WANTED, tried)) is not None:
        tried[streams] = streams <= 100
    assert list(tried) == [32, 64, 128, 96, 112]


def test_where_the_first_level_is_too_high_lower_ones_are_tried() -> None:
    tried: dict[int, bool] = {}
    while (streams := next_level(WANTED, tried)) is not None:
        tried[streams] = streams <= 10
    assert list(tried) == [32, 16, 8]


def test_where_all_hold_there_is_nothing_more_to_try() -> None:
    assert next_level(WANTED, dict.fromkeys(WANTED, True)) is None
