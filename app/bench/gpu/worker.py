"""The worker that table 3 loads: all of it is real but for the registry, and the lengths of what it speaks.

Its engine speaks `S_PER_CHAR` for each character of a text and not an end before, so that every run is as long as the
others, with weights that were never trained too. It prints what its listeners must know, and serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import math
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.bench.gpu.engine import profile_of, settings_of
from app.bench.gpu.stage import Job
from app.speech.token_layout import TOKENS_PER_FRAME, read_layout
from workers.bench.scripted_worker import serve_alone
from workers.decoder import Decoder
from workers.engine import Utterance
from workers.main import run_loop
from workers.vllm_engine import VllmEngine

if TYPE_CHECKING:
    from vllm import SamplingParams

S_PER_CHAR = 1 / 15
"""Of speech: about 170 words a minute."""


class SteadyEngine(VllmEngine):
    """Speaks as long as a text is, by its characters."""

    def _sampling(self, utterance: Utterance, *, room: int) -> SamplingParams:
        params = super()._sampling(utterance, room=room)
        layout = self.layout
        speech_s = S_PER_CHAR * len(utterance.text)
        frames = max(1, math.ceil(speech_s * layout.sample_rate_hz / layout.samples_per_frame))
        # The token behind the last frame may be the end, which no shorter speech has.
        params.max_tokens = min(frames * TOKENS_PER_FRAME + 1, room)
        params.min_tokens = params.max_tokens - 1
        return params


async def serve(job: Job, *, precision: str, slots: int, streams: int) -> None:
    """Be a worker for `streams` sessions until SIGTERM."""
    settings = settings_of(job, precision, slots=slots, streams=streams)
    layout = read_layout(job.model_dir, job.codec_dir)
    profile = profile_of(settings, job.model_dir)
    engine = SteadyEngine(job.model_dir, layout, settings.engine, profile=profile, device=job.device)
    await engine.start()
    async with Decoder(job.codec_dir, device=job.device, max_sessions=profile.capacity) as decoder:
        await serve_alone(settings, profile, engine, decoder, fetch=_copy)
    await engine.aclose()


def _copy(uri: str, file: str, path: Path) -> None:
    shutil.copyfile(Path(uri.removeprefix("file://")) / file, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # every speech here is cut at its limit
    job = Job.model_validate_json(sys.stdin.read())
    run_loop(serve(job, precision=options.precision, slots=options.slots, streams=options.streams))


if __name__ == "__main__":
    main()
