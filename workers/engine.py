"""What a worker needs of an engine: text and a voice in, codec codes out, as a small Protocol.

It knows tokens, adapters and the engine's life; it does not know sessions, sound or the network.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from app.speech.protocol import AssignedPace
from app.speech.token_layout import TokenLayout

PRIORITY: dict[AssignedPace, int] = {"realtime": 0, "unpaced": 1, "background": 2}
"""The engine's order when it cannot serve all at once: listeners go before downloads."""


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


@dataclass(slots=True)
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
        """Make `adapter` usable. Raises AdapterUnavailable; the engine and all other streams survive."""
        ...

    async def unload(self, adapter: EngineAdapter) -> None:
        """Forget `adapter`; one that is not held is no error. Raises EngineFailed when the engine is gone."""
        ...

    async def died(self) -> str:
        """Wait until the engine has died of itself, or hangs; returns the reason."""
        ...

    def load_now(self) -> EngineLoad: ...
