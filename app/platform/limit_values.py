"""How much a project, or one key, may do: numbers that operators set, and None where there is no limit.

They are enforced by `rate_limits`, `session_counts` and `quota`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """None: as much as the fleet can."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    requests_per_minute: int | None = Field(default=None, ge=1, description="HTTP requests, and sockets opened.")
    characters_per_minute: int | None = Field(
        default=None, ge=1, description="Of text to speak at once; narrations do not count."
    )
    sessions: int | None = Field(default=None, ge=1, description="Sessions and streams that speak at one time.")
    queued_jobs: int | None = Field(default=None, ge=1, description="Clone jobs and narrations that are not over.")
    stored_bytes: int | None = Field(default=None, ge=1, description="Recordings, books and finished narrations.")
    voices: int | None = Field(default=None, ge=1, description="Voices made here.")
    gpu_s_per_month: float | None = Field(
        default=None, gt=0, description="Of clone jobs and narrations, in a calendar month, UTC; sessions have none."
    )
    usd_per_month: float | None = Field(default=None, gt=0, description="By the price table, in a calendar month, UTC.")

    def over(self, defaults: Limits) -> Limits:
        """These, with the defaults for what they do not name; naming None lifts a limit."""
        return defaults.model_copy(update=self.model_dump(include=self.model_fields_set))
