"""Voices with an adapter, as a finished clone job leaves them."""

from __future__ import annotations

from collections.abc import Mapping

from app.catalog import Catalog
from app.speech.voices import Voice


async def publish(catalog: Catalog, name: str, *, uri: str, sha256: Mapping[str, str], model: str = "standin") -> Voice:
    """The voice `name`, which is made if it is new, with another version in force."""
    record = await catalog.voices.named(name, model=model) or await catalog.voices.create(name, model=model)
    adapter = await catalog.voices.add_version(record.id, uri=uri, sha256=sha256, rank=16)
    return await catalog.voices.point(record.id, adapter.version)
