"""What holds for every route: who changed what is written down, what was queued can be found, a repetition is known."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.main import create_app
from app.platform.settings import Settings
from app.speech.choices import Scope
from tests.api.conftest import House
from tests.support.session_client import error_of

pytestmark = pytest.mark.anyio

CHANGING = {"POST", "PUT", "PATCH", "DELETE"}

CHANGES_NOTHING = {
    *("/v1/audio/speech", "/baseten", "/tts/bytes", "/tts/sse"),
    *(f"/v1/text-to-speech/{{voice_id}}{form}" for form in ("", "/stream", "/with-timestamps")),
    "/v1/text-to-speech/{voice_id}/stream/with-timestamps",
    *("/v1/narrations/preview", "/v1/studio/projects/{project_id}/snapshots/{snapshot_id}/stream"),
    "/v1/voices/{voice_id}/prefetch",
    "/v1/voices/{voice_id}/uploads",
}
"""They speak, which is in the usage; they only look; or they make ready what may never come."""

SIGNING_IN = {"/console/session", "/console/invitations", "/talk/offer"}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("routes")))


def routes(app: FastAPI) -> list[APIRoute]:
    """Every dialect's too."""
    return [route for route in app.routes if isinstance(route, APIRoute)]


def reaches(endpoint: Callable[..., object], wanted: Callable[[ast.AST], bool]) -> bool:
    """Whether the endpoint, or a function of its module that it calls, has what is wanted in its code."""
    module = inspect.getmodule(endpoint)
    due, seen = [endpoint], set[str]()
    while due:
        function = due.pop()
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            if wanted(node):
                return True
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id not in seen:
                seen.add(node.func.id)
                called = getattr(module, node.func.id, None)
                if isinstance(called, FunctionType):
                    due.append(called)
    return False


def _audits(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "audit"


def _says_where(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == "location"


def test_every_route_that_changes_something_writes_down_who_did(app: FastAPI) -> None:
    changing = [route for route in routes(app) if route.methods & CHANGING]
    assert {route.path for route in changing} >= CHANGES_NOTHING
    silent = {route.path for route in changing if not reaches(route.endpoint, _audits)}
    assert silent == CHANGES_NOTHING | SIGNING_IN


def test_every_answer_that_something_is_under_way_says_where_to_look_for_it(app: FastAPI) -> None:
    accepting = [route for route in routes(app) if route.status_code == 202]
    assert len(accepting) >= 7
    assert [route.path for route in accepting if not reaches(route.endpoint, _says_where)] == []


async def test_an_idempotency_key_is_looked_at_on_every_route_that_takes_a_post(house: House) -> None:
    app = house.server.config.app
    assert isinstance(app, FastAPI)
    posts = [route.path for route in routes(app) if "POST" in route.methods]
    async with house.holder_of(Scope.ADMIN) as http:
        for path in posts:
            answer = await http.post(path.replace("{", "").replace("}", ""), headers={"Idempotency-Key": "no key"})
            assert (answer.status_code, error_of(answer)["param"]) == (400, "idempotency-key"), path
