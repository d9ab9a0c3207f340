"""The one real engine of a test session: to load it takes longer than most of its tests."""

from __future__ import annotations

from dataclasses import replace

import psutil

from app.platform import profiles
from app.platform.settings import STAND_IN, EngineSettings
from app.speech.token_layout import read_layout
from workers.vllm_engine import VllmEngine

LAYOUT = read_layout(STAND_IN / "model", STAND_IN / "codec")
VOICE = LAYOUT.speech.voices[0]
SLOTS = 2
"""For adapters."""

PROFILE = replace(profiles.CPU, max_loras=SLOTS, max_cpu_loras=SLOTS, max_num_seqs=6)


class EngineClock:
    """Stands still; `read`: it was read since the engine began to work."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.read = False

    def __call__(self) -> float:
        self.read = True
        return self.now_s


class SharedEngine:
    """An engine that is loaded for the first who asks for it, and again for the next when a test has killed it.

    It computes in float32, so that a batch of another size does not round otherwise and tip a greedy choice.
    """

    def __init__(self) -> None:
        self.clock = EngineClock()
        self._engine: VllmEngine | None = None

    async def living(self) -> VllmEngine:
        if self._engine is None or not self.core.is_running() or self.core.status() == psutil.STATUS_ZOMBIE:
            await self.aclose()
            settings = EngineSettings(dtype="float32")
            self._engine = VllmEngine(
                STAND_IN / "model", LAYOUT, settings, profile=PROFILE, device="cpu", clock=self.clock
            )
            await self._engine.start()
            self.core = _core()
        return self._engine

    async def aclose(self) -> None:
        if self._engine is not None:
            await self._engine.aclose()
            self._engine = None


def _core() -> psutil.Process:
    """The process that the engine computes in: the largest below this one that is of no fleet beside it."""
    own = [child for child in psutil.Process().children() if "app.cli.main" not in child.cmdline()]
    family = [process for child in own for process in (child, *child.children(recursive=True))]
    return max(family, key=lambda process: process.memory_info().rss)
