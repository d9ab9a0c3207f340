"""`/v1/keys`: API keys. The scope is `manage`, for the keys of one's own project.

A key's token is shown once, when it is made or rotated. A key can make others with the scopes that it has itself, and
changes none that has more. `admin` has all scopes, and is for every project's keys.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Manager
from app.api.bodies import json_body, read_json
from app.api.services import Services, TheServices
from app.errors import PermissionDenied
from app.platform.api_keys import ApiKey
from app.platform.limit_values import Limits
from app.speech.choices import MAX_KEY_DAYS, MAX_OVERLAP_HOURS, Scope

router = APIRouter(prefix="/v1/keys", tags=["keys"])
log = logging.getLogger(__name__)


class NewKey(BaseModel):
    """The body of `POST /v1/keys`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = Field(description="Whose it is; for the list.")
    scopes: list[Scope] = Field(default=[Scope.SPEAK], min_length=1, max_length=len(Scope))
    days: float | None = Field(default=None, gt=0, le=MAX_KEY_DAYS, description="How long it holds; null: for good.")
    limits: Limits = Field(default=Limits(), description="Of this key alone, beside its project's.")
    project: str | None = Field(
        default=None, max_length=128, description="Its project's id or name; another than one's own needs `admin`."
    )


class Rotation(BaseModel):
    """The body of `POST /v1/keys/{id}/rotate`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    overlap_hours: float = Field(
        default=24, ge=0, le=MAX_OVERLAP_HOURS, description="How long the token before holds beside the new one."
    )


@router.post("", status_code=201, openapi_extra=json_body(NewKey))
async def create(request: Request, services: TheServices, by: Manager) -> dict[str, Any]:
    """Make a key. Its `token` is in this answer and nowhere else."""
    wanted = await read_json(request, NewKey)
    _may_give(by, frozenset(wanted.scopes))
    lifetime = None if wanted.days is None else timedelta(days=wanted.days)
    project = await _project(services, by, wanted.project)
    made = await services.catalog.keys.create(
        wanted.name, set(wanted.scopes), lifetime=lifetime, project=project, limits=wanted.limits
    )
    await services.audit("key.create", made.id)
    log.info("key created", extra={"key": made.id, "scopes": sorted(wanted.scopes), "by": services.key_id})
    return {"object": "key", "id": made.id, "token": made.token}


@router.get("")
async def list_keys(services: TheServices, _: Manager) -> dict[str, Any]:
    """The keys, the oldest first; no tokens, which are not kept."""
    return {"object": "list", "data": [key.model_dump(mode="json") for key in await services.catalog.keys.all()]}


@router.post("/{key_id}/rotate", status_code=201, openapi_extra=json_body(Rotation))
async def rotate(key_id: str, request: Request, services: TheServices, by: Manager) -> dict[str, Any]:
    """Give a key another token. Two hold at a time: this one, and for a while the one before."""
    wanted = await read_json(request, Rotation)
    _may_give(by, (await services.catalog.keys.get(key_id)).scopes)
    made = await services.catalog.keys.rotate(key_id, overlap=timedelta(hours=wanted.overlap_hours))
    services.keys.forget(key_id)
    await services.audit("key.rotate", key_id)
    previous_until = (await services.catalog.keys.get(key_id)).previous_until
    return {
        "object": "key",
        "id": made.id,
        "token": made.token,
        "previous_until": previous_until and previous_until.isoformat(),
    }


@router.delete("/{key_id}")
async def revoke(key_id: str, services: TheServices, by: Manager) -> dict[str, Any]:
    """End a key and its open sockets at once; it stays in the list for a while, as revoked."""
    _may_give(by, (await services.catalog.keys.get(key_id)).scopes)
    await services.catalog.keys.revoke(key_id)
    services.keys.forget(key_id)
    await services.key_watch.check()
    await services.audit("key.revoke", key_id)
    log.info("key revoked", extra={"key": key_id, "by": services.key_id})
    return {"id": key_id, "revoked": True}


def _may_give(by: ApiKey | None, scopes: frozenset[Scope]) -> None:
    """Raises PermissionDenied for scopes that the caller has not: no key makes, or takes over, one that may do more."""
    lacking = sorted(scope for scope in scopes if by is not None and not by.allows(scope))
    if lacking:
        raise PermissionDenied(f"this key lacks the scope {lacking[0]!r} itself, and so is not for keys that have it")


async def _project(services: Services, by: ApiKey | None, wanted: str | None) -> str | None:
    """The id of the project that a new key is for. Raises NotFound, and for another's than the caller's own."""
    if wanted is None:
        return None
    if by is not None and not by.allows(Scope.ADMIN) and wanted != by.project_id:
        raise PermissionDenied("project: only a key with the scope 'admin' makes keys of other projects")
    return (await services.catalog.projects.find(wanted)).id
