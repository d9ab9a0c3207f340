"""Signed links, by a clock that the test holds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from app.errors import AuthenticationFailed
from app.platform.settings import NarrationSettings
from app.platform.signed_links import MAX_CLOCK_SKEW_S, SignedLinks

TTL_S = 900
BOOK, OTHER = "nar-1", "nar-2"


@dataclass
class Clock:
    now_s: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def links(clock: Clock, pepper: str = "pepper") -> SignedLinks:
    return SignedLinks(SecretStr(pepper), ttl_s=TTL_S, now_s=clock)


def test_a_link_holds_at_every_front_door_until_it_expires(clock: Clock) -> None:
    token, expires_at = links(clock).token(BOOK)
    assert expires_at.timestamp() == clock.now_s + TTL_S
    clock.now_s += TTL_S
    links(clock).check(token, BOOK)
    clock.now_s += 1
    with pytest.raises(AuthenticationFailed, match="expired after 900 s"):
        links(clock).check(token, BOOK)


def test_a_link_holds_at_a_front_door_whose_clock_is_behind_and_not_when_its_time_has_yet_to_come(clock: Clock) -> None:
    token, _ = links(clock).token(BOOK)
    clock.now_s -= MAX_CLOCK_SKEW_S
    links(clock).check(token, BOOK)
    clock.now_s -= 1
    with pytest.raises(AuthenticationFailed, match="signed 61 s from now"):
        links(clock).check(token, BOOK)


def test_a_link_outlasts_a_long_book() -> None:
    assert NarrationSettings().link_ttl_s == 24 * 3600


def test_a_link_opens_one_narration_alone(clock: Clock) -> None:
    token, _ = links(clock).token(OTHER)
    with pytest.raises(AuthenticationFailed, match="not one of this narration"):
        links(clock).check(token, BOOK)


def test_a_token_that_was_altered_cut_or_signed_elsewhere_is_refused(clock: Clock) -> None:
    token, _ = links(clock).token(BOOK)
    elsewhere, _ = links(clock, "another pepper").token(BOOK)
    for forged in ("", "a.b.c", "ü", token[:-1], token.swapcase(), "x" + token, elsewhere):
        with pytest.raises(AuthenticationFailed):
            links(clock).check(forged, BOOK)


def test_a_token_is_no_more_than_url_safe_characters(clock: Clock) -> None:
    token, _ = links(clock).token(BOOK)
    assert set(token) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def test_without_a_pepper_nobody_else_can_sign(clock: Clock) -> None:
    token, _ = links(clock, "").token(BOOK)
    with pytest.raises(AuthenticationFailed):
        links(clock, "").check(token, BOOK)
