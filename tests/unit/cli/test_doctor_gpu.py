"""What the doctor says of GPU hosts that are not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.cli import doctor_gpu
from app.cli.doctor_gpu import Host, examine
from app.cli.findings import Finding, Level
from app.platform.profiles import ModelSize
from app.platform.settings import EngineSettings, Settings
from tests.support.cards import A10G, H200, L40S, T4, card

HEADERS = Path("/usr/include/python3.11/Python.h")
GOOD = Host(
    gpus=(card(H200),),
    gpu_build=True,
    torch_cuda="13.0",
    torch_sees=True,
    compiler="/usr/bin/gcc",
    headers=HEADERS,
    has_headers=True,
)
ORPHEUS = Settings(model="canopylabs/orpheus-3b-0.1-ft")


def findings(host: Host, settings: Settings = ORPHEUS) -> dict[str, Finding]:
    found = list(examine(settings, host))
    for finding in found:
        assert finding.remedy or finding.level is Level.OK, finding
    return {finding.what: finding for finding in found}


def test_a_host_that_has_everything_is_well() -> None:
    found = findings(GOOD)
    assert {finding.level for finding in found.values()} == {Level.OK}
    assert found.keys() == {"driver", "compiler", "card 0", "fp8"}


def test_without_a_compiler_triton_cannot_start() -> None:
    found = findings(replace(GOOD, compiler=None))["compiler"]
    assert found.level is Level.FAILURE
    assert "apt-get install gcc" in found.remedy


def test_a_compiler_alone_does_not_do_without_pythons_headers() -> None:
    found = findings(replace(GOOD, has_headers=False))["headers"]
    assert found.level is Level.FAILURE
    assert str(HEADERS) in found.found
    assert "python3-dev" in found.remedy


def test_an_old_driver_is_named_with_the_one_that_is_needed() -> None:
    found = findings(replace(GOOD, gpus=(replace(card(H200), driver="550.163.01"),), torch_sees=False))["driver"]
    assert found.level is Level.FAILURE
    assert "550.163.01" in found.found
    assert "580" in found.remedy


def test_the_driver_is_measured_by_the_cuda_of_the_torch_that_is_here() -> None:
    host = replace(GOOD, gpus=(replace(card(H200), driver="535.104.05"),), torch_cuda="12.6")
    found = findings(host)
    assert found["driver"].level is Level.OK
    assert found["torch"].level is Level.FAILURE, "vLLM's own kernels are of CUDA 13"


def test_a_good_driver_that_torch_does_not_reach_is_no_success() -> None:
    found = findings(replace(GOOD, torch_sees=False))["driver"]
    assert found.level is Level.FAILURE
    assert "--gpus all" in found.remedy


def test_a_card_too_small_for_the_model_is_said_before_anything_is_fetched() -> None:
    found = findings(replace(GOOD, gpus=(replace(card(T4), total_bytes=8 * 1024**3),)))["card 0"]
    assert found.level is Level.FAILURE
    assert "8.0 GiB" in found.found
    assert "larger card" in found.remedy


def test_a_card_that_holds_the_worker_alone_says_that_a_training_waits() -> None:
    found = findings(replace(GOOD, gpus=(card(A10G),)))["card 0"]
    assert found.level is Level.WARNING
    assert "not a training (about 12 GiB)" in found.found


def test_a_share_that_leaves_the_codec_nothing_is_told_a_better_one() -> None:
    settings = ORPHEUS.model_copy(update={"engine": EngineSettings(gpu_memory_utilization=0.99)})
    found = findings(replace(GOOD, gpus=(card(L40S),)), settings)["card 0"]
    assert found.level is Level.WARNING
    assert "UTILIZATION=0.95" in found.remedy


@pytest.mark.parametrize(("quantization", "level"), [("auto", Level.OK), ("fp8_per_channel", Level.FAILURE)])
def test_fp8_is_asked_of_a_card_only_where_it_is_asked_for(quantization: str, level: Level) -> None:
    settings = ORPHEUS.model_copy(update={"engine": EngineSettings(quantization=quantization)})
    assert findings(replace(GOOD, gpus=(card(A10G),)), settings)["fp8"].level is level


def test_a_card_without_a_vllm_for_it_says_how_to_get_one() -> None:
    found = findings(replace(GOOD, gpu_build=False, torch_cuda=None, torch_sees=False))
    assert "CARILLON_BUILD=gpu" in found["vllm"].remedy


def test_a_machine_without_a_card_has_one_finding() -> None:
    bare = replace(GOOD, gpus=(), gpu_build=False, torch_cuda=None, torch_sees=False)
    assert findings(bare)["gpu"].level is Level.WARNING
    assert findings(bare, Settings(device="cuda"))["gpu"].level is Level.FAILURE
    assert findings(bare, Settings(device="cpu")) == {}


def test_a_checkpoint_that_is_here_is_measured_itself() -> None:
    assert findings(replace(GOOD, gpus=(card(T4),)), Settings())["card 0"].level is Level.OK
    assert ModelSize(3_300_000_000, 114_688) == doctor_gpu.ORPHEUS
