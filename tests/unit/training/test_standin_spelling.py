"""The stand-in's reading: rules learnt from a dictionary, and a tokenizer that applies them."""

from __future__ import annotations

from typing import cast

import pytest
from transformers import PreTrainedTokenizerFast

from app.speech.prompts import PromptEncoder, Tokenizer
from app.speech.token_layout import SpeechConfig, TokenLayout
from training.standin.phonemes import SPECIAL, reading_of, reading_tokenizer
from training.standin.spelling import Phones, learnt, marked, read, stored_rules
from training.standin.tags import TAGS


@pytest.fixture(scope="module")
def rules() -> dict[str, Phones]:
    return stored_rules()


@pytest.fixture(scope="module")
def tokenizer(rules: dict[str, Phones]) -> PreTrainedTokenizerFast:
    return reading_tokenizer(rules, codebook_size=4)


def test_the_longest_piece_is_read_first_wherever_it_stands() -> None:
    rules: dict[str, Phones] = {"s": ("s",), "h": ("hh",), "i": ("ih",), "p": ("p",), "sh": ("sh",)}
    assert read("ship", rules) == ("sh", "ih", "p")


def test_a_rule_is_learnt_where_shorter_ones_read_wrongly() -> None:
    dictionary: dict[str, Phones] = {}
    for vowel, said in (("a", "ae"), ("e", "eh"), ("i", "ih"), ("o", "aa"), ("u", "ah")):
        for last in "tpnmdbgk":
            dictionary |= {
                f"s{vowel}{last}": ("s", said, last),
                f"h{vowel}{last}": ("hh", said, last),
                f"sh{vowel}{last}": ("sh", said, last),
            }
    rules = learnt(dictionary, {})
    assert all(read(marked(word), rules) == phones for word, phones in dictionary.items())
    assert read(marked("shib"), rules) == ("sh", "ih", "b")


@pytest.mark.parametrize("text", ["Photographs of the kitchen.", "didn't zorbulent", "the strengthening naïve fjord"])
def test_the_tokenizer_reads_as_the_rules_do(
    tokenizer: PreTrainedTokenizerFast, rules: dict[str, Phones], text: str
) -> None:
    words = text.lower().rstrip(".").replace("ï", "i").split()
    assert reading_of(tokenizer, text) == [read(marked(word), rules) for word in words]


def test_any_spelling_becomes_phones_and_never_an_unknown_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("anna-b7: Qxzv'k, “quoted” 'so' 42!\n日本 \ue000\ue02a", add_special_tokens=False)
    assert ids
    assert tokenizer.unk_token_id not in ids


def test_digits_are_read_by_their_names(tokenizer: PreTrainedTokenizerFast) -> None:
    assert reading_of(tokenizer, "42") == reading_of(tokenizer, "four two")


def test_a_tag_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    for tag in TAGS:
        assert tokenizer.encode(f"so{tag} well", add_special_tokens=False).count(tokenizer.vocab[tag]) == 1


def test_no_text_spells_a_control_token_or_a_code(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.vocab
    roles = {f"{name.strip('<>')}_id": ids[name] for name in SPECIAL[1:-1]}
    ids_of = {"audio_token_base": ids["<audio_0_0>"], "pad_id": ids["<pad>"], "tags": TAGS}
    speech = SpeechConfig.model_validate(ids_of | roles)
    layout = TokenLayout(speech=speech, codebook_size=4, samples_per_frame=2048, sample_rate_hz=24_000)
    hostile = " ".join([*SPECIAL, "<audio_0_1>", "<audio_6_3>"])
    prompts = PromptEncoder(layout, cast(Tokenizer, tokenizer))
    control = {*speech.control_ids, *range(ids["<audio_0_0>"], len(ids))}
    of_nothing = prompts.prompt("wren", "")
    of_hostile = prompts.prompt("wren", hostile)
    assert len(of_hostile) > len(of_nothing) + len(hostile) // 2
    assert [id for id in of_hostile if id in control] == [id for id in of_nothing if id in control]


def test_the_tokenizer_reads_alike_after_it_was_saved(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(directory)
    loaded = PreTrainedTokenizerFast.from_pretrained(directory)
    assert loaded.encode("wren: What a nice day?") == tokenizer.encode("wren: What a nice day?")
