"""Narrations and their segments as clients see them: no addresses of the store, no versions of voices."""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any
from urllib.parse import quote

from app.api.services import Services
from app.narration.models import Narration, Script, Timeline, TimelineSegment
from app.narration.progress import cost_usd, eta_s, waits_for
from app.narration.word_times import FileWord, words_in_file


def narration_json(services: Services, narration: Narration, *, without: Set[str] = frozenset()) -> dict[str, Any]:
    hidden: dict[str, Any] = {name: True for name in without}
    hidden |= {"voices": True, "script_key": True, "source": {"key", "cover_key"}, "output": {"key", "timeline_key"}}
    settings = services.settings.narration
    return {
        "object": "narration",
        **narration.model_dump(mode="json", exclude=hidden),
        "over": narration.state.over,
        "has_cover": narration.source.cover_key is not None,
        "segments": narration.segments,
        "segments_done": narration.segments_done,
        "flagged": sum(chapter.flagged for chapter in narration.chapters),
        "audio_s": narration.audio_s,
        "busy_s": narration.busy_s,
        "real_time_factor": narration.real_time_factor,
        "waits_for": waits_for(narration, workers=len(_capacities(services, narration.model))),
        "eta_s": eta_s(narration, lanes=settings.at_once),
        "cost_usd": cost_usd(
            narration,
            worker_usd_per_hour=settings.worker_usd_per_hour,
            places=_places(services, narration.model),
        ),
        "links": _links(services, narration),
    }


def _places(services: Services, model: str) -> float | None:
    """The mean of the workers that serve the model now, or else this front door's setting."""
    places = _capacities(services, model)
    return sum(places) / len(places) if places else services.settings.capacity


def _capacities(services: Services, model: str) -> list[int]:
    """Of the workers that serve the model now."""
    return [worker.capacity for worker in services.router.workers if worker.model.name == model]


def _links(services: Services, narration: Narration) -> dict[str, str] | None:
    """Addresses below this front door's that need no key, until they expire; None while there is no file."""
    if narration.output is None:
        return None
    token, expires_at = services.links.token(narration.id)
    files = {"audio": "audio", "captions_vtt": "captions.vtt", "captions_srt": "captions.srt", "chapters": "chapters"}
    path = f"/v1/narrations/{narration.id}"
    addresses = {name: f"{path}/{file}?token={quote(token)}" for name, file in files.items()}
    return {**addresses, "expires_at": expires_at.isoformat()}


def segments_json(
    narration: Narration, source: Timeline | Script, *, chapter: int | None, flagged: bool, words: bool
) -> str:
    """The segments of one chapter or of all, as JSON text. Writes a whole book: blocks."""
    if isinstance(source, Timeline):
        data = [
            segment.model_dump(mode="json", exclude={"start_sample", "end_sample", "words", "approximate"})
            | _seconds(segment, source.sample_rate_hz)
            | (_words(segment, source.sample_rate_hz) if words else {})
            for segment in source.segments
            if chapter in (None, segment.chapter) and (segment.flags or not flagged)
        ]
    else:
        data = [
            segment.model_dump(mode="json", exclude={"gap_s"})
            | {"chapter": one.number, "voice": narration.voice_of(segment)}
            | {"start_s": None, "end_s": None, "flags": []}
            for one in source.chapters
            if chapter in (None, one.number) and not flagged
            for segment in one.segments
        ]
    return json.dumps({"object": "list", "data": data})


def _seconds(part: TimelineSegment | FileWord, sample_rate_hz: int) -> dict[str, float]:
    return {"start_s": part.start_sample / sample_rate_hz, "end_s": part.end_sample / sample_rate_hz}


def _words(segment: TimelineSegment, sample_rate_hz: int) -> dict[str, Any]:
    words = [{"text": word.text} | _seconds(word, sample_rate_hz) for word in words_in_file(segment)]
    return {"words": words, "approximate": segment.approximate}
