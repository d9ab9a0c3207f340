"""Workers, as they describe themselves to the fleet."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from app.speech.voices import Frozen, ModelCard


class WorkerState(StrEnum):
    STARTING = "starting"
    ACTIVE = "active"
    DRAINING = "draining"


class Worker(Frozen):
    """One worker as its last heartbeat described it."""

    id: str
    epoch: int = Field(description="Grows with every start of the process; what an older epoch held is gone.")
    address: str = Field(description="ws://host:port of its private server")
    model: ModelCard
    state: WorkerState
    capacity: int = Field(description="Sessions it can speak with at once, in real time.")
    max_voices: int = Field(description="Distinct adapters it may have active at once: vLLM's LoRA slots.")
    inflight: int = Field(default=0, description="Interactive sessions.")
    active_adapters: frozenset[str] = Field(default=frozenset(), description="What these need.")
    background: int = Field(default=0, description="Sessions in spare places, which end when one is wanted.")
    background_adapters: frozenset[str] = Field(default=frozenset(), description="What only these need.")
    ready_adapters: frozenset[str] = frozenset()
    pace_s_per_s: float | None = Field(
        default=None, description="Seconds of work for a second of speech with all sessions at once, where measured."
    )
    part: str = Field(default="", description="Which part of its start it is in, while it is starting.")
