"""What `carillon bench decode` found: figures for programs, a table for people. It measures nothing itself."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class Packet(BaseModel):
    """A provisional packet: `tokens` known when it was spoken, samples from `start`, error against the full decode."""

    model_config = ConfigDict(frozen=True)

    tokens: int
    start: int
    samples: int
    error_db: float


class SchemeResult(BaseModel):
    """One scheme on one codec. Errors are over the samples it speaks; `samples_lost` per utterance."""

    model_config = ConfigDict(frozen=True)

    codec: str
    scheme: str
    first_audio_tokens: int
    first_audio_samples: int
    first_audio_ms: float
    cost_ms_per_audio_s: dict[int, float]
    error_db: float
    max_abs_error: float
    samples_lost: int
    packets: tuple[Packet, ...] = ()


class DecodeReport(BaseModel):
    """`first_packets` are, by codec, what the first provisional packet would be at other lengths."""

    model_config = ConfigDict(frozen=True)

    device: str
    threads: int
    sessions: tuple[int, ...]
    repetitions: int
    results: tuple[SchemeResult, ...]
    first_packets: dict[str, tuple[Packet, ...]]

    def cost_ratio(self, result: SchemeResult, sessions: int) -> float:
        """The window's cost over this scheme's, on the same codec at as many sessions."""
        window = next(r for r in self.results if r.codec == result.codec and r.scheme == "window")
        return window.cost_ms_per_audio_s[sessions] / result.cost_ms_per_audio_s[sessions]

    def to_json(self) -> str:
        return self.model_dump_json(indent=2)

    def table(self) -> str:
        costs = "".join(f"{f'ms/s @{count}':>18}" for count in self.sessions)
        lines = [
            f"{self.device}, {self.threads} thread; medians of at least {self.repetitions}; ms/s: work per second of "
            "audio at so many sessions (how many times less than the window)",
            f"{'codec':<16}{'scheme':<18}{'first audio':>28}{costs}{'error dB':>10}{'max abs':>10}{'lost':>7}",
        ]
        for r in self.results:
            first = f"{r.first_audio_tokens} tok {r.first_audio_samples} smp {r.first_audio_ms:.1f} ms"
            cost = "".join(
                f"{f'{r.cost_ms_per_audio_s[count]:.1f} ({self.cost_ratio(r, count):.1f}x)':>18}"
                for count in self.sessions
            )
            errors = f"{r.error_db:>10.1f}{r.max_abs_error:>10.1e}{r.samples_lost:>7}"
            lines.append(f"{r.codec:<16}{r.scheme:<18}{first:>28}{cost}{errors}")
        for r in self.results:
            if r.packets:
                lines.append(f"{r.codec}, provisional packets: " + _packet_text(r.packets))
        for codec, packets in self.first_packets.items():
            lines.append(f"{codec}, first packet by its length: " + _packet_text(packets))
        return "\n".join(lines)


def _packet_text(packets: Sequence[Packet]) -> str:
    return ", ".join(f"{p.tokens} tokens -> {p.samples} samples {p.error_db:.1f} dB" for p in packets)
