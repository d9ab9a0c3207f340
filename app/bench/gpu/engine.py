"""Table 1, the engine: tokens a second, the first token under load, and the stall when an adapter is loaded.

vLLM as a worker configures it, driven by tokens: every stream is as long as the others, for its end is masked.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.bench.gpu.plan import Measurement
from app.bench.gpu.stage import Emit, Job, main
from app.errors import EngineFailed
from app.platform.profiles import EngineProfile
from app.platform.settings import Settings, load_settings
from app.speech.token_layout import TOKENS_PER_FRAME, read_layout

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

PROMPT_TOKENS = 48
"""Of a sentence: about 150 characters."""

PENALTY = 1.1
GAP_TOKENS = 100
ENDLESS_TOKENS = 2000


@dataclass(frozen=True)
class EngineKind:
    """What an engine is started with."""

    precision: str
    slots: int
    mask: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """At `at_s`, so many tokens of a stream had been written."""

    at_s: float
    tokens: int


def settings_of(job: Job, precision: str, *, slots: int, streams: int) -> Settings:
    """A worker's settings, for this job's voice model."""
    engine = {"quantization": precision, "max_loras": slots, "max_num_seqs": streams, "max_cpu_loras": 4 * slots}
    return load_settings(
        model=str(job.model_dir), codec=str(job.codec_dir), device=job.device, capacity=streams, engine=engine
    )


def profile_of(settings: Settings, model_dir: Path) -> EngineProfile:
    from workers.seat import seat

    return seat(settings, settings.device, model_dir)[0]


class TokenEngine:
    """One engine of a kind, on its core process."""

    def __init__(self, job: Job, kind: EngineKind, *, streams: int, report_every: int = TOKENS_PER_FRAME) -> None:
        self.layout = read_layout(job.model_dir, job.codec_dir)
        self._job, self._kind, self._streams = job, kind, streams
        self._report_every = report_every
        self._numbers = itertools.count()
        self._draw = np.random.default_rng(0)
        self._llm: Any = None

    async def start(self) -> None:
        """Raises what vLLM raises; a minute or more on a card."""
        from vllm.v1.engine.async_llm import AsyncLLM

        from workers.vllm_config import engine_config

        job, kind = self._job, self._kind
        settings = settings_of(job, kind.precision, slots=kind.slots, streams=self._streams)
        profile = profile_of(settings, job.model_dir)
        config = engine_config(job.model_dir, self.layout, settings.engine, profile, job.device)
        if not kind.mask:
            config.model_config.logits_processors = []
        self._llm = await asyncio.to_thread(AsyncLLM.from_vllm_config, config)
        if job.device == "cpu":
            await self._llm.collective_rpc("amend")
        await self.write(TOKENS_PER_FRAME)

    async def aclose(self) -> None:
        if self._llm is not None:
            await asyncio.to_thread(self._llm.shutdown, 1.0)

    async def write(
        self, tokens: int, *, lora: int = 0, penalties: bool = True, every: int | None = None
    ) -> list[Report]:
        """Have one stream write exactly so many tokens, with the LoRA of that number (0: none)."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        text = self._draw.integers(0, self.layout.speech.start_of_text_id, PROMPT_TOKENS)
        params = SamplingParams(
            temperature=0.6,
            top_p=0.9,
            repetition_penalty=PENALTY if penalties else 1.0,
            min_tokens=tokens,
            max_tokens=tokens,
            stop_token_ids=[self.layout.end_id],
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            stream_interval=every or self._report_every,
        )
        reports: list[Report] = []
        written = 0
        async for output in self._llm.generate(
            {"type": "token", "prompt_token_ids": self.layout.prompt(text.tolist())},
            params,
            f"stream-{next(self._numbers)}",
            lora_request=self._lora(lora) if lora else None,
        ):
            written += len(output.outputs[0].token_ids)
            reports.append(Report(time.perf_counter(), written))
        if written != tokens:
            raise EngineFailed(f"a stream wrote {written} of {tokens} tokens")
        return reports

    async def load(self, lora: int) -> None:
        if lora:
            await self._llm.add_lora(self._lora(lora))

    async def unload(self, lora: int) -> None:
        await self._llm.remove_lora(lora)

    def _lora(self, number: int) -> LoRARequest:
        from vllm.lora.request import LoRARequest

        return LoRARequest(f"adapter-{number}", number, str(self._job.adapters[number - 1]))

    @asynccontextmanager
    async def busy(self, streams: int, *, loras: int = 0) -> AsyncIterator[None]:
        """So many streams write without an end, while the context lasts."""

        async def endless(number: int) -> None:
            while True:
                await self.write(ENDLESS_TOKENS, lora=lora_of(number, loras))

        tasks = [asyncio.create_task(endless(number)) for number in range(streams)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def lora_of(stream: int, loras: int) -> int:
    """Which of so many LoRAs a stream speaks with: they take turns."""
    return stream % loras + 1 if loras else 0


def rates(streams: Sequence[Sequence[Report]]) -> tuple[float, float]:
    """Tokens a second of a stream (the median) and of all, while all of them write."""
    begin_s = max(reports[0].at_s for reports in streams)
    end_s = min(reports[-1].at_s for reports in streams)
    each = []
    for reports in streams:
        inside = [report for report in reports if begin_s <= report.at_s <= end_s]
        first, last = (inside[0], inside[-1]) if len(inside) > 1 else (reports[0], reports[-1])
        each.append((last.tokens - first.tokens) / max(1e-9, last.at_s - first.at_s))
    return statistics.median(each), sum(each)


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, (50, 95))
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2)}


class EngineStage:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._kind: EngineKind | None = None
        self._engine: TokenEngine | None = None
        self._broken: dict[EngineKind, str] = {}

    async def measure(self, measurement: Measurement, emit: Emit) -> Mapping[str, Any]:
        parameters = measurement.parameters
        kind = EngineKind(
            measurement.word("precision"), measurement.number("slots"), mask=bool(parameters.get("mask", True))
        )
        engine = await self._started(kind)
        batch, loras = measurement.number("batch"), measurement.number("loras")
        for number in range(1, loras + 1):
            await engine.load(number)
        if measurement.name == "first token":
            return await self._first_token(engine, batch, loras)
        if measurement.name == "adapter stall":
            return await self._stall(engine, batch, loras)
        return await self._tokens(engine, batch, loras, penalties=bool(parameters["penalties"]))

    async def aclose(self) -> None:
        if self._engine is not None:
            await self._engine.aclose()
            self._engine = None

    async def _started(self, kind: EngineKind) -> TokenEngine:
        """The engine of this kind: the one that runs, or another in its place. One that did not start is not tried
        again."""
        if self._engine is not None and kind == self._kind:
            return self._engine
        if kind in self._broken:
            raise EngineFailed(self._broken[kind])
        await self.aclose()
        self._kind, self._engine = kind, TokenEngine(self._job, kind, streams=self._job.sizes.most_streams)
        try:
            await self._engine.start()
        except Exception as error:
            self._broken[kind] = f"the engine does not start: {type(error).__name__}: {error}"
            await self.aclose()
            raise
        return self._engine

    async def _tokens(self, engine: TokenEngine, batch: int, loras: int, *, penalties: bool) -> dict[str, float]:
        tokens = self._job.sizes.tokens
        streams = await asyncio.gather(
            *(engine.write(tokens, lora=lora_of(number, loras), penalties=penalties) for number in range(batch))
        )
        each, total = rates(streams)
        return {"tokens_per_s": round(each, 1), "total_tokens_per_s": round(total, 1)}

    async def _first_token(self, engine: TokenEngine, batch: int, loras: int) -> dict[str, float]:
        """From a request to its first token, one at a time beside others that write."""
        waits_s = []
        async with engine.busy(batch - 1, loras=loras):
            for number in range(self._job.sizes.probes):
                asked_s = time.perf_counter()
                reports = await engine.write(TOKENS_PER_FRAME, lora=lora_of(number, loras), every=1)
                waits_s.append(reports[0].at_s - asked_s)
        return milliseconds(waits_s)

    async def _stall(self, engine: TokenEngine, batch: int, loras: int) -> dict[str, float]:
        """The longest time without a token of a stream while an adapter is loaded that was nowhere, and the usual."""
        cold = range(self._job.warm_adapters + 1, len(self._job.adapters) + 1)
        loads_s: list[float] = []
        gaps_s: list[float] = []
        usual_s: list[float] = []
        async with engine.busy(batch - 1, loras=loras):
            for number in cold:
                watched = asyncio.create_task(engine.write(max(GAP_TOKENS, self._job.sizes.tokens), every=1))
                await asyncio.sleep(0.5)
                asked_s = time.perf_counter()
                await engine.load(number)
                loaded_s = time.perf_counter()
                times_s = [report.at_s for report in await watched]
                await engine.unload(number)
                loads_s.append(loaded_s - asked_s)
                gaps = [(after, after - before) for before, after in itertools.pairwise(times_s)]
                usual_s += [gap_s for _, gap_s in gaps]
                gaps_s.append(max((gap_s for after, gap_s in gaps if after >= asked_s), default=0.0))
        return {
            "load_ms": round(statistics.median(loads_s) * 1e3, 1),
            "longest_gap_ms": round(max(gaps_s) * 1e3, 1),
            "usual_gap_ms": round(statistics.median(usual_s) * 1e3, 2),
        }


if __name__ == "__main__":
    main(EngineStage)
