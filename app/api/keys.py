"""`/v1/keys`: who may ask this fleet for what. The scope is `admin`.

A key's token is shown once, when it is made. Who makes a key can give it any scope: `admin` has all of them.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Admin
from app.api.bodies import json_body, read_json
from app.api.services import TheServices
from app.speech.choices import MAX_KEY_DAYS, Scope

router = APIRouter(prefix="/v1/keys", tags=["keys"])
log = logging.getLogger(__name__)


class NewKey(BaseModel):
    """The body of `POST /v1/keys`."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: str = Field(description="Whose it is; for the list.")
    scopes: list[Scope] = Field(default=[Scope.SPEAK], min_length=1, max_length=len(Scope))
    days: float | None = Field(default=None, gt=0, le=MAX_KEY_DAYS, description="How long it holds; null: for good.")


@router.post("", status_code=201, openapi_extra=json_body(NewKey))
async def create(request: Request, services: TheServices, by: Admin) -> dict[str, Any]:
    """Make a key. Its `token` is in this answer and nowhere else."""
    wanted = await read_json(request, NewKey)
    lifetime = None if wanted.days is None else timedelta(days=wanted.days)
    made = await services.catalog.keys.create(wanted.name, set(wanted.scopes), lifetime=lifetime)
    log.info("key created", extra={"key": made.id, "scopes": sorted(wanted.scopes), "by": by and by.id})
    return {"object": "key", "id": made.id, "token": made.token}


@router.get("")
async def list_keys(services: TheServices, _: Admin) -> dict[str, Any]:
    """Every key, the oldest first; no tokens, which are not kept."""
    return {"object": "list", "data": [key.model_dump(mode="json") for key in await services.catalog.keys.all()]}


@router.delete("/{key_id}")
async def revoke(key_id: str, services: TheServices, by: Admin) -> dict[str, Any]:
    """End a key at once; it stays in the list for a while, as revoked."""
    await services.catalog.keys.revoke(key_id)
    log.info("key revoked", extra={"key": key_id, "by": by and by.id})
    return {"id": key_id, "revoked": True}
