"""What holds for every page: nothing inaccessible in either theme, nothing wider than a phone, no fault."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.support.browser import visit
from tests.support.running_fleet import RunningFleet

PAGES = ["/", "/voices", "/narrations", "/narrations/new", "/fleet", "/talk"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing_serious(chromium: Browser, fleet: RunningFleet, path: str, scheme: str) -> None:
    with visit(chromium, fleet, scheme=scheme) as visitor:
        page = visitor.go(path)
        expect(page.locator("main h1")).to_be_visible()
        expect(page.locator("main .skeleton")).to_have_count(0)
        assert visitor.serious() == []


def test_axe_finds_nothing_serious_before_signing_in(chromium: Browser, fleet: RunningFleet) -> None:
    with visit(chromium, fleet, signed_in=False) as visitor:
        page = visitor.go("/")
        expect(page.get_by_label("API key")).to_be_visible()
        assert visitor.serious() == []


@pytest.mark.parametrize("path", PAGES)
def test_no_page_is_wider_than_a_phone(chromium: Browser, fleet: RunningFleet, path: str) -> None:
    with visit(chromium, fleet, phone=True) as visitor:
        page = visitor.go(path)
        expect(page.locator("main h1")).to_be_visible()
        expect(page.locator("main .skeleton")).to_have_count(0)
        assert visitor.overflow() <= 0


def test_every_page_is_reached_by_the_keyboard(chromium: Browser, fleet: RunningFleet) -> None:
    with visit(chromium, fleet) as visitor:
        page = visitor.page
        for name in ("Voices", "Narrations", "Fleet", "Speak"):
            page.get_by_role("link", name=name, exact=True).focus()
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
            expect(page.locator("main")).to_be_focused()


def test_the_theme_that_is_chosen_stays(chromium: Browser, fleet: RunningFleet) -> None:
    with visit(chromium, fleet) as visitor:
        page = visitor.page
        page.get_by_role("button", name="Use dark colours").click()
        page.reload()
        expect(page.get_by_role("button", name="Use light colours")).to_be_visible()
        assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 18, 26)"
