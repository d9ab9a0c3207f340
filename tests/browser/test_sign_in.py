"""How somebody comes in: by the link that `make up` prints, or with a key."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, expect

from tests.support.browser import visit
from tests.support.running_fleet import RunningFleet


def test_the_printed_link_leads_to_a_clean_address_and_works_once(chromium: Browser, fleet: RunningFleet) -> None:
    [link] = re.findall(r"(http://\S+/\?token=\S+)", fleet.printed)
    with visit(chromium, fleet, signed_in=False) as first:
        first.page.goto(link)
        expect(first.page.locator("#speak-button")).to_be_visible()
        assert first.page.url == f"{fleet.address}/"
        [cookie] = first.page.context.cookies()
        assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Strict")
        assert first.page.evaluate("() => document.cookie + JSON.stringify(localStorage)") == "{}"
    with visit(chromium, fleet, signed_in=False) as second:
        second.page.goto(link)
        expect(second.page.get_by_text("This link has been used")).to_be_visible()


def test_a_key_signs_in_and_a_wrong_one_is_told_what_is_wrong(chromium: Browser, fleet: RunningFleet) -> None:
    with visit(chromium, fleet, signed_in=False) as visitor:
        page = visitor.go("/fleet")
        page.get_by_label("API key").fill("cari_nobody_nothing")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not valid")
        page.get_by_label("API key").fill(fleet.key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Fleet")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
