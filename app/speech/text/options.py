"""What the sender of a text may choose about how it is read: one name each, on every edge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter


class MarkupKind(StrEnum):
    AUTO = "auto"
    PLAIN = "plain"
    MARKDOWN = "markdown"
    SSML = "ssml"


class CodeReading(StrEnum):
    SKIP = "skip"
    ANNOUNCE = "announce"
    READ = "read"


class UrlReading(StrEnum):
    HOST = "host"
    FULL = "full"


class EmojiReading(StrEnum):
    DROP = "drop"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How a text is read: what its sender chose (see `TextFields`), and what an operator did."""

    markup: MarkupKind = MarkupKind.AUTO
    normalise: bool = True
    code: CodeReading = CodeReading.SKIP
    language: str = "en"
    urls: UrlReading = UrlReading.HOST
    emoji: EmojiReading = EmojiReading.DROP
    thought_open: bool = False
    respellings: tuple[tuple[str, str], ...] = ()
    """Words, and how to say them: see `app.speech.text.respelling`."""

    @property
    def language_code(self) -> str:
        """`en` of `en-GB`."""
        return self.language.replace("_", "-").partition("-")[0].lower()

    @property
    def region(self) -> str:
        """`gb` of `en-GB`; empty where none is said."""
        return self.language.replace("_", "-").partition("-")[2].lower()


def options_of(fields: dict[str, Any]) -> TextOptions:
    """The options that `dataclasses.asdict` made `fields` of, and JSON carried."""
    return TypeAdapter(TextOptions).validate_python(fields)


class TextFields(BaseModel):
    """The options as fields of a request."""

    markup: MarkupKind = Field(
        default=MarkupKind.AUTO,
        description="auto: Markdown, HTML and SSML are understood, and reasoning (`<think>`) is not spoken; plain: "
        "everything is text, but for the model's own tags; markdown or ssml: that alone.",
    )
    normalise: bool = Field(default=True, description="Read numbers, dates, currency and abbreviations as words.")
    code: CodeReading = Field(default=CodeReading.SKIP, description="What becomes of blocks of program code.")
    thought_open: bool = Field(
        default=False,
        description="Each turn begins within a thought whose opening tag is not sent, as with some models' templates: "
        "nothing is spoken before its `</think>`.",
    )
    language: str | None = Field(
        default=None,
        min_length=2,
        max_length=16,
        description="Such as en, or en-GB, where 3/5 is in May. None: the voice's own.",
    )

    def text_options(self, *, language: str, operator: TextOptions) -> TextOptions:
        """Where nothing was chosen, the voice's `language`; `urls` and `emoji` are the operator's."""
        return replace(
            operator,
            markup=self.markup,
            normalise=self.normalise,
            code=self.code,
            thought_open=self.thought_open,
            language=self.language or language,
        )
