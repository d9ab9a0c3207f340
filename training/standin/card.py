"""Puts a finished stand-in together: `model/`, `codec/`, quality.json, and the model card that says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from training.standin.language import STEPS
from training.standin.quality import write_quality
from training.standin.sentences import vocabulary

CHECKPOINT = Path(__file__).with_name("checkpoint")
SIZE_LIMIT_BYTES = 20_000_000

_CARD = """# The stand-in voice

A toy text-to-speech model with **synthetic voices**, so that Carillon can be built, tested and tried on two CPU cores
without fetching a model. It has the shape of Orpheus 3B (a Llama that writes SNAC codes, seven tokens a frame, the same
prompt form and special-token roles) at about a thousandth of its size. **It is not a product voice**: it reads a text
word by word like a station announcer, and it is meant to be replaced.

- `model/`: a Llama of {layers} layers x {width}, {parameters:.1f} M parameters (bf16), tied embeddings, vocabulary
  {vocabulary_size}, {positions} positions.
- `codec/`: `snac.SNAC` at 24 kHz, 3 levels of {codebook} codes, strides [4, 2, 1], 2048 samples a frame,
  {codec_parameters:.1f} M parameters.
- Voices: {voices}. Tags: {tags}.
- English only; {words} words are known whole, others are read by their letters, badly.

## How it was made

`make standin` (`python -m training.standin all`) repeats it from nothing on a CPU; it needs flite and espeak-ng
(`apt-get install flite espeak-ng`), no network, and a little over two hours: the codec
45 minutes of two cores, the language model 90 minutes of one.

1. **Words.** flite's voices `slt` (wren) and `rms` (rook) say each word of `words.txt` alone. A word is trimmed,
   levelled and padded with one fixed frame of room tone to whole frames of 2048 samples. A sentence is the
   concatenation: 597 ms of room tone, the words, 171 ms for a comma, 341 ms for a full stop. Tags are short sounds.
2. **Codec.** Crops of six frames, 65 % announcer, 35 % varied speech (flite `slt`, `rms`, `kal16` and fourteen
   espeak-ng voices); four-scale log-mel L1, spectral convergence, codebook and commitment losses, restarts of dead
   codes, no adversary; then the decoder alone for a while, with the codes left as they are.
3. **Dictionary.** Each word is encoded once between room tone. A sentence's codes are then the concatenation of its
   words' codes, so training sentences are made while training and none comes twice.
4. **Language model.** Half random word sequences (only the text tells which word comes next), half templates, 1 to 60
   words, 6 % of words spelled out. For four fifths of the steps most texts are skimmed (first and last frame of each
   word only), which more than doubles the practice in finding the next word. Three heads of the upper layers are shown
   where to look (guided attention), words' embeddings start from how they sound and learn faster than the rest, input
   codes are corrupted at random, the first frame of a word counts most, and the softmax is over what the band mask
   allows. bf16 autocast; Muon for the layers' matrices, AdamW for the rest. The committed weights are one such run from
   random initialisation, of {steps} steps.

flite and its voices are under BSD-like licences; espeak-ng is a GPL program, its audio output is not. The flite voice
`awb` was shown to neither codec nor language model: it is the speaker to clone.

## Measured quality

`python -m training.standin quality`, on {texts} texts it was not trained on (six to nine random words each, voices in
turn), sampled at temperature {temperature} with the band mask, as the engine samples:

| figure | wanted | measured |
|---|---|---|
| codec STOI, mean (worst) | >= 0.85 | {codec_stoi:.3f} ({codec_stoi_worst:.3f}) |
| nearest (DTW over log-mel) to the synthesiser's own rendering of its text | >= 0.95 | {identified_share:.2f} |
| ends with end of speech by itself | >= 0.98 | {ended_share:.2f} |
| tokens in the right band, with the mask | 1.00 | {in_band_share:.2f} |
| most likely token in band with no mask (text is left out of the softmax) | | {in_band_share_without_mask:.4f} |
| exactly as long as the synthesiser's rendering | | {exact_length_share:.2f} |
| STOI of those against the rendering | | {spoken_stoi} |
| silence before the first word, median | 597 ms made | {head_silence_ms_median:.0f} ms |

{verdict} The temperature was chosen on texts of the same kind.

## What it cannot do

Words outside its list come out by analogy with their first letters, often wrong. It has no sentence melody, speaks no
language but English, cannot whisper or shout, and says digits one by one. Characters other than letters, digits,
apostrophes and `. , ? ! ; :` are dropped.
"""


def assemble(work: Path, checkpoint: Path = CHECKPOINT) -> dict[str, object]:
    """Copies the finished parts from `work` to `checkpoint`, measures them, writes the card; gives the figures."""
    polished = work / "polished"
    for source, name in ((work / "model", "model"), (polished if polished.exists() else work / "codec", "codec")):
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
    weights_bytes = (checkpoint / "model/model.safetensors").stat().st_size
    codec_bytes = (checkpoint / "codec/pytorch_model.bin").stat().st_size
    spoken = figures["spoken_stoi_where_length_is_exact"]
    card = _CARD.format(
        **{name: value for name, value in figures.items() if isinstance(value, int | float)},
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        parameters=weights_bytes / 2e6,
        vocabulary_size=config["vocab_size"],
        positions=config["max_position_embeddings"],
        codebook=codec["codebook_size"],
        codec_parameters=codec_bytes / 4e6,
        voices=", ".join(f"`{voice}`" for voice in config["speech"]["voices"]),
        tags=" ".join(f"`{tag}`" for tag in config["speech"]["tags"]),
        words=len(vocabulary()),
        spoken_stoi="not measured" if spoken is None else f"{spoken:.3f}",
        verdict=_verdict(figures),
        steps=STEPS,
    )
    (checkpoint / "README.md").write_text(card, encoding="utf-8")


def _verdict(figures: dict[str, float]) -> str:
    wanted = {"codec_stoi": 0.85, "identified_share": 0.95, "ended_share": 0.98, "in_band_share": 1.0}
    missed = [
        f"`{name}` is {figures[name]} instead of {least}" for name, least in wanted.items() if figures[name] < least
    ]
    if missed:
        return f"**It does not reach what is wanted**: {'; '.join(missed)}."
    return "It reaches everything that is wanted of it."
