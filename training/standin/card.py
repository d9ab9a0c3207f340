"""Puts a finished stand-in together: `model/`, `codec/`, quality.json, and the model card that says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from training.standin.language import STEPS
from training.standin.quality import write_quality
from training.standin.wordcodec import DIRECTORY

CHECKPOINT = Path(__file__).with_name("checkpoint")
SIZE_LIMIT_BYTES = 30_000_000

_CARD = """# The stand-in voice

A toy text-to-speech model with **synthetic voices**, so that Carillon can be built, tested and tried on two CPU cores
without fetching a model. It has the shape of Orpheus 3B (a Llama that writes SNAC codes, seven tokens a frame, the same
prompt form and special-token roles) at about a thousandth of its size. **It is not a product voice**: the table below
says how much of it is understood, and it is meant to be replaced.

- `model/`: a Llama of {layers} layers x {width}, {parameters:.1f} M parameters (bf16), tied embeddings, vocabulary
  {vocabulary_size}, {positions} positions. Its tokenizer turns any English text into phones by itself.
- `codec/`: `snac.SNAC` at 24 kHz, 3 levels of {codebook} codes, strides [4, 2, 1], 2048 samples a frame,
  {codec_parameters:.1f} M parameters.
- Voices: {voices}. Tags: {tags}.
- English only.

## Measured

`python -m training.standin quality`: {texts} everyday sentences that nothing was trained on (`unseen.txt`), sampled at
temperature {temperature} with the band mask, as the engine samples. Word error rates are of Moonshine tiny-en, a
recogniser that was not made here, free recognition; the synthesiser is flite, from which the voice was learnt.

{table}

The stand-in before this one, which announced words one by one, had a word error rate of about 1.0, its codec alone 0.9.
What was tried is in `training/EXPERIMENTS.md`.

## How it was made

`make standin` (`python -m training.standin all`) goes through the stages on a CPU; it needs flite and espeak-ng
(`apt-get install flite espeak-ng wordnet-base`) and the teachers inside wheels of the group `standin`, no model hub.

1. **Codes.** Principal components of log-mel spectra of some hours of speech by 31 speakers (flite, espeak-ng, Piper
   `joe`, Kokoro-82M, and copies with longer or shorter vocal tracts), and k-means of what each level leaves: no network
   takes part. The codec's encoder is trained to give these components, its decoder to speak them; the decoder started
   as that of the stand-in before this one.
2. **Reading.** Rules from pieces of words to phones, learnt from flite's pronunciations, inside the tokenizer. Of the
   phones of rare words that they were not learnt from 15 % are wrong.
3. **Utterances.** flite's `slt` (wren) and `rms` (rook) say usage examples from WordNet and tell when they say which
   phone. Codes are those of the true spectra. Each word is stretched to whole frames, so that a word is nearly the same
   codes wherever it is said. Others speak in their own time, so that an adapter has only to say *who*: nine of flite's
   voices resized, and twenty speakers of espeak-ng, Piper and Kokoro, half of them under names that mean nothing.
4. **Language model.** Pieces of sentences in new orders, short ones first. Heads of the upper layers are shown where to
   look (guided attention), input codes are corrupted at random, codes that sound alike start with embeddings that are
   alike, a frame's first code counts most, and the softmax is over what the band mask allows. Muon for the layers'
   matrices, AdamW for the rest; {steps} steps of about 3,000 tokens, single precision, one thread.

A built-in voice begins with {head_silence_ms_made} ms of room tone, as real base voices do: a clone shall lose it.

## Its clones

Eleven minutes of `awb` make a clone with that speaker's voice and pace, without the pause, which ends by itself. A
recogniser understands **less of it than of the built-in voices**: its word error rate on the gate's prompts is 0.79,
where the recorded speaker has 0.09, and 0.20 behind the codec (`training/EXPERIMENTS.md`). So `model/config.json` lets
a clone be up to 0.5 above a built-in voice (`gate`), where 0.15 is usual.

flite and its voices are under BSD-like licences; espeak-ng is a GPL program, its audio output is not; Kokoro-82M is
under Apache-2.0, Piper's `en_US-joe-medium` is CC0; WordNet 3.0 is free to use with its copyright notice (Princeton
University). The flite voice `awb` was shown to neither codec nor language model: it is the speaker to clone.

## What it cannot do

It speaks no language but English, cannot whisper or shout, and says digits one by one. Rare words are often
mispronounced. Characters other than letters, digits, apostrophes and `. , ? ! ; :` are dropped.
"""
_ROWS = {
    "word error rate of the synthesiser": "word_error_rate_synthesiser",
    "word error rate of the synthesiser through the codec": "word_error_rate_codec",
    "**word error rate of the stand-in**": "word_error_rate_model",
    "STOI of the codec": "codec_stoi",
    "ends with end of speech by itself": "ended_share",
    "tokens in the right band": "in_band_share",
    "length against the synthesiser's, median": "length_ratio_median",
    "the same, least": "length_ratio_least",
    "the same, most": "length_ratio_most",
    "silence before the first word, ms, median": "head_silence_ms_median",
}


def assemble(work: Path, checkpoint: Path = CHECKPOINT) -> dict[str, Any]:
    """Copies the finished parts from `work` to `checkpoint`, measures them, writes the card; gives the figures."""
    for source, name in ((work / "model", "model"), (work / DIRECTORY, "codec")):
        shutil.rmtree(checkpoint / name, ignore_errors=True)
        shutil.copytree(source, checkpoint / name, copy_function=shutil.copyfile)
    figures = write_quality(checkpoint)
    write_card(checkpoint)
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    if size > SIZE_LIMIT_BYTES:
        raise ValueError(f"the checkpoint takes {size} bytes, more than {SIZE_LIMIT_BYTES}; make the model smaller")
    return figures


def write_card(checkpoint: Path) -> None:
    """Writes README.md from config.json, codec/config.json and quality.json."""
    config, codec, figures = (
        json.loads((checkpoint / name).read_text(encoding="utf-8"))
        for name in ("model/config.json", "codec/config.json", "quality.json")
    )
    card = _CARD.format(
        **{name: value for name, value in figures.items() if name != "voices"},
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        parameters=(checkpoint / "model/model.safetensors").stat().st_size / 2e6,
        vocabulary_size=config["vocab_size"],
        positions=config["max_position_embeddings"],
        codebook=codec["codebook_size"],
        codec_parameters=(checkpoint / "codec/pytorch_model.bin").stat().st_size / 4e6,
        voices=", ".join(f"`{voice}`" for voice in config["speech"]["voices"]),
        tags=" ".join(f"`{tag}`" for tag in config["speech"]["tags"]),
        steps=STEPS,
        table=_table(figures["voices"]),
    )
    (checkpoint / "README.md").write_text(card, encoding="utf-8")


def _table(voices: dict[str, dict[str, float]]) -> str:
    lines = ["| figure | " + " | ".join(voices) + " |", "|---" * (len(voices) + 1) + "|"]
    for label, name in _ROWS.items():
        values = [f"{measured[name]:.0f}" if "_ms" in name else f"{measured[name]:.2f}" for measured in voices.values()]
        lines.append(f"| {label} | " + " | ".join(values) + " |")
    return "\n".join(lines)
