"""Many utterances through one decoder: exactness, the provisional head, order, and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snac import SNAC

from app.errors import EngineFailed, Overloaded
from tests.support.deadlines import HANG_S
from tests.support.random_codecs import SNAC_24KHZ, TINY, full_decode, random_codec, random_codes
from workers.decoder import Decoder, DecodeStream, StreamClosed
from workers.provisional_head import HeadRamp

pytestmark = pytest.mark.anyio

FRAME = 32  # samples per frame of the tiny codec


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def codec() -> SNAC:
    return random_codec(TINY)


@pytest.fixture
async def decoder(codec: SNAC) -> AsyncIterator[Decoder]:
    async with Decoder(codec, max_sessions=4) as decoder:
        yield decoder


class Gate:
    """A clock that stops the decode thread wherever it reads the time, until the gate is open."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._reached = threading.Event()

    def __call__(self) -> float:
        if threading.current_thread().name.startswith("decode"):
            self._reached.set()
            assert self._open.wait(timeout=HANG_S)
        return 0.0

    def open(self) -> None:
        self._open.set()

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        self._open.set()
        yield
        self._open.clear()
        self._reached.clear()

    async def until_reached(self) -> None:
        assert await asyncio.get_running_loop().run_in_executor(None, self._reached.wait, 10)


async def say(stream: DecodeStream, codes: np.ndarray, sizes: list[int] | None = None, **options: bool) -> np.ndarray:
    """Push an utterance in pieces of so many codes, in turn, the last with final=True."""
    flat, parts, turn = codes.flatten().tolist(), [], 0
    while flat:
        size = (sizes or [7])[turn % len(sizes or [7])]
        piece, flat, turn = flat[:size], flat[size:], turn + 1
        parts.append(await stream.push(piece, final=not flat, **options))
    stream.close()
    return np.concatenate(parts)


async def test_any_pieces_of_any_utterances_join_into_their_full_decodes(codec: SNAC) -> None:
    utterance = st.tuples(st.integers(1, 14), st.lists(st.integers(1, 40), min_size=1, max_size=5))

    @settings(max_examples=15, deadline=None)
    @given(utterances=st.lists(utterance, min_size=1, max_size=4))
    def check(utterances: list[tuple[int, list[int]]]) -> None:
        codes = [random_codes(codec, frames, seed) for seed, (frames, _) in enumerate(utterances)]

        async def together() -> list[np.ndarray]:
            async with Decoder(codec, max_sessions=4) as decoder:
                streams = [decoder.open() for _ in utterances]
                pushes = [say(*each) for each in zip(streams, codes, (sizes for _, sizes in utterances), strict=True)]
                return await asyncio.gather(*pushes)

        for each, audio in zip(codes, asyncio.run(together()), strict=True):
            assert audio.dtype == np.float32
            assert len(audio) == len(each) * FRAME
            np.testing.assert_allclose(audio, full_decode(codec, each), atol=1e-5)

    await asyncio.get_running_loop().run_in_executor(None, check)


async def test_sessions_of_different_age_share_a_batch(codec: SNAC, decoder: Decoder) -> None:
    """One that begins, one in its middle and one that ends go on together, and each as if alone."""
    codes = [random_codes(codec, 20, seed) for seed in range(3)]
    ages = [1, 8, 16]
    streams = [decoder.open() for _ in codes]
    parts = [[await stream.push(code[:age].flatten())] for stream, code, age in zip(streams, codes, ages, strict=True)]
    before = replace(decoder.stats)

    pushes = [s.push(code[age:].flatten(), final=True) for s, code, age in zip(streams, codes, ages, strict=True)]
    for part, audio in zip(parts, await asyncio.gather(*pushes), strict=True):
        part.append(audio)

    assert decoder.stats.rows - before.rows > decoder.stats.batches - before.batches
    for part, code in zip(parts, codes, strict=True):
        np.testing.assert_allclose(np.concatenate(part), full_decode(codec, code), atol=1e-5)


async def test_code_zero_is_a_code(codec: SNAC, decoder: Decoder) -> None:
    silence = np.zeros((3, 7), dtype=np.int64)
    audio = await say(decoder.open(), silence)
    assert len(audio) == 3 * FRAME
    np.testing.assert_allclose(audio, full_decode(codec, silence), atol=1e-5)


async def test_a_partial_frame_waits_for_its_other_codes_and_is_dropped_at_the_end(
    codec: SNAC, decoder: Decoder
) -> None:
    codes = random_codes(codec, 2)
    flat = codes.flatten().tolist()
    stream = decoder.open()
    parts = [await stream.push(flat[:3]), await stream.push(flat[3:]), await stream.push([1, 2, 3], final=True)]
    assert stream.frames_in == 2
    assert (stream.codes_dropped, decoder.stats.codes_dropped) == (3, 3)
    np.testing.assert_allclose(np.concatenate(parts), full_decode(codec, codes), atol=1e-5)


async def test_an_utterance_without_a_whole_frame_is_silent(decoder: Decoder) -> None:
    stream = decoder.open()
    assert len(await stream.push([])) == 0
    assert len(await stream.push([5, 6], final=True)) == 0


async def test_a_slot_taken_again_starts_fresh(codec: SNAC) -> None:
    codes = random_codes(codec, 3)
    async with Decoder(codec, max_sessions=1) as decoder:
        interrupted = decoder.open()
        await interrupted.push(codes.flatten())
        interrupted.close()
        np.testing.assert_allclose(await say(decoder.open(), codes), full_decode(codec, codes), atol=1e-5)


# The provisional head.


async def test_the_head_starts_after_14_codes_and_is_exact_after_the_ramp() -> None:
    codec = random_codec(SNAC_24KHZ)
    codes = random_codes(codec, 7)
    spoken, parts = [], []
    async with Decoder(codec, max_sessions=1) as decoder:
        stream = decoder.open()
        for frame in range(7):
            parts.append(await stream.push(codes[frame], final=frame == 6, provisional=True))
            spoken.append(stream.samples_out)
    assert spoken == [0, 2048, 3072, 4096, 5483, 7531, 7 * 2048]
    audio, exact = np.concatenate(parts), full_decode(codec, codes)
    np.testing.assert_allclose(audio[4096 + 128 :], exact[4096 + 128 :], atol=1e-5)
    assert 0 < np.abs(audio - exact)[:4096].max() < 0.2 * np.abs(exact).max()


async def test_without_provisional_only_exact_samples_come(codec: SNAC, decoder: Decoder) -> None:
    codes = random_codes(codec, 12)
    stream = decoder.open()
    parts = [await stream.push(frame) for frame in codes]
    known = 12 * FRAME - decoder.lookahead_samples
    assert stream.samples_out == known > 0
    np.testing.assert_allclose(np.concatenate(parts), full_decode(codec, codes)[:known], atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(requested=st.lists(st.booleans(), min_size=1, max_size=20), share=st.sampled_from([0.25, 0.5, 0.9]))
def test_whenever_it_is_requested_every_sample_comes_once_and_is_exact_for_good(
    requested: list[bool], share: float
) -> None:
    codec = random_codec(TINY)
    codes = random_codes(codec, len(requested))
    ramp = HeadRamp(first_frames=1, share=share, fade_samples=8)

    async def speak() -> tuple[np.ndarray, int]:
        parts, provisional_until = [], 0
        async with Decoder(codec, max_sessions=1, head=ramp) as decoder:
            stream = decoder.open()
            for frame, provisional in enumerate(requested):
                packets = decoder.stats.provisional_packets
                final = frame == len(requested) - 1
                parts.append(await stream.push(codes[frame], final=final, provisional=provisional))
                if decoder.stats.provisional_packets > packets:
                    provisional_until = stream.samples_out
        return np.concatenate(parts), provisional_until

    audio, provisional_until = asyncio.run(speak())
    exact = full_decode(codec, codes)
    assert len(audio) == len(exact)
    np.testing.assert_allclose(audio[provisional_until + 8 :], exact[provisional_until + 8 :], atol=1e-5)


# Order.


async def test_first_packets_go_before_all_else_and_then_the_earliest_deadline(codec: SNAC) -> None:
    gate, order = Gate(), []
    frames = random_codes(codec, 9)

    async def push(name: str, stream: DecodeStream, deadline_s: float | None) -> None:
        await stream.push(frames[8], deadline_s=deadline_s)
        order.append(name)

    async with Decoder(codec, max_sessions=5, max_batch=1, clock=gate) as decoder:
        late, soon, whenever, first, blocker = (decoder.open() for _ in range(5))
        with gate.opened():
            for stream in (late, soon, whenever):
                await stream.push(frames[:8].flatten())
        async with asyncio.TaskGroup() as group:
            group.create_task(push("blocker", blocker, None))
            await gate.until_reached()
            for name, stream, deadline_s in (
                ("whenever", whenever, None),
                ("late", late, 9.0),
                ("soon", soon, 2.0),
                ("first", first, 99.0),
            ):
                group.create_task(push(name, stream, deadline_s))
            await asyncio.sleep(0)
            gate.open()
    assert order == ["blocker", "first", "soon", "late", "whenever"]


async def test_a_long_push_lets_more_urgent_ones_in_between(codec: SNAC) -> None:
    gate, order = Gate(), []

    async def push(name: str, stream: DecodeStream, frames: int) -> None:
        await stream.push(random_codes(codec, frames).flatten())
        order.append(name)

    async with Decoder(codec, max_sessions=2, clock=gate) as decoder, asyncio.TaskGroup() as group:
        group.create_task(push("a book", decoder.open(), 40))
        await gate.until_reached()
        group.create_task(push("a word", decoder.open(), 2))
        await asyncio.sleep(0)
        gate.open()
    assert order == ["a word", "a book"]


async def test_pushes_after_their_deadline_are_counted(codec: SNAC) -> None:
    async with Decoder(codec, max_sessions=1, clock=lambda: 5.0) as decoder:
        stream = decoder.open()
        await stream.push([0] * 7, deadline_s=4.0)
        await stream.push([0] * 7, deadline_s=6.0)
        assert decoder.stats.late_pushes == 1


# What goes wrong.


async def test_a_decoder_without_a_free_slot_refuses_and_a_closed_stream_makes_room(decoder: Decoder) -> None:
    streams = [decoder.open() for _ in range(4)]
    with pytest.raises(Overloaded, match="all 4 decoder slots are taken"):
        decoder.open()
    streams[2].close()
    streams[2].close()
    decoder.open()
    with pytest.raises(Overloaded):
        decoder.open()


@pytest.mark.parametrize("bad", [-1, 16, 4096, 2**40])
async def test_a_code_outside_the_codebook_hurts_only_its_own_push(codec: SNAC, decoder: Decoder, bad: int) -> None:
    codes = random_codes(codec, 6)
    mended, other = decoder.open(), decoder.open()
    first = await mended.push(codes[:3].flatten())
    beside = asyncio.create_task(say(other, codes))
    with pytest.raises(EngineFailed, match=rf"code {bad} is outside 0\.\.15"):
        await mended.push([*codes[3], bad])
    rest = await mended.push(codes[3:].flatten(), final=True)
    expected = full_decode(codec, codes)
    np.testing.assert_allclose(np.concatenate((first, rest)), expected, atol=1e-5)
    np.testing.assert_allclose(await beside, expected, atol=1e-5)


@pytest.mark.parametrize("codes", [[1.5] * 7, [[1, 2], [3, 4]], ["a"], [True] * 7])
async def test_what_is_not_a_list_of_integers_is_refused(decoder: Decoder, codes: list) -> None:
    with pytest.raises(EngineFailed, match="flat sequence of integers"):
        await decoder.open().push(codes)


async def test_one_push_at_a_time_and_none_after_the_last(decoder: Decoder) -> None:
    stream = decoder.open()
    pushing = asyncio.create_task(stream.push([0] * 14))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="another is under way"):
        await stream.push([0] * 7)
    await pushing
    await stream.push([], final=True)
    with pytest.raises(RuntimeError, match="after the final one"):
        await stream.push([0] * 7)


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "closed"])
async def test_ending_a_stream_with_a_push_in_flight_spares_the_others(codec: SNAC, cancelled: bool) -> None:
    """One push is being decoded, one waits; both are ended. The third goes on, and there is room for two more."""
    gate = Gate()
    codes = random_codes(codec, 3)
    async with Decoder(codec, max_sessions=3, max_batch=1, clock=gate) as decoder:
        running, waiting, lucky = (decoder.open() for _ in range(3))
        doomed = [asyncio.create_task(running.push(codes.flatten()))]
        await gate.until_reached()
        doomed.append(asyncio.create_task(waiting.push(codes.flatten())))
        survivor = asyncio.create_task(say(lucky, codes))
        await asyncio.sleep(0)
        if cancelled:
            for task in doomed:
                task.cancel()
        else:
            running.close()
            waiting.close()
        results = await asyncio.gather(*doomed, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError if cancelled else StreamClosed] * 2
        assert running.closed and waiting.closed
        with pytest.raises(StreamClosed):
            await running.push([0] * 7)
        fresh = [decoder.open() for _ in range(2)]  # at once, though a batch is still writing to one of the slots
        with pytest.raises(Overloaded):
            decoder.open()
        gate.open()
        for audio in await asyncio.gather(survivor, *(say(stream, codes) for stream in fresh)):
            np.testing.assert_allclose(audio, full_decode(codec, codes), atol=1e-5)
        for _ in range(6):  # more often than there are slots: none was lost
            np.testing.assert_allclose(await say(decoder.open(), codes), full_decode(codec, codes), atol=1e-5)


async def test_a_failed_batch_fails_its_pushes_and_no_later_ones(codec: SNAC) -> None:
    failures = ["device lost"]

    def clock() -> float:
        """Fails once, in the decode thread, where an accelerator's errors arise."""
        if failures and threading.current_thread().name.startswith("decode"):
            raise OSError(failures.pop())
        return 0.0

    codes = random_codes(codec, 2)
    async with Decoder(codec, max_sessions=1, clock=clock) as decoder:
        with pytest.raises(EngineFailed, match="device lost"):
            await say(decoder.open(), codes)
        np.testing.assert_allclose(await say(decoder.open(), codes), full_decode(codec, codes), atol=1e-5)


async def test_closing_the_decoder_ends_what_waits(codec: SNAC) -> None:
    gate = Gate()
    async with Decoder(codec, max_sessions=2, max_batch=1, clock=gate) as decoder:
        pushes = [asyncio.create_task(decoder.open().push([0] * 7 * 40))]
        await gate.until_reached()
        pushes.append(asyncio.create_task(decoder.open().push([0] * 7)))
        await asyncio.sleep(0)
        gate.open()
    results = await asyncio.gather(*pushes, return_exceptions=True)
    assert [type(result) for result in results] == [StreamClosed, StreamClosed]
    with pytest.raises(StreamClosed, match="the decoder is closed"):
        decoder.open()


async def test_no_caller_waits_for_a_decoder_whose_task_was_cancelled(codec: SNAC) -> None:
    gate = Gate()
    decoder = Decoder(codec, max_sessions=2, clock=gate)
    await decoder.start()
    pushes = [asyncio.create_task(decoder.open().push([0] * 7)) for _ in range(2)]
    await gate.until_reached()
    (server,) = (task for task in asyncio.all_tasks() if task.get_name() == "decoder")
    server.cancel()
    results = await asyncio.gather(*pushes, return_exceptions=True)
    assert [type(result) for result in results] == [StreamClosed, StreamClosed]
    gate.open()
    await decoder.aclose()
