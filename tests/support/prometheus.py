"""A real Prometheus (`apt-get install prometheus`) with our configuration and rules, on processes of this machine."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from app.local.embedded import LOOPBACK, free_port

OBSERVABILITY = Path(__file__).parents[2] / "compose" / "observability"


def configuration(targets: Mapping[str, str], scrape_s: float) -> dict[str, Any]:
    """Ours, with a `host:port` for each of its jobs in place of the names that are looked up in a network."""
    ours = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text("utf-8"))
    often = f"{scrape_s * 1000:.0f}ms"
    jobs = [job["job_name"] for job in ours["scrape_configs"]]
    return {
        "global": {"scrape_interval": often, "evaluation_interval": often},
        "rule_files": [str(OBSERVABILITY / file) for file in ours["rule_files"]],
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [targets[job]]}]} for job in jobs],
    }


@asynccontextmanager
async def prometheus(
    directory: Path, targets: Mapping[str, str], *, scrape_s: float
) -> AsyncIterator[httpx.AsyncClient]:
    """Scraping while the context lasts; gives a client of its HTTP API, which may not answer yet."""
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration(targets, scrape_s)))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/tsdb",
        f"--web.listen-address={LOOPBACK}:{port}",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}/api/v1", trust_env=False) as client:
            yield client
    finally:
        process.kill()
        await process.wait()


async def asked(client: httpx.AsyncClient, call: str, **parameters: str | float) -> list[dict[str, Any]]:
    """The series that a `query` or `query_range` finds. Raises AssertionError for one that Prometheus does not take."""
    answer = (await client.get(f"/{call}", params=parameters)).json()
    assert answer["status"] == "success", (parameters, answer)
    return answer["data"]["result"]
