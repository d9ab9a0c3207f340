"""What `carillon bench gpu` measures, in the order of its worth: with little time the headline comes first.

Values and pure functions; nothing here starts a process or reads a clock. The seconds a measurement is thought to take
decide only whether it is begun before the time is over; they are inferred, for a large card.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from app.speech.voices import Frozen

Table = Literal["engine", "decoder", "speech", "training"]
Parameter = str | int | bool

TALK_BATCH = 10
"""The talk's: 105 tokens/s of base voices and 95 with LoRAs, on an L40S in FP8."""


class Measurement(Frozen):
    """One thing to measure: the same parameters, the same key, the same place in the results."""

    table: Table
    name: str
    parameters: Mapping[str, Parameter] = {}
    about_s: float = 5.0

    @property
    def key(self) -> str:
        return " ".join([f"{self.table}.{self.name}", *(f"{name}={value}" for name, value in self.parameters.items())])

    def number(self, name: str) -> int:
        return int(self.parameters[name])

    def word(self, name: str) -> str:
        return str(self.parameters[name])


@dataclass(frozen=True)
class Sizes:
    """How much of everything. `slots` are the engine's LoRA slots that hold each number of distinct LoRAs."""

    batches: tuple[int, ...] = (1, 4, 10, 16, 32, 64, 128, 256)
    loras: tuple[int, ...] = (0, 1, 4, 16, 64)
    slots: int = 16
    precisions: tuple[str, ...] = ("fp8_per_channel", "none")
    tokens: int = 420
    """Of each stream: about five seconds of audio."""
    probes: int = 40
    decoder_sessions: tuple[int, ...] = (1, 4, 16, 64, 128, 256)
    decoder_rounds: int = 30
    beside: int = 64
    """Streams of the engine beside the decoder."""
    streams: tuple[int, ...] = (32, 64, 96, 128, 160, 192, 256)
    speech_s: float = 12.0
    window_s: float = 20.0
    micro_batches: tuple[int, ...] = (2048, 4096, 8192, 16384)
    train_steps: int = 4
    clip_frames: int = 84

    @property
    def most_streams(self) -> int:
        return max(self.batches)


TINY = Sizes(
    batches=(1, 2),
    loras=(0, 2),
    slots=2,
    precisions=("none",),
    tokens=28,
    probes=2,
    decoder_sessions=(1, 2),
    decoder_rounds=2,
    beside=1,
    streams=(1, 2),
    speech_s=1.0,
    window_s=1.5,
    micro_batches=(512,),
    train_steps=2,
    clip_frames=12,
)
"""On a CPU, in tests: the same code, no figure worth a word."""


def plan(sizes: Sizes, device: str) -> list[Measurement]:
    """Everything, the most wanted first; nothing twice."""
    first, *others = sizes.precisions
    ordered = [
        *_speech(sizes, first),
        *_engine_first(sizes, first),
        *_decoder(sizes, device, first),
        *_training(sizes),
        *_engine_rest(sizes, first),
        *(each for precision in others for each in _engine_rest(sizes, precision)),
        *(each for precision in others for each in _speech(sizes, precision)),
    ]
    return list({each.key: each for each in ordered}.values())


def stages(measurements: Iterable[Measurement]) -> list[list[Measurement]]:
    """Those of one table that follow one another, which one process measures."""
    return [list(group) for _, group in groupby(measurements, key=lambda each: each.table)]


def _speech(sizes: Sizes, precision: str) -> Iterator[Measurement]:
    """One that looks for the most streams, and writes each level down: about six of them, and an engine's start."""
    parameters = {"precision": precision, "voices": sizes.slots}
    yield Measurement(table="speech", name="streams", parameters=parameters, about_s=120)


def _engine_first(sizes: Sizes, precision: str) -> Iterator[Measurement]:
    """The talk's two figures, how they grow with the batch, and what a listener waits for."""
    middle = TALK_BATCH if TALK_BATCH in sizes.batches else sizes.batches[-1]
    many = min(sizes.slots, max(sizes.loras))
    for loras in (0, many):
        yield _tokens(precision, middle, loras, sizes)
    for batch in sorted(sizes.batches, reverse=True):
        yield _tokens(precision, batch, many, sizes)
    yield _engine("first token", precision, sizes, batch=sizes.beside, loras=many)
    yield _engine("adapter stall", precision, sizes, batch=sizes.beside, loras=many)


def _engine_rest(sizes: Sizes, precision: str) -> Iterator[Measurement]:
    for loras in sizes.loras:
        for batch in sizes.batches:
            if loras <= batch:
                yield _tokens(precision, batch, loras, sizes)
    yield from _engine_first(sizes, precision)
    for batch in sizes.batches:
        yield _tokens(precision, batch, 0, sizes, penalties=False)
    for batch in sizes.batches:
        yield _tokens(precision, batch, 0, sizes, mask=False)


def _tokens(
    precision: str, batch: int, loras: int, sizes: Sizes, *, mask: bool = True, penalties: bool = True
) -> Measurement:
    return _engine("tokens", precision, sizes, batch=batch, loras=min(loras, batch), mask=mask, penalties=penalties)


def _engine(name: str, precision: str, sizes: Sizes, *, loras: int, **more: Parameter) -> Measurement:
    slots = sizes.slots if loras <= sizes.slots else max(sizes.loras)
    parameters = {"precision": precision, "slots": slots, "loras": loras, **more}
    return Measurement(table="engine", name=name, parameters=parameters, about_s=15)


def _decoder(sizes: Sizes, device: str, precision: str) -> Iterator[Measurement]:
    """As it serves, alone and beside the engine; then what might be cheaper, and the published servers' window."""
    for sessions in sizes.decoder_sessions:
        yield Measurement(table="decoder", name="served", parameters={"sessions": sessions, "engine": "none"})
    schemes = ("eager", "bfloat16", "window") + (("graph", "pinned", "tf32") if device == "cuda" else ())
    for scheme in schemes:
        for sessions in sizes.decoder_sessions:
            for frames in (1, 4):
                if scheme != "window" or frames == 1:
                    parameters: dict[str, Parameter] = {"scheme": scheme, "sessions": sessions, "frames": frames}
                    yield Measurement(table="decoder", name="scheme", parameters=parameters)
    for sessions in sizes.decoder_sessions:
        parameters = {"sessions": sessions, "engine": precision, "streams": sizes.beside}
        yield Measurement(table="decoder", name="served", parameters=parameters, about_s=10)


def _training(sizes: Sizes) -> Iterator[Measurement]:
    middle = sizes.micro_batches[len(sizes.micro_batches) // 2]
    yield _trained("ours", middle)
    yield _trained("plain", 0)
    for tokens in sizes.micro_batches:
        yield _trained("ours", tokens)


def _trained(how: str, micro_batch_tokens: int) -> Measurement:
    parameters = {"how": how, "micro_batch_tokens": micro_batch_tokens}
    return Measurement(table="training", name="lora", parameters=parameters, about_s=40)
