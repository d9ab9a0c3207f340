"""OpenMP's threads in a worker: one, which sleeps while it waits.

libgomp reads its environment once, when torch loads it, and an engine core that is forked later keeps what was read
then. Two threads that spin at their barriers on shared cores were measured to slow a sentence twelvefold.
"""

from __future__ import annotations

import os
import sys


def bound_openmp() -> None:
    """Bound the threads of torch and vLLM, unless the environment says otherwise. Call it before torch is imported."""
    if "torch" in sys.modules:
        raise RuntimeError("torch has been imported, and OpenMP with it: its environment is not read again")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
