"""Codes to sound for all sessions of a worker: one `Decoder` per process, one `DecodeStream` per utterance.

A thread of its own does the arithmetic, so the event loop never waits for it. Before each batch the waiting pushes are
put in order: first packets before all else, then by deadline; those without one come last. What waits is bounded: a
stream has at most one push under way, and there are at most `max_sessions` streams.

On a CPU a batch is small (its cost is its size) and a first packet goes alone; on CUDA all that waits goes together.
Nothing ever waits for a batch to fill.

It knows codes, deadlines and PCM. It does not know tokens, text or playback: whether a provisional head is worth its
error is for the session to decide.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from snac import SNAC

from app.errors import EngineFailed, Overloaded
from workers.decode_pool import DecodePool, Work
from workers.provisional_head import HeadRamp, Samples
from workers.snac_stream import StreamingSnac, load_codec

logger = logging.getLogger(__name__)

CPU_BATCH = 4
CUDA_BATCH = 64


class StreamClosed(EngineFailed):
    """The stream was closed, by its owner, a cancelled push, a failed batch or the decoder's end; open another."""


@dataclass
class DecoderStats:
    """Counters since the start. `rows` counts each batch's streams, so rows / batches is the mean batch."""

    batches: int = 0
    rows: int = 0
    provisional_packets: int = 0
    late_pushes: int = 0
    codes_dropped: int = 0
    busy_s: float = 0.0


@dataclass(eq=False)
class _Job:
    """One push on its way. `urgency` sorts: not a first packet, deadline on the decoder's clock, order of arrival."""

    stream: DecodeStream
    work: Work
    urgency: tuple[bool, float, int]
    audio: asyncio.Future[Samples]

    @property
    def is_first_packet(self) -> bool:
        return not self.urgency[0]

    def fail(self, error: EngineFailed) -> None:
        if not self.audio.done():
            self.audio.set_exception(error)


class Decoder:
    """Decodes the streams of one worker process: `async with Decoder(...)`, or `start` and `aclose`.

    `codec` is a codec directory, a loaded `snac.SNAC`, which is left as it was, or what already decodes it, on its own
    device; `max_batch` the most streams in one batch; without `noise` its noise blocks add none; `clock` what deadlines
    are on, in seconds. On a CPU the decode thread sets torch to one thread: for itself and for threads that begin to
    use torch after it.
    """

    def __init__(
        self,
        codec: Path | str | SNAC | StreamingSnac,
        *,
        device: str = "cpu",
        max_sessions: int,
        max_batch: int | None = None,
        head: HeadRamp | None = None,
        noise: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        snac = _streaming(codec, device, noise=noise)
        self.layout = snac.layout
        self.lookahead_samples = snac.lookahead_samples
        self.max_sessions = max_sessions
        self.stats = DecoderStats()
        self._max_batch = max_batch or (CUDA_BATCH if snac.device.type == "cuda" else CPU_BATCH)
        slots = max_sessions + self._max_batch  # a batch may still be writing to slots of streams that are closed
        self._pool = DecodePool(snac, slots=slots, head=head or HeadRamp())
        self._free_slots = list(range(slots))
        self._open_streams = 0
        self._clock = clock
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._arrivals = itertools.count()
        self._wake = asyncio.Event()
        self._closing = False
        self._server: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode", initializer=self._pool.prepare_thread)

    async def start(self) -> None:
        self._server = asyncio.create_task(self._serve(), name="decoder")

    async def aclose(self) -> None:
        """Fail what waits, let the batch under way finish, and end the thread."""
        self._closing = True
        self._wake.set()
        try:
            if self._server is not None:
                await self.died()
        finally:
            self._thread.shutdown(wait=False)

    async def died(self) -> str:
        """Wait until the decoder has ended; returns why. It ends of itself only where no later batch could succeed."""
        assert self._server is not None
        await asyncio.wait([self._server])
        error = None if self._server.cancelled() else self._server.exception()
        return f"decoding failed for good: {error!r}" if error else "closed"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def open(self, *, patient: bool = False) -> DecodeStream:
        """Claim a slot for one utterance; one that is `patient` has no packet that goes before others.

        Raises Overloaded when `max_sessions` are taken.
        """
        if self._closing:
            raise StreamClosed("the decoder is closed: its worker is stopping")
        if self._open_streams >= self.max_sessions:
            raise Overloaded(
                f"all {self.max_sessions} decoder slots are taken: try again, or raise max_sessions", retry_after_s=1.0
            )
        self._open_streams += 1
        return DecodeStream(self, self._free_slots.pop(), patient)

    async def _decode(self, stream: DecodeStream, work: Work, deadline_s: float | None) -> Samples:
        later = stream.patient or stream.samples_out > 0
        urgency = (later, math.inf if deadline_s is None else deadline_s, next(self._arrivals))
        job = _Job(stream, work, urgency, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._wake.set()
        try:
            return await job.audio
        except asyncio.CancelledError:
            stream.close()
            raise

    def _release(self, stream: DecodeStream, slot: int) -> None:
        """Make room for another stream; the slot itself is free at once, or after the batch that is writing to it."""
        self._open_streams -= 1
        closed = StreamClosed("the stream was closed with a push under way: open another")
        running = [job for job in self._running if job.stream is stream]
        waiting = [job for job in self._waiting if job.stream is stream]
        for job in running + waiting:
            job.fail(closed)
        self._waiting = [job for job in self._waiting if job not in waiting]
        if not running:
            self._free_slots.append(slot)

    async def _serve(self) -> None:
        try:
            while not self._closing:
                if self._waiting:
                    await self._decode_next()
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:  # also when this task is cancelled: no caller may wait for ever
            self._closing = True
            for job in self._running + self._waiting:
                job.stream.close()

    async def _decode_next(self) -> None:
        self._running = self._next_batch()
        batch = [job.work for job in self._running]
        error: Exception | None = None
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._run, batch)
        except Exception as raised:  # of torch: the other streams go on
            logger.exception("a decode batch failed", extra={"rows": len(batch)})
            error = raised
        self._settle(error)
        if error is not None and self._pool.on_cuda:
            raise error  # a CUDA context does not recover: its worker has to restart

    def _run(self, batch: Sequence[Work]) -> None:
        """In the decode thread."""
        started_s = self._clock()
        self.stats.provisional_packets += self._pool.decode(batch)
        self.stats.batches += 1
        self.stats.rows += len(batch)
        self.stats.busy_s += self._clock() - started_s

    def _next_batch(self) -> list[_Job]:
        self._waiting.sort(key=lambda job: job.urgency)
        alone = self._waiting[0].is_first_packet and not self._pool.on_cuda
        size = 1 if alone else self._max_batch
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        return batch

    def _settle(self, error: Exception | None) -> None:
        """Hand finished pushes back, put unfinished ones in line again, free the slots of streams closed meanwhile."""
        batch, self._running = self._running, []
        for job in batch:
            if job.stream.closed:
                self._free_slots.append(job.work.utterance.slot)
            elif error is not None:
                job.fail(EngineFailed(f"decoding failed: {error!r}; speak again"))
                job.stream.close()
            elif not job.work.done:
                if job.work.has_audio:  # the rest of a long push is no first packet
                    job.urgency = (True, *job.urgency[1:])
                self._waiting.append(job)
            elif not job.audio.done():  # done: cancelled a moment ago, and about to close its stream
                self.stats.late_pushes += self._clock() > job.urgency[1]
                parts = job.work.parts
                job.audio.set_result(parts[0] if len(parts) == 1 else np.concatenate(parts))


def _streaming(codec: Path | str | SNAC | StreamingSnac, device: str, *, noise: bool) -> StreamingSnac:
    if isinstance(codec, StreamingSnac):
        return codec
    return StreamingSnac(codec if isinstance(codec, SNAC) else load_codec(codec), device=device, noise=noise)


class DecodeStream:
    """One utterance. Its pushes follow one another; those of other streams may run at the same time."""

    def __init__(self, decoder: Decoder, slot: int, patient: bool) -> None:
        self.patient = patient
        self.samples_out = 0
        self.frames_in = 0
        self.codes_dropped = 0
        self.closed = False
        self._decoder = decoder
        self._utterance = decoder._pool.utterance(slot)
        self._partial: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._busy = False
        self._ended = False

    async def push(
        self,
        codes: Sequence[int] | NDArray[np.integer],
        *,
        final: bool = False,
        deadline_s: float | None = None,
        provisional: bool = False,
    ) -> Samples:
        """Decode more codes, in frame order and split anywhere; returns the mono PCM that is now due, maybe none.

        `final` ends the utterance: all samples still owed come out, a trailing partial frame is dropped and counted.
        `deadline_s`, a time on the decoder's clock, says by when. `provisional` adds the head ahead of the codec's
        lookahead, at the ramp's error; without it only exact samples come out.

        Raises EngineFailed for a code outside the codebook (nothing of this push is then taken), StreamClosed after
        `close`, RuntimeError for a push beside another or after the final one. A cancelled push closes the stream.
        """
        if self.closed or self._decoder._closing:
            raise StreamClosed("push on a closed stream: open another")
        if self._busy or self._ended:
            raise RuntimeError("push while another is under way" if self._busy else "push after the final one")
        frames = self._whole_frames(self._checked(codes))
        self.frames_in += len(frames)
        if final:
            self._end()
        end_frame = self.frames_in if final else None
        work = self._decoder._pool.work(self._utterance, frames, end_frame, provisional)
        if work.done:
            return np.empty(0, dtype=np.float32)
        self._busy = True
        try:
            audio = await self._decoder._decode(self, work, deadline_s)
        finally:
            self._busy = False
        self.samples_out += len(audio)
        return audio

    def close(self) -> None:
        """Give the slot back, whatever is under way: a push in flight raises StreamClosed. Idempotent."""
        if not self.closed:
            self.closed = True
            self._decoder._release(self, self._utterance.slot)

    def _end(self) -> None:
        self._ended = True
        self.codes_dropped = len(self._partial)
        self._decoder.stats.codes_dropped += len(self._partial)

    def _checked(self, codes: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        array = np.asarray(codes)
        if not array.size:
            return np.empty(0, dtype=np.int64)
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise EngineFailed(f"codes must be a flat sequence of integers, not {array.dtype} of shape {array.shape}")
        size = self._decoder.layout.codebook_size
        # Of the few in a list, Python itself finds the extremes sooner.
        least, most = (min(codes), max(codes)) if isinstance(codes, list) else (array.min(), array.max())
        if least < 0 or most >= size:
            bad = array[(array < 0) | (array >= size)]
            raise EngineFailed(f"code {bad[0]} is outside 0..{size - 1}: the sampler's band mask must keep it out")
        return array.astype(np.int64)

    def _whole_frames(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """[frames, tokens_per_frame] of all codes kept and new; what does not fill a frame is kept for the next."""
        width = self._decoder.layout.tokens_per_frame
        if len(self._partial):
            codes = np.concatenate((self._partial, codes))
        whole = len(codes) - len(codes) % width
        self._partial = codes[whole:]
        return codes[:whole].reshape(-1, width)
