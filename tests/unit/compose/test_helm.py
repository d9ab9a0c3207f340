"""The chart: what Helm makes of it, held to Kubernetes' own schemas, and what it promises.

Helm's engine comes in a wheel for Python 3.12 and newer. Where that is, the rendered cases are held to be current;
everywhere they are validated. Custom resources (KEDA, the Prometheus operator) have no schema here: they are looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.platform.settings import PREFIX, Settings
from tests.support.helm import CHART, HelmRefused, cases, merged, rendered

KUBERNETES = "1.33"
CUSTOM = {"ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject"}
SECRETS = {"DATABASE_URL", "REDIS_URL", "STORE__ACCESS_KEY", "STORE__SECRET_KEY", "KEY_PEPPER", "FLEET_SECRET"}

WRONG: dict[str, dict[str, Any]] = {
    "a misspelt name": {"frontDor": {}},
    "no tasks for webhooks": {
        "tasks": [{"name": "a", "queue": "render", "replicas": 1, "resources": {}, "scratch": "1Gi"}]
    },
    "no place for a session": {"workers": [{"name": "a", "places": 0}]},
    "a setting of another program": {"settings": {"PATH": "/"}},
}


def own_values() -> dict[str, Any]:
    return yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))


def check(values: dict[str, Any]) -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    jsonschema.Draft7Validator(schema).validate(merged(own_values(), values))


def manifests(case: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(case.read_text("utf-8")) if found]


def pods(case: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for found in manifests(case):
        if found["kind"] in ("Deployment", "Job"):
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]


each_case = pytest.mark.parametrize("case", [path for path, _ in cases()], ids=lambda path: path.stem)


@pytest.mark.parametrize("values", [values for _, values in cases()], ids=[path.stem for path, _ in cases()])
def test_the_schema_takes_the_cases(values: dict[str, Any]) -> None:
    check(values)


@pytest.mark.parametrize("values", list(WRONG.values()), ids=list(WRONG))
def test_the_schema_refuses_what_would_not_run(values: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(values)


@each_case
def test_what_is_rendered_is_valid(case: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for found in manifests(case):
        if found["kind"] not in CUSTOM:
            validator.validate(found, KUBERNETES, strict=True)


@pytest.mark.parametrize(("case", "values"), list(cases()), ids=[path.stem for path, _ in cases()])
def test_what_is_rendered_is_what_helm_makes(case: Path, values: dict[str, Any]) -> None:
    pytest.importorskip("helm_sdkpy", reason="Helm's engine comes for Python 3.12 and newer: helm-sdkpy")
    assert case.read_text("utf-8") == rendered(values), f"{case.name} is not current: python -m tests.support.helm"


@pytest.mark.parametrize("values", list(WRONG.values()), ids=list(WRONG))
def test_helm_refuses_what_the_schema_does(values: dict[str, Any]) -> None:
    pytest.importorskip("helm_sdkpy", reason="Helm's engine comes for Python 3.12 and newer: helm-sdkpy")
    with pytest.raises(HelmRefused, match="schema"):
        rendered(values)


@each_case
def test_secrets_are_named_and_never_copied(case: Path) -> None:
    for name, pod in pods(case):
        for container in pod["containers"]:
            given = {entry["name"]: entry for entry in container["env"]}
            for secret in SECRETS:
                assert "secretKeyRef" in given[PREFIX + secret]["valueFrom"], (name, secret)
    assert not [found for found in manifests(case) if found["kind"] == "Secret"]


@each_case
def test_every_variable_is_a_setting(case: Path) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name, pod in pods(case):
        for entry in pod["containers"][0]["env"]:
            variable = entry["name"].partition("__")[0]
            assert variable in known | {"POD_IP", "HF_TOKEN"}, (name, entry["name"])


@each_case
def test_no_process_is_root(case: Path) -> None:
    for name, pod in pods(case):
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False, name


@each_case
def test_a_worker_has_time_for_its_sessions_to_move(case: Path) -> None:
    for name, pod in pods(case):
        if "-worker-" in name:
            given = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}
            needed = sum(float(given[PREFIX + part] or 0) for part in ("DRAIN_TIMEOUT_S", "HANDOVER_TIMEOUT_S"))
            assert pod["terminationGracePeriodSeconds"] > needed, name


@each_case
def test_what_must_not_go_at_once_has_a_budget(case: Path) -> None:
    names = {found["metadata"]["name"] for found in manifests(case) if found["kind"] == "PodDisruptionBudget"}
    assert names == {name for name, _ in pods(case) if "-api" in name or "-worker-" in name}


def test_each_kind_of_worker_is_scaled_by_its_own_places_and_the_starts_of_its_model() -> None:
    case = next(path for path, _ in cases() if path.stem == "production")
    scaled = {found["metadata"]["name"]: found["spec"] for found in manifests(case) if found["kind"] == "ScaledObject"}
    assert scaled.keys() == {"carillon-worker-orpheus-h200", "carillon-worker-orpheus-l40s"}
    for name, spec in scaled.items():
        [trigger] = spec["triggers"]
        assert f'worker=~"{name}-.+"' in trigger["metadata"]["query"]
        assert 'carillon_starts_waiting{model="orpheus-3b-0.1-ft"}' in trigger["metadata"]["query"]
    thresholds = [float(spec["triggers"][0]["metadata"]["threshold"]) for spec in scaled.values()]
    assert thresholds == [75, 24], "places times the use that is aimed at"


def test_the_chart_brings_the_alerts_of_this_repository() -> None:
    assert (CHART / "files" / "alerts.yml").read_text() == (CHART.parent / "observability" / "alerts.yml").read_text()
