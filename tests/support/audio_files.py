"""Looks into audio files as the front door does, for tests without an event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from app.voices import audio_probe
from app.voices.audio_probe import Decoded
from app.voices.models import AudioFacts


def probe(path: Path, **options: Any) -> AudioFacts:
    return asyncio.run(audio_probe.probe(path, **options))


def decode(source: Path, target: Path, **options: Any) -> Decoded:
    return asyncio.run(audio_probe.decode(source, target, **options))
