"""Clocks that can be set while their programs run: libfaketime's, where it is installed (apt-get install faketime).

Only the time of day jumps. What is measured by the monotonic clock goes on, as it does when an administrator or NTP
steps a machine's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

LIBRARIES = ("lib/*/faketime/libfaketimeMT.so.1", "lib/faketime/libfaketimeMT.so.1")


def library() -> Path | None:
    return next((path for pattern in LIBRARIES for path in Path("/usr").glob(pattern)), None)


class Clock:
    """A program's; `file` tells it how far it is off."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        self.set(0.0)

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes a program go by it. It looks at the file once a second."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, by_s: float) -> None:
        """So far from the machine's clock."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{by_s:+.3f}\n")
        written.chmod(0o644)
        written.replace(self._file)
