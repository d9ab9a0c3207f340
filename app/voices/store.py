"""Voices as their owners manage them: recordings, consent, adapter versions, and the tombstones of deleted ones.

It keeps rows; the bytes they speak of lie in the object store, all of a voice's below `voice_prefix`. Whether a voice
can be spoken with depends on its version alone: 0 is none yet. Another project's voice is as one that is not there.
"""

from __future__ import annotations

import secrets
import string
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, case, delete, func, insert, literal, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import Conflict, NotFound
from app.platform.database import Database, one_at_a_time
from app.platform.idempotency import check_age, new_id
from app.platform.projects import EVERYONE, Tenant
from app.platform.tables import (
    DEFAULT_PROJECT,
    AdapterRow,
    ConsentRow,
    JobRow,
    ProjectRow,
    PronunciationRow,
    SampleRow,
    VoiceRow,
)
from app.speech.voices import AdapterVersion, Voice
from app.voices.models import AudioFacts, Consent, Sample, VoiceRecord

CONSENT_DIGITS = 8


def new_voice_id() -> str:
    """Twelve letters: every tokenizer can read them, for a clone is trained under its id."""
    drawn = bytes.fromhex(new_id("", 12))
    return "".join(string.ascii_lowercase[byte % 26] for byte in drawn)


class VoiceStore:
    """The voices of one database that a tenant has. Every method raises StoreUnavailable when it does not answer."""

    def __init__(self, database: Database, *, now: Callable[[], datetime], tenant: Tenant = EVERYONE) -> None:
        self._database = database
        self._now = now
        self._tenant = tenant

    def seen_by(self, tenant: Tenant) -> VoiceStore:
        return VoiceStore(self._database, now=self._now, tenant=tenant)

    # Voices.

    async def create(
        self, name: str, *, model: str, language: str = "en", description: str = "", prompt_name: str | None = None
    ) -> VoiceRecord:
        """A new voice without an adapter, trained under its id or `prompt_name`; that of before where the request is
        repeated. Raises Conflict for a taken name."""
        voice_id = new_voice_id()
        values = {
            "id": voice_id,
            "name": name,
            "model": model,
            "language": language,
            "description": description,
            "prompt_name": prompt_name or voice_id,
            "version": 0,
            "consent_number": "".join(secrets.choice(string.digits) for _ in range(CONSENT_DIGITS)),
            "created_at": self._now(),
            "project_id": self._tenant.project,
        }
        async with self._database.writing() as connection:
            living = select(*VoiceRow.__table__.c).where(
                VoiceRow.id == voice_id, VoiceRow.deleted_at.is_(None), self._owned
            )
            if row := (await connection.execute(living)).first():
                check_age(row.created_at, self._now())
                [record] = await _records(connection, [row])
                return record
            try:
                await connection.execute(insert(VoiceRow).values(**values))
            except IntegrityError:
                raise _taken(name, model) from None
        return VoiceRecord(**values)

    async def get(self, voice: str) -> VoiceRecord:
        """The living voice of that id. Raises NotFound."""
        async with self._database.reading() as connection:
            [record] = await _records(connection, [await self._living(connection, voice)])
            return record

    async def named(self, name: str, *, model: str) -> VoiceRecord | None:
        """The living voice of that name in the tenant's own project, if there is one."""
        found = select(*VoiceRow.__table__.c).where(
            VoiceRow.name == name,
            VoiceRow.model == model,
            VoiceRow.project_id == self._tenant.project,
            VoiceRow.deleted_at.is_(None),
        )
        async with self._database.reading() as connection:
            records = await _records(connection, (await connection.execute(found)).all())
        return records[0] if records else None

    async def all(self, *, limit: int | None = None, after: str | None = None) -> list[VoiceRecord]:
        """Living voices by name: at most `limit`, from the one behind the id `after` on. Raises NotFound for that."""
        living = select(*VoiceRow.__table__.c).where(VoiceRow.deleted_at.is_(None), self._owned)
        async with self._database.reading() as connection:
            if after is not None:
                last = await self._living(connection, after)
                living = living.where(tuple_(VoiceRow.name, VoiceRow.id) > (last.name, last.id))
            page = living.order_by(VoiceRow.name, VoiceRow.id).limit(limit)
            return await _records(connection, (await connection.execute(page)).all())

    async def rename(self, voice_id: str, name: str) -> VoiceRecord:
        """Raises NotFound, Conflict for a taken name."""
        async with self._database.writing() as connection:
            row = await self._living(connection, voice_id)
            try:
                await connection.execute(update(VoiceRow).where(VoiceRow.id == voice_id).values(name=name))
            except IntegrityError:
                raise _taken(name, row.model) from None
        return await self.get(voice_id)

    async def delete(self, voice_id: str) -> None:
        """Leave a tombstone of a voice, of which its id alone can be read; its jobs are asked to stop.

        Raises NotFound. Bytes are for the caller.
        """
        now = self._now()
        async with self._database.writing() as connection:
            await self._living(connection, voice_id)
            for table in (SampleRow, ConsentRow, AdapterRow):
                await connection.execute(delete(table).where(table.voice_id == voice_id))
            await connection.execute(delete(PronunciationRow).where(PronunciationRow.owner == f"voice:{voice_id}"))
            await connection.execute(
                update(JobRow)
                .where(JobRow.voice_id == voice_id, JobRow.finished_at.is_(None))
                .values(cancel_requested=True, revision=JobRow.revision + 1)
            )
            blank = dict.fromkeys(("name", "language", "description", "prompt_name", "consent_number"), "")
            await connection.execute(
                update(VoiceRow).where(VoiceRow.id == voice_id).values(deleted_at=now, version=0, **blank)
            )
            await _blank_jobs(connection, [voice_id])

    async def blank_jobs(self, voice_ids: Sequence[str]) -> None:
        """Forget once more what the jobs of deleted voices say: one that ran on for a moment may have said it again."""
        async with self._database.writing() as connection:
            await _blank_jobs(connection, voice_ids)

    async def tombstones(self, *, since: datetime) -> list[str]:
        """The ids of voices deleted since then."""
        async with self._database.reading() as connection:
            return list(await connection.scalars(select(VoiceRow.id).where(VoiceRow.deleted_at >= since, self._owned)))

    @property
    def _owned(self) -> ColumnElement[bool]:
        return self._tenant.owns(VoiceRow.project_id)

    async def _living(self, connection: AsyncConnection, voice_id: str) -> Row[Any]:
        """The row of a voice that the tenant has. Raises NotFound."""
        return await _living(connection, voice_id, self._tenant)

    # Recordings and consent.

    async def add_sample(
        self,
        voice_id: str,
        *,
        sample_id: str,
        file_name: str,
        size_bytes: int,
        facts: AudioFacts,
        transcript: str | None,
        object_key: str,
    ) -> Sample:
        """Raises NotFound when the voice is not, or not any more; Conflict where there is a recording of that id."""
        sample = Sample(
            id=sample_id,
            voice_id=voice_id,
            file_name=file_name,
            size_bytes=size_bytes,
            facts=facts,
            transcript=transcript,
            object_key=object_key,
            created_at=self._now(),
        )
        async with self._database.writing() as connection:
            await self._living(connection, voice_id)
            try:
                await connection.execute(insert(SampleRow).values(**sample.model_dump()))
            except IntegrityError:
                raise Conflict(f"the recording {sample_id} is kept already", param="upload_id") from None
        return sample

    async def samples(self, voice_id: str) -> list[Sample]:
        """The recordings of a voice, the oldest first; none of one that the tenant has not."""
        statement = (
            select(*SampleRow.__table__.c)
            .join(VoiceRow, VoiceRow.id == SampleRow.voice_id)
            .where(SampleRow.voice_id == voice_id, self._owned)
            .order_by(SampleRow.created_at, SampleRow.id)
        )
        async with self._database.reading() as connection:
            return [Sample(**row._mapping) for row in await connection.execute(statement)]

    async def sample(self, voice_id: str, sample_id: str) -> Sample:
        """One recording of a living voice. Raises NotFound."""
        await self.get(voice_id)
        for sample in await self.samples(voice_id):
            if sample.id == sample_id:
                return sample
        raise _no_recording(voice_id, sample_id)

    async def set_transcript(self, voice_id: str, sample_id: str, transcript: str) -> None:
        """Raises NotFound."""
        await self._change_sample(voice_id, sample_id, update(SampleRow).values(transcript=transcript))

    async def delete_sample(self, voice_id: str, sample_id: str) -> None:
        """Raises NotFound."""
        await self._change_sample(voice_id, sample_id, delete(SampleRow))

    async def _change_sample(self, voice_id: str, sample_id: str, statement: Any) -> None:
        async with self._database.writing() as connection:
            await self._living(connection, voice_id)
            changed = await connection.execute(
                statement.where(SampleRow.id == sample_id, SampleRow.voice_id == voice_id)
            )
        if not changed.rowcount:
            raise _no_recording(voice_id, sample_id)

    async def add_consent(self, consent: Consent) -> None:
        """Raises NotFound when the voice is not, or not any more."""
        async with self._database.writing() as connection:
            await self._living(connection, consent.voice_id)
            await connection.execute(insert(ConsentRow).values(**consent.model_dump()))

    # Adapter versions.

    async def add_version(self, voice_id: str, *, uri: str, sha256: Mapping[str, str], rank: int) -> AdapterVersion:
        """A new version, not yet in force. Its lora_id is one no adapter ever had. Raises NotFound."""
        async with self._database.writing() as connection:
            await connection.run_sync(one_at_a_time)
            await self._living(connection, voice_id)
            last = select(func.coalesce(func.max(AdapterRow.version), 0)).where(AdapterRow.voice_id == voice_id)
            number = (await connection.execute(last)).scalar_one() + 1
            added = await connection.execute(
                insert(AdapterRow)
                .values(
                    voice_id=voice_id,
                    version=number,
                    uri=uri,
                    sha256=dict(sha256),
                    rank=rank,
                    created_at=self._now(),
                )
                .returning(AdapterRow.lora_id)
            )
            lora_id = added.scalar_one()
        return AdapterVersion(voice_id=voice_id, version=number, lora_id=lora_id, uri=uri, sha256=sha256, rank=rank)

    async def point(self, voice_id: str, version: int) -> Voice:
        """Put a version in force: it is what the next session speaks with. Raises NotFound."""
        async with self._database.writing() as connection:
            await self._living(connection, voice_id)
            await put_in_force(connection, voice_id, version, self._now())
            row = (await connection.execute(_SPOKEN.where(VoiceRow.id == voice_id))).one()
        return _voice(row)

    async def roll_back(self, voice_id: str, version: int | None = None) -> Voice:
        """Put an earlier published version in force again: `version`, or the one before. Raises NotFound."""
        record = await self.get(voice_id)
        earlier = [number for number in record.versions if number < record.version]
        if version is not None and version not in record.versions:
            raise NotFound(
                f"the voice {voice_id} has no published version {version}; it has: {_listed(record.versions)}",
                param="version",
            )
        if version is None and not earlier:
            raise NotFound(
                f"the voice {voice_id} has no version before {record.version}; it has: {_listed(record.versions)}",
                param="version",
            )
        return await self.point(voice_id, version if version is not None else earlier[-1])

    async def published(self, *, limit: int | None = None) -> list[Voice]:
        """The voices that have an adapter, the tenant's own first, by name. Built-in voices are the models' own and not
        here."""
        own = case((VoiceRow.project_id == self._tenant.project, 0), else_=1)
        statement = _SPOKEN.where(VoiceRow.deleted_at.is_(None), self._owned).order_by(own, VoiceRow.name).limit(limit)
        async with self._database.reading() as connection:
            return [_voice(row) for row in await connection.execute(statement)]

    async def spoken_as(self, names: Collection[str], *, models: Collection[str]) -> list[Voice]:
        """The voices of these models that have an adapter and one of these ids or names, the tenant's own first.

        Each condition names an index from its first column on: there may be a hundred thousand voices.
        """
        living = _SPOKEN.where(VoiceRow.deleted_at.is_(None), VoiceRow.model.in_(models))
        by_id = living.where(VoiceRow.id.in_(names), self._owned)
        by_name = living.where(VoiceRow.name.in_(names), self._in_projects)
        found: dict[str, Row[Any]] = {}
        async with self._database.reading() as connection:
            for statement in (by_id, by_name):
                found |= {row.id: row for row in await connection.execute(statement)}
        own_first = sorted(found.values(), key=lambda row: (row.project_id != self._tenant.project, row.name))
        return [_voice(row) for row in own_first]

    @property
    def _in_projects(self) -> ColumnElement[bool]:
        """The same condition as `_owned`, said by the projects' ids."""
        if not self._tenant.sees_all:
            return self._owned
        return VoiceRow.project_id.in_(select(ProjectRow.id).union(select(literal(DEFAULT_PROJECT))))


async def _records(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[VoiceRecord]:
    """Voices with what hangs on them, in the order of their rows; so many statements for many as for one."""
    ids = [row.id for row in rows]
    published = (
        select(AdapterRow.voice_id, AdapterRow.version)
        .where(AdapterRow.voice_id.in_(ids), AdapterRow.published_at.is_not(None))
        .order_by(AdapterRow.version)
    )
    recorded = (
        select(SampleRow.voice_id, func.count(), func.sum(SampleRow.facts["duration_s"].as_float()))
        .where(SampleRow.voice_id.in_(ids))
        .group_by(SampleRow.voice_id)
    )
    given = select(*ConsentRow.__table__.c).where(ConsentRow.voice_id.in_(ids)).order_by(ConsentRow.created_at)
    versions: dict[str, list[int]] = defaultdict(list)
    for voice_id, version in await connection.execute(published):
        versions[voice_id].append(version)
    samples = {voice_id: (count, seconds) for voice_id, count, seconds in await connection.execute(recorded)}
    newest = {row.voice_id: Consent(**row._mapping) for row in await connection.execute(given)}
    records = []
    for row in rows:
        count, seconds = samples.get(row.id, (0, 0.0))
        records.append(
            VoiceRecord(
                **row._mapping,
                versions=tuple(versions[row.id]),
                consent=newest.get(row.id),
                sample_count=count,
                sample_s=round(seconds, 3),
            )
        )
    return records


_SPOKEN = select(
    *(
        VoiceRow.__table__.c[name]
        for name in ("id", "name", "model", "language", "prompt_name", "version", "project_id")
    ),
    *(AdapterRow.__table__.c[name] for name in ("lora_id", "uri", "sha256", "rank")),
).join(AdapterRow, (AdapterRow.voice_id == VoiceRow.id) & (AdapterRow.version == VoiceRow.version))


async def put_in_force(connection: AsyncConnection, voice_id: str, version: int, now: datetime) -> None:
    """Point a voice to one of its versions, within the caller's transaction. Raises NotFound."""
    await _living(connection, voice_id)
    marked = await connection.execute(
        update(AdapterRow)
        .where(AdapterRow.voice_id == voice_id, AdapterRow.version == version)
        .values(published_at=func.coalesce(AdapterRow.published_at, now))
    )
    if not marked.rowcount:
        raise NotFound(f"the voice {voice_id} has no version {version}", param="version")
    await connection.execute(update(VoiceRow).where(VoiceRow.id == voice_id).values(version=version))


async def _blank_jobs(connection: AsyncConnection, voice_ids: Sequence[str]) -> None:
    """Of a job's words those go that come from recordings: file names, transcripts, measures of a voice."""
    words = dict.fromkeys(("progress", "report", "gate", "error"))
    await connection.execute(update(JobRow).where(JobRow.voice_id.in_(voice_ids)).values(config={}, **words))


async def _living(connection: AsyncConnection, voice_id: str, tenant: Tenant = EVERYONE) -> Row[Any]:
    found = select(*VoiceRow.__table__.c).where(
        VoiceRow.id == voice_id, VoiceRow.deleted_at.is_(None), tenant.owns(VoiceRow.project_id)
    )
    row = (await connection.execute(found)).first()
    if row is None:
        raise NotFound(f"there is no voice {voice_id[:64]!r}; GET /v1/voices lists them", param="voice")
    return row


def _voice(row: Row[Any]) -> Voice:
    adapter = AdapterVersion(
        voice_id=row.id, version=row.version, lora_id=row.lora_id, uri=row.uri, sha256=row.sha256, rank=row.rank
    )
    return Voice(
        id=row.id,
        name=row.name,
        model=row.model,
        language=row.language,
        adapter=adapter,
        trained_as=row.prompt_name,
    )


def _no_recording(voice_id: str, sample_id: str) -> NotFound:
    return NotFound(f"the voice {voice_id} has no recording {sample_id[:64]!r}", param="sample_id")


def _taken(name: str, model: str) -> Conflict:
    return Conflict(
        f"the model {model!r} has a voice {name!r} already; choose another name, or delete that one", param="name"
    )


def _listed(versions: tuple[int, ...]) -> str:
    return ", ".join(map(str, versions)) or "none"
