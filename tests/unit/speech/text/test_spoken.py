"""Chunks as the model reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.speech.text import marks
from app.speech.text.english.words import cardinal, number, ordinal, year
from app.speech.text.markup import Markup
from app.speech.text.options import EmojiReading, TextOptions, UrlReading
from app.speech.text.respelling import Respellings, merged
from app.speech.text.say_as import said_as
from app.speech.text.spoken import has_rules, spoken

EN = TextOptions()


@given(st.text(max_size=60))
def test_any_text_is_read_and_none_is_left_with_a_digit_of_ours(text: str) -> None:
    text = marks.without_marks(text)
    assert not any(char in "0123456789" for char in spoken(text, EN) if char not in text or char.isascii())


@given(st.text(alphabet="0123456789.,:/-+$€%° xkmhapth'\"½()#&@", max_size=40))
def test_any_row_of_numbers_and_signs_is_made_words(text: str) -> None:
    assert not any(map(str.isdigit, spoken(text, EN)))


@pytest.mark.parametrize(
    ("figure", "words"),
    [(0, "zero"), (21, "twenty one"), (100, "one hundred"), (1_000_001, "one million one"), (-5, "minus five")],
)
def test_numbers_have_names(figure: int, words: str) -> None:
    assert cardinal(figure) == words


def test_ordinals_years_and_written_numbers_have_names() -> None:
    assert [ordinal(n) for n in (1, 12, 20, 101)] == ["first", "twelfth", "twentieth", "one hundred first"]
    assert [year(n) for n in (1987, 1905, 1900, 2000, 2007, 2024)] == [
        "nineteen eighty seven", "nineteen oh five", "nineteen hundred", "two thousand", "two thousand seven",
        "twenty twenty four",
    ]  # fmt: skip
    assert [number(n) for n in ("1,234.50", "007", "-.5")] == [
        "one thousand two hundred thirty four point five zero", "zero zero seven", "minus zero point five",
    ]  # fmt: skip


def test_a_language_without_rules_passes_unharmed() -> None:
    text = "Das kostet 19,99 € am 3.5."
    assert spoken(text, TextOptions(language="de-DE")) == text
    assert (has_rules("en"), has_rules("de")) == (True, False)
    assert spoken("It is 5.", TextOptions(normalise=False)) == "It is 5."


def test_paragraphs_end_in_stops_and_lines_that_have_one_keep_it() -> None:
    assert spoken("Shopping\nBread.\nPlums\n", EN) == "Shopping. Bread. Plums."


def test_marks_are_spoken_as_they_say_and_written_as_they_were() -> None:
    text = f"The {marks.reading_mark('WWW', 'World 3 Wide')} has 2."
    assert spoken(text, EN) == "The World 3 Wide has two."
    assert marks.as_written(text) == "The WWW has 2."
    assert marks.seconds_of(marks.pause_mark(0.8)) == 0.8


def test_the_models_tags_stay() -> None:
    assert spoken("Oh <laugh> 3 of <b> them.", EN, tags=("<laugh>",)) == "Oh <laugh> three of b them."


def test_addresses_are_read_by_host_or_in_full() -> None:
    text = "See https://a.example/b_c?d=12."
    assert spoken(text, EN) == "See a dot example."
    full = spoken(text, TextOptions(urls=UrlReading.FULL))
    assert full == "See a dot example slash b underscore c question mark d equals twelve."


def test_emoji_are_named_where_that_is_wanted() -> None:
    markup = Markup(options := TextOptions(emoji=EmojiReading.NAME))
    text = markup.push("Yes 👍🏽! 🇫🇷 ") + markup.finish()
    assert spoken(text, options) == "Yes thumbs up sign! flag of F R"
    assert marks.as_written(text).split() == ["Yes", "👍🏽!", "🇫🇷"]


@pytest.mark.parametrize(
    ("written", "how", "said"),
    [
        ("A1b", "characters", "A one B"),
        ("0187", "digits", "zero one eight seven"),
        ("1,200", "cardinal", "one thousand two hundred"),
        ("3", "ordinal", "third"),
        ("212-555", "telephone", "two one two, five five five"),
        ("3.5.2024", "date dmy", "May third, twenty twenty four"),
        ("$5", "currency", "five dollars"),
    ],
)
def test_say_as_says_how(written: str, how: str, said: str) -> None:
    assert said_as(written, how, []) == said


def test_say_as_of_an_unknown_kind_is_named() -> None:
    ignored: list[str] = []
    assert said_as("5", "song", ignored) == "five"
    assert ignored == ["say-as"]


def test_a_dictionary_respells_whole_words_in_any_case_and_the_later_goes_first() -> None:
    words = merged({"GIF": "jif", "Siobhan": "Shivawn"}, {"gif": "ghif"})
    assert Respellings(words)("A gif of SIOBHAN, gifted.") == "A ghif of Shivawn, gifted."


@pytest.mark.parametrize(
    "prose",
    [
        "‘Tis the season, ’twas ever so; rock ’n’ roll and the ’ol dog.",
        "Then I—well, I couldn't—turned away… and then… nothing.",
        "I may go, or I may not; in May we shall see. May I?",
        '"Jan." He paused. "Jan. Come here."',
        '"No." He shook his head. "No. I won\'t." And the answer was no.',
        "“B-b-but I d-didn't!” H-h-help! Shh! Hmm... Mmm.",
        "A well-known, twenty-one-year-old man-at-arms came; it reminds us of us.",
        "J. R. R. Tolkien and T. S. Eliot were friends.",
    ],
)
def test_prose_of_novels_is_left_as_it_is(prose: str) -> None:
    assert spoken(prose, EN) == prose


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Mr. and Mrs. Dursley", "Mister and Missus Dursley"),
        ("He lives on Baker St. He is old.", "He lives on Baker Street. He is old."),
        ("Dr. No met St. John.", "Doctor No met Saint John."),
        ("He left the U.S. They stayed in the U.S. Army.", "He left the U S. They stayed in the U S Army."),
        ("It began in Jan. The snow came.", "It began in January. The snow came."),
        ('"HURRY, HARRY!" she said. "DON\'T GO!"', '"Hurry, harry!" she said. "Don\'t go!"'),
        ("NO ENTRY", "No entry"),
        ("IT'S the FBI.", "It's the F B I."),
        ("Ask UCLA, HTML and NATO.", "Ask U C L A, H T M L and NATO."),
        ("HR, IT, PR and VR", "H R, it, P R and V R"),
        ("AT&T and R&D", "A T and T and R and D"),
    ],
)
def test_titles_streets_and_capitals_are_read_as_they_are_meant(written: str, said: str) -> None:
    assert spoken(written, EN) == said


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("½ cup", "one half cup"),
        ("a 90° angle, 20 °C", "a ninety degree angle, twenty degrees Celsius"),
        ("a 1080p screen for 50p", "a ten eighty P screen for fifty pence"),
        ("2.5B people", "two point five billion people"),
        ("50/50 or 50-50", "fifty fifty or fifty fifty"),
        ("on 05.06.2024, yes", "on June fifth, twenty twenty four, yes"),
        ("212.555.0187, then", "two one two, five five five, zero one eight seven, then"),
        ("(020) 7946 0958", "zero two zero, seven nine four six, zero nine five eight"),
        ("10⁸ and 2⁻³", "ten to the power of eight and two to the power of minus three"),
        ("3.0 × 10^8", "three point zero times ten to the power of eight"),
        ("𝐁𝐨𝐥𝐝 and Ｗｉｄｅ", "Bold and Wide"),
    ],
)
def test_figures_and_letters_of_other_shapes_are_read(written: str, said: str) -> None:
    assert spoken(written, EN) == said
