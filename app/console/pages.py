"""The console's pages, and who is signed in: `/`, `/voices`, `/narrations`, `/fleet`, and `/console/…` behind them.

All pages are one document, whose scripts draw what the address names. `GET /?token=…` takes the one-time token of a
link, and leads on to an address without it. What the pages show comes from `/v1`, by the cookie (`cookie_keys`).
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.staticfiles import StaticFiles

from app.api.access import bearer_token
from app.api.bodies import read_json
from app.api.services import Services, TheServices
from app.console.cookie_keys import CookieKeys, cookie_name, forget, is_own, remember
from app.console.fleet_map import router as fleet_map
from app.errors import AuthenticationFailed, PermissionDenied
from app.platform.api_keys import ApiKey
from app.platform.browser_sessions import INVITATION_S
from app.platform.settings import Settings
from app.speech.choices import Scope

STATIC = Path(__file__).with_name("static")

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; media-src 'self' blob:; worker-src 'self'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(), geolocation=(), microphone=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
}

router = APIRouter(include_in_schema=False)


class SignIn(BaseModel):
    """The body of `POST /console/session`."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=256)


class Assets(StaticFiles):
    """The scripts and styles. A browser keeps them, and asks whether they are still the same."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers.update({**HEADERS, "cache-control": "no-cache"})
        return response


def add_look(app: FastAPI) -> None:
    """Serve the scripts and styles, which the talk's page has in common with the console."""
    app.mount("/console/static", Assets(directory=STATIC), name="console")


def add_console(app: FastAPI, settings: Settings) -> None:
    """Serve the console from `app`, and let its cookie stand for a key."""
    app.router.routes.extend([*router.routes, *fleet_map.routes])
    if settings.auth:
        app.add_middleware(CookieKeys)


@router.get("/")
async def enter(request: Request, services: TheServices, token: str | None = None) -> Response:
    """The console; with a token that still holds, signed in."""
    if token is None:
        return _shell()
    key = await services.browser_sessions.accept(token[:256])
    response = RedirectResponse("/" if key else "/?link=used", status_code=303, headers=HEADERS)
    if key is not None:
        remember(response, request, await services.browser_sessions.open(key))
    response.headers["cache-control"] = "no-store"
    return response


@router.get("/voices")
@router.get("/voices/{_:path}")
@router.get("/narrations")
@router.get("/narrations/{_:path}")
@router.get("/fleet")
async def page() -> Response:
    return _shell()


def _shell() -> Response:
    return FileResponse(STATIC / "index.html", headers={**HEADERS, "cache-control": "no-cache"})


@router.get("/console/session")
async def who(request: Request, services: TheServices) -> dict[str, Any]:
    """Whether the browser may go on (`state`), and what its key may do. `open`: no key is asked for."""
    about: dict[str, Any] = {"version": version("carillon"), "name": None, "scopes": []}
    try:
        key = await _holder(request, services)
    except AuthenticationFailed:
        return {**about, "state": "signed_out"}
    if key is None:
        return {**about, "state": "open", "scopes": [Scope.ADMIN]}
    return {**about, "state": "signed_in", "name": key.name, "scopes": sorted(key.scopes)}


async def _holder(request: Request, services: Services) -> ApiKey | None:
    """The key of a request, whatever it may do; None where keys are not asked for. Raises AuthenticationFailed."""
    if not services.settings.auth:
        return None
    return await services.catalog.keys.authenticate(bearer_token(request) or "")


@router.post("/console/session")
async def sign_in(request: Request, services: TheServices) -> Response:
    """Exchange a key for a cookie. Raises AuthenticationFailed for one that is none."""
    if not is_own(request):
        raise PermissionDenied("only the console's own page can sign a browser in; open it at its address")
    wanted = await read_json(request, SignIn)
    await services.catalog.keys.authenticate(wanted.key.strip())
    response = Response(status_code=204)
    remember(response, request, await services.browser_sessions.open(wanted.key.strip()))
    return response


@router.delete("/console/session")
async def sign_out(request: Request, services: TheServices) -> Response:
    """End the session of this browser."""
    secret = request.cookies.get(cookie_name(request))
    response = Response(status_code=204)
    if secret and is_own(request):
        await services.browser_sessions.close(secret)
        forget(response, request)
    return response


@router.post("/console/invitations", status_code=201)
async def invite(request: Request, services: TheServices) -> dict[str, Any]:
    """A link that signs one browser in with the key of this request, within a quarter of an hour."""
    await _holder(request, services)
    token = bearer_token(request)
    path = f"/?token={await services.browser_sessions.invite(token)}" if services.settings.auth and token else "/"
    return {"path": path, "expires_s": INVITATION_S}
