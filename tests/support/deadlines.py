"""How long tests wait for what must come. Only a hang fails by it: no test measures time, and machines may be slow."""

from __future__ import annotations

HANG_S = 120.0
"""For what takes moments."""

LONG_HANG_S = 1200.0
"""For what takes an engine's start, a training or a narration."""
