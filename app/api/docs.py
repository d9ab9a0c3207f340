"""`/docs`: the contract for people, by Swagger UI, without a network.

Its files come with the package `fastapi-offline`, of which nothing else is used. The page holds no script of its own
and fetches from nowhere but here, so that the strictest policy of content lets it work.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from app.errors import NotFound

router = APIRouter(include_in_schema=False)

SCRIPT = """\
SwaggerUIBundle({
  url: "openapi.json", dom_id: "#page", deepLinking: true, persistAuthorization: false, validatorUrl: null,
});
"""
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Carillon: HTTP API</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""
POLICY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


@router.get("/docs")
async def docs() -> Response:
    return Response(PAGE, media_type="text/html", headers=POLICY)


@router.get("/docs/page.js")
async def script() -> Response:
    return Response(SCRIPT, media_type="text/javascript", headers=POLICY)


@router.get("/docs/{name}")
async def file(name: str) -> Response:
    if name not in FILES:
        raise NotFound(f"{name[:64]!r} is no part of the page", param="name")
    headers = {**POLICY, "cache-control": "max-age=86400"}
    return FileResponse(_package() / "static" / name, media_type=FILES[name], headers=headers)


def _package() -> Path:
    found = find_spec("fastapi_offline")
    assert found and found.origin
    return Path(found.origin).parent
