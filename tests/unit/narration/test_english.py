"""What is rewritten before the normaliser sees it, and what need not go there at all."""

from __future__ import annotations

import pytest

from app.narration.english import is_plain, prepare, recased


@pytest.mark.parametrize(
    ("written", "prepared"),
    [
        ("Chapter IV", "Chapter 4"),
        ("CHAPTER XIV. The Storm", "CHAPTER 14. The Storm"),
        ("Part I: The Sea", "Part 1: The Sea"),
        ("Act V", "Act 5"),
        ("World War I began", "World War 1 began"),
        ("Book MCMXC", "Book 1990"),
        ("King Henry VIII of England", "King Henry the 8th of England"),
        ("Louis XIV's court", "Louis the 14th's court"),
        ("Elizabeth II.", "Elizabeth the 2nd."),
        ("King John I.", "King John the 1st."),
        ("Pope Pius XI", "Pope Pius the 11th"),
    ],
)
def test_roman_numerals_are_read_where_a_number_belongs(written: str, prepared: str) -> None:
    assert prepare(written) == prepared


@pytest.mark.parametrize(
    "written",
    ["the part I played", "the book I read", "Henry I think", "I came", "Chapter ICE", "the letter X-ray", "MIX it"],
)
def test_what_only_looks_like_a_roman_numeral_stays(written: str) -> None:
    assert prepare(written) == written


@pytest.mark.parametrize(
    ("written", "prepared"),
    [
        ("Mr. Hale met Dr. Who in St. Ives.", "Mister Hale met Doctor Who in Saint Ives."),
        ("Sammy Davis, Jr. sang.", "Sammy Davis Junior sang."),
        ("No. 5 and no. 6", "Number 5 and number 6"),
        ("He is 6 ft. 2 in. tall", "He is 6 feet 2 inches tall"),
        ("It weighs 2 lbs.", "It weighs 2 pounds."),
        ("at 3:00 o'clock", "at 3 o'clock"),
        ("It *was* _very_ **dark**", "It was very dark"),
        ("snake_case and * alone", "snake case and alone"),
        ("2*3", "2*3"),
        ("£3 10s. 6d.", "£3 10 shillings 6 pence."),
        ("£3 10s. in all", "£3 10 shillings in all"),
        ("a 6d. loaf for 1d.", "a 6 pence loaf for 1 penny."),
        ("10s 6d now", "10 shillings 6 pence now"),
        ("after 10s and 3d", "after 10s and 3d"),
        ("¢5 and 1¢", "5 cents and 1 cent"),
        ("p. 5, pp. 3-5", "page 5, pages 3 to 5"),
        ("3–5 men won 10-12.", "3 to 5 men won 10 to 12."),
        ("2020-12-25, 1914-18, 1-2-3, 3-5% and 3-4.5", "2020-12-25, 1914-18, 1-2-3, 3-5% and 3-4.5"),
        ("555-1234", "5 5 5, 1 2 3 4"),
    ],
)
def test_abbreviations_and_marks_are_made_words(written: str, prepared: str) -> None:
    assert prepare(written) == prepared


@pytest.mark.parametrize("sentence", ["It was dark; nobody—not one—came.", "“Mister Hale,” she said, ‘why?’"])
def test_words_need_no_normaliser(sentence: str) -> None:
    assert is_plain(sentence)


@pytest.mark.parametrize("sentence", ["5 men", "in the U.S.A.", "50 %", "£3", "this & that", "etc. etc.", "½ a cup"])
def test_numbers_signs_and_abbreviations_do(sentence: str) -> None:
    assert not is_plain(sentence)


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("CHAPTER IV. THE SEA’S EDGE", "Chapter IV. The Sea’s Edge"),
        ("The BBC", "The BBC"),
        ("XIV", "XIV"),
        ("", ""),
        ("THE MIX OF DI", "The Mix Of Di"),
        ("HENRY VIII AND I", "Henry VIII And I"),
        ("XLIV. THE MIX", "XLIV. The Mix"),
        ("CHAPTER XCIX", "Chapter XCIX"),
    ],
)
def test_titles_in_capitals_are_recased(title: str, said: str) -> None:
    assert recased(title) == said
