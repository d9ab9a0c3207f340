"""A temporary directory of the worker's own: vLLM leaves the sockets and files of each start in the common one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_temporary_directory() -> Iterator[Path]:
    """Until it ends, this process and those it starts have their temporary files in a directory that then goes.

    Its path is short, since a Unix socket's has at most 107 bytes. What was killed leaves it, as it leaves all else.
    """
    common = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="carillon-", ignore_cleanup_errors=True) as directory:
        os.environ["TMPDIR"] = tempfile.tempdir = directory
        try:
            yield Path(directory)
        finally:
            os.environ["TMPDIR"] = tempfile.tempdir = common
