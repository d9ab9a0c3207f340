"""Responses to requests with an `Idempotency-Key`, kept for a day so that a retry gets the same one.

A request claims its key before it is worked on, and renews the claim while it is; another one that comes meanwhile is
refused. A claim that is not renewed for `CLAIM_S`, whose process died or could not release it, is taken over. Where the
answer was lost after the object was made, the retry comes to the same object: its id follows from the key (`new_id`).
What a request asks for is not known here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app.errors import Conflict, InvalidRequest
from app.platform.database import Database
from app.platform.tables import IdempotencyRow

CLAIM_S = 30.0
RENEW_S = CLAIM_S / 6
KEPT = timedelta(days=1)
RETRY_AFTER_S = 1.0

CLAIMED: ContextVar[tuple[str, str] | None] = ContextVar("claimed", default=None)
"""The project and the Idempotency-Key that the current request has claimed."""


@dataclass(frozen=True)
class Answer:
    """A response as it was sent. `fingerprint` is of the request's body."""

    status: int
    headers: dict[str, str]
    body: str
    fingerprint: str


class IdempotencyStore:
    """The kept answers of one database. Every method raises StoreUnavailable when it does not answer."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def claim(self, project_id: str, key: str, request: str) -> Answer | None:
        """The response that was sent already; None: the caller handles the request, then calls `keep` or `release`.

        Raises Conflict while another works on it, InvalidRequest where the key was used for another request.
        """
        now = self._now()
        which = (IdempotencyRow.project_id == project_id) & (IdempotencyRow.key == key)
        stale = or_(
            IdempotencyRow.created_at < now - KEPT,
            IdempotencyRow.status.is_(None) & (IdempotencyRow.created_at < now - timedelta(seconds=CLAIM_S)),
        )
        async with self._database.writing() as connection:
            await connection.execute(delete(IdempotencyRow).where(which, stale))
            row = (await connection.execute(select(*IdempotencyRow.__table__.c).where(which))).first()
            if row is None:
                values = {"project_id": project_id, "key": key, "request": request, "created_at": now}
                try:
                    await connection.execute(insert(IdempotencyRow).values(**values))
                except IntegrityError:
                    raise _in_work(key) from None
                return None
        if row.request != request:
            raise _misused(key)
        if row.status is None:
            raise _in_work(key)
        return Answer(row.status, row.headers, row.body, row.fingerprint)

    async def renew(self, project_id: str, key: str) -> None:
        """The request is still worked on."""
        async with self._database.writing() as connection:
            await connection.execute(
                update(IdempotencyRow)
                .where(
                    IdempotencyRow.project_id == project_id,
                    IdempotencyRow.key == key,
                    IdempotencyRow.status.is_(None),
                )
                .values(created_at=self._now())
            )

    async def keep(self, project_id: str, key: str, answer: Answer) -> None:
        """What the request was answered with."""
        async with self._database.writing() as connection:
            await connection.execute(
                update(IdempotencyRow)
                .where(IdempotencyRow.project_id == project_id, IdempotencyRow.key == key)
                .values(status=answer.status, headers=answer.headers, body=answer.body, fingerprint=answer.fingerprint)
            )

    async def release(self, project_id: str, key: str) -> None:
        """The request came to nothing, and may be sent again."""
        async with self._database.writing() as connection:
            await connection.execute(
                delete(IdempotencyRow).where(IdempotencyRow.project_id == project_id, IdempotencyRow.key == key)
            )

    async def delete_old(self) -> int:
        """Forget the answers of more than a day ago. Returns how many."""
        async with self._database.writing() as connection:
            gone = await connection.execute(
                delete(IdempotencyRow).where(IdempotencyRow.created_at < self._now() - KEPT)
            )
        return gone.rowcount


def new_id(prefix: str, size_bytes: int = 8, *, place: int = 0) -> str:
    """An id for what a request makes: random, or what its Idempotency-Key gives each time.

    Of several objects with one prefix each has its `place`.
    """
    if (claimed := CLAIMED.get()) is None:
        return prefix + secrets.token_hex(size_bytes)
    return prefix + hashlib.sha256("\n".join((prefix, str(place), *claimed)).encode()).hexdigest()[: 2 * size_bytes]


def check_age(made_at: datetime, now: datetime) -> None:
    """Of an object that a request finds under its new id. Raises InvalidRequest where its key's day is over."""
    if (claimed := CLAIMED.get()) and made_at < now - KEPT:
        raise _misused(claimed[1])


def told_once(key_id: str) -> Conflict:
    """Of a request that is repeated, and has made an API key."""
    return Conflict(f"this has made the token of the key {key_id} already, told once; rotate the key")


def check_body(key: str, answer: Answer, fingerprint: str) -> None:
    """Raises InvalidRequest for another body than the one that was answered."""
    if answer.fingerprint != fingerprint:
        raise _misused(key)


def _in_work(key: str) -> Conflict:
    return Conflict(
        f"a request with the Idempotency-Key {key!r} is being worked on; try again in a moment",
        param="idempotency-key",
        retry_after_s=RETRY_AFTER_S,
    )


def _misused(key: str) -> InvalidRequest:
    return InvalidRequest(
        f"the Idempotency-Key {key!r} was used for another request; each request needs one of its own",
        param="idempotency-key",
    )
