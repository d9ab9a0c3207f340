"""The worker's handshake with a front door that opens a session: the fleet's secret is checked, and `ready` is sent.

The worker, the replay worker and the tests' fake share it. It knows no socket, and not whether there is room.
"""

from __future__ import annotations

import hmac

from app.platform.settings import Settings
from app.speech.protocol import Assign, Limits, Ready
from app.speech.voices import ModelCard


def has_fleet_secret(authorization: str, settings: Settings) -> bool:
    """Whether an Authorization header is that of a front door of this fleet."""
    expected = f"Bearer {settings.fleet_secret.get_secret_value()}"
    return hmac.compare_digest(authorization.encode(), expected.encode())


def ready(assign: Assign, *, worker_id: str, card: ModelCard, settings: Settings) -> Ready:
    limits = settings.session
    return Ready(
        session=assign.session,
        model=card.name,
        stand_in=card.stand_in,
        voice=assign.voice.id,
        worker=worker_id,
        sample_rate_hz=card.sample_rate_hz,
        limits=Limits(
            max_pending_chars=limits.max_pending_chars,
            idle_timeout_s=limits.idle_timeout_s,
            slow_reader_timeout_s=limits.slow_reader_timeout_s,
        ),
    )
