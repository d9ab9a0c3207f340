"""From blocks to a manuscript: chapters, who speaks, where it pauses; and what is told about what was left out."""

from __future__ import annotations

import pytest

from app.errors import ManuscriptUnfit
from app.narration.manuscript import MAX_FINDINGS, Block, compose
from app.narration.models import Manuscript, ManuscriptChapter, Paragraph, character_name


def heading(text: str, level: int = 1) -> Block:
    return Block("heading", text, level)


def text(text: str) -> Block:
    return Block("text", text)


def of(*blocks: Block) -> Manuscript:
    return compose(blocks, name="book.txt")


def paragraphs(*texts: str) -> tuple[Paragraph, ...]:
    return of(*map(text, texts)).chapters[0].paragraphs


def titles(*blocks: Block) -> list[str]:
    return [chapter.title for chapter in of(*blocks).chapters]


def speakers(*texts: str) -> list[tuple[str, str]]:
    return [(p.character, p.text) for p in paragraphs(*texts)]


# Chapters


def test_a_text_without_headings_is_one_chapter() -> None:
    assert titles(text("One."), text("Two.")) == [""]


def test_chapters_begin_at_the_highest_headings_that_occur_twice() -> None:
    book = of(
        heading("The Book"), heading("One", 2), text("a"), heading("Two", 2), text("b"), heading("Two and a bit", 3)
    )
    assert book.title == "The Book"
    assert [chapter.title for chapter in book.chapters] == ["One", "Two"]
    assert [p.text for p in book.chapters[1].paragraphs] == ["b", "Two and a bit"]


def test_what_stands_before_the_first_heading_is_a_chapter_without_a_title() -> None:
    assert titles(text("For my mother."), heading("One"), text("a"), heading("Two"), text("b")) == ["", "One", "Two"]


def test_a_part_goes_into_the_title_of_its_first_chapter() -> None:
    parts = [
        heading("Part One"), heading("Chapter 1", 2), text("a"), heading("Chapter 2", 2), text("b"),
        heading("Part Two"), heading("Chapter 3", 2), text("c"),
    ]  # fmt: skip
    assert titles(*parts) == ["Part One: Chapter 1", "Chapter 2", "Part Two: Chapter 3"]


def test_a_document_without_a_heading_is_a_chapter_if_the_contents_name_it() -> None:
    blocks = [
        Block("document", "a.xhtml"), heading("One"), text("a"), Block("document", "b.xhtml"), text("b"),
        Block("document", "c.xhtml"), text("c"),
    ]  # fmt: skip
    book = compose(blocks, name="book.epub", contents={"a.xhtml": "First", "b.xhtml": "Second"})
    assert [(c.title, len(c.paragraphs)) for c in book.chapters] == [("One", 1), ("Second", 2)]


def test_an_empty_chapter_is_left_out_and_named_and_the_others_stand() -> None:
    book = of(heading("One"), text("a"), heading("Two"), text("* * *"), heading("Three"), text("c"))
    assert [chapter.title for chapter in book.chapters] == ["One", "Three"]
    (finding,) = book.findings
    assert (finding.code, finding.severity) == ("empty_chapter", "left_out")
    assert 'chapter 2 of the text, "Two",' in finding.message


def test_a_chapter_of_a_title_alone_is_its_title_unless_something_of_it_was_dropped() -> None:
    dropped = Block("dropped", "picture")
    book = of(heading("One"), text("a"), heading("II"), heading("Pictures"), dropped, heading("Four"), text("d"))
    assert [(c.title, len(c.paragraphs)) for c in book.chapters] == [("One", 1), ("II", 0), ("Four", 1)]
    assert [finding.code for finding in book.findings] == ["picture", "empty_chapter"]


def test_titles_alone_are_no_text() -> None:
    with pytest.raises(ManuscriptUnfit, match="holds nothing to speak"):
        of(heading("One"), heading("Two"))


def test_a_text_without_a_letter_or_a_digit_is_refused() -> None:
    with pytest.raises(ManuscriptUnfit, match=r"book\.txt holds nothing to speak"):
        of(text("***"), text("[hero]"), text('<break time="1s"/>'))


def test_a_text_of_too_many_chapters_is_refused_with_their_number() -> None:
    with pytest.raises(ManuscriptUnfit, match="has 2001 chapters; at most 2000"):
        of(*(block for n in range(2001) for block in (heading(f"{n}"), text("a"))))


def test_many_findings_of_one_kind_are_counted_instead_of_listed() -> None:
    book = of(heading("One"), *(text(f"[Illustration: {n}]") for n in range(1000)), text("The end."))
    assert len(book.findings) == MAX_FINDINGS + 1
    assert f"{1000 - MAX_FINDINGS} more" in book.findings[-1].message


# Who speaks


def test_a_marker_at_the_start_of_a_paragraph_holds_for_that_paragraph() -> None:
    assert speakers("[Hero] Who is there?", "Nobody spoke.") == [
        ("hero", "Who is there?"),
        ("narrator", "Nobody spoke."),
    ]


def test_a_marker_alone_on_its_line_holds_until_the_next_one() -> None:
    assert speakers("[Old Tom]\nWho is there?", "I heard it.\n[narrator]\nNobody spoke.", "It was dark.") == [
        ("old tom", "Who is there?"),
        ("old tom", "I heard it."),
        ("narrator", "Nobody spoke."),
        ("narrator", "It was dark."),
    ]


def test_a_marker_ends_with_its_chapter() -> None:
    book = of(heading("One"), text("[hero]"), text("a"), heading("Two"), text("b"))
    assert [chapter.paragraphs[0].character for chapter in book.chapters] == ["hero", "narrator"]


def test_a_colon_may_follow_a_marker() -> None:
    assert speakers("[hero]: Yes.") == [("hero", "Yes.")]


def test_a_voice_may_be_named_beside_or_without_a_character() -> None:
    first, second, third = paragraphs("[voice: Bob the 2nd] a", "[hero] [voice: ann] b", "c")
    assert (first.voice, first.character) == ("Bob the 2nd", "narrator")
    assert (second.voice, second.character) == ("ann", "hero")
    assert third.voice is None


def test_a_name_takes_the_voice_back_to_the_casts() -> None:
    assert [p.voice for p in paragraphs("[voice: ann]\na", "b", "[hero] c", "d")] == ["ann", "ann", None, "ann"]


@pytest.mark.parametrize("written", ["He [the king] spoke.", "[T]he king spoke.", "[1] A note.", "[a,b] c", "[] c"])
def test_other_brackets_are_text(written: str) -> None:
    assert speakers(written) == [("narrator", written)]


@pytest.mark.parametrize(
    ("written", "name"),
    [("Éowyn", "éowyn"), ("Rene\u0301e", "ren\u00e9e"), ("हीरो", "हीरो"), ("Tom’s  Aunt", "tom's aunt")],
)
def test_a_name_may_be_of_any_script_and_is_the_same_however_its_accents_are_written(written: str, name: str) -> None:
    assert speakers(f"[{written}] No man am I.") == [(name, "No man am I.")]
    assert character_name(written) == name


@pytest.mark.parametrize(
    "texts",
    [
        ("[The door opens.]", "[hero]", "Yes."),
        ("[The door opens.]\n[hero]\nYes.",),
        ("[The door opens.] [hero] Yes.",),
        ("[The door opens.]", "[hero] Yes."),
        ("[hero] Yes.", "[The door opens.]"),
        ("[hero] Yes.", "[The door opens.] …"),
    ],
)
def test_words_in_brackets_under_which_nobody_speaks_are_told(texts: tuple[str, ...]) -> None:
    book = of(*map(text, texts))
    assert [(p.character, p.text) for p in book.chapters[0].paragraphs] == [("hero", "Yes.")]
    (finding,) = book.findings
    assert (finding.code, finding.severity, finding.chapter) == ("silent_character", "left_out", 1)
    assert "[The door opens.]" in finding.message


def test_a_voice_between_a_name_and_its_words_is_no_silence() -> None:
    book = of(text("[hero]\n[voice: ann]\nYes."), text("[narrator]"), text("[ann]\n[ann] No."))
    assert [(p.character, p.voice) for p in book.chapters[0].paragraphs] == [("hero", "ann"), ("ann", None)]
    assert not book.findings


@pytest.mark.parametrize("begin", ["[voice:", "[voice", "[hero", "["])
def test_a_marker_that_never_ends_is_text_however_long_it_is(begin: str) -> None:
    """Trying every way to share out the spaces would take hours."""
    written = begin + " " * 200_000 + "x"
    assert speakers(written) == [("narrator", written)]


def test_a_hundred_thousand_markers_in_a_row_are_read() -> None:
    assert speakers("[a] " * 100_000 + "x") == [("a", "x")]


@pytest.mark.parametrize("paragraph", ["[a]\nx\n", 'x<break time="1s"/>'])
def test_a_text_of_too_many_paragraphs_is_refused(paragraph: str) -> None:
    with pytest.raises(ManuscriptUnfit, match=r"book\.txt has more than 100000 paragraphs; split it"):
        of(text(paragraph * 100_001))


# Pauses


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('<break time="800ms"/>', 0.8),
        ("<break time='1.5s'/>", 1.5),
        ("<break time=2s />", 2.0),
        ("<BREAK TIME=“.5s”>", 0.5),
        ('<break time="1s"></break>', 1.0),
        ('<break time="1s"/><break time="500ms"/>', 1.5),
    ],
)
def test_a_break_cuts_a_paragraph(written: str, seconds: float) -> None:
    before, after = paragraphs(f"Wait. {written} Now.")
    assert (before.text, before.pause_s, before.joined) == ("Wait.", seconds, False)
    assert (after.text, after.pause_s, after.joined) == ("Now.", None, True)


@pytest.mark.parametrize(
    "written", ['<break time="soon"/>', '<break time="31s"/>', "<break/>", '<break time="1s', "<break 800ms/>"]
)
def test_a_break_that_is_none_is_told_with_its_place_and_not_read(written: str) -> None:
    book = of(heading("One"), text("a"), heading("Two"), text("b"), text(f"Wait. {written} Now."))
    assert " ".join(book.chapters[1].paragraphs[1].text.split()) == "Wait. Now."
    (finding,) = book.findings
    assert (finding.code, finding.chapter) == ("bad_break", 2)
    assert finding.message.startswith(f"paragraph 2: {written} is no pause")


def test_a_break_that_is_none_in_a_chapter_left_out_is_not_told_of_the_next_one() -> None:
    book = of(heading("A"), text("a"), heading("C"), text('<break time="soon"/>'), heading("D"), text("d"))
    assert [(finding.code, finding.chapter) for finding in book.findings] == [
        ("bad_break", None),
        ("empty_chapter", None),
    ]


def test_a_break_in_a_title_is_told() -> None:
    book = of(heading('One <break time="1s"/> more'), text("a"), heading("Two"), text("b"))
    assert book.chapters[0].title == "One more"
    (finding,) = book.findings
    assert (finding.code, finding.severity) == ("lost_break", "left_out")


def test_a_break_between_paragraphs_belongs_to_the_one_before() -> None:
    first, second = paragraphs("a", '<break time="3s"/>', "b")
    assert (first.pause_s, second.pause_s, second.joined) == (3.0, None, False)


def test_a_break_before_all_text_stands_in_an_empty_paragraph() -> None:
    first, _ = paragraphs('<break time="3s"/>', "b")
    assert (first.text, first.pause_s) == ("", 3.0)


def test_the_character_goes_on_behind_a_break() -> None:
    assert speakers('[hero] Wait. <break time="1s"/> Now.') == [("hero", "Wait."), ("hero", "Now.")]


def test_speech_tags_are_text() -> None:
    assert speakers("Oh <laugh> well.") == [("narrator", "Oh <laugh> well.")]


def test_what_stands_for_a_picture_is_not_read() -> None:
    assert speakers("[Illustration: A ship]", "The ship.") == [("narrator", "The ship.")]


def test_breaks_in_a_row_add_up_to_a_bound_and_no_further() -> None:
    made = compose([Block("text", "Wait." + '<break time="30s"/>' * 5 + "Now.")], name="book.txt")
    assert [p.pause_s for p in made.chapters[0].paragraphs] == [120.0, None]
    assert [finding.code for finding in made.findings] == ["long_pause"]


def test_chosen_chapters_keep_the_order_of_the_text() -> None:
    manuscript = Manuscript(chapters=tuple(ManuscriptChapter(title=title) for title in "abc"))
    assert [chapter.title for chapter in manuscript.chosen((3, 1)).chapters] == ["a", "c"]
    assert manuscript.chosen(None) is manuscript
    with pytest.raises(ManuscriptUnfit, match="there is no chapter 4; the text has 3"):
        manuscript.chosen((4,))
