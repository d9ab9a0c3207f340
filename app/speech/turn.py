"""The turn of a person that a text answers, by the clock of the client. The answer to it is in the ledger."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

MAX_TURN_S = 60.0
"""A turn that ended longer ago, or in the future, is a clock that is wrong."""


class Turn(BaseModel):
    """When the person ended whom this text answers, on the client's clock. The ledger then counts from there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ended_at: float = Field(allow_inf_nan=False, description="Unix time in seconds, of the last word's end.")
    sent_at: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Of this message, on the same clock: then no two clocks are compared. None: the client's clock is "
        "taken to be the front door's.",
    )

    def age_s(self, now: float) -> float | None:
        """How long ago it ended when the message came at `now`; None where that is out of bounds (`MAX_TURN_S`)."""
        age_s = (now if self.sent_at is None else self.sent_at) - self.ended_at
        return age_s if 0 <= age_s <= MAX_TURN_S else None
