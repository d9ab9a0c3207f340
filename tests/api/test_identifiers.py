"""Names that no database holds: NUL, which PostgreSQL refuses, and halves of surrogate pairs, which no UTF-8 has.

On SQLite most of this passes by itself; `make test-real` asks PostgreSQL.
"""

from __future__ import annotations

import json

import pytest

from tests.api.conftest import Studio

pytestmark = pytest.mark.anyio

HOSTILE = {
    "nul": "%00",
    "nul within": "job-%00a",
    "a surrogate": "%ED%A0%80",
    "an overlong": "%C0%80",
    "long": "a" * 4000,
}

BODIES = {
    "/v1/voices": {"name": "…"},
    "/v1/clones": {"voice": "…", "kind": "clone"},
    "/v1/keys": {"name": "…", "scopes": ["speak"]},
    "/v1/audio/speech": {"model": "tts-1", "input": "Hello.", "voice": "…"},
    "/v1/narrations": {"voice": "…", "text": "Hello."},
}


@pytest.mark.parametrize("id", list(HOSTILE.values()), ids=list(HOSTILE))
async def test_no_identifier_in_a_path_is_a_fault_of_ours(studio: Studio, id: str) -> None:
    routes = (await studio.house.http.get("/openapi.json")).json()["paths"]
    async with studio.house.holder_of("admin", "clone", "narrate", "speak", "fleet") as http:  # type: ignore[arg-type]
        for path, methods in routes.items():
            if "{" not in path:
                continue
            address = path
            for parameter in methods[next(iter(methods))].get("parameters", ()):
                address = address.replace(f"{{{parameter['name']}}}", id)
            for method in methods:
                if address != path and not address.endswith("/events"):
                    answer = await http.request(method, address, json={})
                    assert answer.status_code < 500, (method, path, answer.text)


@pytest.mark.parametrize("name", ["\\u0000", "a\\u0000b", "\\ud800", "\\udfff\\ud800"])
@pytest.mark.parametrize("path", list(BODIES))
async def test_no_name_in_a_body_is_a_fault_of_ours(studio: Studio, path: str, name: str) -> None:
    body = json.dumps(BODIES[path], ensure_ascii=False).replace("…", name)
    async with studio.house.holder_of("admin", "clone", "narrate", "speak") as http:  # type: ignore[arg-type]
        answer = await http.post(path, content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
