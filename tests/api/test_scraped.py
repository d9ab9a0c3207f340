"""A real Prometheus scrapes a front door, a worker and a tasks process: rules and dashboards find what these did."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.platform.settings import MetricsSettings, NarrationSettings
from app.speech.latency import Ledger
from app.speech.protocol import Done
from tasks.metrics import answering
from tasks.survey import Queue, Survey
from tests.api.conftest import OpenHouse
from tests.support.deadlines import LONG_HANG_S
from tests.support.fakes import FakeEngine
from tests.support.processes import until_async
from tests.support.prometheus import asked, prometheus
from tests.support.session_client import sessions_client
from tests.unit.compose.test_observability import dashboards, queries
from tests.unit.tasks.test_metrics import CHILD
from tests.unit.workers.test_server import serving, session

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not here: apt-get install prometheus"),
]

SCRAPE_S = 0.3

SILENT = ("internal_error", "failure", "stage", "stalls", "usd_per_audio_hour", "limited")
"""Of queries that find nothing here: nothing failed or met a limit, no stage ran, nothing was spoken for an hour."""


async def found(client: httpx.AsyncClient, query: str) -> list[dict[str, Any]]:
    """What a query finds now."""
    return await asked(client, "query", query=query.replace("$__rate_interval", "1m"))


async def test_rules_and_dashboards_find_what_the_processes_tell(open_house: OpenHouse, tmp_path: Path) -> None:
    survey = Survey({("clone", "queued"): 1}, {"render": Queue()})
    (tmp_path / "prometheus").mkdir()
    async with (
        open_house(narration=NarrationSettings(worker_usd_per_hour=1)) as house,
        house.worker(),
        serving(FakeEngine(), tmp_path / "worker") as server,
    ):
        with answering(MetricsSettings(tasks_port=0), lambda: survey) as tasks_port:
            targets = {
                "carillon-api": house.url.removeprefix("http://"),
                "carillon-worker": server.address.removeprefix("ws://"),
                "carillon-tasks": f"127.0.0.1:{tasks_port}",
            }

            async def work(number: int) -> None:
                async with sessions_client(house.sessions_url, house.key) as client:
                    await client.say("s", "Hello.")
                    await client.until(Done, "s")
                async with session(server, f"s{number}") as talk:
                    await talk.say("Hello.")
                    await talk.end()
                async with session(server, f"refused{number}", epoch=1) as talk:
                    await talk.receive()
                await house.http.get("/v1/voices/nobody")
                # The fake worker does not measure the silence at the head.
                services = house.server.config.app.state.services  # type: ignore[union-attr]
                services.metrics.account("sessions", Ledger(first_audio_ms=200, head_silence_ms=80))
                child = [sys.executable, "-c", CHILD]
                await asyncio.to_thread(subprocess.run, child, check=True, env=dict(os.environ))

            async with (
                prometheus(tmp_path / "prometheus", targets, scrape_s=SCRAPE_S) as client,
                asyncio.timeout(LONG_HANG_S),
            ):
                await work(0)

                async def scraped() -> bool:
                    with suppress(httpx.TransportError):
                        return len(await found(client, "up == 1")) == len(targets)
                    return False

                await until_async(scraped)
                await work(1)

                async def recorded() -> bool:
                    return bool(await found(client, "carillon:in_the_money:ratio == 1"))

                await until_async(recorded)

                async def unanswered() -> list[str]:
                    return [
                        query
                        for dashboard in dashboards()
                        for query in queries(dashboard)
                        if not any(word in query for word in SILENT) and not await found(client, query)
                    ]

                async def answered() -> bool:
                    return not await unanswered()

                with suppress(TimeoutError):  # a busy machine's scrape may come late; then the queries are named below
                    await until_async(answered)
                empty = await unanswered()
                firing = await found(client, 'ALERTS{alertstate="firing"}')
                rules = (await client.get("/rules")).json()["data"]["groups"]
    assert not empty, "\n".join(empty)
    assert firing == []
    assert {rule["health"] for group in rules for rule in group["rules"]} == {"ok"}
