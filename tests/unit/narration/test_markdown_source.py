"""Markdown on its way to pandoc."""

from __future__ import annotations

import time

import pytest

from app.narration.markdown_source import prepared
from app.speech.text.thoughts import without_thoughts


def test_a_listing_without_a_language_has_a_name_and_one_with_keeps_it() -> None:
    text, _ = prepared("a\n```\nb\n```\n~~~py\n```\n~~~\nc\n````\n```\n````\nd\n```\ne")
    assert text == "a\n```code\nb\n```\n~~~py\n```\n~~~\nc\n````code\n```\n````\nd\n```code\ne"


def test_a_formula_is_escaped_and_code_and_money_are_not() -> None:
    assert prepared("$a_1*b$ `$a_1*b$` costs $3 or $4")[0] == "\\$a\\_1\\*b\\$ `$a_1*b$` costs $3 or $4"
    assert prepared("```py\n$a_1$\n```\n")[0] == "```py\n$a_1$\n```\n"


def test_a_formula_of_several_lines_becomes_one() -> None:
    assert prepared("\\[\n a = b\n\\]")[0] == "\\\\\\[ a \\= b \\\\\\]"


@pytest.mark.parametrize("piece", ["<think>", "[THINK] ", "<think", "`", "$", "\\(", "```\n", "$x ", "[^a]", "~~~a\n"])
def test_signs_without_an_end_take_time_that_grows_with_the_text_alone(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    began_s = time.process_time()
    prepared(without_thoughts(text)[0])
    assert time.process_time() - began_s < 5


def test_thoughts_are_left_out_where_they_have_an_end() -> None:
    assert without_thoughts("<think>a</think>b<Thinking x='1'>c</thinking >d") == ("bd", 2)
    assert without_thoughts("◁think▷a◁/think▷b[THINK]c[/THINK]d") == ("bd", 2)
    assert without_thoughts("a `<think>` b <think> c [think]d[/think]") == (
        "a `<think>` b <think> c [think]d[/think]",
        0,
    )
