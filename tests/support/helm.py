"""Helm itself, from a wheel: what the chart becomes with given values. `python -m tests.support.helm` renders all.

The wheel (helm-sdkpy, for Python 3.12 and newer; unpacked into a folder of PYTHONPATH it serves 3.11, too)
has Helm's engine and no `template`: it installs into a cluster. So a copy of the chart is installed whose one template
fails with the text of the others; all it needs of a cluster is its version, which `_Cluster` tells.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "compose" / "helm"
CASES = Path(__file__).parents[1] / "unit" / "compose" / "helm"
"""For each case its values, `NAME.values.yaml`, and what becomes of them, `NAME.yaml`."""

BEGIN = "RENDERED "


class HelmRefused(Exception):
    """What Helm has against the chart or its values."""


class _Cluster(BaseHTTPRequestHandler):
    """As much of Kubernetes as Helm asks before it renders."""

    ANSWERS = {  # noqa: RUF012
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": []},
    }

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        answer = self.ANSWERS.get(path, {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []})
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As Helm does it: mappings are merged, all else is replaced."""
    both = {**values}
    for name, value in over.items():
        old = both.get(name)
        both[name] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


@contextmanager
def _cluster() -> Iterator[str]:
    """A kubeconfig for it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Cluster)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    named = {"cluster": "here", "user": "me"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "here", "context": named}],
        "users": [{"name": "me", "user": {}}],
    }
    try:
        yield yaml.safe_dump(config)
    finally:
        server.shutdown()
        server.server_close()


def rendered(values: dict[str, Any]) -> str:
    """All manifests with these values over the chart's own. Raises HelmRefused."""
    pieces = []
    with tempfile.TemporaryDirectory() as directory, _cluster() as kubeconfig:
        chart = Path(directory) / "carillon"
        shutil.copytree(CHART, chart)
        templates = sorted((chart / "templates").glob("*.yaml"))
        (chart / "asked").mkdir()
        for template in templates:
            template.rename(chart / "asked" / template.name)
        for template in templates:
            asking = f'{{{{ fail (printf "{BEGIN}%s" (tpl (.Files.Get "asked/{template.name}") .)) }}}}'
            (chart / "templates" / "asked.yaml").write_text(asking, encoding="utf-8")
            if text := _install(chart, values, kubeconfig).strip():
                pieces.append(f"# {template.name}\n{text}\n")
    return "---\n".join(pieces)


def _install(chart: Path, values: dict[str, Any], kubeconfig: str) -> str:
    from helm_sdkpy import Configuration, HelmError, Install  # type: ignore[import-not-found]

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(kubeconfig)
        file.flush()
        try:
            installing = Install(Configuration(kubeconfig=file.name, namespace="speech"))
            asyncio.run(installing.run("carillon", str(chart), values=values, wait=False))
        except HelmError as error:
            _, found, text = str(error).partition(BEGIN)
            if not found:
                raise HelmRefused(str(error)) from error
            return text
    raise HelmRefused("nothing was rendered")


def cases() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Where each case's manifests lie, and its values."""
    for case in sorted(CASES.glob("*.values.yaml")):
        yield case.with_name(case.name.replace(".values.yaml", ".yaml")), yaml.safe_load(case.read_text("utf-8")) or {}


if __name__ == "__main__":
    for path, values in cases():
        path.write_text(rendered(values), encoding="utf-8")
