"""Hears what a person said with the bundled recogniser, run by `app.talk.ears` as a process.

On its input: a little-endian u32 of how many bytes follow, and mono int16 of 16 kHz. On its output for each: a line of
JSON, `{"text": …}` or `{"error": …}`. The first line, `{"name": …}`, says that it is ready.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import BinaryIO

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from app.errors import CarillonError
from app.hearing.moonshine import RATE_HZ, Moonshine

HEADER = struct.Struct("<I")


def main(source: BinaryIO, out: BinaryIO) -> None:
    def say(**fields: str) -> None:
        out.write(json.dumps(fields).encode() + b"\n")
        out.flush()

    try:
        ear = Moonshine()
        ear.hear(np.zeros(RATE_HZ // 2, np.float32), RATE_HZ)  # the first hearing takes longer
    except CarillonError as error:
        say(error=error.message)
        return
    say(name=ear.name)
    while header := source.read(HEADER.size):
        audio = source.read(*HEADER.unpack(header))
        say(text=ear.hear(np.frombuffer(audio, "<i2").astype(np.float32) / 32768, RATE_HZ).text)


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
