"""What a newcomer is told to type, read out of what he is told it by."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bare.commands import NoCommand, Printed, Readme, as_root

README = """# Carillon

A fleet.

```sh
make up
```

On a Debian (`sudo apt-get install make curl python3-venv`) this makes the environment and prints

```text
make upside-down
```

```sh
make test   # ten minutes
```

## Speak

```sh
make up WORKERS=4
```
"""

SCREEN = r"""carillon: ready after 33 s

  front door  http://127.0.0.1:8000

  Hear it:
    curl http://127.0.0.1:8000/v1/audio/speech -o out.wav \
      -H 'Authorization: Bearer cari_1' \
      -d '{"input": "Hello."}'

    .venv/bin/carillon say "Hello. I am Carillon." -o out.wav
"""


def test_the_commands_are_those_of_the_first_screen() -> None:
    assert Readme.read(README) == Readme(
        packages="sudo apt-get install make curl python3-venv", up="make up", test="make test"
    )


def test_this_repositorys_readme_has_them() -> None:
    readme = Readme.read((Path(__file__).parents[3] / "README.md").read_text())
    assert "python3-venv" in readme.packages


@pytest.mark.parametrize(
    ("gone", "told"), [("make up\n", "make up"), ("make test", "make test"), ("apt-get", "apt-get")]
)
def test_a_readme_without_one_of_them_is_told_which(gone: str, told: str) -> None:
    with pytest.raises(NoCommand, match=told):
        Readme.read(README.replace(gone, ""))


def test_a_ready_fleet_prints_a_curl_and_a_command_of_its_own() -> None:
    assert Printed.read(SCREEN) == Printed(
        curl=(
            "curl http://127.0.0.1:8000/v1/audio/speech -o out.wav -H 'Authorization: Bearer cari_1' "
            """-d '{"input": "Hello."}'"""
        ),
        say='.venv/bin/carillon say "Hello. I am Carillon." -o out.wav',
    )


def test_a_fleet_that_prints_neither_is_told_so() -> None:
    with pytest.raises(NoCommand, match="no command with curl and none with say"):
        Printed.read("carillon: ready after 33 s")


def test_who_is_root_needs_no_sudo() -> None:
    assert as_root("sudo apt-get update && sudo apt-get install make") == "apt-get update && apt-get install make"
