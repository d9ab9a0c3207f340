from __future__ import annotations

import os
import subprocess
import sys


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # vLLM has its process's children load libgomp before anything else, which then reads its environment too soon.
    ours = ("OMP_", "MKL_", "KMP_", "LD_PRELOAD")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=False)


BOUNDED = "from workers.openmp import bound_openmp; bound_openmp(); import torch; print(torch.get_num_threads())"


def test_a_worker_computes_in_one_thread() -> None:
    assert run(BOUNDED).stdout == "1\n"


def test_the_users_own_setting_stands() -> None:
    assert run(BOUNDED, OMP_NUM_THREADS="2").stdout == "2\n"


def test_it_is_an_error_to_come_after_torch() -> None:
    assert "its environment is not read again" in run(f"import torch; {BOUNDED}").stderr


def test_the_worker_command_comes_before_torch() -> None:
    """What the command imports before it bounds the threads must not bring torch along."""
    script = "import app.cli.main, app.platform.logs; from workers.openmp import bound_openmp; bound_openmp()"
    assert run(script).returncode == 0
