"""The catalogue: keys, voices and their adapters, in SQL. It is the truth for what must not be lost.

SQLite (one machine) and PostgreSQL run the same statements. Writes to SQLite begin with BEGIN IMMEDIATE under WAL: that
lets several processes share the file without lock errors. The tables are made by the migrations beside this file.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import sqlite3
import string
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    Dialect,
    ForeignKey,
    Row,
    TypeDecorator,
    UniqueConstraint,
    delete,
    event,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.errors import AuthenticationFailed, ConfigurationError, InvalidRequest, StoreUnavailable
from app.core.models import AdapterVersion, ApiKey, Frozen, Scope, Voice
from app.infra.settings import without_secrets

TOKEN_PREFIX = "cari"
LAST_USED_RESOLUTION = timedelta(minutes=1)
BUSY_TIMEOUT_MS = 5_000

log = logging.getLogger(__name__)


class Moment(TypeDecorator[datetime]):
    """An instant, in UTC on both databases; SQLite itself forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value if value.tzinfo else value.replace(tzinfo=UTC))


class Base(DeclarativeBase):
    type_annotation_map = {datetime: Moment, list[str]: JSON, dict[str, str]: JSON}  # noqa: RUF012


class KeyRow(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class VoiceRow(Base):
    __tablename__ = "voices"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    model: Mapped[str]
    language: Mapped[str]
    version: Mapped[int]
    created_at: Mapped[datetime]


class AdapterRow(Base):
    __tablename__ = "adapter_versions"
    __table_args__ = (UniqueConstraint("voice_id", "version"), {"sqlite_autoincrement": True})

    lora_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    voice_id: Mapped[str] = mapped_column(ForeignKey("voices.id", ondelete="CASCADE"))
    version: Mapped[int]
    uri: Mapped[str]
    sha256: Mapped[dict[str, str]]
    rank: Mapped[int]
    created_at: Mapped[datetime]


class NewKey(Frozen):
    """A key just made. `token` is shown to its owner now, and never again."""

    id: str
    token: str


def utc_now() -> datetime:
    return datetime.now(UTC)


class Catalog:
    """One process's connection pool to the catalogue. `now` gives aware datetimes.

    Every method raises StoreUnavailable when the database does not answer or refuses.

    Example:
        catalog = Catalog(settings.database, pepper=settings.key_pepper)
        await catalog.migrate()
        key = await catalog.create_key("laptop", {Scope.SPEAK})
        await catalog.authenticate(key.token)
    """

    def __init__(self, url: str, *, pepper: SecretStr, now: Callable[[], datetime] = utc_now) -> None:
        self._pepper = pepper.get_secret_value().encode()
        self._now = now
        self._engine = _open(url)
        self._reads = self._engine.execution_options(reads_only=True)

    async def aclose(self) -> None:
        await self._engine.dispose()

    def _reading(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return _answering(self._reads.connect())

    def _writing(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction, committed at the end of the body."""
        return _answering(self._engine.begin())

    async def migrate(self) -> None:
        """Bring the tables to this version's form. Safe to run from several processes at once."""
        async with self._writing() as connection:
            await connection.run_sync(_upgrade)

    async def revision(self) -> tuple[str | None, str]:
        """The tables' revision (None: there are no tables) and the one this version needs."""
        async with self._reading() as connection:
            return await connection.run_sync(_revision)

    # Keys.

    async def create_key(self, name: str, scopes: Collection[Scope], *, expires_at: datetime | None = None) -> NewKey:
        """A new key. Its token is returned and not kept: what is kept is its HMAC-SHA256 under the pepper."""
        key_id = secrets.token_hex(6)
        token = f"{TOKEN_PREFIX}_{key_id}_{secrets.token_hex(32)}"
        async with self._writing() as connection:
            await connection.execute(
                insert(KeyRow).values(
                    id=key_id,
                    name=name,
                    digest=self._digest(token),
                    scopes=sorted(scopes),
                    created_at=self._now(),
                    expires_at=expires_at,
                )
            )
        return NewKey(id=key_id, token=token)

    async def authenticate(self, token: str) -> ApiKey:
        """The key that `token` proves. Raises AuthenticationFailed, with the same words for every wrong token."""
        prefix, _, rest = token.partition("_")
        key_id, _, _ = rest.partition("_")
        async with self._reading() as connection:
            row = (await connection.execute(select(*KeyRow.__table__.c).where(KeyRow.id == key_id))).first()
        genuine = hmac.compare_digest(self._digest(token), row.digest if row else "")
        if prefix != TOKEN_PREFIX or row is None or not genuine or row.revoked_at is not None:
            raise AuthenticationFailed("the API key is not valid; send `Authorization: Bearer cari_…`")
        now = self._now()
        if row.expires_at is not None and row.expires_at <= now:
            raise AuthenticationFailed(f"the API key {key_id} expired at {row.expires_at.isoformat()}; ask for another")
        if row.last_used_at is None or now - row.last_used_at >= LAST_USED_RESOLUTION:
            # The owner's information only: a database that cannot be written refuses nobody.
            with suppress(StoreUnavailable):
                async with self._writing() as connection:
                    await connection.execute(update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=now))
        return _api_key(row)

    async def keys(self) -> list[ApiKey]:
        """Every key, the oldest first."""
        async with self._reading() as connection:
            rows = await connection.execute(select(*KeyRow.__table__.c).order_by(KeyRow.created_at, KeyRow.id))
            return [_api_key(row) for row in rows]

    async def revoke(self, key_id: str) -> None:
        """End a key; ending it again changes nothing. Raises InvalidRequest when there is none of that id."""
        async with self._writing() as connection:
            found = await connection.execute(
                update(KeyRow)
                .where(KeyRow.id == key_id)
                .values(revoked_at=func.coalesce(KeyRow.revoked_at, self._now()))
            )
        if not found.rowcount:
            raise InvalidRequest(f"there is no key {key_id!r}; `carillon keys list` shows them", param="id")

    async def delete_dead_keys(self, *, retention: timedelta) -> int:
        """Forget keys that were revoked or expired longer than `retention` ago. Returns how many."""
        limit = self._now() - retention
        async with self._writing() as connection:
            gone = await connection.execute(
                delete(KeyRow).where(or_(KeyRow.revoked_at < limit, KeyRow.expires_at < limit))
            )
        return gone.rowcount

    def _digest(self, token: str) -> str:
        return hmac.new(self._pepper, token.encode(), hashlib.sha256).hexdigest()

    # Voices.

    async def voices(self) -> list[Voice]:
        """Every clone with its current adapter, by name. Built-in voices are the models' own and not here."""
        statement = (
            select(
                *(VoiceRow.__table__.c[name] for name in ("id", "name", "model", "language", "version")),
                *(AdapterRow.__table__.c[name] for name in ("lora_id", "uri", "sha256", "rank")),
            )
            .join(AdapterRow, (AdapterRow.voice_id == VoiceRow.id) & (AdapterRow.version == VoiceRow.version))
            .order_by(VoiceRow.name)
        )
        async with self._reading() as connection:
            return [_voice(row) for row in await connection.execute(statement)]

    async def publish(
        self,
        voice_name: str,
        *,
        model: str,
        language: str,
        uri: str,
        sha256: Mapping[str, str],
        rank: int,
        voice_id: str | None = None,
    ) -> Voice:
        """Make an adapter the current version of the voice `voice_name`, which is made if it is new.

        Its lora_id is one no adapter ever had. `voice_id` is what a new voice was trained under (`new_voice_id`).
        Raises InvalidRequest when the name belongs to a voice of another model.
        """
        now = self._now()
        async with self._writing() as connection:
            await connection.run_sync(_one_at_a_time)
            known = select(VoiceRow.id, VoiceRow.model, VoiceRow.version).where(VoiceRow.name == voice_name)
            row = (await connection.execute(known)).first()
            if row is None:
                key, version = voice_id or new_voice_id(), 1
                await connection.execute(
                    insert(VoiceRow).values(
                        id=key, name=voice_name, model=model, language=language, version=version, created_at=now
                    )
                )
            else:
                if row.model != model:
                    raise InvalidRequest(
                        f"the voice {voice_name!r} belongs to the model {row.model!r}; choose another name",
                        param="name",
                    )
                key, version = row.id, row.version + 1
                await connection.execute(update(VoiceRow).where(VoiceRow.id == key).values(version=version))
            added = await connection.execute(
                insert(AdapterRow)
                .values(voice_id=key, version=version, uri=uri, sha256=dict(sha256), rank=rank, created_at=now)
                .returning(AdapterRow.lora_id)
            )
            adapter = AdapterVersion(
                voice_id=key, version=version, lora_id=added.scalar_one(), uri=uri, sha256=sha256, rank=rank
            )
        return Voice(id=key, name=voice_name, model=model, language=language, adapter=adapter)


@asynccontextmanager
async def _answering(opening: AbstractAsyncContextManager[AsyncConnection]) -> AsyncIterator[AsyncConnection]:
    """`opening`, with the database's failures told as ours."""
    try:
        async with opening as connection:
            yield connection
    except (SQLAlchemyError, OSError) as error:
        reason = type(getattr(error, "orig", error)).__name__
        log.warning("catalogue unavailable", extra={"error": reason})
        raise StoreUnavailable(
            f"the catalogue does not answer ({reason}); is the database of CARILLON_DATABASE_URL running, "
            "writable and migrated? `carillon doctor` looks",
            retry_after_s=1,
        ) from error


def new_voice_id() -> str:
    """Twelve random letters: every tokenizer can read them, for a clone is trained under its id."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(12))


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


def _voice(row: Row[Any]) -> Voice:
    adapter = AdapterVersion(
        voice_id=row.id, version=row.version, lora_id=row.lora_id, uri=row.uri, sha256=row.sha256, rank=row.rank
    )
    return Voice(id=row.id, name=row.name, model=row.model, language=row.language, adapter=adapter)


def _open(url: str) -> AsyncEngine:
    """An engine for `url`; nothing is connected yet. Raises ConfigurationError for a database we do not speak to."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"CARILLON_DATABASE_URL={without_secrets(url)} is no address of a database; "
            "use sqlite:///file.db or postgresql://host/name"
        ) from None
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(parsed.set(drivername="sqlite+aiosqlite"))
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() == "postgresql":
        return create_async_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    raise ConfigurationError(
        f"CARILLON_DATABASE_URL names {parsed.get_backend_name()!r}; use sqlite:///file.db or postgresql://host/name"
    )


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


def _one_at_a_time(connection: Connection) -> None:
    """Wait until no other transaction is between here and its end. SQLite's BEGIN IMMEDIATE has seen to it already."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(0xCA21110)))


def _upgrade(connection: Connection) -> None:
    from alembic import command

    _one_at_a_time(connection)
    command.upgrade(_alembic(connection), "head")


def _revision(connection: Connection) -> tuple[str | None, str]:
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    head = ScriptDirectory.from_config(_alembic(connection)).get_current_head()
    return MigrationContext.configure(connection).get_current_revision(), head or ""


def _alembic(connection: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
