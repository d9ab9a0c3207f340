"""`/healthz` (liveness), `/readyz` (readiness), `/version` and `/metrics`, without authentication; `/health` and
`/v1/readyz` are the same where some clients look for them."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.services import Services, services_by
from app.fleet.worker import WorkerState

router = APIRouter(tags=["health"])

Nobodys = Annotated[Services, Depends(services_by(lambda _: None))]
"""No key is looked up, whether or not one is sent: these answer while the catalogue does not."""


@router.get("/healthz")
@router.get("/health", include_in_schema=False)
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/version")
async def version() -> dict[str, str]:
    return {"name": "carillon", "version": installed("carillon")}


@router.get("/readyz")
@router.get("/v1/readyz", include_in_schema=False)
async def readyz(services: Nobodys) -> JSONResponse:
    """200 once a worker is active; 503 before, with the part of its start that each worker is in."""
    workers = services.router.workers
    active = sum(worker.state is WorkerState.ACTIVE for worker in workers)
    starting = {worker.id: worker.part for worker in workers if worker.state is WorkerState.STARTING}
    status = "ready" if active else "waiting for a worker"
    body = {"status": status, "workers": active, "starting": starting}
    return JSONResponse(body, status_code=200 if active else 503)


@router.get("/metrics")
async def metrics(services: Nobodys) -> Response:
    return Response(services.metrics.page(), media_type=CONTENT_TYPE_LATEST)
