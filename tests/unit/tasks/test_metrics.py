"""What a tasks process tells Prometheus: its children count, it answers."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from redis import Redis

from app.catalog import Catalog
from app.platform.database import utc_now
from app.platform.settings import MetricsSettings, Settings
from app.speech.recipe import CloneConfig
from app.voices.models import CloneKind
from tasks.metrics import answering
from tasks.survey import Queue, Survey, survey

CHILD = """
from datetime import datetime, timedelta, timezone
from app.voices.models import GateFigure, GateReport
from tasks.metrics import meters
began = datetime(2026, 1, 1, tzinfo=timezone.utc)
meters().tasks.labels("carillon.clone", "success").observe(3)
meters().over("clone", "completed", created_at=began, finished_at=began + timedelta(minutes=10), retries=2)
figure = GateFigure(name="words", measured=0.4, limit="≥ 0.9", passed=False)
meters().gated(GateReport(figures=(figure,), prompts=20))
"""


def test_what_children_count_is_added_up_after_their_end() -> None:
    with answering(MetricsSettings(tasks_port=0), lambda: None) as port:
        for _ in range(2):
            subprocess.run([sys.executable, "-c", CHILD], check=True, env=dict(os.environ))
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'carillon_task_seconds_sum{state="success",task="carillon.clone"} 6.0' in page
    assert 'carillon_job_seconds_bucket{kind="clone",le="900.0",state="completed"} 2.0' in page
    assert 'carillon_job_retries_total{kind="clone"} 4.0' in page
    assert 'carillon_gate_results_total{result="failed"} 2.0' in page
    assert 'carillon_gate_failures_total{figure="words"} 2.0' in page


def test_what_a_child_may_count_is_nothing_at_its_start() -> None:
    with answering(MetricsSettings(tasks_port=0), lambda: None) as port:
        begins = "from tasks.observing import _begin_process; _begin_process()"
        subprocess.run([sys.executable, "-c", begins], check=True, env=dict(os.environ))
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'carillon_task_seconds_count{state="failure",task="carillon.narrate"} 0.0' in page
    assert 'carillon_job_seconds_count{kind="polish",state="completed"} 0.0' in page
    assert 'carillon_job_stage_seconds_count{outcome="done",stage="lora"} 0.0' in page
    assert 'carillon_gate_results_total{result="passed"} 0.0' in page


def test_without_a_port_nothing_is_answered() -> None:
    with answering(MetricsSettings(), lambda: None) as port:
        assert port is None
        assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_what_waits_is_shown_as_last_surveyed() -> None:
    found = Survey({("clone", "queued"): 2}, {"train.orpheus": Queue(jobs=2, oldest_s=40, messages=1)})
    with answering(MetricsSettings(tasks_port=0), lambda: found) as port:
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    assert 'carillon_jobs{kind="clone",state="queued"} 2.0' in page
    assert 'carillon_queue_jobs{queue="train.orpheus"} 2.0' in page
    assert 'carillon_queue_oldest_seconds{queue="train.orpheus"} 40.0' in page
    assert 'carillon_queue_messages{queue="train.orpheus"} 1.0' in page


@pytest.mark.anyio
async def test_a_survey_finds_what_no_process_holds(tmp_path: Path, valkey: str) -> None:
    settings = Settings(data_dir=tmp_path, key_pepper=SecretStr("pepper"))
    catalog = Catalog(settings.database, pepper=settings.key_pepper, now=lambda: utc_now() - timedelta(minutes=1))
    await catalog.migrate()
    jobs = []
    for name in ("Ada", "Bea", "Cec"):
        voice = await catalog.voices.create(name, model="orpheus")
        jobs.append(await catalog.jobs.create(voice.id, kind=CloneKind.CLONE, config=CloneConfig()))
    now = Catalog(settings.database, pepper=settings.key_pepper)
    assert await now.jobs.claim(jobs[0].id)
    await now.aclose()
    await catalog.aclose()

    with Redis.from_url(valkey) as redis:
        redis.flushdb()
        redis.lpush("train.orpheus", "a message")
        from anyio.to_thread import run_sync

        found = await run_sync(survey, settings, redis)

    assert found.states == {("clone", "queued"): 3}
    training = found.queues["train.orpheus"]
    assert (training.jobs, training.messages) == (2, 1)
    assert training.oldest_s >= 60
    assert found.queues["render"] == found.queues["interactive"] == Queue()
