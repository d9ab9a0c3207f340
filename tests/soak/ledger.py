"""What a soak owes an account of: every session's samples, every job, every second that is billed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SAMPLE_RATE_HZ = 24_000
BYTES_PER_SECOND = 2 * SAMPLE_RATE_HZ

BILLED_LATE_S = 2.5
"""What a front door that is killed, or left by a client that resumes, may have counted once too little or too much: the
last second that it has heard, one write of its record, and what the next says again from its journal."""


@dataclass
class Talker:
    """Who speaks all the time, with a key of its own; what it heard, and how often a connection of its own broke."""

    name: str
    key: str
    key_id: str
    heard_bytes: int = 0
    breaks: int = 0


@dataclass
class Ledger:
    """Filled by the traffic, and settled at the end."""

    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Faults that found nothing to hurt: what they were meant for was down."""
    ended: Counter[str] = field(default_factory=Counter)
    """Sessions by how they ended: `whole`, `broken` with their front door, or `lost`."""
    refused: Counter[str] = field(default_factory=Counter)
    """Starts that were to be made again, by the error's code."""
    resumed: int = 0
    moves: int = 0
    underruns: int = 0
    samples: int = 0
    samples_lost: int = 0
    jobs: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """What is not accounted for, in words."""
    talkers: list[Talker] = field(default_factory=list)

    def whole(self, kind: str, talker: Talker, audio: bytes) -> None:
        self.ended[f"{kind} whole"] += 1
        self.heard(talker, audio)

    def heard(self, talker: Talker, audio: bytes) -> None:
        self.samples += len(audio) // 2
        talker.heard_bytes += len(audio)

    def lose(self, kind: str, what: str, *, missing: int = 0) -> None:
        self.ended[f"{kind} lost"] += 1
        self.samples_lost += missing
        self.lost.append(what)

    def bill(self, talker: Talker, billed_s: float) -> None:
        """Hold what was recorded of a talker's use against what it heard."""
        heard_s = talker.heard_bytes / BYTES_PER_SECOND
        if abs(billed_s - heard_s) > 0.01 + BILLED_LATE_S * talker.breaks:
            self.lost.append(
                f"usage: {talker.name} heard {heard_s:.2f} s with {talker.breaks} broken connections, and "
                f"{billed_s:.2f} s are recorded"
            )

    def table(self) -> str:
        """For people."""
        kinds = sorted({*self.faults, *self.missed})
        rows = [f"  {kind:<28}{self.faults[kind]:>6}{self.missed[kind]:>8}" for kind in kinds]
        heard_s = self.samples / SAMPLE_RATE_HZ
        lines = [
            f"  {'fault':<28}{'done':>6}{'missed':>8}",
            *rows,
            "",
            *(f"  sessions, {how:<30}{count:>8}" for how, count in sorted(self.ended.items())),
            *(f"  starts refused, {code:<24}{count:>8}" for code, count in sorted(self.refused.items())),
            f"  {'resumed at another front door':<40}{self.resumed:>8}",
            f"  {'moved to another worker':<40}{self.moves:>8}",
            f"  {'audio heard, s':<40}{heard_s:>8.0f}",
            *(f"  jobs, {how:<34}{count:>8}" for how, count in sorted(self.jobs.items())),
            f"  {'samples lost':<40}{self.samples_lost:>8}",
            f"  {'not accounted for':<40}{len(self.lost):>8}",
        ]
        return "\n".join([*lines, *(f"    {what}" for what in self.lost)])
