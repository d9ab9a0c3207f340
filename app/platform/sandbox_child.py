"""The child's side of `app.platform.sandbox`: runs one script within its resource limits.

    python -I sandbox_child.py SCRIPT '{"bounds": {"AS": …}, "request": {…}}'

A script ends with `main(answer, …)`, which binds the process, calls `answer` with the request and prints one JSON
object: what it returned, or a `fault`. To start fast, a script imports nothing of ours but this module, which is there
by its name without the packages around it. It knows neither what a script does nor who started it.
"""

from __future__ import annotations

import errno
import json
import resource
import runpy
import sys
from collections.abc import Callable
from typing import Any


class Fault(Exception):
    """What is wrong with a file, and the remedy, to be read after its name."""


def main(
    answer: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    out_of_memory: str,
    damaged: str = "",
    damage: tuple[type[Exception], ...] = (),
) -> None:
    """Print the answer to the request; `out_of_memory` and `damaged` are faults, `damage` the errors that mean it."""
    request = bound_request()
    try:
        reply = answer(request)
    except Fault as fault:
        reply = {"fault": str(fault)}
    except Exception as error:
        if isinstance(error, MemoryError | RecursionError) or getattr(error, "errno", None) == errno.ENOMEM:
            reply = {"fault": out_of_memory}
        elif isinstance(error, damage):
            reply = {"fault": damaged}
        else:
            raise
    print(json.dumps(reply))


def bound_request() -> dict[str, Any]:
    """What this process was started for; it is held to its bounds from here on."""
    argument: dict[str, Any] = json.loads(sys.argv[2])
    for name, bound in argument["bounds"].items():
        # At the soft CPU limit comes SIGXCPU, which tells why; a hard one at the same second would be a bare SIGKILL.
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (bound, bound + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return argument["request"]


if __name__ == "__main__":
    sys.modules["app.platform.sandbox_child"] = sys.modules["__main__"]
    runpy.run_path(sys.argv[1], run_name="__main__")
