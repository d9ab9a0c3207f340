"""The API keys of one database. It authenticates keys and does not authorise requests.

A token is returned once and not kept: what is kept is its HMAC-SHA256 under the pepper.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Row, delete, func, insert, or_, select, update

from app.errors import AuthenticationFailed, InvalidRequest, NotFound, StoreUnavailable
from app.platform.api_keys import MAX_KEY_NAME_CHARS, ApiKey, NewKey
from app.platform.database import Database
from app.platform.idempotency import new_id, told_once
from app.platform.limit_values import Limits
from app.platform.projects import EVERYONE, Tenant
from app.platform.tables import KeyRow, ProjectRow
from app.speech.choices import Scope

TOKEN_PREFIX = "cari"
LAST_USED_RESOLUTION = timedelta(minutes=1)


class ApiKeyStore:
    """The keys of one database; those listed and changed are a tenant's.

    Every method raises StoreUnavailable when the database does not answer or refuses.
    """

    def __init__(
        self, database: Database, *, pepper: SecretStr, now: Callable[[], datetime], tenant: Tenant = EVERYONE
    ) -> None:
        self._database = database
        self._tenant = tenant
        self._pepper = pepper.get_secret_value().encode()
        self._now = now

    async def create(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        lifetime: timedelta | None = None,
        project: str | None = None,
        limits: Limits | None = None,
    ) -> NewKey:
        """A new key, of the tenant's project unless another's id is given.

        Raises InvalidRequest for a name that could not be shown in a list, Conflict where the request is repeated.
        """
        if not 1 <= len(name.strip()) <= MAX_KEY_NAME_CHARS or not name.isprintable():
            raise InvalidRequest(
                f"name: a key's has 1 to {MAX_KEY_NAME_CHARS} printable characters; say whose the key is", param="name"
            )
        now = self._now()
        key_id = new_id("", 6)
        token = _new_token(key_id)
        async with self._database.writing() as connection:
            if await connection.scalar(select(KeyRow.id).where(KeyRow.id == key_id)):
                raise told_once(key_id)
            await connection.execute(
                insert(KeyRow).values(
                    id=key_id,
                    name=name,
                    digest=self._digest(token),
                    scopes=sorted(scopes),
                    created_at=now,
                    expires_at=now + lifetime if lifetime is not None else None,
                    project_id=project or self._tenant.project,
                    limits=limits and limits.model_dump(exclude_unset=True),
                )
            )
        return NewKey(id=key_id, token=token)

    async def authenticate(self, token: str) -> ApiKey:
        """The key that `token` proves. Raises AuthenticationFailed, with the same words for every wrong token."""
        prefix, _, rest = token.partition("_")
        key_id, _, _ = rest.partition("_")
        async with self._database.reading() as connection:
            row = (await connection.execute(_KEYS.where(KeyRow.id == key_id))).first()
        now, digest = self._now(), self._digest(token)
        genuine = hmac.compare_digest(digest, row.digest if row else "")
        if row is not None and row.previous_until is not None and row.previous_until > now:
            genuine |= hmac.compare_digest(digest, row.previous_digest or "")
        if prefix != TOKEN_PREFIX or row is None or not genuine or row.revoked_at is not None:
            raise AuthenticationFailed("the API key is not valid; send `Authorization: Bearer cari_…`")
        if row.expires_at is not None and row.expires_at <= now:
            raise AuthenticationFailed(f"the API key {key_id} expired at {row.expires_at.isoformat()}; ask for another")
        if row.last_used_at is None or now - row.last_used_at >= LAST_USED_RESOLUTION:
            # Informational: a key is valid even where this cannot be written.
            with suppress(StoreUnavailable):
                async with self._database.writing() as connection:
                    await connection.execute(update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=now))
        return _key(row)

    async def all(self) -> list[ApiKey]:
        """Every key, the oldest first."""
        async with self._database.reading() as connection:
            owned = _KEYS.where(self._tenant.owns(KeyRow.project_id))
            return [_key(row) for row in await connection.execute(owned.order_by(KeyRow.created_at, KeyRow.id))]

    async def get(self, key_id: str) -> ApiKey:
        """Raises NotFound."""
        wanted = _KEYS.where(KeyRow.id == key_id, self._tenant.owns(KeyRow.project_id))
        async with self._database.reading() as connection:
            row = (await connection.execute(wanted)).first()
        if row is None:
            raise _no_key(key_id)
        return _key(row)

    async def rotate(self, key_id: str, *, overlap: timedelta) -> NewKey:
        """Another token for a key; the one before it holds for `overlap` still, and any before that no longer.

        Raises NotFound, also for a key that was revoked.
        """
        token = _new_token(key_id)
        async with self._database.writing() as connection:
            found = await connection.execute(
                update(KeyRow)
                .where(KeyRow.id == key_id, KeyRow.revoked_at.is_(None), self._tenant.owns(KeyRow.project_id))
                .values(
                    previous_digest=KeyRow.digest,
                    previous_until=self._now() + overlap,
                    digest=self._digest(token),
                )
            )
        if not found.rowcount:
            raise _no_key(key_id)
        return NewKey(id=key_id, token=token)

    async def ended(self, key_ids: Collection[str]) -> set[str]:
        """Those of `key_ids` that hold no longer: revoked, expired, forgotten."""
        holds = select(KeyRow.id).where(
            KeyRow.id.in_(key_ids),
            KeyRow.revoked_at.is_(None),
            or_(KeyRow.expires_at.is_(None), KeyRow.expires_at > self._now()),
        )
        async with self._database.reading() as connection:
            return set(key_ids) - set(await connection.scalars(holds))

    async def revoke(self, key_id: str) -> None:
        """End a key; ending it again changes nothing. Raises NotFound when there is none of that id."""
        async with self._database.writing() as connection:
            found = await connection.execute(
                update(KeyRow)
                .where(KeyRow.id == key_id, self._tenant.owns(KeyRow.project_id))
                .values(revoked_at=func.coalesce(KeyRow.revoked_at, self._now()))
            )
        if not found.rowcount:
            raise _no_key(key_id)

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


_KEYS = select(*KeyRow.__table__.c, ProjectRow.limits.label("project_limits")).outerjoin(
    ProjectRow, ProjectRow.id == KeyRow.project_id
)


def _new_token(key_id: str) -> str:
    return f"{TOKEN_PREFIX}_{key_id}_{secrets.token_hex(32)}"


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey.model_validate({name: getattr(row, name) for name in ApiKey.model_fields})


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"there is no key {key_id[:64]!r}; `carillon keys list` shows them", param="id")
