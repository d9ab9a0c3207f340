"""A worker whose engine core and codec are scripted, for `carillon bench worker`. Run as a file, with the checkout
whose worker is measured first on PYTHONPATH: nothing but this file is of another.

All that costs a worker's own process is real: vLLM's front half with its output processing, the codes, sessions, the
decoder's queue and its joins, PCM, the sockets. Scripted are what runs elsewhere on a card: the core writes a token for
every request at each step, in time, and a batch of the codec takes `DECODE_S` without a processor. Registry and
adapters take no part. It prints its address, and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from snac import SNAC

from app.platform import profiles
from app.platform.settings import Settings, load_settings
from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout, read_layout
from workers.adapters import AdapterCache
from workers.decode_pool import DecodePool, Work
from workers.decoder import CUDA_BATCH, Decoder
from workers.server import WorkerServer
from workers.vllm_engine import VllmEngine

UTTERANCE_FRAMES = 60
"""Five seconds: a sentence."""

DECODE_S = 0.003
"""Of a batch, on a card (inferred)."""

STREAM_INTERVAL = 7
EPOCH = 1


@dataclass(slots=True)
class _Request:
    id: str
    tokens: int = 0


class ScriptedCore:
    """In place of vLLM's client of its core: one token for each request at a step, `steps_per_s` of them."""

    def __init__(self, layout: TokenLayout, steps_per_s: float) -> None:
        from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
        from vllm.v1.metrics.stats import SchedulerStats

        self._output, self._outputs, self._stats = EngineCoreOutput, EngineCoreOutputs, SchedulerStats
        self._stop = FinishReason.STOP
        self.resources = _Resources()
        self.engine_ranks_managed = [0]
        self._step_s = 1 / steps_per_s
        draw = np.random.default_rng(0)
        self._tokens = [
            [layout.token(int(draw.integers(layout.codebook_size)), index % TOKENS_PER_FRAME)]
            for index in range(UTTERANCE_FRAMES * TOKENS_PER_FRAME)
        ]
        self._end = [layout.end_id]
        self._requests: dict[str, _Request] = {}
        self._busy = asyncio.Event()
        self._next_s = 0.0

    async def get_output_async(self) -> Any:
        """What the next step has written, once it is due. Steps that are late come without a pause."""
        while not self._requests:
            self._busy.clear()
            await self._busy.wait()
            self._next_s = time.monotonic()
        self._next_s += self._step_s
        if (early_s := self._next_s - time.monotonic()) > 0:
            await asyncio.sleep(early_s)
        else:
            await asyncio.sleep(0)  # as a socket's reader
        outputs = [self._step(request) for request in list(self._requests.values())]
        return self._outputs(outputs=outputs, scheduler_stats=self._stats(num_running_reqs=len(outputs)))

    def _step(self, request: _Request) -> Any:
        if request.tokens == len(self._tokens):
            del self._requests[request.id]
            return self._output(request.id, self._end, finish_reason=self._stop)
        request.tokens += 1
        return self._output(request.id, self._tokens[request.tokens - 1])

    async def add_request_async(self, request: Any) -> None:
        self._requests[request.request_id] = _Request(request.request_id)
        self._busy.set()

    async def abort_requests_async(self, ids: Sequence[str]) -> None:
        for id in ids:
            self._requests.pop(id, None)

    async def get_supported_tasks_async(self) -> tuple[str, ...]:
        return ("generate",)

    async def collective_rpc_async(self, *call: Any, **named: Any) -> list[Any]:
        return []

    def shutdown(self, timeout: float | None = None) -> None: ...


class _Resources:
    engine_dead = False


class ScriptedPool(DecodePool):
    """Audio that was made before, at the very samples where decoded audio would be; all of a push at once."""

    on_cuda = True
    sound = np.random.default_rng(0).normal(0, 0.1, 1 << 17).astype(np.float32)

    @classmethod
    def over(cls, pool: DecodePool) -> ScriptedPool:
        scripted = cls(pool.snac, slots=1, head=pool.head)
        scripted.on_cuda = True
        return scripted

    def decode(self, batch: Sequence[Work]) -> int:
        time.sleep(DECODE_S)
        heads = 0
        for work in batch:
            steps = len(work.codes)
            work.parts.append(self._exact_audio(work, self.sound[: steps * self.snac.layout.samples_per_step]))
            work.utterance.step += steps
            work.codes = work.codes[steps:]
            if wanted := self._wanted_provisionally(work):
                join = work.utterance.join
                work.parts.append(join.provisional(self.sound[: wanted + self.head.fade_samples - join.spoken]))
                heads += 1
        return heads


class ScriptedDecoder(Decoder):
    def __init__(self, codec: SNAC, *, max_sessions: int) -> None:
        super().__init__(codec, max_sessions=max_sessions, max_batch=CUDA_BATCH)
        self._pool = ScriptedPool.over(self._pool)


async def scripted_engine(
    model_dir: Path, layout: TokenLayout, profile: profiles.EngineProfile, steps_per_s: float
) -> VllmEngine:
    """The real engine, started, on a scripted core."""
    from vllm.v1.engine.core_client import EngineCoreClient

    core = ScriptedCore(layout, steps_per_s)
    EngineCoreClient.make_async_mp_client = staticmethod(lambda *given, **named: core)  # type: ignore[method-assign]
    settings = load_settings().engine
    engine = VllmEngine(model_dir, layout, settings, profile=profile, device="cpu")
    await engine.start()
    return engine


async def serve(checkpoint: Path, *, sessions: int, pace: float) -> None:
    """Be a worker until SIGTERM, whose core writes `pace` times as fast as the speech plays."""
    settings = load_settings(capacity=sessions)
    model_dir, codec_dir = checkpoint / "model", checkpoint / "codec"
    layout = read_layout(model_dir, codec_dir)
    profile = replace(settings.over(profiles.CPU), stream_interval=STREAM_INTERVAL, max_num_seqs=sessions)
    engine = await scripted_engine(model_dir, layout, profile, pace * layout.tokens_per_s)
    codec = SNAC.from_pretrained(str(codec_dir)).eval()
    async with ScriptedDecoder(codec, max_sessions=sessions) as decoder:
        await serve_alone(settings, profile, engine, decoder, fetch=_no_adapter)
    await engine.aclose()


async def serve_alone(
    settings: Settings,
    profile: profiles.EngineProfile,
    engine: VllmEngine,
    decoder: Decoder,
    *,
    fetch: Callable[[str, str, Path], None],
) -> None:
    """Serve without a registry until SIGTERM, adapters by `fetch`. Prints first, as JSON, what listeners must know."""
    speech = engine.layout.speech
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    with tempfile.TemporaryDirectory() as directory:
        adapters = AdapterCache(
            engine,
            fetch,
            Path(directory),
            max_resident=profile.max_cpu_loras,
            max_rank=settings.engine.max_lora_rank,
            patience_s=1,
            clock=time.monotonic,
        )
        server = WorkerServer(
            settings,
            worker_id="bench",
            epoch=EPOCH,
            profile=profile,
            engine=engine,
            decoder=decoder,
            adapters=adapters,
            clock=time.monotonic,
        )
        await server.listen()
        gc.collect()
        gc.freeze()
        print(json.dumps({"address": server.address, "voice": speech.voices[0], "model": speech.name}), flush=True)
        await stopped.wait()
        await server.drain(0)
        await adapters.aclose()


def _no_adapter(uri: str, file: str, path: Path) -> None:
    raise FileNotFoundError(uri)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a directory with `model` and `codec`; no weight is used")
    parser.add_argument("--sessions", type=int, required=True)
    parser.add_argument("--pace", type=float, required=True, help="of the core, by the pace of speech")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        _run(serve(options.checkpoint, sessions=options.sessions, pace=options.pace))


def _run(body: Any) -> None:
    """On the event loop that this checkout's worker has."""
    try:
        from workers.main import run_loop  # type: ignore[attr-defined]
    except ImportError:
        asyncio.run(body)
    else:
        run_loop(body)


if __name__ == "__main__":
    main()
