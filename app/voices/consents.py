"""The owner's consent: an operator's word for it, and consents that come before their voice.

A consent belongs to one voice. Where it comes first, as in OpenAI's API, it makes an empty voice under its own name,
which later gets another name and its first recording. The recording of a consent is kept by `ingest`.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from pathlib import Path

from app.errors import Conflict, InvalidRequest, NotFound
from app.platform.database import utc_now
from app.voices.ingest import Ingest, new_consent_id
from app.voices.models import Consent, VoiceRecord
from app.voices.service import VoiceService
from app.voices.store import VoiceStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConsentService:
    """Consents and the voices that they belong to."""

    voices: VoiceStore
    service: VoiceService
    ingest: Ingest

    async def attest(self, record: VoiceRecord, statement: str, *, key_id: str | None) -> Consent:
        """An operator's word that the owner has consented, and where that is kept. It is logged."""
        consent = Consent(
            id=new_consent_id(),
            voice_id=record.id,
            kind="operator",
            number=record.consent_number,
            statement=statement,
            key_id=key_id,
            created_at=utc_now(),
        )
        await self.voices.add_consent(consent)
        log.info("operator consent", extra={"voice": record.id, "consent": consent.id, "key": key_id})
        return consent

    async def all(self) -> list[tuple[VoiceRecord, Consent]]:
        """The newest consent of every living voice that has one, the newest first."""
        found = [(record, record.consent) for record in await self.voices.all() if record.consent]
        return sorted(found, key=lambda pair: (pair[1].created_at, pair[1].id), reverse=True)

    async def get(self, consent_id: str) -> tuple[VoiceRecord, Consent]:
        """Raises NotFound."""
        for record, consent in await self.all():
            if consent.id == consent_id:
                return record, consent
        raise NotFound(
            f"there is no consent {consent_id[:64]!r}; GET /v1/audio/voice_consents lists them", param="consent"
        )

    async def create(
        self, name: str, recording: Path, *, file_name: str, language: str, key_id: str | None
    ) -> tuple[VoiceRecord, Consent]:
        """A recorded consent and an empty voice of its name: both, or neither."""
        record = await self.service.create(name, language=language)
        try:
            consent = await self.ingest.keep_consent(
                record.id, recording, file_name=file_name, language=language, number="", key_id=key_id
            )
        except BaseException:
            await self.service.delete(record.id)
            raise
        return record, consent

    async def delete(self, consent_id: str) -> None:
        """Delete a consent with its empty voice. Raises NotFound, Conflict for a voice that has recordings."""
        record, _ = await self.get(consent_id)
        if record.sample_count or record.version:
            raise Conflict(
                f"the voice {record.id} was made with this consent; delete that voice, and the consent goes with it",
                param="consent_id",
            )
        await self.service.delete(record.id)

    async def begin_voice(self, consent_id: str, name: str, recording: Path, *, file_name: str) -> VoiceRecord:
        """Give a consent's voice its name and its first recording. Raises NotFound, Conflict for one that has some."""
        earlier, consent = await self.get(consent_id)
        if earlier.sample_count or earlier.version:
            raise Conflict(
                f"the consent {consent.id} belongs to the voice {earlier.id} already; record another", param="consent"
            )
        record = await self.service.rename(earlier, name)
        try:
            await self.ingest.keep_sample(
                record.id, recording, sample_id=f"smp_{secrets.token_hex(8)}", file_name=file_name, transcript=None
            )
        except InvalidRequest:
            if record.name != earlier.name:
                await self.voices.rename(record.id, earlier.name)
            raise
        return record
