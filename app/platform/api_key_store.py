"""The API keys of one database. It knows what proves a key, and not what a key is asked for.

A token is returned once and not kept: what is kept is its HMAC-SHA256 under the pepper.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import delete, func, insert, or_, select, update

from app.errors import AuthenticationFailed, InvalidRequest, NotFound, StoreUnavailable
from app.platform.api_keys import MAX_KEY_NAME_CHARS, ApiKey, NewKey
from app.platform.database import Database
from app.platform.tables import KeyRow
from app.speech.choices import Scope

TOKEN_PREFIX = "cari"
LAST_USED_RESOLUTION = timedelta(minutes=1)


class ApiKeyStore:
    """Every method raises StoreUnavailable when the database does not answer or refuses."""

    def __init__(self, database: Database, *, pepper: SecretStr, now: Callable[[], datetime]) -> None:
        self._database = database
        self._pepper = pepper.get_secret_value().encode()
        self._now = now

    async def create(self, name: str, scopes: Collection[Scope], *, lifetime: timedelta | None = None) -> NewKey:
        """A new key. Raises InvalidRequest for a name that could not be shown in a list."""
        if not 1 <= len(name.strip()) <= MAX_KEY_NAME_CHARS or not name.isprintable():
            raise InvalidRequest(
                f"name: a key's has 1 to {MAX_KEY_NAME_CHARS} printable characters; say whose the key is", param="name"
            )
        now = self._now()
        key_id = secrets.token_hex(6)
        token = f"{TOKEN_PREFIX}_{key_id}_{secrets.token_hex(32)}"
        async with self._database.writing() as connection:
            await connection.execute(
                insert(KeyRow).values(
                    id=key_id,
                    name=name,
                    digest=self._digest(token),
                    scopes=sorted(scopes),
                    created_at=now,
                    expires_at=now + lifetime if lifetime is not None else None,
                )
            )
        return NewKey(id=key_id, token=token)

    async def authenticate(self, token: str) -> ApiKey:
        """The key that `token` proves. Raises AuthenticationFailed, with the same words for every wrong token."""
        prefix, _, rest = token.partition("_")
        key_id, _, _ = rest.partition("_")
        async with self._database.reading() as connection:
            row = (await connection.execute(select(*KeyRow.__table__.c).where(KeyRow.id == key_id))).first()
        genuine = hmac.compare_digest(self._digest(token), row.digest if row else "")
        if prefix != TOKEN_PREFIX or row is None or not genuine or row.revoked_at is not None:
            raise AuthenticationFailed("the API key is not valid; send `Authorization: Bearer cari_…`")
        now = self._now()
        if row.expires_at is not None and row.expires_at <= now:
            raise AuthenticationFailed(f"the API key {key_id} expired at {row.expires_at.isoformat()}; ask for another")
        if row.last_used_at is None or now - row.last_used_at >= LAST_USED_RESOLUTION:
            # The owner's information only: a database that cannot be written refuses no key.
            with suppress(StoreUnavailable):
                async with self._database.writing() as connection:
                    await connection.execute(update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=now))
        return ApiKey.model_validate(row, from_attributes=True)

    async def all(self) -> list[ApiKey]:
        """Every key, the oldest first."""
        async with self._database.reading() as connection:
            rows = await connection.execute(select(*KeyRow.__table__.c).order_by(KeyRow.created_at, KeyRow.id))
            return [ApiKey.model_validate(row, from_attributes=True) for row in rows]

    async def revoke(self, key_id: str) -> None:
        """End a key; ending it again changes nothing. Raises NotFound when there is none of that id."""
        async with self._database.writing() as connection:
            found = await connection.execute(
                update(KeyRow)
                .where(KeyRow.id == key_id)
                .values(revoked_at=func.coalesce(KeyRow.revoked_at, self._now()))
            )
        if not found.rowcount:
            raise NotFound(f"there is no key {key_id[:64]!r}; `carillon keys list` shows them", param="id")

    async def delete_dead(self, *, retention: timedelta) -> int:
        """Forget keys that were revoked or expired longer than `retention` ago. Returns how many."""
        limit = self._now() - retention
        async with self._database.writing() as connection:
            gone = await connection.execute(
                delete(KeyRow).where(or_(KeyRow.revoked_at < limit, KeyRow.expires_at < limit))
            )
        return gone.rowcount

    def _digest(self, token: str) -> str:
        return hmac.new(self._pepper, token.encode(), hashlib.sha256).hexdigest()
