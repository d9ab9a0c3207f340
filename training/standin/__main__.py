"""Makes the stand-in checkpoint: `python -m training.standin all`, or one stage of it.

Every stage resumes where it was stopped; remove the work directory to start over.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from pathlib import Path

STAGES = ("corpus", "codes", "codec", "dictionary", "language", "polish", "assemble")


def main() -> None:
    """Runs the stages named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.standin", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "understood", "quality", "all"))
    parser.add_argument("--work", type=Path, default=Path(".standin"), help="where recordings and checkpoints go")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on shared cores
    arguments.work.mkdir(parents=True, exist_ok=True)
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        run(stage, arguments.work, arguments.threads)


def run(stage: str, work: Path, threads: int) -> None:
    """Runs one stage; imports here, so that the thread settings precede torch."""
    import torch

    from training.standin import card, codec, corpus, language, understood
    from training.standin.dictionary import CodeDictionary
    from training.standin.quality import write_quality

    torch.set_num_threads(threads)
    if stage == "corpus":
        corpus.make(work, processes=threads)
    elif stage == "codes":
        codec.train_codes(work)
    elif stage == "codec":
        codec.train_decoder(work)
    elif stage == "polish":
        codec.train_decoder(work, codec.POLISH_STEPS, judged=True)
    elif stage in ("dictionary", "language"):
        trained = codec.SNAC.from_pretrained(str(work / "codec"))
        frames = CodeDictionary.made(trained, work)
        if stage == "language":
            language.train(work, frames, trained)
    elif stage == "understood":
        print(json.dumps(understood.measure(work / "codec"), indent=2))
    elif stage == "assemble":
        print(json.dumps(card.assemble(work), indent=2))
    else:
        print(json.dumps(write_quality(card.CHECKPOINT), indent=2))
        card.write_card(card.CHECKPOINT)


if __name__ == "__main__":
    main()
