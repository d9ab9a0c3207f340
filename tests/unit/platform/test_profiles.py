"""What a worker takes on, by its device: the laptop's figures on a CPU, and by memory on cards that were never here."""

from __future__ import annotations

import pytest

from app.platform import profiles
from app.platform.profiles import GIB, Card, EngineProfile, ModelSize, engine_profile, serving_bytes, worker_share
from app.platform.settings import EngineSettings, Settings
from tests.support.cards import A10G, H200, L40S, T4, card

ORPHEUS = ModelSize(parameters=3_300_000_000, kv_bytes_per_token=114_688)


def on(answer: str, share: float | None = None) -> EngineProfile:
    return engine_profile("cuda", card=card(answer).card, model=ORPHEUS, share=share)


def test_a_cpu_keeps_the_figures_of_a_laptop() -> None:
    assert engine_profile("cpu") == profiles.CPU
    assert (profiles.CPU.capacity, profiles.CPU.max_loras, profiles.CPU.stream_interval) == (4, 4, 7)


@pytest.mark.parametrize(("answer", "sessions", "slots"), [(H200, 128, 32), (L40S, 32, 16), (A10G, 16, 8), (T4, 8, 4)])
def test_a_card_carries_what_its_memory_lets_it(answer: str, sessions: int, slots: int) -> None:
    profile = on(answer)
    assert (profile.capacity, profile.max_loras) == (sessions, slots)
    assert (profile.max_num_seqs, profile.max_cpu_loras, profile.stream_interval) == (sessions, 4 * slots, 7)


def test_a_small_share_of_a_card_carries_fewer_sessions_but_never_none() -> None:
    assert 1 < on(A10G, share=0.5).capacity < on(A10G).capacity
    assert on(T4, share=0.3).capacity == 1


def test_what_is_set_wins_over_the_profile() -> None:
    settings = Settings(capacity=5, engine=EngineSettings(max_loras=200, stream_interval=14))
    profile = settings.over(on(L40S))
    assert (profile.capacity, profile.max_num_seqs, profile.max_loras, profile.stream_interval) == (5, 5, 200, 14)
    assert profile.max_cpu_loras == 200, "every slot's adapter is in host memory, too"
    assert profile.gpu_memory_utilization == 0.85
    assert Settings(engine=EngineSettings(max_num_seqs=3)).over(on(L40S)).capacity == 32


def test_without_settings_the_profile_stands() -> None:
    assert Settings().over(on(H200)) == on(H200)


@pytest.mark.parametrize("answer", [H200, L40S])
def test_a_worker_leaves_the_trainer_beside_it_what_a_training_takes(answer: str) -> None:
    gpu = card(answer)
    share = worker_share(gpu.card, ORPHEUS, trainer=True)
    left = gpu.total_bytes * (1 - share) - profiles.CODEC_BYTES
    assert left >= ORPHEUS.training_bytes
    assert share * gpu.total_bytes > serving_bytes(ORPHEUS, gpu.card, slots=16)


def test_where_a_training_does_not_fit_beside_it_a_worker_has_the_card() -> None:
    small = Card(16 * GIB)
    assert worker_share(small, ORPHEUS, trainer=True) == worker_share(small, ORPHEUS) == 0.85
