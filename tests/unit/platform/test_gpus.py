"""The cards that nvidia-smi tells of, and who gets which."""

from __future__ import annotations

import pytest

from app.errors import ConfigurationError
from app.platform.gpus import look, seat, visible
from app.platform.profiles import ModelSize
from tests.support.cards import H200, L40S, cards

ORPHEUS = ModelSize(parameters=3_300_000_000, kv_bytes_per_token=114_688)


def test_a_machine_without_the_tool_has_no_card() -> None:
    assert look(lambda: None) == ()
    assert look(lambda: "No devices were found\n") == ()


def test_a_card_that_says_no_numbers_is_passed_over() -> None:
    broken = "1, GPU-x, NVIDIA L40S, 580.95.05, [N/A], [GPU requires reset], [N/A]\n"
    assert [gpu.index for gpu in look(lambda: broken + L40S)] == [0]


def test_cuda_visible_devices_chooses_by_number_or_name_in_its_order() -> None:
    three = cards(3)
    assert visible(three, None) == three
    assert visible(three, "") == ()
    assert [gpu.index for gpu in visible(three, "2,GPU-0")] == [2, 0]
    assert [gpu.index for gpu in visible(three, "1,7,0")] == [1], "CUDA stops at the first it does not know"


def test_each_worker_has_a_card_of_its_own_and_the_trainer_one_that_is_left() -> None:
    seating = seat(cards(4), 3, model=ORPHEUS)
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in seating.workers] == ["0", "1", "2"]
    assert {place.environment["CUDA_DEVICE_ORDER"] for place in seating.workers} == {"PCI_BUS_ID"}
    assert seating.trainer.environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert {place.share for place in seating.workers} == {None}


def test_where_no_card_is_left_the_last_worker_shares_its_with_the_trainer() -> None:
    seating = seat(cards(2), 2, model=ORPHEUS)
    first, last = seating.workers
    assert seating.trainer.gpu == last.gpu
    assert "CARILLON_ENGINE__GPU_MEMORY_UTILIZATION" not in first.environment
    assert 0.5 < float(last.environment["CARILLON_ENGINE__GPU_MEMORY_UTILIZATION"]) < 0.85
    assert "worker-2 on card 1 (NVIDIA L40S)" in seating.words()


def test_more_workers_than_cards_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigurationError, match=r"3 workers and 2 card.*UTILIZATION=0\.42"):
        seat(cards(2), 3, model=ORPHEUS)


def test_workers_share_a_card_where_their_shares_are_set_and_fit() -> None:
    seating = seat(cards(1, H200), 2, model=ORPHEUS, share=0.4)
    assert [place.environment["CARILLON_ENGINE__GPU_MEMORY_UTILIZATION"] for place in seating.workers] == ["0.40"] * 2
    with pytest.raises(ConfigurationError, match=r"2 workers on card 0 .* with 60%"):
        seat(cards(1, H200), 2, model=ORPHEUS, share=0.6)


def test_a_fleet_without_workers_has_a_card_for_its_trainer() -> None:
    assert seat(cards(2), 0).trainer.gpu.index == 0


def test_no_card_left_is_said() -> None:
    with pytest.raises(ConfigurationError, match="CUDA_VISIBLE_DEVICES"):
        seat((), 1)
