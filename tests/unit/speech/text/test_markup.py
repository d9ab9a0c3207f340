"""Markup is read away, the same however a text is cut into pieces, and plain text knows where it came from."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.speech.text import TextSplitter, clean, marks
from app.speech.text.markup import Markup, has_nothing_to_speak
from app.speech.text.options import CodeReading, EmojiReading, MarkupKind, TextOptions
from app.speech.text.spoken import spoken
from app.speech.text.thoughts import behind_thought

SIGNS = (
    *"*_`~[]()!#|&<>/=:.-+ 5ax",
    "\\",
    "\n",
    "\xe9",
    "\U0001f44d",
    "\u200d",
    "\U0001f3fd",
    "\U000f0001",
    "**",
    "```",
    "   ",
    "\n\n",
    "- ",
    "1. ",
    "* ",
    "> ",
    "](",
    "<b>",
    "</b>",
    "<p>",
    "&amp;",
    "<think>",
    "</think>",
    "<!--",
    "-->",
    "<script>",
    "</script>",
    "<br/>",
    '<break time="1s"/>',
    '<sub alias="z">',
    "</sub>",
    "<laugh>",
    "[^1]",
    "[d]: http://a.b",
    "http://a.b",
    "---",
    "| a | b |",
    "[THINK]",
    "$",
    "x^2",
    "\\(",
    "\\)",
    "【3†a】",
    "\nA",
)
WRITTEN = st.lists(st.sampled_from(SIGNS), max_size=40).map("".join)
OPTIONS = st.builds(
    TextOptions,
    markup=st.sampled_from(MarkupKind),
    code=st.sampled_from(CodeReading),
    emoji=st.sampled_from(EmojiReading),
)


def plain(text: str, options: TextOptions | None = None) -> str:
    markup = Markup(options)
    return markup.push(text) + markup.finish()


@given(WRITTEN, OPTIONS, st.data())
def test_the_pieces_leave_no_trace(written: str, options: TextOptions, data: st.DataObject) -> None:
    markup, got, at = Markup(options), "", 0
    while at < len(written):
        size = data.draw(st.integers(1, 9))
        got += markup.push(written[at : at + size])
        at += size
    assert got + markup.finish() == plain(written, options)
    assert markup.received_chars == len(written)


@given(WRITTEN, OPTIONS, st.integers(0, 40))
def test_a_reading_goes_on_in_another_process_where_it_stood(written: str, options: TextOptions, cut: int) -> None:
    markup = Markup(options)
    before = markup.push(written[:cut])
    restored = Markup.restored(json.loads(json.dumps(markup.record())), tags=("<laugh>",))
    untouched = Markup(options, tags=("<laugh>",))
    assert before == untouched.push(written[:cut])
    assert restored.push(written[cut:]) + restored.finish() == untouched.push(written[cut:]) + untouched.finish()


@given(WRITTEN)
def test_nothing_that_a_user_writes_is_a_mark(written: str) -> None:
    for options in (TextOptions(markup=MarkupKind.PLAIN), TextOptions(markup=MarkupKind.MARKDOWN)):
        got = plain(written, options)
        assert not any(char in marks.as_written(got) for char in (marks.START, marks.AS, marks.END))
        assert got.count(marks.START) == got.count(marks.END)


@pytest.mark.parametrize("word", ["plums", "the shop", "after"])
def test_plain_text_knows_where_it_came_from(word: str) -> None:
    written = "# List\n\n- **bread** &amp; *plums*\n- [the shop](https://a.b/c)\n\n<think>no</think>after"
    markup = Markup()
    got = "".join(map(markup.push, written)) + markup.finish()
    assert markup.source(got.index(word)) == written.index(word)
    markup.forget(got.index(word))
    assert markup.source(got.index(word)) == written.index(word)


def test_no_more_is_held_back_than_must_be() -> None:
    markup = Markup()
    assert [markup.push(piece) for piece in ("Hello", "!", " *", "so", "* 2 <", " 3")] == [
        "Hello",
        "!",
        " ",
        "so",
        " 2 ",
        "< 3",
    ]


def test_a_thought_stays_open_over_flushes_and_never_speaks() -> None:
    markup = Markup()
    said = [
        markup.push("<think>a"),
        markup.finish(),
        markup.push("b</thi"),
        markup.finish(),
        markup.push("nk>c</think>Yes."),
    ]
    assert "".join(said) == "Yes."


def test_within_words_that_are_replaced_nothing_is_marked() -> None:
    options = TextOptions(emoji=EmojiReading.NAME)
    got = plain('<sub alias="World">W <break time="1s"/> 👍 W</sub> on', options)
    assert spoken(got, options) == "World on"
    assert "".join(marks.as_written(got).split()) == "W👍Won"


def test_a_long_alias_and_a_long_row_of_emoji_are_spoken_whole() -> None:
    options, alias = TextOptions(emoji=EmojiReading.NAME), " ".join(["alias"] * 60)
    assert spoken(plain(f'<sub alias="{alias}">W</sub>'), options) == alias
    assert spoken(plain("😂" * 60, options), options).count("face with tears of joy") == 60


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (r"$\frac{a+b}{2} \geq \sqrt[3]{ab}$", "a plus b over two is greater than or equal to the cube root of a b"),
        (r"$\sum_{i=1}^n i$ and $f(x)$", "the sum from i equals one to n of i and f of x"),
        (r"\(\text{speed} = 90^\circ\)", "speed equals ninety degrees"),
        (r"$x$, $2n$ and $\unknown{y}$", "x, two n and unknown y"),
        ("From $5 to $10, $3M-$4M.", "From five dollars to ten dollars, three million to four million dollars."),
        ("Set $HOME and $PATH.", "Set home and path."),
        (r"Then \(not closed", "Then (not closed"),
    ],
)
def test_formulas_are_read_and_money_stays_money(written: str, said: str) -> None:
    for pieces in ([written], list(written)):
        markup = Markup()
        got = spoken("".join(map(markup.push, pieces)) + markup.finish(), TextOptions())
        assert " ".join(got.split()) == said


def test_a_formula_keeps_what_was_written_and_other_languages_keep_it_whole() -> None:
    assert marks.as_written(plain("So $x^2$ is.")) == "So x^2 is."
    assert plain("So $x^2$ is.", TextOptions(language="de")) == "So $x^2$ is."


def test_a_whole_text_may_begin_within_a_thought() -> None:
    options = TextOptions()
    assert behind_thought("It greets me.\n</think>\nHi.", options).strip() == "Hi."
    for kept in ("<think>a</think>Hi.", "Close it by `</think>` then.", "A </b> tag."):
        assert behind_thought(kept, options) == kept
    plainly = TextOptions(markup=MarkupKind.PLAIN)
    assert behind_thought("a</think>b", plainly) == "a</think>b"


def test_code_is_skipped_announced_or_read() -> None:
    written = "Run:\n```py\nx = 1\n```\nDone."
    assert clean(plain(written)) == "Run:\nDone."
    announced = plain(written, TextOptions(code=CodeReading.ANNOUNCE))
    assert [part for part, fixed in marks.marked_parts(announced) if fixed] == ["Code block."]
    assert "x = 1" in plain(written, TextOptions(code=CodeReading.READ))


def test_what_cannot_be_done_is_named_once() -> None:
    markup = Markup()
    markup.push(
        '<prosody pitch="low">a</prosody><prosody rate="slow">b</prosody><emphasis>c</emphasis><break time="x"/>'
    )
    assert markup.ignored == ("prosody", "emphasis", "break")


@pytest.mark.parametrize(
    ("rate", "factor"),
    [("slow", 0.8), ("x-fast", 1.6), ("50%", 0.5), ("+20%", 1.2), ("-10%", 0.9), ("1.5", 1.5), ("9", 2.0), ("1%", 0.5)],
)
def test_a_rate_holds_from_its_element_to_the_end_of_it(rate: str, factor: float) -> None:
    markup, splitter = Markup(), TextSplitter()
    for char in f'One. <prosody rate="{rate}">Two. <prosody rate="medium">Three.</prosody> Four.</prosody> Five.':
        splitter.push(markup.push(char))
    splitter.push(markup.finish())
    splitter.close()
    chunks = list(iter(lambda: splitter.next_chunk(eager=True), None))
    assert [(marks.as_written(c.source).strip(), marks.rate_of(c.source)) for c in chunks] == [
        ("One.", 1.0), ("Two.", factor), ("Three.", 1.0), ("Four.", factor), ("Five.", 1.0)
    ]  # fmt: skip
    assert [spoken(c.source, TextOptions()) for c in chunks] == ["One.", "Two.", "Three.", "Four.", "Five."]
    assert markup.ignored == ()


def test_a_rate_that_is_none_is_named_and_changes_nothing() -> None:
    markup = Markup()
    assert marks.RATE.search(markup.push('<prosody rate="rather quick">a</prosody>')) is None
    assert markup.ignored == ("prosody",)


def test_a_change_of_rate_before_a_flush_is_a_chunk_of_nothing_so_that_the_flush_is_answered() -> None:
    markup, splitter = Markup(), TextSplitter()
    splitter.push(markup.push('<prosody rate="slow">Two.</prosody>') + markup.finish())
    end = splitter.flush()
    chunks = list(iter(lambda: splitter.next_chunk(eager=True), None))
    assert [(c.text.strip(), c.end == end) for c in chunks] == [("Two.", False), ("", True)]


def test_a_turn_may_begin_within_a_thought() -> None:
    for pieces in (["It greets me.</think>Hi."], list("It greets me.</think>Hi.")):
        markup = Markup(options := TextOptions(thought_open=True))
        assert behind_thought(pieces[0], options) == pieces[0]
        assert clean("".join(map(markup.push, pieces)) + markup.finish()) == "Hi."


def test_plain_text_and_ssml_know_no_markdown() -> None:
    assert plain("# *a* <b>", TextOptions(markup=MarkupKind.PLAIN)) == "# *a* <b>"
    assert clean(plain("# *a* <foo x='1'>b</foo> &lt;", TextOptions(markup=MarkupKind.SSML))) == "# *a* b <"


@pytest.mark.parametrize(
    ("text", "nothing"),
    [("✅", True), ("…", True), ("———.", True), ("<think>a</think>", True), ("👍🏽", True), ("", True), ("a", False),
     ('<break time="1s"/>', False), ("<laugh>", False)],
)  # fmt: skip
def test_a_text_with_nothing_to_speak_is_known(text: str, nothing: bool) -> None:
    assert has_nothing_to_speak(text, TextOptions()) is nothing


@pytest.mark.parametrize(
    "sign", ["[", "*", "`", "<", "&", "#", "-", "|", "[x](", "<a ", "👍", "\\", "a_", "![", "<think>", "<!--"]
)
def test_rows_of_signs_are_read_in_time_that_grows_with_them(sign: str) -> None:
    """A test that takes minutes where it does not."""
    markup = Markup(TextOptions(emoji=EmojiReading.NAME))
    for _ in range(4_000):
        markup.push(sign)
    markup.finish()


def test_twenty_thousand_characters_without_a_space_pass() -> None:
    assert len(plain("x" * 20_000)) == 20_000


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("> ```py\n> x = 1\n> ```\n> Done.", "Done."),
        ('<tool_call>{"a": "<b>"}</tool_call>Done.', "Done."),
        ("on it goes</think>Answer.", "on it goes\nAnswer."),
        ("<|start|>assistant<|message|>Hello.", "Hello."),
        ("<|channel|>analysis<|message|>Plan.<|end|><|start|>assistant<|channel|>final<|message|>Hello.", "Hello."),
        ("◁think▷Plan.◁/think▷Hello.", "Hello."),
        ("<|begin_of_thought|>Plan.<|end_of_thought|>Hello.", "Hello."),
        ("Use `<think>` or &lt;b&gt;, `a < b`.", "Use think> or b>, a < b."),
        ("Here:\n✅ Done\n❌ Not done", "Here:\nDone\nNot done"),
        ("It rained [1], [2][3].", "It rained , ."),
        ("Take a[1] or [2] of them.", "Take a or [2] of them."),
    ],
)
def test_what_models_write_around_their_answers_is_no_part_of_them(written: str, said: str) -> None:
    for pieces in ([written], list(written)):
        markup = Markup()
        assert clean("".join(map(markup.push, pieces)) + markup.finish()) == said
