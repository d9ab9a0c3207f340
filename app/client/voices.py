"""The voices of a fleet: what can be spoken with, a voice's recordings and its speaker's consent."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.client.connection import Connection, Json


class Voices:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def speakable(self) -> list[Json]:
        """Every voice that can be spoken with now, built-in ones first."""
        return self._connection.request("GET", "/v1/audio/voices")["voices"]

    def speak(self, voice: str, text: str) -> bytes:
        """The text as a WAV."""
        fields = {"input": text, "voice": voice, "response_format": "wav"}
        return self._connection.send("POST", "/v1/audio/speech", json=fields).content

    def named(self, name: str, model: str | None) -> list[Json]:
        """The voices of that name that were made here, of every model without one."""
        voices = self._connection.request("GET", "/v1/voices")["data"]
        return [voice for voice in voices if voice["name"] == name and model in (None, voice["model"])]

    def find_or_create(self, name: str, *, model: str | None, language: str) -> Json:
        """The voice of that name. Raises Conflict for the name of a built-in voice."""
        for voice in self.named(name, model):
            if voice["prompt_name"] == voice["id"]:  # no polished built-in one
                return voice
        fields = {"name": name, "language": language} | ({"model": model} if model else {})
        return self._connection.request("POST", "/v1/voices", json=fields)

    def samples(self, voice_id: str) -> list[Json]:
        """The recordings of a voice."""
        return self._connection.request("GET", f"/v1/voices/{voice_id}/samples")["data"]

    def upload_samples(self, voice_id: str, files: Sequence[Path], transcripts: Mapping[str, str]) -> Json:
        """Send recordings, with the transcripts that are known by their names. Returns samples and rejected."""
        known = [{"file": path.name, "text": transcripts[path.name]} for path in files if path.name in transcripts]
        with ExitStack() as stack:
            parts: list[Any] = [("files", (path.name, stack.enter_context(path.open("rb")))) for path in files]
            if known:
                lines = "\n".join(json.dumps(entry) for entry in known)
                parts.append(("manifest", ("manifest.jsonl", io.BytesIO(lines.encode()), "application/jsonl")))
            return self._connection.request("POST", f"/v1/voices/{voice_id}/samples", files=parts)

    def set_transcript(self, voice_id: str, sample_id: str, text: str) -> Json:
        """What is said in a recording."""
        path = f"/v1/voices/{voice_id}/samples/{sample_id}/transcript"
        return self._connection.request("PUT", path, json={"text": text})

    def record_consent(self, voice_id: str, *, recording: Path | None, statement: str | None) -> Json:
        """The speaker's consent: a recording of the phrase, or an operator's statement."""
        path = f"/v1/voices/{voice_id}/consent"
        if recording is None:
            return self._connection.request("POST", path, json={"statement": statement})
        with recording.open("rb") as file:
            return self._connection.request("POST", path, files={"recording": (recording.name, file)})
