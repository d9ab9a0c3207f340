"""Makes the stand-in checkpoint: `python -m training.standin all`, or one stage of it.

Every stage resumes where it was stopped; remove the work directory to start over.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path

STAGES = ("corpus", "latents", "encoder", "decoder", "utterances", "language", "assemble")
BESIDES = ("shipped", "critics", "understood", "quality")


def main() -> None:
    """Runs the stages named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.standin", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, *BESIDES, "all"))
    parser.add_argument("--work", type=Path, default=Path(".standin"), help="where recordings and checkpoints go")
    parser.add_argument("--steps", type=int, help="of the language model, in all, when its training goes on for longer")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on shared cores
    arguments.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        run(stage, arguments.work, arguments.threads, arguments.steps)


def run(stage: str, work: Path, threads: int, steps: int | None = None) -> None:
    """Runs one stage; imports here, so that the thread settings precede torch."""
    import torch

    from training.standin import (
        base,
        card,
        corpus,
        decoder,
        language,
        quality,
        shipped,
        understood,
        utterances,
        wordcodec,
    )

    torch.set_num_threads(threads)
    if stage == "corpus":
        corpus.make(work, processes=threads)
    elif stage == "shipped":
        shipped.begin(work)
    elif stage == "latents":
        wordcodec.find_latents(work)
    elif stage == "encoder":
        wordcodec.train_encoder(work)
    elif stage == "decoder":
        wordcodec.train_decoder(work)
    elif stage == "critics":
        wordcodec.train_decoder(work, judged=True, steps=decoder.POLISH_STEPS)
    elif stage == "utterances":
        utterances.make(work, base.shards(), processes=threads)
    elif stage == "language":
        language.train(work, wordcodec.find_latents(work), steps or language.STEPS)
    elif stage == "understood":
        print(json.dumps(understood.measure(wordcodec.export(work), wordcodec.find_latents(work)), indent=2))
    elif stage == "assemble":
        wordcodec.export(work)
        print(json.dumps(card.assemble(work), indent=2))
    else:
        print(json.dumps(quality.write_quality(card.CHECKPOINT), indent=2))
        card.write_card(card.CHECKPOINT)


if __name__ == "__main__":
    main()
