"""Where a worker computes, and what its engine gets of it; the cards are not here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.errors import EngineFailed
from app.local import processes
from app.local.up import cards_of
from app.platform.gpu_lease import CardLease, Claim
from app.platform.profiles import GIB
from app.platform.settings import STAND_IN, EngineSettings, Settings, StoreSettings
from tests.support.cards import L40S, FakeCard, card, cards
from workers.seat import card_memory, own_card, seat
from workers.vllm_config import engine_environment

MODEL = STAND_IN / "model"


@pytest.fixture(autouse=True)
def no_choice_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that what a test lets the code set is taken back as well.
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "VLLM_USE_FLASHINFER_SAMPLER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def shared() -> FakeCard:
    return FakeCard(card(L40S), free_gib=44)


@pytest.fixture
def trainer(tmp_path: Path, shared: FakeCard) -> Iterator[CardLease]:
    claim = Claim("the trainer", 13 * GIB, yields=True)
    lease = CardLease(tmp_path / "cards", shared.gpu, claim, free=lambda: shared.seen().free_bytes)
    assert list(lease.waits(pytest.fail)) == []
    yield lease
    lease.close()


def test_on_a_cpu_there_is_no_card_and_nothing_to_wait_for(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, capacity=2)
    profile, gpu = seat(settings, "cpu", MODEL)
    assert (profile.capacity, profile.max_loras, gpu) == (2, 4, None)
    with card_memory(settings, gpu, profile, "worker-1") as pauses:
        assert list(pauses) == []


def test_on_a_card_the_figures_are_the_cards_and_are_logged(
    tmp_path: Path, shared: FakeCard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    profile, gpu = seat(Settings(data_dir=tmp_path), "cuda", MODEL, shared.look)
    assert gpu == shared.seen()
    assert (profile.capacity, profile.stream_interval) == (32, 7)
    (record,) = (record for record in caplog.records if record.message == "worker profile")
    assert (record.__dict__["capacity"], record.__dict__["card"]) == (32, "NVIDIA L40S")


def test_a_worker_that_restarts_beside_a_trainer_waits_until_it_has_made_way(
    tmp_path: Path, shared: FakeCard, trainer: CardLease, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(data_dir=tmp_path)
    shared.free_gib = 31
    profile, gpu = seat(settings, "cuda", MODEL, shared.look)
    with card_memory(settings, gpu, profile, "worker-1", shared.look) as pauses:
        next(pauses)
        assert trainer.wanted() == "worker-1"
        trainer.close()
        shared.free_gib = 44
        assert list(pauses) == []
    (record,) = (record for record in caplog.records if record.message == "card memory awaited")
    assert "held by the trainer (13.0 GiB)" in record.__dict__["reason"]


def test_a_card_that_other_programs_keep_ends_the_start_with_which_has_what(tmp_path: Path, shared: FakeCard) -> None:
    settings = Settings(data_dir=tmp_path, engine=EngineSettings(startup_timeout_s=60))
    shared.free_gib = 5
    profile, gpu = seat(settings, "cuda", MODEL, shared.look)
    with (
        card_memory(settings, gpu, profile, "worker-1", shared.look) as pauses,
        pytest.raises(EngineFailed, match=r"worker-1 waits for .* 5\.0 GiB are free"),
    ):
        list(pauses)


def test_of_several_cards_a_worker_takes_one_that_no_other_has(tmp_path: Path) -> None:
    settings, taken = Settings(data_dir=tmp_path), []
    with own_card(settings, lambda: cards(2)):
        taken.append(os.environ.pop("CUDA_VISIBLE_DEVICES"))
        with own_card(settings, lambda: cards(2)):
            taken.append(os.environ.pop("CUDA_VISIBLE_DEVICES"))
    assert taken == ["0", "1"]


def test_the_card_that_was_chosen_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with own_card(Settings(data_dir=tmp_path), lambda: cards(2)):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert not (tmp_path / "cards").exists()


def test_up_gives_each_worker_a_card_and_says_what_it_takes_on(tmp_path: Path) -> None:
    reported: list[str] = []
    workers, trainer = cards_of(Settings(data_dir=tmp_path), 2, MODEL, reported.append, cards(2))
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in workers] == ["0", "1"]
    assert trainer["CUDA_VISIBLE_DEVICES"] == "1"
    assert "32 sessions, 16 LoRA slots" in reported[1]


def test_up_on_a_machine_without_a_card_changes_nothing(tmp_path: Path) -> None:
    assert cards_of(Settings(data_dir=tmp_path), 2, MODEL, pytest.fail, ()) == ([{}, {}], {})


def test_no_sampler_is_compiled_at_run_time_unless_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_environment(EngineSettings(), "cuda")["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")
    assert engine_environment(EngineSettings(), "cuda")["VLLM_USE_FLASHINFER_SAMPLER"] == "1"


def test_children_find_this_environments_programs(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path, redis_url=SecretStr("redis://x"), store=StoreSettings(endpoint_url="http://x")
    )
    own = str(Path(sys.executable).parent)
    for environment in (engine_environment(EngineSettings(), "cuda"), processes.environment(settings)):
        assert environment["PATH"].split(os.pathsep)[0] == own
