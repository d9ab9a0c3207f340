"""Makes the stand-in checkpoint: `python -m training.standin all`, or one stage of it.

`next` makes the codec that is to follow, which carries words but no language model speaks yet. Every stage resumes
where it was stopped; remove the work directory to start over.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path

STAGES = ("codec", "dictionary", "language", "polish", "assemble")
NEXT_STAGES = ("corpus", "latents", "encoder", "decoder", "critics", "understood")
TOGETHER = {"all": STAGES, "next": NEXT_STAGES}


def main() -> None:
    """Runs the stages named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.standin", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "quality", *NEXT_STAGES, *TOGETHER))
    parser.add_argument("--work", type=Path, default=Path(".standin"), help="where recordings and checkpoints go")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on shared cores
    arguments.work.mkdir(parents=True, exist_ok=True)
    for stage in TOGETHER.get(arguments.stage, (arguments.stage,)):
        if stage in NEXT_STAGES:
            run_next(stage, arguments.work, arguments.threads)
        else:
            run(stage, arguments.work, arguments.threads)


def run(stage: str, work: Path, threads: int) -> None:
    """Runs one stage; imports here, so that the thread settings precede torch."""
    import torch

    from training.standin import card, codec, language
    from training.standin.dictionary import CodeDictionary
    from training.standin.quality import write_quality

    torch.set_num_threads(threads)
    if stage == "codec":
        codec.train(work)
    elif stage in ("dictionary", "language"):
        trained = codec.SNAC.from_pretrained(str(work / "codec"))
        frames = CodeDictionary.made(trained, work)
        if stage == "language":
            language.train(work, frames, trained)
    elif stage == "polish":
        codec.polish(work)
    elif stage == "assemble":
        print(json.dumps(card.assemble(work), indent=2))
    else:
        print(json.dumps(write_quality(card.CHECKPOINT), indent=2))
        card.write_card(card.CHECKPOINT)


def run_next(stage: str, work: Path, threads: int) -> None:
    """Runs one stage of the codec to come."""
    import torch

    from training.standin import corpus, decoder, understood, wordcodec

    torch.set_num_threads(threads)
    if stage == "corpus":
        corpus.make(work, processes=threads)
    elif stage == "latents":
        wordcodec.find_latents(work)
    elif stage == "encoder":
        wordcodec.train_encoder(work)
    elif stage == "decoder":
        wordcodec.train_decoder(work)
    elif stage == "critics":
        wordcodec.train_decoder(work, judged=True, steps=decoder.POLISH_STEPS)
    else:
        figures = understood.measure(wordcodec.export(work), wordcodec.find_latents(work))
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
