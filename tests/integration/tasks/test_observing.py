"""A whole tasks process as Prometheus, a log and a tracer see it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.catalog import Catalog
from app.local.embedded import free_port
from app.platform.broker import CLEAN, INTERACTIVE, make_celery
from app.platform.logs import REQUEST_ID
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings, StoreSettings
from app.platform.task_queue import TaskQueue
from tests.support.processes import until_async

pytestmark = pytest.mark.anyio


@pytest.fixture
async def settings(tmp_path: Path, valkey: str, rclone: StoreSettings, object_store: ObjectStore) -> Settings:
    settings = Settings(
        data_dir=tmp_path,
        redis_url=SecretStr(valkey.rpartition("/")[0] + "/7"),
        key_pepper=SecretStr("pepper"),
        fleet_secret=SecretStr("fleet"),
        store=rclone.model_copy(update={"bucket": object_store.bucket}),
    )
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    await catalog.migrate()
    await catalog.aclose()
    return settings


@pytest.fixture
def tasks(settings: Settings, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A running tasks process: where its metrics are, and its log."""
    port, log = free_port(), tmp_path / "tasks.log"
    assert settings.redis_url
    environment = {
        **os.environ,
        "CARILLON_DATA_DIR": str(tmp_path),
        "CARILLON_REDIS_URL": settings.redis_url.get_secret_value(),
        "CARILLON_KEY_PEPPER": "pepper",
        "CARILLON_FLEET_SECRET": "fleet",
        "CARILLON_STORE__ENDPOINT_URL": settings.store.endpoint_url or "",
        "CARILLON_STORE__BUCKET": settings.store.bucket,
        "CARILLON_STORE__ACCESS_KEY": settings.store.access_key.get_secret_value(),
        "CARILLON_STORE__SECRET_KEY": settings.store.secret_key.get_secret_value(),
        "CARILLON_METRICS__TASKS_PORT": str(port),
        "CARILLON_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-P", "-m", "app.cli.main", "tasks", "--queue", INTERACTIVE]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield f"http://127.0.0.1:{port}/metrics", log
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


async def test_a_task_is_timed_and_logged_under_the_request_that_asked_for_it(
    settings: Settings, tasks: tuple[str, Path]
) -> None:
    url, log = tasks
    token = REQUEST_ID.set("call-7")
    await TaskQueue(make_celery(settings)).send(CLEAN, queue=INTERACTIVE)
    REQUEST_ID.reset(token)

    async with httpx.AsyncClient(trust_env=False) as client:
        page = ""

        async def counted() -> bool:
            nonlocal page
            with suppress(httpx.TransportError):  # it is not up yet
                page = (await client.get(url)).text
            task = f'carillon_task_seconds_count{{state="success",task="{CLEAN}"}} 1.0'
            return task in page and "carillon_queue_jobs{" in page

        await until_async(counted)

    assert 'carillon_queue_jobs{queue="render"} 0.0' in page
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    requests = {line["event"]: line.get("request") for line in lines}
    assert requests["dead keys forgotten"] == requests["leftovers swept"] == "call-7"
