"""Stand-ins for what a unit test cannot afford. Each implements the real Protocol."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import numpy as np

from app.errors import CarillonError
from app.speech.token_layout import TOKENS_PER_FRAME, SpeechConfig, TokenLayout
from workers.engine import Codes, EngineAdapter, EngineLoad, Utterance


class FakeEngine:
    """An engine (workers.engine.Engine) that writes `frames_per_char` frames for each character, the same every time.

    `pause` holds every utterance before its next frame; `failing` is raised instead of the next frame; `before_unload`
    is awaited in the middle of an unload.
    """

    def __init__(self, *, codebook_size: int = 16, samples_per_frame: int = 32, frames_per_char: int = 1) -> None:
        self.layout = TokenLayout(
            speech=SpeechConfig(name="fake", stand_in=True, voices=("wren", "rook")),
            codebook_size=codebook_size,
            samples_per_frame=samples_per_frame,
            sample_rate_hz=24_000,
        )
        self.frames_per_char = frames_per_char
        self.utterances: list[Utterance] = []
        self.running: set[int] = set()
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.failing: CarillonError | None = None
        self.before_unload: Callable[[], Awaitable[object]] | None = None
        self._flow = asyncio.Event()
        self._flow.set()
        self.progressed = asyncio.Event()

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    def pause(self) -> None:
        self._flow.clear()

    def resume(self) -> None:
        self._flow.set()

    async def speak(self, utterance: Utterance) -> AsyncGenerator[Codes, None]:
        number = len(self.utterances)
        self.utterances.append(utterance)
        self.running.add(number)
        frames = self.codes_of(utterance.text)[len(utterance.codes) // TOKENS_PER_FRAME :]
        if not frames:
            yield Codes([], "end")
        try:
            for index, frame in enumerate(frames):
                await self._flow.wait()
                await asyncio.sleep(0)
                if self.failing:
                    raise self.failing
                yield Codes(frame, "end" if index == len(frames) - 1 else None)
                self.progressed.set()
        finally:
            self.running.discard(number)

    def codes_of(self, text: str) -> list[list[int]]:
        """The frames `text` is spoken as, [frames][7]."""
        draw = np.random.default_rng(zlib.crc32(text.encode()))
        shape = (len(text) * self.frames_per_char, TOKENS_PER_FRAME)
        return draw.integers(0, self.layout.codebook_size, shape).tolist()

    async def load(self, adapter: EngineAdapter) -> None:
        await asyncio.sleep(0)
        self.loaded.append(adapter.name)

    async def unload(self, adapter: EngineAdapter) -> None:
        self.unloaded.append(adapter.name)
        if self.before_unload:
            await self.before_unload()

    async def died(self) -> str:
        await asyncio.Event().wait()
        return "never"

    def load_now(self) -> EngineLoad:
        return EngineLoad(running=len(self.running))
