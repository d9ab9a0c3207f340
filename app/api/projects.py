"""`/v1/projects`: the owners of everything that is made here. The scope is `admin`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Admin
from app.api.bodies import json_body, read_json
from app.api.services import TheServices
from app.platform.limit_values import Limits
from app.platform.projects import MAX_PROJECT_NAME_CHARS, Project

router = APIRouter(prefix="/v1/projects", tags=["projects"])


class NewProject(BaseModel):
    """The body of `POST /v1/projects`."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description=f"1 to {MAX_PROJECT_NAME_CHARS} printable characters, no other project's name.")
    limits: Limits = Limits()


class NewLimits(BaseModel):
    """The body of `PUT /v1/projects/{id}/limits`: what is left out is as the settings have it, null is no limit."""

    model_config = ConfigDict(extra="forbid")

    limits: Limits


@router.post("", status_code=201, openapi_extra=json_body(NewProject))
async def create(request: Request, services: TheServices, _: Admin) -> dict[str, Any]:
    """Make a project. It has no keys yet; `POST /v1/keys` with its id or name makes some."""
    wanted = await read_json(request, NewProject)
    project = await services.catalog.projects.create(wanted.name, wanted.limits)
    await services.audit("project.create", project.id)
    return _shown(project)


@router.get("")
async def list_projects(services: TheServices, _: Admin) -> dict[str, Any]:
    """Every project, the oldest first."""
    return {"object": "list", "data": [_shown(project) for project in await services.catalog.projects.all()]}


@router.put("/{project}/limits", openapi_extra=json_body(NewLimits))
async def limit(project: str, request: Request, services: TheServices, _: Admin) -> dict[str, Any]:
    """Give a project, by id or name, other limits; its keys have them within seconds."""
    wanted = await read_json(request, NewLimits)
    changed = await services.catalog.projects.limit(project, wanted.limits)
    await services.audit("project.limit", changed.id)
    return _shown(changed)


def _shown(project: Project) -> dict[str, Any]:
    return {"object": "project", **project.model_dump(mode="json", exclude_unset=True)}
