"""`GET /v1/usage`: usage and its cost. The scope is `manage`, for one's project; `admin` sees all.

Characters are of texts that were sent to be spoken, also where the call was then aborted; audio is what was made of
them. A session counts on the day it began, a narration on the day it was submitted, a clone job on the day it was over.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from app.api.access import Manager
from app.api.services import Services, TheServices
from app.errors import InvalidRequest
from app.platform.database import utc_now
from app.platform.projects import Tenant
from app.platform.usage import DIMENSIONS, Dimension, Use

MAX_DAYS = 366


def _day(written: str) -> date:
    """Raises ValueError for anything but YYYY-MM-DD: pydantic takes a number for seconds since 1970."""
    return datetime.strptime(written, "%Y-%m-%d").replace(tzinfo=UTC).date()


Day = Annotated[date, BeforeValidator(_day)]

router = APIRouter(prefix="/v1", tags=["usage"])


@router.get("/usage")
async def usage(
    services: TheServices,
    _: Manager,
    by: Annotated[str, Query(max_length=100, description=f"With commas between: {', '.join(DIMENSIONS)}.")] = "day",
    first: Annotated[Day | None, Query(alias="from", description="Default: the first of this month.")] = None,
    last: Annotated[Day | None, Query(alias="to", description="Default: today, in UTC.")] = None,
) -> dict[str, Any]:
    """The use of some days, both included, summed by `by`; `total` is the sum of all of it."""
    today = utc_now().date()
    last = last or today
    first = first or last.replace(day=1)
    if not timedelta() <= last - first < timedelta(days=MAX_DAYS):
        raise InvalidRequest(f"from {first} to {last} is no span of 1 to {MAX_DAYS} days", param="from")
    dimensions = _dimensions(by)
    found = await services.catalog.usage.summed(first, last, dimensions)
    prices, total = services.settings.prices, Use()
    for use in found.values():
        total.add(use)

    def shown(use: Use) -> dict[str, Any]:
        return {**vars(use), "cost_usd": use.usd(prices)}

    rows = sorted(found.items(), key=lambda entry: [value or "" for value in entry[0]])
    return {
        "object": "list",
        "from": first.isoformat(),
        "to": last.isoformat(),
        "data": [{**dict(zip(dimensions, values, strict=True)), **shown(use)} for values, use in rows],
        "total": shown(total),
        "budget": await _budget(services),
    }


@router.get("/audit")
async def audit(
    services: TheServices,
    _: Manager,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, Query(ge=1, description="The id of the last entry of the page before.")] = None,
) -> dict[str, Any]:
    """The audit log, the newest entry first."""
    entries = await services.catalog.audit.newest(limit=limit, before=before)
    return {"object": "list", "data": [entry.model_dump(mode="json") for entry in entries]}


async def _budget(services: Services) -> dict[str, Any] | None:
    """How the caller's project stands this month: ok, warned, spent; None where it has no budget."""
    budget_usd = services.meter.project.usd_per_month
    if budget_usd is None:
        return None
    used = await services.catalog.usage.seen_by(Tenant(services.meter.project_id)).this_month()
    spent_usd = used.usd(services.settings.prices)
    warned = spent_usd >= budget_usd * services.settings.prices.warn_at
    state = "spent" if spent_usd >= budget_usd else "warned" if warned else "ok"
    return {"usd_per_month": budget_usd, "spent_usd": spent_usd, "state": state}


def _dimensions(by: str) -> list[Dimension]:
    """Raises InvalidRequest."""
    wanted = [name.strip() for name in by.split(",") if name.strip()]
    chosen: list[Dimension] = [dimension for dimension in DIMENSIONS if dimension in wanted]
    if len(chosen) != len(wanted):
        raise InvalidRequest(f"by: {by!r} is not made of {', '.join(DIMENSIONS)}, each once", param="by")
    return chosen
