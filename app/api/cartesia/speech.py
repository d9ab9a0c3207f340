"""`POST /tts/bytes` and `POST /tts/sse`.

* `generation_config.speed` and `speed` are honoured; what no model here can follow (`emotion`, `volume`,
  `pronunciation_dict_id` …) is ignored and named in `X-Carillon-Ignored`.
* Over SSE, audio is sent as it is made, and the times of a sentence's words once it is whole.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Request, Response

from app.api.access import requires
from app.api.bodies import read_json
from app.api.cartesia.wire import (
    CartesiaRoute,
    Generation,
    TheServices,
    api_key,
    chunk,
    error_body,
    manner_of,
    timestamps,
)
from app.api.delivery_response import DeliveryResponse
from app.api.dialects import MAX_BODY_BYTES_PER_CHAR, check_text, ignored_header
from app.api.errors import status_of
from app.api.segment_timing import Words
from app.api.services import Services
from app.api.speaking import Delivery, Finished, Sound
from app.api.speech_response import AudioForm, SpeechResponse
from app.errors import CarillonError
from app.speech.choices import Scope

router = APIRouter(
    route_class=CartesiaRoute, include_in_schema=False, dependencies=[Depends(requires(Scope.SPEAK, api_key))]
)


async def _wanted(request: Request, services: Services) -> Generation:
    limit = services.settings.session.max_input_chars
    wanted = await read_json(request, Generation, max_bytes=8192 + limit * MAX_BODY_BYTES_PER_CHAR)
    check_text(wanted.transcript, at_most=limit, param="transcript")
    return wanted


@router.post("/tts/bytes")
async def speak(request: Request, services: TheServices) -> Response:
    """Speak a text; the audio is sent as it is made."""
    wanted = await _wanted(request, services)
    manner = await manner_of(wanted, services)
    return SpeechResponse(services, manner, wanted.transcript, AudioForm(), headers=ignored_header(wanted.ignored))


@router.post("/tts/sse")
async def speak_in_events(request: Request, services: TheServices) -> Response:
    """Speak a text; the answer is server-sent events with audio and the times of words."""
    wanted = await _wanted(request, services)
    manner = await manner_of(wanted, services)
    return DeliveryResponse(services, manner, wanted.transcript, Events(wanted), headers=ignored_header(wanted.ignored))


class Events:
    """Their events: `chunk` …, `timestamps` …, `done`."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, wanted: Generation) -> None:
        self._context = {"context_id": wanted.context_id or str(uuid4())}
        self._normalised = bool(wanted.use_normalized_timestamps)

    def write(self, delivery: Delivery) -> bytes:
        match delivery:
            case Sound():
                return self._event(chunk(delivery))
            case Words():
                return self._event(timestamps(delivery, normalised=self._normalised))
            case Finished():
                return self._event({"type": "done", "done": True, "status_code": 200})
            case _:
                return b""

    def failure(self, error: CarillonError) -> bytes | None:
        body = error_body(status_of(error), error.message, code=error.code, param=error.param)
        return self._event({"type": "error", "done": True, **body})

    def _event(self, fields: dict[str, Any]) -> bytes:
        data = json.dumps({**fields, **self._context}, separators=(",", ":"))
        return f"event: {fields['type']}\ndata: {data}\n\n".encode()
