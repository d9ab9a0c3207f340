"""The two messages of signalling: a browser's offer, and the answer to it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import InvalidRequest
from app.speech.field_errors import first_fault


class Offer(BaseModel):
    """What a browser can send and receive, as SDP; and who is to speak with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sdp: str = Field(min_length=1)
    type: Literal["offer"] = "offer"
    voice: str | None = Field(default=None, min_length=1, max_length=128)

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Raises InvalidRequest naming what is wrong."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            place, why = first_fault(error)
            raise InvalidRequest(f"{place or 'the offer'}: {why}", param=place or None) from None


class Answer(BaseModel):
    """What the front door takes of the offer."""

    sdp: str
    type: str
