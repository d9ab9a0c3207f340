"""The ring: the same order everywhere, every member once, and a share by points."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from uhashring import HashRing

from app.fleet.ring import Ring, _place

members = st.dictionaries(st.text("abc0123", min_size=1, max_size=4), st.integers(1, 40), min_size=1, max_size=8)


@given(members, st.text())
def test_a_walk_meets_every_member_once(points, key):
    assert sorted(Ring(points).walk(key)) == sorted(points)


@given(members, st.text())
def test_a_member_that_leaves_is_left_out_and_nothing_else_changes(points, key):
    _, *staying = Ring(points).walk(key)
    if staying:
        assert list(Ring({name: points[name] for name in staying}).walk(key)) == staying


def test_the_order_is_the_same_in_every_process_and_release():
    ring = Ring({"a": 160, "b": 160, "c": 320})
    assert [list(ring.walk(key)) for key in ("v1", "v2", "v3", "")] == [
        list(order) for order in ("abc", "bca", "acb", "bca")
    ]


def test_members_are_home_to_keys_by_their_points():
    ring = Ring({"small": 160, "big": 480})
    homes = Counter(next(ring.walk(str(i))) for i in range(8_000))
    assert 2.4 < homes["big"] / homes["small"] < 3.6


def test_an_empty_ring_offers_nobody():
    assert list(Ring({}).walk("v")) == []


def test_the_home_of_a_key_is_where_uhashring_has_it():
    points = {"a": 160, "b": 320, "c": 20}
    theirs = HashRing({name: {"vnodes": count} for name, count in points.items()}, hash_fn=_place)
    ours = Ring(points)
    assert all(next(ours.walk(str(i))) == theirs.get_node(str(i)) for i in range(1_000))
