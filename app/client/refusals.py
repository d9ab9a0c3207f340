"""Errors of a fleet that a command cannot use, with remedies: it is unreachable, or the key is wrong.

It knows neither HTTP nor WebSockets; their clients say which of these it is.
"""

from __future__ import annotations

import re

from app.errors import AuthenticationFailed, WorkerLost

TOKEN = re.compile(r"(cari_[0-9a-f]{1,16})_[0-9a-f]+")


def unreachable(url: str, why: str) -> WorkerLost:
    """`why` in a few words, as "nothing listens there"."""
    return WorkerLost(
        f"no fleet answers at {url} ({why}); start one with `make up`, or name another with --url or CARILLON_URL"
    )


def key_refused(url: str, key: str | None) -> AuthenticationFailed:
    """The fleet does not take `key`, or asks for one."""
    remedy = "`carillon keys create`, where the fleet runs, makes one; give it as CARILLON_KEY or --key"
    if key is None:
        return AuthenticationFailed(f"the fleet at {url} asks for a key, and none was given; {remedy}")
    return AuthenticationFailed(
        f"the fleet at {url} does not take {shown_key(key)}: it is another fleet's, revoked or expired; {remedy}"
    )


def shown_key(key: str) -> str:
    """A key as it may be shown: by its id, which is no secret."""
    match = TOKEN.fullmatch(key)
    return f"the key {match[1]}_…" if match else "the key that was given (it is no whole key of the form cari_…_…)"
