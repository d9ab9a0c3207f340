"""Table 2, the decoder: milliseconds for a frame of so many sessions, alone and beside the engine.

`served` is the worker's own `Decoder` with its queue and thread; `scheme` the arithmetic alone in one of several ways,
with its error against float32, and the window of 28 tokens of the published servers. On a card these are wall time.
"""

from __future__ import annotations

import asyncio
import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import torch
from snac import SNAC
from torch import Tensor

from app.bench.gpu.engine import EngineKind, TokenEngine, milliseconds
from app.bench.gpu.plan import Measurement
from app.bench.gpu.stage import Emit, Job, main
from workers.decoder import Decoder
from workers.snac_stream import Span, StreamingSnac, load_codec

WARM_FRAMES = 6
"""Decoded before anything is measured: the beginning of an utterance costs more."""

WINDOW_FRAMES = 4
"""The published servers decode the last 28 tokens for every frame."""

Decode = Callable[[], Tensor]
"""One more chunk of every session: audio [sessions, samples] on the host."""


class DecoderStage:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._codec = load_codec(job.codec_dir).eval().to(job.device)
        self._engine: TokenEngine | None = None
        self._busy = AsyncExitStack()
        if job.device == "cpu":
            torch.set_num_threads(1)

    async def measure(self, measurement: Measurement, emit: Emit) -> Mapping[str, Any]:
        sessions = measurement.number("sessions")
        if measurement.name == "scheme":
            return self._scheme(measurement.word("scheme"), sessions, measurement.number("frames"))
        if (precision := measurement.word("engine")) != "none" or "streams" in measurement.parameters:
            await self._have_engine(precision, measurement.number("streams"))
        return await self._served(sessions)

    async def aclose(self) -> None:
        await self._busy.aclose()
        if self._engine is not None:
            await self._engine.aclose()

    async def _have_engine(self, precision: str, streams: int) -> None:
        """An engine that writes for so many streams from now on."""
        if self._engine is None:
            sizes = self._job.sizes
            self._engine = TokenEngine(self._job, EngineKind(precision, sizes.slots), streams=sizes.most_streams)
            await self._engine.start()
            await self._busy.enter_async_context(self._engine.busy(streams))

    async def _served(self, sessions: int) -> dict[str, float]:
        """From the push of a frame of all sessions to the last one's audio."""
        taken_s = []
        async with Decoder(self._codec, device=self._job.device, max_sessions=sessions) as decoder:
            streams = [decoder.open() for _ in range(sessions)]
            frames = _codes(self._codec, WARM_FRAMES + self._job.sizes.decoder_rounds)
            await asyncio.gather(*(stream.push(frames[:WARM_FRAMES].flatten()) for stream in streams))
            for frame in frames[WARM_FRAMES:]:
                begun_s = time.perf_counter()
                await asyncio.gather(*(stream.push(frame) for stream in streams))
                taken_s.append(time.perf_counter() - begun_s)
        return self._figures(taken_s, sessions, 1)

    @torch.inference_mode()
    def _scheme(self, scheme: str, sessions: int, frames: int) -> dict[str, float]:
        decode = self._window(sessions) if scheme == "window" else self._steady(scheme, sessions, frames)
        for _ in range(3):
            decode()
        taken_s = []
        for _ in range(self._job.sizes.decoder_rounds):
            begun_s = time.perf_counter()
            decode()
            taken_s.append(time.perf_counter() - begun_s)
        figures = self._figures(taken_s, sessions, frames)
        if scheme in ("bfloat16", "tf32", "graph"):
            figures["error_db"] = self._error_db(scheme, frames)
        return figures

    def _figures(self, taken_s: list[float], sessions: int, frames: int) -> dict[str, float]:
        each_ms = statistics.median(taken_s) / sessions / frames * 1e3
        return {"ms_a_frame": round(each_ms, 4), **milliseconds(taken_s)}

    def _window(self, sessions: int) -> Decode:
        """One session after the other, by the stock decoder, as the published servers run it."""
        codes = _codes(self._codec, WINDOW_FRAMES)
        layout = StreamingSnac(self._codec, device=self._job.device).layout
        steps = layout.codes_by_step(codes)
        levels = [
            torch.from_numpy(steps[::stride, level])[None].to(self._job.device)
            for level, stride in enumerate(layout.strides)
        ]

        def decode() -> Tensor:
            return torch.stack([self._codec.decode(levels)[0, 0].cpu() for _ in range(sessions)])

        return decode

    def _steady(self, scheme: str, sessions: int, frames: int) -> Decode:
        """`frames` of each session in the middle of its utterance, from codes on the host to audio on the host."""
        snac = self._snac(scheme)
        layout = snac.layout
        steps = frames * layout.steps_per_frame
        first_step = WARM_FRAMES * layout.steps_per_frame
        codes = torch.from_numpy(np.stack([layout.codes_by_step(_codes(self._codec, frames))] * sessions))
        states = snac.fresh_states(sessions)
        if scheme == "graph":
            return _Graph(snac, codes, states, first_step)
        spans = [Span(first_step, seed=number) for number in range(sessions)]
        if scheme != "pinned":
            return lambda: snac.advance(snac.embed(codes.to(snac.device)), states, spans).float().cpu()
        there = codes.pin_memory()
        back = torch.empty(sessions, steps * layout.samples_per_step, pin_memory=True)

        def pinned() -> Tensor:
            latents = snac.embed(there.to(snac.device, non_blocking=True))
            back.copy_(snac.advance(latents, states, spans), non_blocking=True)
            torch.cuda.current_stream().synchronize()
            return back

        return pinned

    def _snac(self, scheme: str) -> StreamingSnac:
        codec: SNAC = self._codec
        if scheme == "bfloat16":
            codec = copy.deepcopy(codec).to(torch.bfloat16)
        return StreamingSnac(codec, device=self._job.device, tf32=scheme == "tf32")

    def _error_db(self, scheme: str, frames: int) -> float:
        """Of one session, against float32 on the same codes."""
        exact, other = (self._steady(each, 1, frames)().double() for each in ("eager", scheme))
        noise, sound = float((other - exact).square().sum()), float(exact.square().sum())
        return round(10 * math.log10(max(noise, 1e-30) / max(sound, 1e-30)), 1)


class _Graph:
    """A recorded CUDA graph of one bucket (sessions × steps), fed and read through pinned memory."""

    def __init__(self, snac: StreamingSnac, codes: Tensor, states: Tensor, first_step: int) -> None:
        device = snac.device
        self._there = codes.pin_memory()
        self._codes = codes.to(device)
        rows = torch.arange(len(codes), device=device)
        places = torch.stack((rows, torch.full_like(rows, first_step)), dim=1)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # once before: what is made at the first call is not recorded
            snac.advance_within(snac.embed(self._codes), states, places)
            states.zero_()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._audio = snac.advance_within(snac.embed(self._codes), states, places).float()
        self._back = torch.empty(self._audio.shape, pin_memory=True)

    def __call__(self) -> Tensor:
        self._codes.copy_(self._there, non_blocking=True)
        self._graph.replay()
        self._back.copy_(self._audio, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return self._back


def _codes(codec: SNAC, frames: int) -> np.ndarray:
    """[frames, 7], random and always the same."""
    width = sum(codec.vq_strides[0] // stride for stride in codec.vq_strides)
    return np.random.default_rng(0).integers(0, codec.codebook_size, (frames, width))


if __name__ == "__main__":
    main(DecoderStage)
