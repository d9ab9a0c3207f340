"""What a soak owes an account of: every session's samples, every job, every second that is billed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SAMPLE_RATE_HZ = 24_000
BYTES_PER_SECOND = 2 * SAMPLE_RATE_HZ

BILLED_LATE_S = 2.5
"""How late use is written down: the last second that a front door has heard, and one write of its record. Killed, it
takes that with it; and what the next says again from a journal, it may have counted before."""

SPOKEN_AT_ONCE = 2.0
"""Seconds of audio that the scripted workers speak in a second."""


@dataclass
class Talker:
    """Who speaks all the time, with a key of its own, and what it heard."""

    name: str
    key: str
    key_id: str
    heard_bytes: int = 0
    unsure_s: float = 0.0
    """How much of its use may have gone down with front doors, or have been counted by two."""
    last: tuple[float, int] = (0.0, 0)
    """When its last session ended, and what it heard in it."""

    def end(self, at_s: float, heard_bytes: int, *, breaks: int = 0) -> None:
        """A session is over, of which `breaks` connections broke."""
        self.heard_bytes += heard_bytes
        self.last = at_s, heard_bytes
        self.unsure_s += breaks * SPOKEN_AT_ONCE * BILLED_LATE_S

    def lose_front_door(self, at_s: float, unwritten_s: float) -> None:
        """A front door was killed that had written down nothing for so long."""
        ended_at_s, heard_bytes = self.last
        if at_s - ended_at_s < unwritten_s:
            self.unsure_s += min(SPOKEN_AT_ONCE * unwritten_s, heard_bytes / BYTES_PER_SECOND)


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
    billed_s: float = 0.0
    samples_lost: int = 0
    jobs: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """What is not accounted for, in words."""
    talkers: list[Talker] = field(default_factory=list)

    def lose(self, kind: str, what: str, *, missing: int = 0) -> None:
        self.ended[f"{kind} lost"] += 1
        self.samples_lost += missing
        self.lost.append(what)

    def bill(self, talker: Talker, billed_s: float) -> None:
        """Hold what was recorded of a talker's use against what it heard."""
        heard_s = talker.heard_bytes / BYTES_PER_SECOND
        self.billed_s += billed_s
        if abs(billed_s - heard_s) > 0.01 + talker.unsure_s:
            self.lost.append(
                f"usage: {talker.name} heard {heard_s:.2f} s, and {billed_s:.2f} s are recorded; "
                f"{talker.unsure_s:.2f} s may have gone down with front doors"
            )

    def table(self) -> str:
        """For people."""
        kinds = sorted({*self.faults, *self.missed})
        rows = [f"  {kind:<28}{self.faults[kind]:>6}{self.missed[kind]:>8}" for kind in kinds]
        heard_s = sum(talker.heard_bytes for talker in self.talkers) / BYTES_PER_SECOND
        unsure_s = sum(talker.unsure_s for talker in self.talkers)
        lines = [
            f"  {'fault':<28}{'done':>6}{'missed':>8}",
            *rows,
            "",
            *(f"  sessions, {how:<30}{count:>8}" for how, count in sorted(self.ended.items())),
            *(f"  starts refused, {code:<24}{count:>8}" for code, count in sorted(self.refused.items())),
            f"  {'resumed at another front door':<40}{self.resumed:>8}",
            f"  {'moved to another worker':<40}{self.moves:>8}",
            f"  {'audio heard, s':<40}{heard_s:>8.0f}",
            f"  {'recorded as used, s':<40}{self.billed_s:>8.0f}",
            f"  {'of which front doors may have lost, s':<40}{unsure_s:>8.0f}",
            *(f"  jobs, {how:<34}{count:>8}" for how, count in sorted(self.jobs.items())),
            f"  {'samples lost':<40}{self.samples_lost:>8}",
            f"  {'not accounted for':<40}{len(self.lost):>8}",
        ]
        return "\n".join([*lines, *(f"    {what}" for what in self.lost)])
