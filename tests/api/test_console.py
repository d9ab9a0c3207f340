"""The console as a browser meets it: pages, signing in, and a cookie that stands for a key on its own pages alone."""

from __future__ import annotations

import json

import httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.platform.browser_sessions import BrowserSessions
from app.speech.choices import Scope
from tests.api.conftest import NO_TLS, House, OpenHouse, Studio
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.library import Library
from tests.support.recordings import recording

pytestmark = pytest.mark.anyio


def a_browser(house: House) -> httpx.AsyncClient:
    """A client without a key, which keeps cookies and follows redirects."""
    return httpx.AsyncClient(base_url=house.url, timeout=HANG_S, trust_env=False, verify=NO_TLS, follow_redirects=True)


async def invitation(house: House) -> str:
    answer = await house.http.post("/console/invitations")
    assert answer.status_code == 201
    return answer.json()["path"]


# Pages.


@pytest.mark.parametrize("path", ["/", "/voices", "/voices/abc", "/narrations", "/narrations/new", "/fleet"])
async def test_a_page_is_html_that_runs_nothing_but_its_own_scripts(house: House, path: str) -> None:
    async with a_browser(house) as browser:
        answer = await browser.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("file", "kind"),
    [("theme.css", "text/css"), ("js/main.js", "text/javascript"), ("icon.svg", "image/svg+xml")],
)
async def test_an_asset_has_its_type_and_is_fetched_once(house: House, file: str, kind: str) -> None:
    async with a_browser(house) as browser:
        first = await browser.get(f"/console/static/{file}")
        again = await browser.get(f"/console/static/{file}", headers={"if-none-match": first.headers["etag"]})
    assert first.headers["content-type"].startswith(kind)
    assert first.headers["x-content-type-options"] == "nosniff"
    assert (first.headers["cache-control"], again.status_code) == ("no-cache", 304)


async def test_no_file_outside_is_served(house: House) -> None:
    async with a_browser(house) as browser:
        assert (await browser.get("/console/static/../pages.py")).status_code == 404
        assert (await browser.get("/console/static/%2e%2e/pages.py")).status_code == 404


# Signing in.


async def test_a_link_signs_one_browser_in_and_leads_to_an_address_without_the_token(house: House) -> None:
    path = await invitation(house)
    async with a_browser(house) as browser, a_browser(house) as late:
        entered = await browser.get(path)
        refused = await late.get(path)
        assert (await browser.get("/console/session")).json()["state"] == "signed_in"
        assert (await late.get("/console/session")).json()["state"] == "signed_out"
    [to_page] = entered.history
    assert (to_page.status_code, to_page.headers["location"]) == (303, "/")
    assert to_page.headers["cache-control"] == "no-store"
    cookie = to_page.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert refused.url.query == b"link=used"


async def test_a_key_that_is_pasted_signs_in_and_signing_out_ends_it(house: House) -> None:
    own = {"origin": house.url}
    async with a_browser(house) as browser:
        wrong = await browser.post("/console/session", json={"key": "cari_no_no"}, headers=own)
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "authentication_failed")
        assert (await browser.post("/console/session", json={"key": house.key}, headers=own)).status_code == 204
        session = (await browser.get("/console/session")).json()
        assert (session["state"], session["name"], session["scopes"]) == ("signed_in", "test", ["fleet", "speak"])
        kept = dict(browser.cookies)
        await browser.delete("/console/session", headers=own)
        assert not browser.cookies
        browser.cookies.update(kept)
        answer = await browser.get("/v1/fleet")
    assert answer.status_code == 401


async def test_neither_redis_nor_the_cookie_has_the_key(house: House, valkey: str) -> None:
    async with a_browser(house) as browser:
        await browser.get(await invitation(house))
        [cookie] = browser.cookies.values()
    async with Redis.from_url(valkey) as redis:
        kept = [await redis.get(name) for name in await redis.keys("carillon:browser:*")]
    assert kept and all(isinstance(value, bytes) and house.key.encode() not in value for value in kept)
    assert house.key not in cookie


async def test_a_key_that_is_revoked_signs_its_browsers_out(house: House) -> None:
    key = await house.catalog.keys.create("lost laptop", {Scope.FLEET})
    async with a_browser(house) as browser:
        await browser.post("/console/session", json={"key": key.token}, headers={"origin": house.url})
        assert (await browser.get("/v1/fleet")).status_code == 200
        async with house.holder_of(Scope.ADMIN) as operator:
            assert (await operator.delete(f"/v1/keys/{key.id}")).status_code == 200
        assert (await browser.get("/v1/fleet")).status_code == 401
        assert (await browser.get("/console/session")).json()["state"] == "signed_out"


async def test_an_invitation_is_good_for_one_use_and_no_session(valkey: str) -> None:
    async with Redis.from_url(valkey) as redis:
        sessions = BrowserSessions(redis)
        token = await sessions.invite("cari_a_b")
        assert await sessions.key_of(token) is None
        assert await sessions.accept(token) == "cari_a_b"
        assert await sessions.accept(token) is None
        secret = await sessions.open("cari_a_b")
        assert (await sessions.key_of(secret), await sessions.accept(secret)) == ("cari_a_b", None)


# Whose requests the cookie is for.


async def signed_in(house: House, browser: httpx.AsyncClient) -> dict[str, str]:
    await browser.get(await invitation(house))
    return dict(browser.cookies)


async def test_another_page_of_this_machine_does_nothing_with_the_cookie(house: House, worker: FakeWorker) -> None:
    async with a_browser(house) as browser:
        await signed_in(house, browser)
        drain = f"/v1/fleet/workers/{worker.id}/drain"
        for foreign in ({"origin": "http://127.0.0.1:9"}, {"origin": "null"}, {"sec-fetch-site": "same-site"}, {}):
            assert (await browser.post(drain, json={}, headers=foreign)).status_code == 401, foreign
        assert (await browser.get("/v1/fleet", headers={"sec-fetch-site": "same-site"})).status_code == 401
        assert (await browser.get("/v1/fleet", headers={"sec-fetch-site": "same-origin"})).status_code == 200
        assert (await browser.post(drain, json={}, headers={"origin": house.url})).status_code == 202


async def test_a_session_is_spoken_by_the_cookie_from_the_own_origin_alone(house: House, worker: FakeWorker) -> None:
    async with a_browser(house) as browser:
        cookies = await signed_in(house, browser)
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    for origin in ("http://127.0.0.1:9", None):
        with pytest.raises(InvalidStatus, match="401"):
            await connect(house.sessions_url, additional_headers={"cookie": cookie}, origin=origin)  # type: ignore[arg-type]
    own = {"additional_headers": {"cookie": cookie}, "origin": house.url}
    async with connect(house.sessions_url, **own) as socket:  # type: ignore[arg-type]
        await socket.send(json.dumps({"type": "start", "session": "a", "voice": "slt"}))
        assert json.loads(await socket.recv())["type"] == "ready"


async def test_a_key_in_the_header_goes_before_the_cookie(house: House) -> None:
    async with a_browser(house) as browser:
        await signed_in(house, browser)
        answer = await browser.get("/v1/fleet", headers={"authorization": "Bearer cari_no_no"})
    assert answer.status_code == 401


async def test_who_has_no_key_gets_no_link_and_sends_no_more_than_a_key(house: House) -> None:
    async with a_browser(house) as browser:
        assert (await browser.post("/console/invitations")).status_code == 401
        huge = await browser.post("/console/session", content=b"x" * 2**21, headers={"origin": house.url})
    assert huge.status_code == 413


async def test_only_its_own_page_signs_a_browser_in(house: House) -> None:
    async with a_browser(house) as browser:
        answer = await browser.post("/console/session", json={"key": house.key}, headers={"origin": "http://evil.test"})
    assert answer.status_code == 403


# What its pages show beside the API.


async def test_the_map_has_each_voice_at_a_worker(house: House, worker: FakeWorker) -> None:
    answer = (await house.http.get("/console/fleet")).json()
    assert [(voice["name"], voice["home"]) for voice in answer["voices"]] == [("rms", worker.id), ("slt", worker.id)]
    assert (answer["voice_count"], [one["id"] for one in answer["workers"]]) == (2, [worker.id])


async def test_a_recording_is_heard_as_it_was_uploaded(studio: Studio) -> None:
    data = recording()
    voice = await studio.voice()
    added = await studio.http.post(f"/v1/voices/{voice}/samples", files={"files": ("a.wav", data)})
    [sample] = added.json()["samples"]
    answer = await studio.http.get(f"/v1/voices/{voice}/samples/{sample['id']}/audio")
    assert (answer.content == data, answer.headers["content-type"]) == (True, "audio/wav")
    assert (await studio.http.get(f"/v1/voices/{voice}/samples/nope/audio")).status_code == 404


TEXT = "# One\n\nIt was dark.\n\n[robin]\n\nWho is there, Aoife? Is it Aoife?\n\n# Two\n\nNobody."


async def test_a_text_is_looked_at_before_it_is_narrated(library: Library) -> None:
    answer = await library.http.post("/v1/narrations/preview", json={"voice": "slt", "text": TEXT, "kind": "markdown"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert [chapter["title"] for chapter in told["chapters"]] == ["One", "Two"]
    assert {one["name"] for one in told["characters"]} == {"narrator", "robin"}
    assert told["chapters"][0]["first"] == "It was dark."
    assert told["names"] == [{"word": "Aoife", "count": 2}]
    assert (await library.http.get("/v1/narrations")).json()["data"] == []


async def test_chapters_that_are_not_there_are_refused(library: Library) -> None:
    body = {"voice": "slt", "text": TEXT, "kind": "markdown", "options": {"chapters": [3]}}
    answer = await library.http.post("/v1/narrations", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "options.chapters")


async def test_without_the_console_there_is_nothing_at_the_root(open_house: OpenHouse) -> None:
    async with open_house(console=False) as house, a_browser(house) as browser:
        assert (await browser.get("/")).status_code == 404
