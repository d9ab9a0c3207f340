"""Projects: what one has is as if it were not there for another's keys, on every route, and all there for operators."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from websockets import Subprotocol
from websockets.asyncio.client import connect

from app.narration.models import NarrationOptions, take_digest
from app.platform.database import utc_now
from app.platform.object_keys import narration_prefix
from app.speech.choices import Scope
from app.speech.recipe import CloneConfig
from app.speech.voices import Voice
from app.voices.models import AudioFacts, CloneKind, Consent
from tests.api.conftest import House, Library, Studio
from tests.support.published import publish
from tests.support.session_client import error_of, sessions_client

pytestmark = pytest.mark.anyio

FACTS = AudioFacts(container="wav", sample_rate_hz=48_000, channels=1, duration_s=61.5)
WITHOUT_OWNERS = {"key_id", "number", "name"}
"""Of path parameters: `name` is a built-in voice's or a model's; keys have tests of their own."""


@pytest.fixture
async def other(library: Library) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another project, who may do everything in it."""
    project = await library.house.catalog.projects.create("other")
    scopes = (Scope.SPEAK, Scope.CLONE, Scope.NARRATE, Scope.MANAGE)
    async with library.house.holder_of(*scopes, project=project.id) as http:
        yield http


@pytest.fixture
async def operator(library: Library) -> AsyncIterator[httpx.AsyncClient]:
    async with library.house.holder_of(Scope.ADMIN) as http:
        yield http


async def belongings(library: Library) -> dict[str, str]:
    """One of everything that the default project can have, by the names of path parameters."""
    catalog = library.house.catalog
    voice = await publish(catalog, "Mary", uri="s3://b/v/", sha256={"a": "0"})
    await catalog.voices.add_sample(
        voice.id, sample_id="up_1", file_name="a.wav", size_bytes=1, facts=FACTS, transcript="a", object_key="k"
    )
    await catalog.voices.add_consent(
        Consent(id="cons_1", voice_id=voice.id, kind="operator", number="1", created_at=utc_now())
    )
    job = await catalog.jobs.create(voice.id, kind=CloneKind.CLONE, config=CloneConfig())
    narration = await library.completed()
    return {
        "voice_id": voice.id,
        "sample_id": "up_1",
        "upload_id": "up_1",
        "consent_id": "cons_1",
        "job_id": job.id,
        "narration_id": narration.id,
        "number": "1",
    }


def routes_to(house: House, ids: dict[str, str]) -> list[tuple[str, str]]:
    """Every method and path of ours that names a thing with an owner; dialects find voices as our own calls do."""
    found = []
    for route in house.server.config.app.routes:  # type: ignore[union-attr]
        if (
            isinstance(route, APIRoute)
            and route.include_in_schema
            and set(route.param_convertors) & ids.keys() - WITHOUT_OWNERS
        ):
            found += [(method, route.path.format(**ids)) for method in route.methods]
    return found


BODIES: dict[str, Any] = {
    "transcript": {"text": "hello"},
    "regenerate": {"segments": [1]},
    "uploads": {"files": [{"file_name": "a.wav", "size_bytes": 1}]},
    "cons_1": {"name": "Mine"},
}


async def test_no_route_shows_changes_or_deletes_what_is_anothers(library: Library, other: httpx.AsyncClient) -> None:
    ids = await belongings(library)
    before = await snapshot(library, ids)
    routes = routes_to(library.house, ids)
    assert len(routes) > 25
    for method, path in routes:
        body = BODIES.get(path.rpartition("/")[2], {})
        answer = await other.request(method, path, json=body if method in ("POST", "PUT") else None)
        assert answer.status_code == 404, (method, path, answer.text)
    assert await snapshot(library, ids) == before


async def snapshot(library: Library, ids: dict[str, str]) -> list[Any]:
    catalog, voice_id = library.house.catalog, ids["voice_id"]
    keys = list(library.store.keys(narration_prefix(ids["narration_id"])))
    return [
        await catalog.voices.get(voice_id),
        await catalog.voices.samples(voice_id),
        await catalog.jobs.get(ids["job_id"]),
        await catalog.narrations.get(ids["narration_id"]),
        keys,
    ]


async def test_no_list_shows_what_is_anothers_and_an_operators_shows_all(
    library: Library, other: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    await belongings(library)
    for path in ("/v1/voices", "/v1/clones", "/v1/narrations", "/v1/audio/voice_consents"):
        assert (await other.get(path)).json()["data"] == [], path
        assert len((await operator.get(path)).json()["data"]) == 1, path
    spoken_with = [voice["name"] for voice in (await other.get("/v1/audio/voices")).json()["voices"]]
    assert "Mary" not in spoken_with
    assert "slt" in spoken_with, "built-in voices are everybody's"
    assert len((await other.get("/v1/keys")).json()["data"]) == 1
    assert len((await operator.get("/v1/keys")).json()["data"]) > 1


async def test_no_one_speaks_clones_or_narrates_with_anothers_voice(library: Library, other: httpx.AsyncClient) -> None:
    ids = await belongings(library)
    for name in ("Mary", ids["voice_id"]):
        spoken = await other.post("/v1/audio/speech", json={"voice": name, "input": "Hello."})
        assert (spoken.status_code, error_of(spoken)["code"]) == (404, "unknown_voice")
        assert "Mary" not in error_of(spoken)["message"].replace(f"{name!r}", "")
        narrated = await other.post("/v1/narrations", json={"voice": name, "text": "Hello there."})
        assert narrated.status_code == 404
    assert (await other.post("/v1/clones", json={"voice": ids["voice_id"]})).status_code == 404
    key = other.headers["authorization"].removeprefix("Bearer ")
    async with sessions_client(library.house.sessions_url, key) as client:
        await client.send("start", "a", voice="Mary")
        assert (await client.refusal("a")).code == "unknown_voice"


async def test_who_shows_the_key_as_a_subprotocol_has_his_projects_voices_too(house: House) -> None:
    mary = await publish(house.catalog, "Mary", uri="s3://b/v/", sha256={"a": "0"})
    offered = [Subprotocol("carillon.v1"), Subprotocol(f"key.{house.key}")]
    async with house.worker(), connect(house.sessions_url, subprotocols=offered, proxy=None) as socket:
        await socket.send(json.dumps({"type": "start", "session": "a", "voice": "Mary"}))
        ready = json.loads(await socket.recv())
    assert (ready["type"], ready["voice"]) == ("ready", mary.id)


async def test_two_projects_may_have_a_voice_of_one_name_each_its_own(studio: Studio) -> None:
    mine = await studio.voice("Mary")
    project = await studio.house.catalog.projects.create("other")
    async with studio.house.holder_of(Scope.CLONE, project=project.id) as other:
        theirs = (await other.post("/v1/voices", json={"name": "Mary"})).json()
        assert (theirs["project_id"], theirs["id"] == mine) == (project.id, False)
        assert (await other.post("/v1/voices", json={"name": "Mary"})).status_code == 409
        assert [voice["id"] for voice in (await other.get("/v1/voices")).json()["data"]] == [theirs["id"]]
    assert (await studio.http.get(f"/v1/voices/{theirs['id']}")).status_code == 404


async def test_a_signed_link_is_for_whoever_has_it(library: Library, other: httpx.AsyncClient) -> None:
    narration = await library.completed()
    links = (await library.http.get(f"/v1/narrations/{narration.id}")).json()["links"]
    assert (await other.get(links["chapters"])).status_code == 200
    assert (await other.get(links["chapters"].partition("?")[0])).status_code == 404


def test_two_projects_have_a_text_rendered_under_names_of_their_own() -> None:
    slt, options = Voice(id="slt", name="slt", model="standin"), NarrationOptions()
    names = {take_digest(slt, "Hello.", options, take=0, project=project) for project in ("default", "prj-1", "prj-2")}
    assert len(names) == 3


async def test_an_operator_makes_projects_and_their_keys(library: Library, operator: httpx.AsyncClient) -> None:
    made = await operator.post("/v1/projects", json={"name": "Owl Island"})
    assert made.status_code == 201
    again = await operator.post("/v1/projects", json={"name": "Owl Island"})
    assert (again.status_code, error_of(again)["code"]) == (409, "conflict")
    listed = (await operator.get("/v1/projects")).json()["data"]
    assert [project["name"] for project in listed] == ["default", "Owl Island"]
    key = (await operator.post("/v1/keys", json={"name": "owl", "project": "Owl Island"})).json()
    assert (await library.house.catalog.keys.get(key["id"])).project_id == made.json()["id"]
    nowhere = await operator.post("/v1/keys", json={"name": "owl", "project": "nowhere"})
    assert (nowhere.status_code, error_of(nowhere)["param"]) == (404, "project")


async def test_who_did_what_is_written_down_without_what_was_in_it(studio: Studio) -> None:
    voice_id = await studio.voice("Mary of the bells")
    await studio.http.delete(f"/v1/voices/{voice_id}")
    deleted, created = await studio.house.catalog.audit.newest(limit=2)
    assert [(entry.action, entry.object_id) for entry in (created, deleted)] == [
        ("voice.create", voice_id),
        ("voice.delete", voice_id),
    ]
    key_id = studio.http.headers["authorization"].split("_")[1]
    assert (created.key_id, created.project_id) == (key_id, "default")
    assert "bells" not in str(created)
