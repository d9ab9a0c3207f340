"""The compose files, as far as they can be held to something without Docker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

COMPOSE = Path(__file__).parents[3] / "compose"


def services(name: str) -> dict[str, Any]:
    return yaml.safe_load((COMPOSE / name).read_text())["services"]


def test_workers_can_be_scaled_for_none_has_a_name_or_an_address_of_its_own() -> None:
    for name in ("compose.yaml", "compose.gpu.yaml"):
        worker = services(name)["worker"]
        assert not {"CARILLON_WORKER_ID", "CARILLON_WORKER_ADDRESS"} & worker["environment"].keys()
        assert not {"container_name", "hostname", "ports"} & worker.keys()
    assert services("compose.yaml")["worker"]["environment"]["CARILLON_WORKER_HOST"] == "0.0.0.0"


def test_worker_and_trainer_say_which_card_they_mean() -> None:
    for name in ("worker", "trainer"):
        service = services("compose.gpu.yaml")[name]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device["device_ids"] == [f"${{CARILLON_{name.upper()}_CARD:-0}}"]
        assert "count" not in device, "two counts of 1 both mean card 0"
        assert service["environment"]["CARILLON_DEVICE"] == "cuda"
        assert "cards:/data/cards" in service["volumes"], "they see each other's leases"


def test_a_card_decides_what_a_worker_takes_on_unless_it_is_set() -> None:
    environment = services("compose.gpu.yaml")["worker"]["environment"]
    assert environment["CARILLON_CAPACITY"] == "${CARILLON_CAPACITY:-}"
    assert environment["CARILLON_ENGINE__MAX_LORAS"] == "${CARILLON_ENGINE__MAX_LORAS:-}"
