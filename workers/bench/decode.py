"""Measures the decoder beside the sliding window of 28 tokens that the published Orpheus servers decode with.

One run, one process, the schemes in turn within each repetition; medians. Cost is processor time on a CPU and wall
time on CUDA, per second of audio. Errors are against the full decode of the utterance; the noise of a codec that has
noise blocks is the same at the same place in all schemes, but for the one that leaves it out. On a CPU torch is set to
one thread for the run.

A codec from a directory counts as trained: its errors are measured on its own codes of a speech-like signal. A loaded
`SNAC` counts as random: its codes are too, which is harder on every scheme than speech is.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from snac import SNAC
from snac.layers import NoiseBlock

from workers.bench.decode_report import DecodeReport, Packet, SchemeResult
from workers.codec_noise import noise_of, noise_seed
from workers.decoder import Decoder, DecodeStream
from workers.provisional_head import HeadRamp
from workers.snac_stream import CodecLayout, StreamingSnac, load_codec

WINDOW_FRAMES = 4
"""The published servers decode the last 28 tokens every 7 and keep the second of the four frames."""
ERROR_UTTERANCES, ERROR_FRAMES = 6, 14
CURVE_SHARES = (0.25, 0.375, 0.5)
"""Half a frame, three quarters and a whole one, after two frames are known."""
QUIET = "exact, no noise"
"""The scheme of `codec_noise: off`: its error is the noise itself."""
ROUNDS = 4
"""Frames of ours to one of the window's, which takes as long."""

Frames = NDArray[np.int64]
Audio = NDArray[np.float32]


def run(
    codecs: Mapping[str, Path | str | SNAC],
    *,
    sessions: Sequence[int] = (1, 8, 32),
    device: str = "cpu",
    repetitions: int = 5,
    least_s: float = 2.0,
    progress: Callable[[str], None] = lambda text: None,
) -> DecodeReport:
    """Measure every codec: a trained one's directory, or a loaded random one.

    Each cost is the median of at least `repetitions`; cheap ones are repeated for `least_s`, as they are the noisiest.
    With the defaults about two minutes for the stand-in and the random 24 kHz codec on one idle core.
    """
    results: list[SchemeResult] = []
    first_packets: dict[str, tuple[Packet, ...]] = {}
    with _threads(device):
        for name, source in codecs.items():
            trained = not isinstance(source, SNAC)
            codec = (load_codec(source) if trained else source).to(device)
            bench = _Bench(name, codec, trained=trained, sessions=sessions, repetitions=repetitions, least_s=least_s)
            progress(f"{name}: errors against the full decode")
            first_packets[name] = asyncio.run(bench.first_packets())
            progress(f"{name}: cost")
            results.extend(asyncio.run(bench.results()))
    return DecodeReport(
        device=torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        threads=1,
        sessions=tuple(sessions),
        repetitions=repetitions,
        results=tuple(results),
        first_packets=first_packets,
    )


class _Window:
    """The published servers' scheme, as they run it: the stock decoder, one session at a time, weight norm and all.

    With a `seed` its noise is that of the utterance with this seed, else torch's own.
    """

    def __init__(self, codec: SNAC, layout: CodecLayout, seed: int | None = None) -> None:
        self._codec = codec
        self._layout = layout
        self._seed = seed
        self._frames: list[NDArray[np.int64]] = []

    def push(self, frame: NDArray[np.int64]) -> Audio:
        """One frame's codes; gives a frame of audio once four are known."""
        self._frames.append(frame)
        if len(self._frames) < WINDOW_FRAMES:
            return np.empty(0, dtype=np.float32)
        first_step = (len(self._frames) - WINDOW_FRAMES) * self._layout.steps_per_frame
        audio = _decode(self._codec, self._layout, np.stack(self._frames[-WINDOW_FRAMES:]), self._seed, first_step)
        return audio[self._layout.samples_per_frame : 2 * self._layout.samples_per_frame]


class _Bench:
    """Everything measured of one codec."""

    def __init__(
        self, name: str, codec: SNAC, *, trained: bool, sessions: Sequence[int], repetitions: int, least_s: float
    ) -> None:
        device = next(codec.parameters()).device
        self._name = name
        self._codec = codec
        self._sessions = sessions
        self._repetitions = repetitions
        self._least_s = least_s
        self._snac = StreamingSnac(codec, device=device)
        self._quiet = StreamingSnac(codec, device=device, noise=False)
        self._noisy = any(isinstance(module, NoiseBlock) for module in codec.modules())
        self._layout = self._snac.layout
        self._clock = time.perf_counter if device.type == "cuda" else time.process_time
        codes_of = _codes_of_speech if trained else _random_codes
        self._utterances = [codes_of(codec, self._layout, seed) for seed in range(ERROR_UTTERANCES)]
        self._exact = [_decode(codec, self._layout, codes, noise_seed(codes[0])) for codes in self._utterances]

    async def first_packets(self) -> tuple[Packet, ...]:
        packets = []
        for share in CURVE_SHARES:
            spoken = [await self._speak(codes[:2], True, HeadRamp(share=share)) for codes in self._utterances]
            packets.append(self._packet([packets[1] for packets in spoken], frames=2, start=0))
        return tuple(packets)

    async def results(self) -> list[SchemeResult]:
        costs = await self._costs()
        first_ms = await self._first_audio_ms()
        return [
            self._window_result(first_ms["window"], costs["window"]),
            await self._exact_result("exact", self._snac, first_ms["exact"], costs["exact"]),
            await self._head_result(first_ms["exact + head"], costs["exact"]),
            *[await self._exact_result(name, snac, first_ms[name], costs[name]) for name, snac in self._quiet_scheme()],
        ]

    def _quiet_scheme(self) -> list[tuple[str, StreamingSnac]]:
        """The scheme without noise, of a codec that has any."""
        return [(QUIET, self._quiet)] if self._noisy else []

    def _window_result(self, first_ms: float, costs: dict[int, float]) -> SchemeResult:
        spoken = []
        for codes in self._utterances:
            window = _Window(self._codec, self._layout, noise_seed(codes[0]))
            spoken.append([window.push(frame) for frame in codes])
        return self._result("window", spoken, first_ms, costs, start=self._layout.samples_per_frame)

    async def _exact_result(
        self, scheme: str, snac: StreamingSnac, first_ms: float, costs: dict[int, float]
    ) -> SchemeResult:
        spoken = [await self._speak(codes, False, snac=snac) for codes in self._utterances]
        return self._result(scheme, spoken, first_ms, costs)

    async def _head_result(self, first_ms: float, costs: dict[int, float]) -> SchemeResult:
        spoken = [await self._speak(codes, True) for codes in self._utterances]
        starts = np.cumsum([0, *(len(packet) for packet in spoken[0])])
        packets = [
            self._packet([packets[frame] for packets in spoken], frames=frame + 1, start=int(starts[frame]))
            for frame in range(1, 4)
        ]
        return self._result("exact + head", spoken, first_ms, costs, packets=tuple(packets))

    def _result(
        self,
        scheme: str,
        spoken: list[list[Audio]],
        first_ms: float,
        costs: dict[int, float],
        *,
        start: int = 0,
        packets: tuple[Packet, ...] = (),
    ) -> SchemeResult:
        """`spoken` are each utterance's packets, one per frame pushed; they begin with sample `start`."""
        decoded = [np.concatenate(packets) for packets in spoken]
        exact = [audio[start : start + len(decoded[0])] for audio in self._exact]
        lengths = [len(packet) for packet in spoken[0]]
        first = next(index for index, length in enumerate(lengths) if length)
        return SchemeResult(
            codec=self._name,
            scheme=scheme,
            first_audio_tokens=(first + 1) * self._layout.tokens_per_frame,
            first_audio_samples=lengths[first],
            first_audio_ms=first_ms,
            cost_ms_per_audio_s=costs,
            error_db=_error_db(decoded, exact),
            max_abs_error=max(float(np.abs(h - e).max()) for h, e in zip(decoded, exact, strict=True)),
            samples_lost=len(self._exact[0]) - len(decoded[0]),
            packets=packets,
        )

    def _packet(self, decoded: list[Audio], frames: int, start: int) -> Packet:
        """One packet over all utterances, each against its own full decode."""
        samples = len(decoded[0])
        exact = [audio[start : start + samples] for audio in self._exact]
        tokens = frames * self._layout.tokens_per_frame
        return Packet(tokens=tokens, start=start, samples=samples, error_db=_error_db(decoded, exact))

    async def _speak(
        self, codes: Frames, provisional: bool, head: HeadRamp | None = None, *, snac: StreamingSnac | None = None
    ) -> list[Audio]:
        """An utterance, or its beginning, a frame at a time."""
        async with self._streams(1, head, snac=snac) as (stream,):
            end = ERROR_FRAMES - 1
            return [await stream.push(code, final=i == end, provisional=provisional) for i, code in enumerate(codes)]

    async def _costs(self) -> dict[str, dict[int, float]]:
        """Milliseconds of work per second of audio in the steady state, by scheme and number of sessions."""
        costs: dict[str, dict[int, float]] = defaultdict(dict)
        for count in self._sessions:
            audio_s = count * self._layout.samples_per_frame / self._layout.sample_rate_hz
            for scheme, taken_s in (await self._rounds(count)).items():
                costs[scheme][count] = statistics.median(taken_s) / audio_s * 1e3
        return costs

    async def _rounds(self, count: int) -> dict[str, list[float]]:
        """Seconds of work to take `count` sessions on by a frame, the schemes in turn."""
        frames = self._utterances[0]
        windows = [_Window(self._codec, self._layout) for _ in range(count)]
        for window in windows:
            for frame in frames[: WINDOW_FRAMES - 1]:
                window.push(frame)
        taken_s: dict[str, list[float]] = defaultdict(list)
        async with AsyncExitStack() as stack:
            schemes = {
                scheme: await stack.enter_async_context(self._streams(count, snac=snac))
                for scheme, snac in (("exact", self._snac), *self._quiet_scheme())
            }
            for streams in schemes.values():
                await asyncio.gather(*(stream.push(frames[:6].flatten()) for stream in streams))  # past the beginning
            until_s = time.monotonic() + self._least_s
            while len(taken_s["window"]) < self._repetitions or time.monotonic() < until_s:
                started_s = self._clock()
                for window in windows:
                    window.push(frames[len(taken_s["window"]) % ERROR_FRAMES])
                taken_s["window"].append(self._clock() - started_s)
                for scheme, streams in schemes.items():
                    started_s = self._clock()
                    for frame in frames[:ROUNDS]:
                        await asyncio.gather(*(stream.push(frame) for stream in streams))
                    taken_s[scheme].append((self._clock() - started_s) / ROUNDS)
        return taken_s

    async def _first_audio_ms(self) -> dict[str, float]:
        """Milliseconds of work between the last token that the first audio needs and that audio."""
        taken_ms: dict[str, list[float]] = defaultdict(list)
        for repetition in range(2 * self._repetitions):
            codes = self._utterances[repetition % ERROR_UTTERANCES]
            window = _Window(self._codec, self._layout)

            async def windowed(frame: Frames, window: _Window = window) -> Audio:
                return window.push(frame)

            taken_ms["window"].append(await self._first_push_ms(codes, windowed))
            schemes = (("exact", self._snac), ("exact + head", self._snac), *self._quiet_scheme())
            for scheme, snac in schemes:
                async with self._streams(1, snac=snac) as (stream,):
                    push = partial(stream.push, provisional=scheme == "exact + head")
                    taken_ms[scheme].append(await self._first_push_ms(codes, push))
        return {scheme: statistics.median(values) for scheme, values in taken_ms.items()}

    async def _first_push_ms(self, codes: Frames, push: Callable[[Frames], Awaitable[Audio]]) -> float:
        for frame in codes:
            started_s = self._clock()
            if len(await push(frame)):
                return (self._clock() - started_s) * 1e3
        raise AssertionError(f"{ERROR_FRAMES} frames are too few for a first packet")

    @asynccontextmanager
    async def _streams(
        self, count: int, head: HeadRamp | None = None, *, snac: StreamingSnac | None = None
    ) -> AsyncIterator[list[DecodeStream]]:
        async with Decoder(snac or self._snac, max_sessions=count, head=head) as decoder:
            yield [decoder.open() for _ in range(count)]


@contextmanager
def _threads(device: str) -> Iterator[None]:
    before = torch.get_num_threads()
    if not device.startswith("cuda"):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def _decode(codec: SNAC, layout: CodecLayout, codes: Frames, seed: int | None, first_step: int = 0) -> Audio:
    """[frames, tokens_per_frame] → [samples], by the stock class, with the noise of `seed` or torch's."""
    steps = layout.codes_by_step(codes)
    device = next(codec.parameters()).device
    levels = [torch.from_numpy(steps[::stride, i])[None].to(device) for i, stride in enumerate(layout.strides)]
    with nullcontext() if seed is None else noise_of(codec, seed, first_step=first_step):
        return codec.decode(levels)[0, 0].cpu().numpy()


def _random_codes(codec: SNAC, layout: CodecLayout, seed: int) -> Frames:
    """[ERROR_FRAMES, tokens_per_frame]"""
    return np.random.default_rng(seed).integers(0, codec.codebook_size, (ERROR_FRAMES, layout.tokens_per_frame))


@torch.inference_mode()
def _codes_of_speech(codec: SNAC, layout: CodecLayout, seed: int) -> Frames:
    """[ERROR_FRAMES, tokens_per_frame]: the codec's own codes of a speech-like signal."""
    device = next(codec.parameters()).device
    signal = _speechlike(ERROR_FRAMES * layout.samples_per_frame, layout.sample_rate_hz, seed)
    levels = codec.encode(torch.from_numpy(signal)[None, None].to(device))
    steps = torch.stack(
        [level[0].repeat_interleave(stride) for level, stride in zip(levels, layout.strides, strict=True)], dim=1
    )
    frames = steps.cpu().numpy().reshape(-1, layout.steps_per_frame, len(layout.strides))[:ERROR_FRAMES]
    codes = np.empty((len(frames), layout.tokens_per_frame), dtype=np.int64)
    codes[:, layout.positions] = frames
    return codes


def _speechlike(samples: int, sample_rate_hz: int, seed: int) -> Audio:
    """Harmonics of a wandering pitch under three formants that move from syllable to syllable, a breath of noise."""
    draw = np.random.default_rng(seed)
    time_s = np.arange(samples) / sample_rate_hz
    knots_s = np.arange(0, time_s[-1] + 0.36, 0.18)  # a syllable each

    def contour(low: float, high: float) -> NDArray[np.float64]:
        return np.interp(time_s, knots_s, draw.uniform(low, high, len(knots_s)))

    pitch_hz = contour(90, 180)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / sample_rate_hz
    formants_hz = [contour(*band) for band in ((300, 800), (900, 2200), (2300, 3200))]
    voice = np.zeros(samples)
    for harmonic in range(1, 40):
        gains = [np.exp(-(((harmonic * pitch_hz - f) / 180) ** 2)) / (i + 1) for i, f in enumerate(formants_hz)]
        voice += sum(gains) * np.sin(harmonic * phase)
    voice *= contour(0.2, 1.0)
    voice += 0.01 * draw.standard_normal(samples)
    return (0.08 * voice / np.sqrt(np.mean(voice**2))).astype(np.float32)


def _error_db(decoded: Sequence[Audio], exact: Sequence[Audio]) -> float:
    """Energy of the difference over energy of the signal, all utterances together."""
    error = sum(float(np.square(h.astype(np.float64) - e).sum()) for h, e in zip(decoded, exact, strict=True))
    signal = sum(float(np.square(e.astype(np.float64)).sum()) for e in exact)
    return float(10 * np.log10(max(error, 1e-30) / max(signal, 1e-30)))
