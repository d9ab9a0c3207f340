"""Numbers by themselves: telephones, fractions, ordinals, ranges, ratios, sums, and the signs between them."""

from __future__ import annotations

import re

from app.speech.text.english.dates import MONTHS
from app.speech.text.english.measures import NUMBER
from app.speech.text.english.names import SAID
from app.speech.text.english.words import FIRST_WORDS, cardinal, digits, number, ordinal, spelt

_TELEPHONE = re.compile(
    r"(?<![\w.,/-])(?:(?P<plus>\+)(?P<country>\d{1,3})[ .-]?)?(?:(?P<one>1)[ .-])?\(?(?P<area>\d{3})\)?"
    r"[ .-]?(?P<mid>\d{3})[ .-](?P<last>\d{4})"
    r"(?:\s?(?:ext\.?|x)\s?(?P<ext>\d{1,6}))?(?![\w-]|[.,]\d)"
)
_LOCAL = re.compile(r"(?<![\w.,/-])(?P<mid>555)-(?P<last>\d{4})(?![\w-])")
_TOLL = re.compile(r"(?<![\w.,/-])1-(?P<area>8\d\d|900)-(?P<word>(?=[A-Z0-9-]*[A-Z])[A-Z0-9]{2,}(?:-[A-Z0-9]+)*)(?!\w)")
_FOREIGN = re.compile(r"(?<![\w])\+(?P<groups>\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,7})(?![\w])")
_TRUNK = re.compile(r"(?<![\w.,/-])\(?0\d{2,4}\)?[ -]\d{3,4}[ -]?\d{3,4}(?![\w-]|[.,]\d)")
_SOCIAL = re.compile(r"(?<![\w.,/-])\d{3}-\d{2}-\d{4}(?![\w-])")
_GROUPS = re.compile(r"(?<![\w.,/-])\d{1,7}(?:-\d{1,7}){3,}(?:-?X)?(?![\w-]|[.,]\d)")
"""As of an ISBN or an account."""
_ACCOUNT = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z\d]{4}){3,7}(?: ?[A-Z\d]{1,3})?(?!\w)")
"""International, as banks write them."""
_CARD = re.compile(r"(?<![\w.,/-])\d{4}(?:[ -]\d{4}){2,4}(?![\w-])")
_EMERGENCY = re.compile(
    r"(?<![\w.,$€£])(?P<code>911|999|112|404|500|401|403)(?= (?:error|status|page|response)\b)|(?i:"
    r"(?<=call )|(?<=dial )|(?<=ring )|(?<=phone )|(?<= or )(?=911|999|112|988|[1-8]11|101))"
    r"(?P<call>\d{3})(?![\w,.]*\d)"
)

_SPELT_OUT = re.compile(
    r"\b(?P<word>(?i:zip(?: codes?)?|postal code|pin|(?<!area )(?<!error )(?<!status )code|otp|passcode|password"
    r"|account|acct\.?|tracking|confirmation|invoice|ticket|serial|routing)(?: (?i:numbers?|no\.|is|was|code|id))*:?) "
    r"(?P<sign>#|№ ?)?"
    r"(?P<figures>\d{4,12}(?:(?:,| and| or|, and|, or) \d{4,12})*)(?![\w/%:-]|[.,]\d)"
)
"""Figures that are a name, by what stands before them."""

_VULGAR = {
    "½": "one half", "⅓": "one third", "⅔": "two thirds", "¼": "one quarter", "¾": "three quarters",
    "⅕": "one fifth", "⅖": "two fifths", "⅗": "three fifths", "⅘": "four fifths", "⅙": "one sixth", "⅚": "five sixths",
    "⅛": "one eighth", "⅜": "three eighths", "⅝": "five eighths", "⅞": "seven eighths",
}  # fmt: skip
_VULGAR_FRACTION = re.compile(rf"(?:(?P<whole>\d+)\s?)?(?P<sign>[{''.join(_VULGAR)}])")
_FRACTION = re.compile(
    r"(?<![\w./,:-])(?:(?P<whole>\d{1,3})[ -])?(?P<upper>\d{1,2})[/⁄](?P<lower>\d{1,3})(?P<th>th|ths"
    r"|rds?|nds?)?(?![\w/]|[.,]\d)"
)
_ALWAYS = re.compile(r"(?<![\w./])24/7(?P<year>/365)?(?![\w/])")
_METRE = re.compile(r"(?<![\w./])(?P<upper>\d{1,2})/(?P<lower>2|4|8|16)(?= (?:time|meter|metre|signature|beat)\b)")
"""Of music."""
_EVEN = re.compile(r"(?<![\w./,:-])(?P<half>[25]0)[/-](?P=half)(?![\w/-]|[.,]\d)")
_ELEVEN = re.compile(r"(?<![\w./])9/11(?![\w/])")
_OUT_OF = re.compile(
    rf"(?<![\w./])(?:(?P<first>{NUMBER})/(?P<last>10|100|5|20)(?![\w/]|[.,]\d)(?=\s?(?:stars?\b|points?\b"
    rf"|rating|score|[.!?,]|\Z))|(?P<part>\d{{1,2}}\.\d|10(?=/10))/(?P<whole>10|100|5|20|4)(?![\w/]|[.,]\d))"
)
_ORDINAL = re.compile(r"(?<![\w.,])(?P<figures>\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.I)
_ROMAN_PLURAL = re.compile(r"(?<![\w.,$€£])(?P<figures>\d{2,4})['’]?s\b")
_SCIENTIFIC = re.compile(rf"(?<![\w.,])(?P<figures>{NUMBER})[eE](?P<sign>[-−+]?)(?P<power>\d{{1,3}})(?!\w|\.\d)")
_ANY_MINOR = re.compile(r"(?<![\w.])(?P<figures>\d+)\.x\b")
"""As in Node 20.x."""
_NUMBERS = re.compile(r"(?<![\w#])(?P<first>#\d+)\s?[-–—]\s?#?(?=\d)")
_FOLD = re.compile(rf"(?<![\w.,/–-])(?P<first>{NUMBER})\s?[-–—]\s?(?P<last>{NUMBER})[x×](?!\w)")
_RANGE = re.compile(
    rf"(?<![\w.,/:=+–-])(?P<minus>[-−])?(?P<first>{NUMBER})\s?(?P<sign>[-–—‑]|\.\.\.?)\s?(?P<last>{NUMBER})"
    rf"(?![\w/:=+°–-]|[.,]\d|\s[=+*×÷/<>])"
)
_SCORE = re.compile(
    r"(?i:\b(?:won|win|wins|lost|lose|loses|lead|leads|led|beat|beats|score|scores|scored|tied|draw"
    r"|drew|trail|trailed|victory|defeat|record|vote|final)\b[^.!?\d]{0,40}?)(?P<first>\d{1,3})[-–]"
    r"(?P<last>\d{1,3})(?![\w-])"
)
_RATIO = re.compile(r"(?<![\w:.,])(?P<first>\d{1,4}):(?P<last>\d{1,4})(?::(?P<third>\d{1,4}))?(?![\w:])")
_POWER = re.compile(
    rf"(?P<base>(?<![\w.]){NUMBER}|(?<![A-Za-z])[a-zA-Z])(?:\^|\*\*)(?P<minus>[-−])?(?P<power>\d+)(?!\w)"
)
_SUPERSCRIPT = re.compile(r"(?P<base>\w)(?P<power>[²³])(?!\w)")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉⁰¹⁴⁵⁶⁷⁸⁹", "012345678901456789")
_RAISED = re.compile(r"(?:(?<=\d)|(?<=\b[A-Za-z]))(?P<minus>⁻?)(?P<power>[⁰¹²³⁴-⁹]+)(?!\w)")
_RAISED_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_ROOT = re.compile(r"[√∛∜]\s?")
_ROOTS = {"√": "square", "∛": "cube", "∜": "fourth"}
_CHARGE = re.compile(r"(?<=[A-Za-z\d₀-₉)])(?P<figures>[¹²³⁴-⁹]?)(?P<sign>[⁺⁻])(?![⁰¹²³⁴-⁹\w])")
"""Of an ion."""
_CODES = re.compile(r"\b(?P<letter>[A-Z])(?P<first>\d{1,2})\s?[-–—]\s?(?=(?P=letter)\d{1,2}\b)")
"""As Q1–Q2."""
_INTEGRAL = re.compile(r"∫(?:(?P<low>[₀-₉]+)(?P<high>[⁰¹²³⁴-⁹]+))?\s?")
_WIFI = re.compile(r"\b802\.(?P<part>\d{1,2})(?P<letters>[a-z]{1,2})?(?!\w|\.\d)")
_OPERATORS = {
    "+": "plus", "-": "minus", "−": "minus", "–": "minus", "*": "times", "×": "times", "x": "times",
    "·": "times", "/": "divided by", "÷": "divided by", "=": "equals", "<": "is less than",
    ">": "is greater than", "≤": "is at most", "≥": "is at least", "≠": "does not equal", "≈": "is about",
    "<=": "is at most", ">=": "is at least", "!=": "does not equal", "==": "equals", "±": "plus or minus",
    "→": "to", "=>": "gives", "->": "to",
}  # fmt: skip
_SPACED = re.compile(r"(?P<left>[\w)%.²³?]) (?P<sign>[×÷=<>≤≥≠≈±]|<=|>=|!=|==|\+) (?=[-−(√]?[\w$€£.?])")
_MINUS = re.compile(
    r"(?P<left>\d|(?<![A-Za-z'’])[a-zA-Z]|\)) (?P<sign>[-−–/*·]|(?<=\d )x(?= \d)) (?=[(√]?(?:\d|[a-zA-Z]"
    r"(?![A-Za-z'’])))"
)
_TIGHT = re.compile(
    r"(?<=[\d)])(?P<sign>[*×·÷=<>≤≥≠≈±+−])(?=[-−(]?[\w(])|(?<=(?<![A-Za-z])[a-z])(?P<than>[<>])(?=\d)|(?<=(?<![A-Za-z])[a-zA-Z])(?P<letter>[*×÷=≤≥≠≈+])"
    r"(?=[-−(]?(?:\d|[a-zA-Z](?![A-Za-z])))|(?<=\d)(?P<by>x)(?=\d)"
)
_PER = re.compile(r"(?<=\d)/(?=(?:day|week|month|year|hour|min|night|person|user|head)\b)")
_DIVIDED = re.compile(r"(?<=\))/(?=[\d(])|(?<=\d)/(?=\()")
_TIMES = re.compile(
    rf"(?<![\w.,])(?<!equals )(?<!plus )(?<!minus )(?<!times )(?P<figures>{NUMBER})[x×](?![\w²³^]|\s(?:plus|minus"
    r"|equals|times|over|divided by|squared|cubed|is (?:less|greater|at|about))\b)"
)
"""`2x faster`; in `2x + 1` it is a letter."""
_FACTOR = re.compile(r"(?<=\d)(?=[xyz](?:[²³^]|\b))")
_BEFORE = {
    "~": "about",
    "≈": "about",
    "±": "plus or minus",
    "<": "less than",
    ">": "more than",
    "≤": "at most",
    "≥": "at least",
    "+": "plus",
}
_SIGN_BEFORE = re.compile(r"(?<![\w)=])(?P<sign>[~≈±<>≤≥])(?=[.$€£]?\d)")
_SIGNED = re.compile(r"(?<![\w)])(?P<sign>[~≈±<>≤≥+])\s?(?=[.$€£]?\d)")
_NEGATIVE = re.compile(r"(?<![\w.,)])[-−–](?=\.?\d)")
_PLUS_AFTER = re.compile(r"(?<=\d)\+(?!\w)")
_CLAUSE = re.compile(r"(?<=[\d)])\((?P<mark>[a-z\d]{1,3})\)")
"""As in Section 230(c)(1)."""
_PENSION = re.compile(r"(?<!\w)40(?P<last>[139])\((?P<mark>[a-z])\)")
_NUMBER_SIGN = re.compile(r"(?<!\w)#\s?(?=\d)|№\s?(?=\d)")
_PAGES = re.compile(r"\b(?P<sign>pp?)\. ?(?=\d)")
_SECTION = re.compile(r"(?P<sign>[§¶])[§¶]?\s?(?=\d)")
_IS_TWICE = re.compile(r"\b(?P<is>is|are|was|were) is (?=about|at most|at least|less than|greater than)")
"""As "it is ≈ 5" would be."""
_TYPE = re.compile(r"(?<![\w.,/:=+–-])(?<!pages )(?<!page )(?P<first>\d(?!00)\d\d)-(?P<last>\d)(?![\w/:=+°–-]|[.,]\d)")
"""A name, as 747-8: a span would not go down."""
_VERSION = re.compile(
    r"\b(?P<name>(?:Python|Ruby|Java|Node(?: dot J S|\.js)?|Go|Rust|PHP|Swift|Kotlin|Perl|Django|Rails|Postgres(?:QL)?"
    r"|MySQL|Redis|Kubernetes|Docker|Helm|Linux|PyTorch|TensorFlow|CUDA|[Vv]ersion|[Kk]ernel) )"
    r"(?P<major>\d{1,2})\.(?P<minor>[1-9]\d)(?![\w%]|[.,]\d)"
)
_CODE = re.compile(
    r"(?<![\w.,'’-])(?=[A-Za-z\d-]*\d)(?=[A-Za-z\d-]*[A-Za-z])[A-Za-z\d]+(?:-[A-Za-z\d]+|(?<=\d)\.\d+)*(?!\w)"
)
_CODE_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[A-Z]|\d+(?:\.\d+)*")
_DOTTED_CODE = re.compile(r"(?<![\w.])(?P<letter>[A-Z])\.(?P<figures>\d{2,4})(?!\w|\.\d)")
"""As H.264."""
_READ_RANGE = re.compile(
    rf"(?P<first>\b(?:{'|'.join(FIRST_WORDS)}|hundred|thousand|million|billion|[a-z]+th|first|second|third|[a-z]+ties))"
    rf"\s?–\s?(?=(?:{'|'.join((*FIRST_WORDS, *MONTHS))}|number|[a-z]+(?:th|ties))\b)"
)
"""What is left of a range whose ends were read, each by its own rule."""
_SPACED_GROUPS = re.compile(
    r"(?<![\w.,'’])(?P<whole>\d{1,3}(?:(?:[ \u00a0\u202f]\d{3})+|(?:['’]\d{3})+))(?:[.,](?P<part>\d{1,2}))?"
    r"(?!\w|[.,'’]\d)"
)
"""As 1 000 000 and 1'000'000."""
_PLAIN = re.compile(rf"(?P<figures>\d+(?:\.\d+){{2,}}|{NUMBER})")


def read_telephones(text: str) -> str:
    """Numbers that are read digit by digit, in groups."""
    text = _ACCOUNT.sub(lambda m: ", ".join(map(spelt, m[0].split())), text)
    text = _TELEPHONE.sub(_telephone, text)
    text = _LOCAL.sub(lambda m: f"{digits(m['mid'])}, {digits(m['last'])}", text)
    text = _TOLL.sub(_toll, text)
    text = _FOREIGN.sub(_foreign, text)
    text = _TRUNK.sub(lambda m: ", ".join(map(digits, re.findall(r"\d+", m[0]))), text)
    text = _CARD.sub(lambda m: ", ".join(map(digits, re.split("[ -]", m[0]))), text)
    text = _GROUPS.sub(lambda m: ", ".join(spelt(part).lower() for part in m[0].split("-")), text)
    text = _EMERGENCY.sub(_by_digits, text)
    text = _SPELT_OUT.sub(_spelt_out, text)
    return _SOCIAL.sub(lambda m: ", ".join(map(digits, m[0].split("-"))), text)


def read_signs_before(text: str) -> str:
    """The text with `~5 km` as about five, while its number is still in figures."""
    return _SIGN_BEFORE.sub(lambda m: f"{_BEFORE[m['sign']]} ", text)


def read_numbers(text: str) -> str:
    """The text with every number that is left as words."""
    text = _CHARGE.sub(_charge, text)
    text = _CODES.sub(r"\g<letter>\g<first> to ", text)
    text = _INTEGRAL.sub(_integral, text)
    text = _WIFI.sub(
        lambda m: f"eight zero two point {number(m['part'])} {' '.join(m['letters'] or '')}".rstrip(), text
    )
    text = _RAISED.sub(lambda m: f"^{'-' if m['minus'] else ''}{m['power'].translate(_RAISED_DIGITS)}", text)
    text = text.translate(_SUBSCRIPTS)
    text = _NUMBERS.sub(lambda m: f"{m['first']} to ", text)
    text = _FOLD.sub(lambda m: f"{number(m['first'])} to {number(m['last'])} times", text)
    text = _SCIENTIFIC.sub(_scientific, text)
    text = _ANY_MINOR.sub(lambda m: f"{number(m['figures'])} point x", text)
    text = _PENSION.sub(lambda m: f"four oh {number(m['last'])} {m['mark'].upper()}", text)
    text = _CLAUSE.sub(r" \g<mark>", text)
    text = _SECTION.sub(lambda m: "section " if m["sign"] == "§" else "paragraph ", _NUMBER_SIGN.sub("number ", text))
    text = _VERSION.sub(lambda m: f"{m['name']}{number(m['major'])} point {number(m['minor'])}", text)
    text = _PAGES.sub(lambda m: "pages " if m["sign"] == "pp" else "page ", text)
    text = _read_fractions(text)
    text = _ORDINAL.sub(lambda m: ordinal(int(m["figures"].replace(",", ""))), text)
    text = _SPACED_GROUPS.sub(_spaced, text)
    text = _SCORE.sub(
        lambda m: f"{m[0][: m.start('first') - m.start()]}{number(m['first'])} to {number(m['last'])}", text
    )
    text = _TYPE.sub(lambda m: f"{_grouped(m['first'])} {number(m['last'])}", text)
    text = _RANGE.sub(_range, text)
    text = _RATIO.sub(lambda m: " to ".join(number(part) for part in m.groups() if part), text)
    text = _read_sums(text)
    text = _ROMAN_PLURAL.sub(_plural, text)
    text = _DOTTED_CODE.sub(lambda m: f"{m['letter']} {_grouped(m['figures'])}", text)
    text = _CODE.sub(_code, text)
    return _READ_RANGE.sub(r"\g<first> to ", _PLAIN.sub(_plain, text))


def _read_fractions(text: str) -> str:
    text = _ALWAYS.sub(lambda m: "twenty four seven" + (" three sixty five" if m["year"] else ""), text)
    text = _METRE.sub(lambda m: f"{number(m['upper'])} {number(m['lower'])}", text)
    text = _EVEN.sub(lambda m: f"{number(m['half'])} {number(m['half'])}", text)
    text = _ELEVEN.sub("nine eleven", text)
    text = _OUT_OF.sub(lambda m: f"{number(m['first'] or m['part'])} out of {number(m['last'] or m['whole'])}", text)
    text = _VULGAR_FRACTION.sub(_vulgar, text)
    return _FRACTION.sub(_fraction, text)


def _read_sums(text: str) -> str:
    text = _POWER.sub(_power, text)
    text = _SUPERSCRIPT.sub(lambda m: f"{m['base']} {'squared' if m['power'] == '²' else 'cubed'}", text)
    text = _ROOT.sub(lambda m: f"the {_ROOTS[m[0][0]]} root of ", text)
    text = _SPACED.sub(lambda m: f"{m['left']} {_OPERATORS[m['sign']]} ", text)
    text = _IS_TWICE.sub(r"\g<is> ", text)
    text = _MINUS.sub(lambda m: f"{m['left']} {_OPERATORS[m['sign']]} ", text)
    text = _TIGHT.sub(lambda m: f" {_OPERATORS[m['sign'] or m['than'] or m['letter'] or m['by']]} ", text)
    text = _PER.sub(" per ", text)
    text = _DIVIDED.sub(" divided by ", text)
    text = _TIMES.sub(lambda m: f"{number(m['figures'])} times", text)
    text = _FACTOR.sub(" ", text)
    text = _SIGNED.sub(lambda m: f"{_BEFORE[m['sign']]} ", text)
    text = _PLUS_AFTER.sub(" plus", text)
    return _NEGATIVE.sub("minus ", text)


def _integral(match: re.Match[str]) -> str:
    if not match["low"]:
        return "the integral of "
    low, high = match["low"].translate(_SUBSCRIPTS), match["high"].translate(_RAISED_DIGITS)
    return f"the integral from {number(low)} to {number(high)} of "


def _charge(match: re.Match[str]) -> str:
    figures = match["figures"].translate(_RAISED_DIGITS)
    return f" {number(figures) + ' ' if figures else ''}{'plus' if match['sign'] == '⁺' else 'minus'}"


def _telephone(match: re.Match[str]) -> str:
    groups = [match["one"], match["area"], match["mid"], match["last"]]
    read = ", ".join(digits(group) for group in groups if group)
    if match["plus"]:
        read = f"plus {digits(match['country'])}, {read}"
    return f"{read}, extension {digits(match['ext'])}" if match["ext"] else read


def _spelt_out(match: re.Match[str]) -> str:
    """A year is none, but of a PIN."""
    word, figures = match["word"], match["figures"]
    if re.fullmatch("(?:19|20)..", figures) and not re.match("(?i)pin|otp|pass", word):
        return match[0]
    sign = "number " if match["sign"] else ""
    return f"{word} {sign}{re.sub('[0-9]+', lambda m: digits(m[0]), figures)}"


def _toll(match: re.Match[str]) -> str:
    word = match["word"]
    area = {"800": "eight hundred", "900": "nine hundred"}.get(match["area"]) or digits(match["area"])
    groups = (digits(part) if part.isdigit() else part.capitalize() for part in word.split("-"))
    return f"one, {area}, {', '.join(groups)}"


def _foreign(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match["groups"])
    if len("".join(groups)) < 8:
        return match[0]
    return "plus " + ", ".join(map(digits, groups))


def _by_digits(match: re.Match[str]) -> str:
    figures = match["code"] or match["call"]
    return cardinal(int(figures)) if figures.endswith("00") else digits(figures).replace("zero", "oh")


def _vulgar(match: re.Match[str]) -> str:
    fraction = _VULGAR[match["sign"]]
    if not match["whole"]:
        return fraction
    if fraction in ("one half", "one quarter"):
        fraction = fraction.replace("one", "a")
    return f"{number(match['whole'])} and {fraction}"


def _fraction(match: re.Match[str]) -> str:
    upper, lower, whole = int(match["upper"]), int(match["lower"]), match["whole"]
    if lower == 100 and upper >= 10 and not whole and not match["th"]:
        return f"{cardinal(upper)} out of one hundred"
    if upper + lower == 100 and not whole:  # a 60/40 split
        return f"{cardinal(upper)} {cardinal(lower)}"
    if not lower or (whole and upper >= lower) or (upper > lower and not match["th"]):
        return f"{whole or ''} {cardinal(upper)} over {cardinal(lower)}".strip() if lower else match[0]
    if lower == 2:
        name = "half" if upper == 1 else "halves"
    elif lower == 4:
        name = "quarter" if upper == 1 else "quarters"
    elif lower == 1:
        return f"{cardinal(upper)} over one"
    else:
        name = ordinal(lower) + ("" if upper == 1 else "s")
    read = f"{cardinal(upper)} {name}"
    return f"{number(whole)} and {'a ' + name if upper == 1 else read}" if whole else read


def _spaced(match: re.Match[str]) -> str:
    part = (match["part"] or "").rstrip("0")
    return number(re.sub(r"\D", "", match["whole"]) + (f".{part}" if part else ""))


def _range(match: re.Match[str]) -> str:
    minus = "minus " if match["minus"] else ""
    return f"{minus}{_plain_number(match['first'])} to {_plain_number(match['last'])}"


def _scientific(match: re.Match[str]) -> str:
    minus = "minus " if match["sign"] in ("-", "−") else ""
    return f"{number(match['figures'])} times ten to the power of {minus}{cardinal(int(match['power']))}"


def _power(match: re.Match[str]) -> str:
    base = match["base"]
    read = number(base) if base[0].isdigit() or base[0] == "." else base
    if match["power"] in "23" and not match["minus"] and len(match["power"]) == 1:
        return f"{read} {'squared' if match['power'] == '2' else 'cubed'}"
    return f"{read} to the power of {'minus ' if match['minus'] else ''}{cardinal(int(match['power']))}"


def _plural(match: re.Match[str]) -> str:
    read = cardinal(int(match["figures"]))
    return f"{read[:-1]}ies" if read.endswith("y") else f"{read}es" if read.endswith("x") else f"{read}s"


def _code(match: re.Match[str]) -> str:
    """Letters and digits together: `H2O`, `B2B`, `COVID-19`, `A380`, `mp3`."""
    parts = _CODE_PART.findall(match[0])
    if sum(map(str.isdigit, parts)) > 3:
        return " ".join(p.upper() if p.isalpha() else digits(p) for part in parts for p in part)
    return " ".join(_code_part(part, len(parts)) for part in parts)


def _code_part(part: str, parts: int) -> str:
    if "." in part:
        return " point ".join(map(number, part.split(".")))
    if not part.isdigit():
        letters = part.isupper() and len(part) < 4 and part not in SAID
        return " ".join(part) if letters else part.upper() if len(part) == 1 and parts > 1 else part
    return _grouped(part)


def _grouped(figures: str) -> str:
    """The digits of a name: `380` is three eighty, `747` seven forty seven."""
    if figures[0] == "0" or len(figures) > 4:
        return digits(figures)
    if len(figures) == 3 and figures[1:] != "00":
        return f"{cardinal(int(figures[0]))} {'oh ' if figures[1] == '0' else ''}{cardinal(int(figures[1:]))}"
    if len(figures) == 4 and figures[2:] != "00":
        return f"{cardinal(int(figures[:2]))} {'oh ' if figures[2] == '0' else ''}{cardinal(int(figures[2:]))}"
    return cardinal(int(figures))


def _plain(match: re.Match[str]) -> str:
    figures = match["figures"]
    read = " point ".join(map(number, figures.split("."))) if figures.count(".") > 1 else _plain_number(figures)
    before = match.string[match.start() - 1 : match.start()]
    after = match.string[match.end() : match.end() + 1]
    return f"{' ' if before.isalpha() else ''}{read}{' ' if after.isalpha() else ''}"


def _plain_number(figures: str) -> str:
    return digits(figures) if figures.isdigit() and len(figures) > 9 else number(figures)
