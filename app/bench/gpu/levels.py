"""What listeners heard at a level of so many streams, whether it holds, and which level to try next.

A level holds where the 95th percentile of the time to the first audible sound and the share of streams that never ran
out of audio are within their limits. Levels rise until one does not hold, then the gap is halved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LIMIT_MS = 250.0
"""For the first audible sound, at the 95th percentile."""

LEAST_SHARE = 0.99
"""Of streams, without a moment in which the listener had no audio."""

HALVINGS = 2
SAMPLE_RATE_HZ = 24_000


@dataclass(slots=True)
class Heard:
    """What one listener got; `started_s` is when it should have started."""

    started_s: float
    first_s: float | None = None
    head_silence_s: float | None = None
    dry_s: float = 0.0
    audio_s: float = 0.0
    error: str | None = None
    _plays_until_s: float = field(default=0.0, repr=False)

    @property
    def audible_ms(self) -> float:
        """From the start to the first sound; endless where none came."""
        if self.first_s is None:
            return float("inf")
        return 1e3 * (self.first_s - self.started_s + (self.head_silence_s or 0.0))

    def take(self, samples: int, now_s: float) -> None:
        if self.first_s is None:
            self.first_s = self._plays_until_s = now_s
        self.dry_s += max(0.0, now_s - self._plays_until_s)
        self._plays_until_s = max(now_s, self._plays_until_s) + samples / SAMPLE_RATE_HZ
        self.audio_s += samples / SAMPLE_RATE_HZ


def figures_of(heard: Sequence[Heard]) -> dict[str, Any]:
    """Of all sessions of a level; one that failed is a stream that ran out of audio."""
    audible_ms = [min(each.audible_ms, 1e6) for each in heard]
    p50, p95 = np.percentile(audible_ms, (50, 95))
    whole = sum(each.error is None and each.dry_s == 0 and each.first_s is not None for each in heard) / len(heard)
    errors = sorted({each.error for each in heard if each.error})
    return {
        "sessions": len(heard),
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "whole_share": round(whole, 4),
        "holds": bool(p95 <= LIMIT_MS and whole >= LEAST_SHARE),
        **({"errors": errors[:3]} if errors else {}),
    }


def next_level(wanted: Sequence[int], holds: Mapping[int, bool]) -> int | None:
    """The next number of streams to try, of what is known of others; None when there is nothing more to learn."""
    good = [streams for streams, held in holds.items() if held]
    bad = [streams for streams, held in holds.items() if not held]
    most = max(good, default=0)
    least_bad = min((streams for streams in bad if streams > most), default=None)
    if least_bad is None:
        return next((streams for streams in sorted(wanted) if streams > most and streams not in holds), None)
    halfway = (most + least_bad) // 2
    between = sum(streams not in wanted for streams in holds)
    return halfway if between < HALVINGS and halfway not in (most, least_bad) else None
