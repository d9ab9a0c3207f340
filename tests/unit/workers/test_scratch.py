"""The worker's temporary directory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from workers.scratch import own_temporary_directory


def test_what_a_worker_and_its_children_leave_behind_goes_with_it() -> None:
    common = tempfile.gettempdir()
    with own_temporary_directory() as own:
        Path(tempfile.gettempdir(), "vllm_dist").touch()
        subprocess.run([sys.executable, "-c", "import tempfile; tempfile.mkstemp()"], check=True)
        assert len(list(own.iterdir())) == 2
    assert not own.exists()
    assert tempfile.gettempdir() == common == os.environ["TMPDIR"]


def test_its_path_leaves_room_for_a_sockets_name() -> None:
    with own_temporary_directory() as own:
        assert len(str(own / "15d45245-8654-408c-b862-3fd7c3c40e1d")) < 108
