"""Voices, their consents and their recordings, as clients see them: no keys of the object store."""

from __future__ import annotations

from typing import Any

from app.voices.models import Consent, Sample, VoiceRecord


def voice_json(record: VoiceRecord) -> dict[str, Any]:
    state = "ready" if record.version else "collecting" if record.sample_count else "empty"
    return {
        **record.model_dump(mode="json", exclude={"consent", "consent_number", "deleted_at"}),
        "state": state,
        "consent_phrase": record.consent_phrase,
        "consent": record.consent and consent_json(record.consent),
    }


def consent_json(consent: Consent) -> dict[str, Any]:
    return {**consent.model_dump(mode="json", exclude={"object_key"}), "checked": consent.checked}


def sample_json(sample: Sample) -> dict[str, Any]:
    return sample.model_dump(mode="json", exclude={"object_key"})
