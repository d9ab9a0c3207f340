r"""Formulas in LaTeX as they are read aloud in English: `x^2 + 1` is "x squared plus one".

A formula stands between dollars, `\( \)` or `\[ \]`. A dollar may also be one of money: `formula_at` tells, as early
as it can. Its words are a reader's: brackets and spacing are not heard, and a command that is not known is read by its
name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app.speech.text.english.words import cardinal, listed, number, ordinal

MAX_FORMULA_CHARS = 400
MAX_INLINE_CHARS = 160
MAX_DEPTH = 8


def _table(listed: str) -> dict[str, str]:
    return dict(entry.strip().split("=", 1) for entry in listed.split(";"))


_NAMES = _table(
    "times=times;cdot=times;div=divided by;pm=plus or minus;mp=minus or plus;leq=is less than or equal to;"
    "le=is less than or equal to;geq=is greater than or equal to;ge=is greater than or equal to;"
    "neq=is not equal to;ne=is not equal to;approx=is approximately;sim=is similar to;equiv=is equivalent to;"
    "propto=is proportional to;ll=is much less than;gg=is much greater than;lt=is less than;gt=is greater than;"
    "to=to;rightarrow=to;longrightarrow=to;mapsto=maps to;implies=implies;Rightarrow=implies;iff=if and only if;"
    "Leftrightarrow=if and only if;infty=infinity;sum=the sum;prod=the product;int=the integral;oint=the integral;"
    "lim=the limit;partial=partial;nabla=nabla;in=in;notin=not in;forall=for all;exists=there exists;cup=union;"
    "cap=intersection;subset=is a subset of;subseteq=is a subset of;emptyset=the empty set;neg=not;lor=or;land=and;"
    "vee=or;wedge=and;sin=sine;cos=cosine;tan=tangent;log=log;ln=natural log;exp=exp;max=max;min=min;det=det;"
    "ldots=and so on;dots=and so on;cdots=and so on;circ=degrees;degree=degrees;percent=percent;mid=given;angle=angle;"
    "hbar=h bar;vec=vector;ell=l;Re=the real part of;Im=the imaginary part of;therefore=therefore;because=because;"
    "prime=prime;"
    "mod=mod;bmod=mod;pmod=mod;varepsilon=epsilon;vartheta=theta;varphi=phi"
)
_SILENT = frozenset(
    listed(
        "left right big Big bigg Bigg quad qquad displaystyle textstyle limits nolimits mathbf mathit mathcal mathbb "
        "mathsf boldsymbol nonumber ensuremath boxed fbox underline mathrm mathscr mathfrak hfill bigl bigr middle"
    )
)
_WORDS = frozenset(("text", "textbf", "textit", "textrm", "mathrm", "operatorname", "mbox"))
"""Whose group is words, rather than letters."""
_ACCENTS = _table("hat=hat;widehat=hat;bar=bar;overline=bar;tilde=tilde;widetilde=tilde;dot=dot;ddot=double dot")
"""Which are said behind what they stand on."""
_UNHEARD = frozenset(("begin", "end", "label", "tag", "hspace", "vspace"))
_FUNCTIONS = frozenset("fghPE")
_SIGNS = {
    "=": "equals", "+": "plus", "-": "minus", "−": "minus", "*": "times", "×": "times", "÷": "divided by", "/": "over",
    "<": "is less than", ">": "is greater than", "≤": "is less than or equal to", "≥": "is greater than or equal to",
    "≠": "is not equal to", "≈": "is approximately", "!": "factorial", "%": "percent", "'": "prime", "→": "to",
    "±": "plus or minus", "∞": "infinity", "√": "the square root of", "∈": "in", "π": "pi", ",": ",", ";": ",",
    ":": ",", ".": "",
}  # fmt: skip
_FORMULA_SIGN = re.compile(r"[$\\]")
_TOKEN = re.compile(r"\\(?P<name>[A-Za-z]+)\*?|\\(?P<sign>.)|(?P<figures>\d+(?:,\d{3})*(?:\.\d+)?)|(?P<char>\S)", re.S)
_MATHEMATICAL = re.compile(r"[\\^_={}+*/<>|×÷≤≥≠≈−]|[A-Za-z]\(")
_SHORT = re.compile(r"-?\d*[A-Za-z]?(?:['!]|\([^()]*\))?")
_SUM_AFTER_NUMBER = re.compile(r"\d[\d,.]*(?:\s?[\\^_={}+*<>×]|(?![kKmMbBtT]\b)[A-Za-z]\b(?=.))", re.S)
"""As `2x` and `3 +` begin a formula, and `5M` an amount."""
_WORDS_ALONE = re.compile(r"[A-Za-z]{3,}(?:[ ,.]+[A-Za-z]+)*")
"""As in `\\[sic\\]`, whose brackets are escaped."""
_NUMBER_PART = re.compile(r"\d[\d,.]*(?:\s|[A-Za-z])?\Z")
_NAME = re.compile(r"[A-Za-z](?!_\w\b)\w+(?![\w({^_\\=+*-])(?=.)", re.S)
"""As in `$HOME` and `$AAPL`."""


class Formula(NamedTuple):
    """What stands in a text from its first sign on: `written` between its marks, and where the text goes on."""

    written: str
    end: int


def formula_at(text: str, at: int, *, final: bool) -> Formula | bool | None:  # noqa: PLR0911 - one a kind
    """The formula that begins at `text[at]`, a dollar or a backslash; False: there is none; None: more must come."""
    opens, closes = _marks(text, at)
    if not opens:
        return None if not final and text[at:] in ("$", "\\") else False
    begin = at + len(opens)
    if opens == "$" and not (begins := _may_begin(text, begin, final=final)):
        return begins
    most = begin + (MAX_INLINE_CHARS if opens == "$" else MAX_FORMULA_CHARS)
    end = text.find(closes, begin, most)
    if opens == "$":
        line = text.find("\n", begin, end if end >= 0 else most)
        if line >= 0:
            return False
    if end < 0:
        return None if len(text) < most and not final else False
    if opens != "$" and _WORDS_ALONE.fullmatch(text[begin:end]):
        return False
    if opens == "$":
        if end + 1 == len(text) and not final:
            return None
        if text[end - 1].isspace() or text[end + 1 : end + 2].isdigit() or not _is_formula(text[begin:end]):
            return False
    return Formula(text[begin:end], end + len(closes))


def _marks(text: str, at: int) -> tuple[str, str]:
    for opens, closes in (("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(opens, at):
            return opens, closes
    if text[at] == "$" and at + 1 < len(text):
        return "$", "$"
    return "", ""


def _may_begin(text: str, at: int, *, final: bool) -> bool | None:
    """Whether a formula may stand behind a dollar, rather than an amount; None while more must come."""
    if text[at].isspace():
        return False
    if not text[at].isdigit():
        return _NAME.match(text, at) is None
    if _SUM_AFTER_NUMBER.match(text, at):
        return True
    return None if not final and _NUMBER_PART.match(text, at) else False


def _is_formula(written: str) -> bool:
    return bool(_MATHEMATICAL.search(written) or _SHORT.fullmatch(written))


def formulas_in(text: str) -> Iterator[tuple[int, Formula]]:
    """The formulas of a whole text, each with where it begins."""
    at = 0
    while found := _FORMULA_SIGN.search(text, at):
        at = found.start()
        formula = formula_at(text, at, final=True)
        if isinstance(formula, Formula):
            yield at, formula
            at = formula.end
        else:
            at += 2 if text[at] == "\\" else 1


def in_words(written: str) -> str:
    """A formula's words."""
    reader = _Reader(_TOKEN.finditer(written))
    return re.sub(r" +(?=,)|^ *, *| *, *$", "", " ".join(reader.words(depth=0))).strip()


class _Reader:
    """Reads tokens one by one; what a command takes is a group in braces, or the next token."""

    def __init__(self, tokens: Iterable[re.Match[str]]) -> None:
        self._tokens = list(tokens)
        self._at = 0

    def words(self, *, depth: int, until: str = "") -> list[str]:
        said: list[str] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if until and token["char"] == until:
                break
            said += self._read(token, depth)
        return [word for word in said if word]

    def _read(self, token: re.Match[str], depth: int) -> list[str]:  # noqa: PLR0911 - one a kind
        if token["figures"]:
            return [number(token["figures"])]
        if token["name"]:
            return self._command(token["name"], depth)
        if token["sign"]:
            return [word] if (word := {"%": "percent", "&": "and", "\\": ","}.get(token["sign"])) else []
        char = token["char"]
        if char == "{":
            return self.words(depth=depth + 1, until="}") if depth < MAX_DEPTH else []
        if char == "^":
            return self._power(depth)
        if char == "_":
            return ["sub", *self._group(depth)]
        if char in _FUNCTIONS and self._next() == "(":
            return [char, "of"]
        return [_SIGNS.get(char, char if char.isalnum() else "")]

    def _command(self, name: str, depth: int) -> list[str]:  # noqa: PLR0911 - one a kind
        if name in ("frac", "dfrac", "tfrac"):
            return _fraction(self._group(depth), self._group(depth))
        if name == "sqrt":
            return [f"the {self._root(depth)} root of", *self._group(depth)]
        if name in ("sum", "prod", "int", "oint", "lim"):
            return [_NAMES[name], *self._bounds(depth), "of"]
        if name in ("binom", "dbinom", "tbinom"):
            return [*self._group(depth), "choose", *self._group(depth)]
        if name == "log" and self._next() == "_":
            self._at += 1
            return ["log base", *self._group(depth), "of"]
        if name in _ACCENTS:
            return [*self._group(depth), _ACCENTS[name]]
        if name in _WORDS:
            return self._words()
        if name in _UNHEARD:
            self._words()
            return []
        if name in _SILENT:
            return []
        return [_NAMES.get(name, name)]

    def _words(self) -> list[str]:
        """The group that follows, as it is written."""
        if self._next() != "{":
            return []
        begin = self._tokens[self._at]
        while self._at < len(self._tokens) and self._next() != "}":
            self._at += 1
        end = self._tokens[self._at].start() if self._at < len(self._tokens) else len(begin.string)
        self._at += 1
        return begin.string[begin.end() : end].split()

    def _root(self, depth: int) -> str:
        if self._next() != "[":
            return "square"
        self._at += 1
        degree = " ".join(self.words(depth=depth + 1, until="]"))
        return {"three": "cube", "two": "square"}.get(degree, f"{degree}th")

    def _bounds(self, depth: int) -> list[str]:
        said: list[str] = []
        while self._next() in ("_", "^"):
            lower = self._next() == "_"
            self._at += 1
            group = self._group(depth)
            said += ["as" if "to" in group else "from", *group] if lower else ["to", *group]
        return said

    def _power(self, depth: int) -> list[str]:
        power = self._group(depth)
        match power:
            case ["two"]:
                return ["squared"]
            case ["three"]:
                return ["cubed"]
            case ["degrees"] | ["prime"]:
                return power
            case ["minus", "one"]:
                return ["inverse"]
            case _:
                return ["to the power of", *power]

    def _group(self, depth: int) -> list[str]:
        """What a command takes."""
        if self._at >= len(self._tokens):
            return []
        token = self._tokens[self._at]
        self._at += 1
        if token["char"] == "{" and depth < MAX_DEPTH:
            return self.words(depth=depth + 1, until="}")
        return [word for word in self._read(token, depth) if word]

    def _next(self) -> str:
        return self._tokens[self._at]["char"] or "" if self._at < len(self._tokens) else ""


def _fraction(upper: list[str], lower: list[str]) -> list[str]:
    small = {cardinal(n): n for n in range(1, 100)}
    above, below = small.get(" ".join(upper), 0), small.get(" ".join(lower), 0)
    if above and 1 < below <= 20 and above < below:
        name = {2: "half", 4: "quarter"}.get(below) or ordinal(below)
        return [cardinal(above), name if above == 1 else f"{name}s"]
    return [*upper, "over", *lower]
