"""Whose turn it is, as a table of scenes: what the microphone and the recogniser report, and what is done about it.

A scene is written as it is heard: `s 1.0` is a second of speech, `- 0.5` half a second of silence, `words …` what the
recogniser makes of it, `over` the end of the answer.
"""

from __future__ import annotations

import pytest

from app.talk.turn_taking import (
    Action,
    Begin,
    Discard,
    Forget,
    Hold,
    Interrupt,
    Phase,
    Recognise,
    Release,
    Resume,
    Think,
    TurnRules,
    TurnTaking,
)

WINDOW_S = 0.032
ASKED = ["s 1.0", "- 0.4", "words What is your name?", "- 0.4"]
"""A question that is answered."""


class Scene:
    """Plays a scene on a clock of its own."""

    def __init__(self, rules: TurnRules | None = None) -> None:
        self.turns = TurnTaking(rules or TurnRules())
        self.now = 100.0
        self.done: list[tuple[float, Action]] = []

    def play(self, *steps: str) -> list[type[Action]]:
        """What is done in these steps, in order."""
        before = len(self.done)
        for step in steps:
            self._play(*step.split(" ", 1))
        return [type(action) for _, action in self.done[before:]]

    def _play(self, what: str, rest: str = "") -> None:
        if what == "words":
            self._note(self.turns.recognised(self.now, self.turns.attempt, rest))
        elif what == "over":
            self._note(self.turns.over(self.now, self.turns.attempt))
        else:
            for _ in range(round(float(rest) / WINDOW_S)):
                self.now += WINDOW_S
                self._note(self.turns.hear(self.now, speaking=what == "s"))

    def _note(self, actions: list[Action]) -> None:
        self.done += [(self.now, action) for action in actions]

    def at(self, kind: type[Action]) -> float:
        """When the last of a kind was done."""
        return [at for at, action in self.done if isinstance(action, kind)][-1]


SCENES = {
    "silence asks for nothing": (["- 5"], [], Phase.WAITING),
    "a click is nobody": (["- 1", "s 0.064", "- 2"], [], Phase.WAITING),
    "a cough is no turn": (["- 1", "s 0.13", "- 2"], [Begin, Forget], Phase.WAITING),
    "clicks do not add up to a turn": (["s 0.064", "- 0.2"] * 6, [], Phase.WAITING),
    "noise without words is no turn": (["s 1.0", "- 0.4", "words "], [Begin, Think, Discard, Forget], Phase.WAITING),
    "a question is answered": (ASKED, [Begin, Think, Release], Phase.ANSWERING),
    "an answer is over": ([*ASKED, "over"], [Begin, Think, Release, Forget], Phase.WAITING),
    "half a sentence waits for the snooze window": (
        ["s 1.0", "- 0.4", "words Tell me about the.", "- 0.9"], [Begin, Think], Phase.SNOOZING,
    ),
    "whatever was said, the snooze window ends": (
        ["s 1.0", "- 0.4", "words Tell me about the.", "- 1.2"], [Begin, Think, Release], Phase.ANSWERING,
    ),
    "no turn is released before its words are known": (["s 1.0", "- 5"], [Begin, Think], Phase.SNOOZING),
    "a person who goes on has the attempt thrown away": (
        ["s 1.0", "- 0.4", "words I was thinking.", "s 0.5"], [Begin, Think, Discard], Phase.HEARING,
    ),
    "and is answered when they end": (
        ["s 1.0", "- 0.4", "words I was thinking.", "s 0.5", "- 0.4", "words I was thinking of you.", "- 0.4"],
        [Begin, Think, Discard, Think, Release], Phase.ANSWERING,
    ),
    "words of an attempt that was thrown away come too late": (
        ["s 1.0", "- 0.4", "s 0.5", "words I was"], [Begin, Think, Discard], Phase.HEARING,
    ),
    "a click over an answer changes nothing": ([*ASKED, "s 0.064", "- 1"], [Begin, Think, Release], Phase.ANSWERING),
    "a backchannel holds the answer, which goes on": (
        [*ASKED, "s 0.4", "- 0.4", "words Yeah."],
        [Begin, Think, Release, Hold, Begin, Recognise, Resume, Forget], Phase.ANSWERING,
    ),
    "a noise over an answer holds it, and it goes on": (
        [*ASKED, "s 0.4", "- 0.4", "words "],
        [Begin, Think, Release, Hold, Begin, Recognise, Resume, Forget], Phase.ANSWERING,
    ),
    "a word that means something takes the turn": (
        [*ASKED, "s 0.4", "- 0.4", "words Stop.", "- 0.4"],
        [Begin, Think, Release, Hold, Begin, Recognise, Interrupt, Think, Release], Phase.ANSWERING,
    ),
    "speech that lasts takes the turn, whatever it says": (
        [*ASKED, "s 1.0"], [Begin, Think, Release, Hold, Begin, Interrupt], Phase.HEARING,
    ),
    "a backchannel that turns into speech takes the turn": (
        [*ASKED, "s 0.4", "- 0.3", "s 0.1", "words Yeah.", "s 0.6"],
        [Begin, Think, Release, Hold, Begin, Recognise, Interrupt], Phase.HEARING,
    ),
    "an answer that ends under somebody's words leaves them the turn": (
        [*ASKED, "s 0.4", "over", "- 0.4"], [Begin, Think, Release, Hold, Begin, Think], Phase.SNOOZING,
    ),
    "an attempt that failed leaves both waiting": (["s 1.0", "- 0.4", "over"], [Begin, Think, Forget], Phase.WAITING),
}  # fmt: skip


@pytest.mark.parametrize("name", SCENES)
def test_scene(name: str) -> None:
    steps, actions, phase = SCENES[name]
    scene = Scene()
    assert scene.play(*steps) == actions
    assert scene.turns.phase is phase


def test_an_answer_is_tried_and_released_by_how_long_it_has_been_silent() -> None:
    scene = Scene(TurnRules(seems_ended_s=0.25, sure_s=0.6))
    scene.play("s 1.0")
    ended = scene.now
    scene.play("- 0.3", "words It is late.", "- 1.0")
    assert scene.at(Think) - ended == pytest.approx(0.25, abs=WINDOW_S)
    assert scene.at(Release) - ended == pytest.approx(0.6, abs=WINDOW_S)


def test_what_is_said_over_an_answer_holds_it_within_a_tenth_of_a_second() -> None:
    scene = Scene()
    scene.play(*ASKED)
    began = scene.now
    scene.play("s 1.0")
    assert scene.at(Hold) - began <= 0.1 + WINDOW_S


def test_an_attempt_knows_when_the_person_ended() -> None:
    scene = Scene()
    scene.play("s 1.0")
    ended = scene.now
    scene.play("- 0.4")
    think = scene.done[-1][1]
    assert isinstance(think, Think)
    assert think.ended_at == pytest.approx(ended)


def test_the_words_that_took_a_turn_are_not_recognised_twice() -> None:
    scene = Scene()
    scene.play(*ASKED, "s 0.4", "- 0.4", "words Stop.")
    assert scene.done[-1][1] == Think(2, scene.turns.last_speech_at, "Stop.")


def test_time_passes_where_a_microphone_sends_nothing() -> None:
    scene = Scene()
    scene.play("s 1.0")
    assert [type(it) for it in scene.turns.tick(scene.now + 0.3)] == [Think]


def test_what_is_reported_of_an_older_attempt_changes_nothing() -> None:
    scene = Scene()
    scene.play(*ASKED)
    assert scene.turns.recognised(scene.now, 0, "No.") == []
    assert scene.turns.over(scene.now, 0) == []
