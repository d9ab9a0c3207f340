"""vLLM's AsyncLLM as an `Engine`.

Facts about vLLM 0.32 that shape it: the engine core is a process of its own; an adapter that fails to load inside
`generate` kills that process for all, while `add_lora` only raises, so every adapter is loaded before its first
request; a cancelled `generate` aborts its request in the scheduler.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from app.errors import AdapterUnavailable, EngineFailed, InvalidRequest, Overloaded
from app.platform.profiles import EngineProfile
from app.platform.settings import EngineSettings
from app.speech.prompts import PromptEncoder
from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout
from workers.engine import Codes, EngineAdapter, EngineLoad, Utterance
from workers.vllm_config import engine_config

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM

LONGEST_SPEECH_S = 6.0
LONGEST_SPEECH_S_PER_CHAR = 0.25
"""A chunk that speaks longer than this has lost its way: slow speech needs about 0.1 s a character."""

_HEALTH_INTERVAL_S = 0.5
_SHUTDOWN_S = 1.0


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
        """`progress` gets the part of the start that has begun."""
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
                config = await asyncio.to_thread(
                    engine_config, self._model_dir, self.layout, self._settings, self._profile, self._device
                )
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
        position, end_id = len(utterance.codes), self.layout.end_id
        self._began()
        try:
            async for output in outputs:
                completion = output.outputs[0]
                tokens = completion.token_ids
                codes = self.layout.codes(tokens[:-1] if tokens and tokens[-1] == end_id else tokens, position)
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
            loaded = await self._call(self._llm.add_lora(request))
        except EngineFailed:
            raise
        except Exception as error:  # vLLM raises what the core process raised, of any class
            # It keeps one that failed half-way in its slot, and would take it for loaded the next time.
            await self.unload(adapter)
            raise AdapterUnavailable(f"adapter {adapter.name} does not load: {error}; publish it again") from error
        if not loaded:
            raise AdapterUnavailable(f"adapter {adapter.name} was refused by the engine; publish it again")

    async def unload(self, adapter: EngineAdapter) -> None:
        await self._call(self._llm.remove_lora(adapter.lora_id))

    async def _call(self, call: Coroutine[Any, Any, bool]) -> bool:
        """The core process's answer, or EngineFailed: vLLM leaves calls open for ever when that process dies."""
        answering, dying = asyncio.ensure_future(call), asyncio.ensure_future(self.died())
        self._began()
        try:
            await asyncio.wait({answering, dying}, return_when=asyncio.FIRST_COMPLETED)
            if dying.done() or self._llm.errored:
                raise EngineFailed("the engine died under an adapter; its worker restarts")
            return answering.result()
        finally:
            self._calls -= 1
            answering.cancel()
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
