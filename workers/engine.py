"""vLLM's AsyncLLM behind a small Protocol: text and a voice in, codec codes out.

It knows tokens, adapters and the engine's life; it does not know sessions, sound or the network. Facts about vLLM 0.32
that shape it: the engine core is a process of its own; an adapter that fails to load inside `generate` kills that
process for everybody, while `add_lora` only raises, so every adapter is loaded before its first request; a cancelled
`generate` aborts its request in the scheduler.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import math
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol

from app.errors import AdapterUnavailable, ConfigurationError, EngineFailed, InvalidRequest, Overloaded
from app.platform.profiles import EngineProfile
from app.platform.settings import EngineSettings
from app.speech.prompts import PromptEncoder
from app.speech.protocol import AssignedPace
from app.speech.token_layout import LORA_MODULES, TOKENS_PER_FRAME, TokenLayout

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM

log = logging.getLogger(__name__)

PRIORITY: dict[AssignedPace, int] = {"realtime": 0, "unpaced": 1, "background": 2}
"""The engine's order when it cannot serve all at once: somebody who listens goes before somebody who downloads."""

LONGEST_SPEECH_S = 6.0
LONGEST_SPEECH_S_PER_CHAR = 0.25
"""A chunk that speaks longer than this has lost its way: slow speech needs about 0.1 s a character."""

_HEALTH_INTERVAL_S = 0.5
_SHUTDOWN_S = 1.0


@dataclass(frozen=True, slots=True)
class EngineAdapter:
    """A LoRA on local disk, under the engine-wide unique name and id of its version."""

    name: str
    lora_id: int
    path: Path


@dataclass(frozen=True, slots=True)
class Utterance:
    """One chunk of text for one voice: one request of the engine."""

    voice: str
    text: str
    adapter: EngineAdapter | None = None
    temperature: float | None = None
    priority: int = 0
    seed: int | None = None
    codes: tuple[int, ...] = ()
    """Whole frames that were written elsewhere already: the engine goes on behind them."""


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes as the model wrote them, in frame order; `ended` with the last ones: by itself, or cut at the limit."""

    codes: list[int]
    ended: Literal["end", "length"] | None = None


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What the engine's scheduler last reported."""

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0


class Engine(Protocol):
    """What a worker needs of an engine. `VllmEngine` is the one that serves; tests have a scripted one."""

    layout: TokenLayout

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    def speak(self, utterance: Utterance) -> AsyncGenerator[Codes, None]:
        """Codes as they are written, after those of the utterance.

        Closing or cancelling the iterator takes the request out of the scheduler.

        Raises InvalidRequest when the text cannot fit the model, EngineFailed when the engine is gone.
        """
        ...

    async def load(self, adapter: EngineAdapter) -> None:
        """Make `adapter` usable. Raises AdapterUnavailable; the engine and everybody else's streams survive."""
        ...

    async def unload(self, adapter: EngineAdapter) -> None:
        """Forget `adapter`; one that is not held is no error. Raises EngineFailed when the engine is gone."""
        ...

    async def died(self) -> str:
        """Wait until the engine has died of itself, or hangs; returns the reason."""
        ...

    def load_now(self) -> EngineLoad: ...


class VllmEngine:
    """The real engine: vLLM's CUDA build on a GPU, its CPU build elsewhere; the same code."""

    def __init__(
        self,
        model_dir: Path,
        layout: TokenLayout,
        settings: EngineSettings,
        *,
        profile: EngineProfile,
        device: str,
        progress: Callable[[str], None] = lambda part: None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`progress` is told which part of the start has begun."""
        self.layout = layout
        self._progress = progress
        self._model_dir = model_dir
        self._settings = settings
        self._profile = profile
        self._device = device
        self._requests = itertools.count()
        self._load = EngineLoad()
        self._clock = clock
        self._calls = 0
        """Calls of the core process that are open …"""
        self._moved_at = clock()
        """… and when it last did anything, or the first of them came."""
        self._started = False
        self._sampling_defaults = _generation_defaults(model_dir, settings)

    async def start(self) -> None:
        """Load the model and speak once, so that the first listener pays for no warm-up. Takes tens of seconds.

        Raises EngineFailed when it takes longer than `startup_timeout_s`.
        """
        timeout_s = self._settings.startup_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                self._progress("importing vLLM")
                config = await asyncio.to_thread(self._config)
                self._progress("loading the model")
                self._llm = await asyncio.to_thread(self._load_model, config)
                self._started = True
                if self._device == "cpu":
                    await self._llm.collective_rpc("amend")
                self._progress("speaking once")
                async for _ in self.speak(Utterance(voice=self.layout.speech.voices[0], text="Hello.")):
                    pass
        except TimeoutError:
            raise EngineFailed(
                f"the engine was not ready within {timeout_s:g} s; raise CARILLON_ENGINE__STARTUP_TIMEOUT_S"
            ) from None

    def _load_model(self, config: VllmConfig) -> AsyncLLM:
        from transformers import AutoTokenizer
        from vllm.v1.engine.async_llm import AsyncLLM

        from workers.reports import report_evenly

        self._prompts = PromptEncoder(self.layout, AutoTokenizer.from_pretrained(str(self._model_dir)))
        llm = AsyncLLM.from_vllm_config(config, stat_loggers=[self._stat_logger])
        report_evenly(llm)
        return llm

    async def aclose(self) -> None:
        """End the engine's process, which has nothing to save and so is not waited for."""
        if self._started:
            await asyncio.to_thread(self._llm.shutdown, _SHUTDOWN_S)

    async def speak(self, utterance: Utterance) -> AsyncGenerator[Codes, None]:
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        prompt = self._prompt(utterance)
        prompt += [self.layout.token(code, position) for position, code in enumerate(utterance.codes)]
        adapter = utterance.adapter
        outputs = self._llm.generate(
            {"type": "token", "prompt_token_ids": prompt},
            self._sampling(utterance, room=self._settings.max_model_len - len(prompt) + len(utterance.codes)),
            f"utterance-{next(self._requests)}",
            lora_request=LoRARequest(adapter.name, adapter.lora_id, str(adapter.path)) if adapter else None,
            priority=utterance.priority,
        )
        position = len(utterance.codes)
        self._began()
        try:
            async for output in outputs:
                completion = output.outputs[0]
                ids = [token for token in completion.token_ids if token != self.layout.end_id]
                codes = [self.layout.code(token, position + offset) for offset, token in enumerate(ids)]
                position += len(codes)
                ended = _ending(completion.finish_reason)
                if ended and (rest := position % TOKENS_PER_FRAME):
                    codes = codes[:-rest]  # stopped at its limit, which leaves room for the end but not for a frame
                yield Codes(codes, ended)
        except EngineDeadError as error:
            raise EngineFailed("the engine died while speaking; its worker starts another") from error
        except EngineGenerateError as error:
            raise EngineFailed(f"the engine failed this utterance: {error}; try again") from error
        finally:
            self._calls -= 1
            await outputs.aclose()

    def _began(self) -> None:
        if not self._calls:
            self._moved_at = self._clock()
        self._calls += 1

    async def load(self, adapter: EngineAdapter) -> None:
        from vllm.lora.request import LoRARequest

        request = LoRARequest(adapter.name, adapter.lora_id, str(adapter.path))
        try:
            loaded = await self._ask(self._llm.add_lora(request))
        except EngineFailed:
            raise
        except Exception as error:  # vLLM raises what the core process raised, of any class
            # It keeps one that failed half-way in its slot, and would take it for loaded the next time.
            await self.unload(adapter)
            raise AdapterUnavailable(f"adapter {adapter.name} does not load: {error}; publish it again") from error
        if not loaded:
            raise AdapterUnavailable(f"adapter {adapter.name} was refused by the engine; publish it again")

    async def unload(self, adapter: EngineAdapter) -> None:
        await self._ask(self._llm.remove_lora(adapter.lora_id))

    async def _ask(self, call: Coroutine[Any, Any, bool]) -> bool:
        """The core process's answer, or EngineFailed: vLLM leaves calls open for ever when that process dies."""
        asking, dying = asyncio.ensure_future(call), asyncio.ensure_future(self.died())
        self._began()
        try:
            await asyncio.wait({asking, dying}, return_when=asyncio.FIRST_COMPLETED)
            if dying.done() or self._llm.errored:
                raise EngineFailed("the engine died under an adapter; its worker restarts")
            return asking.result()
        finally:
            self._calls -= 1
            asking.cancel()
            dying.cancel()

    async def died(self) -> str:
        while not self._llm.errored:
            if self._calls and self._clock() - self._moved_at > self._settings.hang_timeout_s:
                return f"the engine hangs: it did nothing for {self._settings.hang_timeout_s:g} s with work to do"
            await asyncio.sleep(_HEALTH_INTERVAL_S)
        return f"the engine died: {self._llm.dead_error}"

    def load_now(self) -> EngineLoad:
        return self._load

    def _prompt(self, utterance: Utterance) -> list[int]:
        prompt = self._prompts.prompt(utterance.voice, utterance.text)
        if len(prompt) + TOKENS_PER_FRAME >= self._settings.max_model_len:
            raise InvalidRequest(
                f"a chunk of {len(utterance.text)} characters is {len(prompt)} tokens; "
                f"the model takes {self._settings.max_model_len}: lower CARILLON_SESSION__MAX_CHUNK_CHARS"
            )
        return prompt

    def _sampling(self, utterance: Utterance, *, room: int) -> SamplingParams:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        from workers.sampling import WRITTEN

        longest_s = LONGEST_SPEECH_S + LONGEST_SPEECH_S_PER_CHAR * len(utterance.text)
        frames = math.ceil(longest_s * self.layout.sample_rate_hz / self.layout.samples_per_frame)
        # One more than whole frames: the token that ends the speech.
        limit = min(frames, (room - 1) // TOKENS_PER_FRAME) * TOKENS_PER_FRAME + 1 - len(utterance.codes)
        defaults = self._sampling_defaults
        return SamplingParams(
            temperature=defaults["temperature"] if utterance.temperature is None else utterance.temperature,
            top_p=defaults["top_p"],
            repetition_penalty=defaults["repetition_penalty"],
            max_tokens=max(1, limit),
            seed=utterance.seed,
            stop_token_ids=[self.layout.end_id],
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            stream_interval=self._profile.stream_interval,
            extra_args={WRITTEN: len(utterance.codes)},
        )

    def _config(self) -> VllmConfig:
        from vllm import AsyncEngineArgs

        from workers.sampling import band_config

        settings, profile = self._settings, self._profile
        os.environ.update(_environment(settings, self._device))
        args: dict[str, Any] = {
            "model": str(self._model_dir),
            "skip_tokenizer_init": True,
            "dtype": _dtype(settings.dtype, self._device),
            "quantization": _quantization(settings.quantization, self._device),
            "max_model_len": settings.max_model_len,
            "max_num_seqs": profile.max_num_seqs,
            "max_num_batched_tokens": profile.max_num_batched_tokens,
            "scheduling_policy": "priority",
            "enable_lora": True,
            "max_loras": profile.max_loras,
            "max_cpu_loras": profile.max_cpu_loras,
            "max_lora_rank": settings.max_lora_rank,
            "lora_target_modules": list(LORA_MODULES),  # or vLLM makes slots for lm_head and embeddings as well
            "additional_config": band_config(self.layout),
        }
        if self._device == "cuda":
            args["gpu_memory_utilization"] = profile.gpu_memory_utilization
        config = AsyncEngineArgs(**args).create_engine_config()
        runner = "V2" if config.use_v2_model_runner else "V1"
        config.model_config.logits_processors = [f"workers.sampling:BandMask{runner}"]
        if self._device == "cpu":
            _prepare_for_cpu(config, threads=settings.cpu_threads)
        return config

    def _stat_logger(self, vllm_config: VllmConfig, engine_index: int = 0) -> Any:
        from vllm.v1.metrics.loggers import StatLoggerBase

        engine = self

        class _Recorder(StatLoggerBase):
            def __init__(self) -> None: ...

            def log_engine_initialized(self) -> None: ...

            def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
                engine._moved_at = engine._clock()
                if scheduler_stats is not None:
                    engine._load = EngineLoad(
                        running=scheduler_stats.num_running_reqs,
                        waiting=scheduler_stats.num_waiting_reqs,
                        kv_cache_usage=scheduler_stats.kv_cache_usage,
                    )

        return _Recorder()


def _ending(finish_reason: str | None) -> Literal["end", "length"] | None:
    match finish_reason:
        case None:
            return None
        case "stop":
            return "end"
        case "length":
            return "length"
        case "abort":
            raise Overloaded("the engine gave this request up; try again", retry_after_s=1)
        case _:
            raise EngineFailed(f"the engine ended a request with {finish_reason!r}")


def _generation_defaults(model_dir: Path, settings: EngineSettings) -> dict[str, float]:
    """temperature, top_p and repetition_penalty: the setting, else the checkpoint's, else Orpheus's recommendation."""
    defaults = {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}
    path = model_dir / "generation_config.json"
    own: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    chosen = settings.model_dump(include=set(defaults), exclude_none=True)
    return {name: float(chosen.get(name, own.get(name, default))) for name, default in defaults.items()}


def _dtype(setting: str, device: str) -> str:
    if setting != "auto":
        return setting
    if device == "cuda":
        return "bfloat16"
    from workers.cpu_engine import dtype_here

    return dtype_here()


def _prepare_for_cpu(config: VllmConfig, *, threads: int) -> None:
    """Let the engine core be one process, a fork of this one, with the amendments of `cpu_engine` in it."""
    from workers.cpu_engine import EXTENSION, import_model

    # vLLM asks for a process more on a CPU, only to bind OpenMP threads, which we leave unbound.
    config.parallel_config.distributed_executor_backend = "uni"
    config.parallel_config.worker_extension_cls = EXTENSION
    if threads == 1:
        import_model()
        # vLLM has just asked for "spawn". A fork has everything imported already, which is most of a start, and this
        # process's one OpenMP thread: for more of them the core has to begin by itself.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"


def _quantization(setting: str, device: str) -> str | None:
    if setting == "none" or (setting == "auto" and device == "cpu"):
        return None
    if setting != "auto":
        if setting == "fp8":
            raise ConfigurationError(
                "CARILLON_ENGINE__QUANTIZATION=fp8 is refused by vLLM for a bf16 checkpoint; "
                "use fp8_per_channel, fp8_per_tensor or fp8_per_block"
            )
        return setting
    import torch

    # FP8 tensor cores came with Ada (8.9) and Hopper (9.0).
    return "fp8_per_channel" if torch.cuda.get_device_capability() >= (8, 9) else None


def _environment(settings: EngineSettings, device: str) -> dict[str, str]:
    """What vLLM reads from the environment of the process that spawns its engine core."""
    common = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING")}
    # What is compiled at run time looks for its tools on the path: those of this environment are first there.
    common["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    if device == "cuda":
        # FlashInfer's sampler is compiled by nvcc at its first use, and the engine dies where there is none (vLLM issue
        # 49497); besides, one seeded request turns it off for a whole batch.
        return common | {"VLLM_USE_FLASHINFER_SAMPLER": os.environ.get("VLLM_USE_FLASHINFER_SAMPLER", "0")}
    return common | {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(settings.cpu_threads),
        # Spinning OpenMP threads on shared cores were measured to slow the codec forty-fold.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
