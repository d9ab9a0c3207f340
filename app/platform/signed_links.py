"""Signed links: a link fetches a narration's files without a key until it expires.

A token is a narration's id and the time it was signed, under a key derived from the pepper: every front door of a fleet
knows it, and nothing is kept of it. It can be revoked only by deleting the narration.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from itsdangerous import BadSignature, TimestampSigner, URLSafeTimedSerializer
from pydantic import SecretStr

from app.errors import AuthenticationFailed

PURPOSE = b"carillon: signed links"

MAX_CLOCK_SKEW_S = 60
"""How far the clock of the front door that signed may be ahead of the one that checks."""


class SignedLinks:
    """Makes and checks tokens that hold for `ttl_s`. `now_s` gives seconds since the epoch.

    Without a pepper the key is made up, and links hold at this front door alone, until it ends.
    """

    def __init__(self, pepper: SecretStr, *, ttl_s: int, now_s: Callable[[], float] = time.time) -> None:
        secret = pepper.get_secret_value().encode() or secrets.token_bytes(32)
        self._ttl_s = ttl_s
        self._now_s = now_s
        self._serializer = URLSafeTimedSerializer(
            hmac.new(secret, PURPOSE, hashlib.sha256).digest(),
            salt=b"narration",
            signer=_Signer,
            signer_kwargs={"now_s": now_s, "key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def token(self, narration_id: str) -> tuple[str, datetime]:
        """A token for the files of a narration, and when it expires."""
        token = self._serializer.dumps(narration_id)
        _, signed_at = self._serializer.loads(token, return_timestamp=True)
        return str(token), datetime.fromtimestamp(signed_at.timestamp() + self._ttl_s, UTC)

    def check(self, token: str, narration_id: str) -> None:
        """Raises AuthenticationFailed unless `token` is one for this narration and has not expired."""
        try:
            meant, signed_at = self._serializer.loads(token, return_timestamp=True)
        except BadSignature:
            meant = signed_at = None
        if meant != narration_id or signed_at is None:
            raise AuthenticationFailed("this link is not one of this narration, or was cut off", param="token")
        # Not by itsdangerous, to which a token of a clock that is ahead has expired.
        age_s = int(self._now_s()) - signed_at.timestamp()
        if age_s < -MAX_CLOCK_SKEW_S:
            raise AuthenticationFailed(
                f"this link was signed {-age_s:.0f} s from now; run an NTP client on every front door", param="token"
            )
        if age_s > self._ttl_s:
            raise AuthenticationFailed(
                f"this link has expired after {self._ttl_s} s; GET /v1/narrations/{narration_id} has new ones",
                param="token",
            )


class _Signer(TimestampSigner):
    """itsdangerous's own, by a clock that is given to it."""

    def __init__(self, *arguments: Any, now_s: Callable[[], float], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._now_s = now_s

    def get_timestamp(self) -> int:
        return int(self._now_s())
