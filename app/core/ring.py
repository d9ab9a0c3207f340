"""A consistent hash ring with weights: in which order the members are asked for a key.

Every process builds the same ring from the same members, and a member that comes or goes moves only its own share of
the keys. The ring knows names and numbers of points; it does not know workers, voices or load.

uhashring places the points; the walk is ours, since uhashring's copies half of the ring before its first step: with
1,000 members of 320 points each that is 0.3 ms, and this one's first step 3 µs.
"""

from __future__ import annotations

from array import array
from bisect import bisect
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import chain

from uhashring import HashRing

_POINT_BYTES = 8


class Ring:
    """The ring of `points`: member -> how many points it has. It is never changed once it is built."""

    def __init__(self, points: Mapping[str, int]) -> None:
        self._members = sorted(points)
        numbers = {name: number for number, name in enumerate(self._members)}
        placed = HashRing({name: {"vnodes": points[name]} for name in self._members}, hash_fn=_place).get_points()
        self._keys = array("Q", (position for position, _ in placed))
        self._owners = [numbers[name] for _, name in placed]

    def walk(self, key: str) -> Iterator[str]:
        """Every member once, in ring order from the key's place. The first is the key's home."""
        seen: set[int] = set()
        start = bisect(self._keys, _place(key))
        for position in chain(range(start, len(self._owners)), range(start)):
            owner = self._owners[position]
            if owner not in seen:
                seen.add(owner)
                yield self._members[owner]
                if len(seen) == len(self._members):
                    return


def _place(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=_POINT_BYTES).digest(), "little")
