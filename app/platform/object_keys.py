"""Where each thing lies in the object store: every key prefix of the product, in one place."""

from __future__ import annotations

from app.speech.voices import Voice


def voice_prefix(voice_id: str) -> str:
    """Where everything of a voice lies in the object store."""
    return f"voices/{voice_id}/"


def job_prefix(voice_id: str, job_id: str) -> str:
    """Where everything of a job lies in the object store."""
    return f"{voice_prefix(voice_id)}jobs/{job_id}/"


def narration_prefix(narration_id: str) -> str:
    """Where everything of a narration lies in the object store, but for its segments."""
    return f"narrations/{narration_id}/"


def forgotten_key(narration_id: str) -> str:
    """Where a deleted narration's segments are named, until those that no other one uses are deleted."""
    return f"{narration_prefix(narration_id)}forgotten.json"


def segment_key(voice: Voice, digest: str) -> str:
    """How a segment's keys begin: they lie with the voice, so that they go when it is deleted."""
    return f"{voice_prefix(voice.id)}segments/{digest}"
