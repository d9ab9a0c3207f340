"""The budget of a turn: where the time went between a person's last word and the first sound of the answer.

All parts are milliseconds since the end of speech, by the front door's clock; a part that did not happen is None, never
zero. A turn is in the money if its first audio was ready before the snooze window had passed.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

PARTS = ("endpoint_ms", "words_ms", "token_ms", "ready_ms", "sure_ms", "heard_ms")
PERCENTILES = (50, 95)

STEPS = ("endpointing", "recognition", "first token", "first audio", "until sure", "on its way")
"""What a turn's time goes to, one after the other; together they are `heard_ms`."""


class TurnBudget(BaseModel):
    """One answered turn."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    turn: int
    endpoint_ms: float | None = None
    """The person seemed to have ended, and an answer was tried."""
    words_ms: float | None = None
    """What was said had been recognised."""
    token_ms: float | None = None
    """The first token of the answer's text."""
    ready_ms: float | None = None
    """The first audible audio of the answer was there, and held."""
    sure_ms: float | None = None
    """The turn was sure, and the audio released."""
    heard_ms: float | None = None
    """The first audible sample left for the listener."""
    discarded: int = 0
    """Attempts that were thrown away before this one, because the person went on."""
    cut: bool = False
    """The person took the turn before the answer had ended."""
    snooze_ms: float = 1500.0

    @property
    def in_the_money(self) -> bool | None:
        """None where there was no audio."""
        return None if self.ready_ms is None else self.ready_ms <= self.snooze_ms

    def row(self) -> dict[str, object]:
        """All of it, for a page or a table."""
        return {**self.model_dump(), "in_the_money": self.in_the_money}


def steps(budget: TurnBudget) -> dict[str, float]:
    """Milliseconds of each step of a turn that was heard; empty for one that was not."""
    moments = budget.endpoint_ms, budget.words_ms, budget.token_ms, budget.ready_ms, budget.sure_ms, budget.heard_ms
    if None in moments:
        return {}
    taken, before = {}, 0.0
    for name, moment in zip(STEPS, moments, strict=True):
        assert moment is not None
        taken[name] = max(0.0, moment - before)
        before = max(before, moment)
    return taken


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The least value with at least so many percent of all at or below it; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(percent) // 100) - 1)]


def table(budgets: Iterable[TurnBudget]) -> dict[str, object]:
    """P50 and P95 of every part, how many turns there were, and the share in the money."""
    budgets = list(budgets)
    parts = {
        part: {
            f"p{percent}": percentile([value for it in budgets if (value := getattr(it, part)) is not None], percent)
            for percent in PERCENTILES
        }
        for part in PARTS
    }
    judged = [it.in_the_money for it in budgets if it.in_the_money is not None]
    return {"turns": len(budgets), "in_the_money": sum(judged) / len(judged) if judged else None, **parts}


def as_csv(budgets: Iterable[TurnBudget]) -> str:
    """A line for each turn, under a line of names."""
    rows = [it.row() for it in budgets]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*TurnBudget.model_fields, "in_the_money"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
