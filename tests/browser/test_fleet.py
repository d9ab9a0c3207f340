"""The fleet as it is watched: its ring, its places as they fill, and a drain that is thought over."""

from __future__ import annotations

from playwright.sync_api import Browser, expect

from tests.support.browser import Visit, visit
from tests.support.running_fleet import RunningFleet


def test_a_session_is_seen_in_the_ring_while_it_speaks(console: Visit, chromium: Browser, fleet: RunningFleet) -> None:
    with visit(chromium, fleet) as speaker:
        watched = console.go("/fleet")
        expect(watched.locator(".ring-worker text")).to_have_text("0/4")
        speaker.page.locator("#text").fill("A long way up the hill stands a house. " * 10)
        speaker.page.locator("#speak-button").click()
        expect(watched.locator(".ring-worker text")).to_have_text("1/4")
        expect(watched.locator(".ring-count")).to_have_text("1")
        speaker.page.locator("#stop").click()
        expect(speaker.page.locator(".status")).to_contain_text("topped")
    expect(watched.locator(".ring-voice")).to_have_count(2)
    expect(watched.locator(".tile dd.number").first).to_contain_text("ms")


def test_a_drain_asks_first(console: Visit) -> None:
    page = console.go("/fleet")
    page.get_by_role("button", name="Drain").click()
    expect(page.get_by_role("dialog")).to_contain_text("its sessions go on at others")
    page.get_by_role("button", name="Keep it").click()
    expect(page.locator(".workers .chip")).to_have_text("active")


def test_a_front_door_that_is_away_is_told_and_forgotten_when_it_is_back(console: Visit) -> None:
    page = console.go("/fleet")
    expect(page.locator(".ring-worker")).to_have_count(1)
    page.route("**/console/fleet", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    page.unroute("**/console/fleet")
    expect(page.get_by_role("alert")).to_have_count(0)
    console.faults.clear()
