"""The compose files, as far as they can be held to something without Docker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
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


def test_every_service_that_stays_says_whether_it_is_well() -> None:
    for name, service in services("compose.yaml").items():
        assert "healthcheck" in service or name == "migrate", name


def test_what_is_secret_comes_by_files_that_the_script_makes() -> None:
    whole = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    made = (COMPOSE / "secrets.sh").read_text()
    for name, secret in whole["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
        assert f"once {name}" in made or f"> {name}" in made
    for name, service in whole["services"].items():
        assert set(service.get("secrets", ())) <= whole["secrets"].keys(), name
        for variable, value in service.get("environment", {}).items():
            secret = any(word in variable for word in ("PASSWORD", "SECRET", "PEPPER", "ACCESS_KEY"))
            assert not secret or str(value).startswith("/run/secrets/"), variable


def test_compose_files_follow_the_specification() -> None:
    specification = pytest.importorskip("compose_spec")
    known = {found.alias or name for name, found in specification.Service.model_fields.items()}
    for name in ("compose.yaml", "compose.gpu.yaml"):
        whole = yaml.safe_load((COMPOSE / name).read_text())
        parsed = specification.ComposeSpecification.model_validate({k: v for k, v in whole.items() if k[:2] != "x-"})
        assert parsed.services.keys() == whole["services"].keys()
        for service in whole["services"].values():
            assert service.keys() <= known, service.keys() - known


def test_the_dockerfile_is_lint_free() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not here: it is in the group `dev`")
    done = subprocess.run(
        [hadolint, "--no-color", "--ignore", "DL3008", COMPOSE / "Dockerfile"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
