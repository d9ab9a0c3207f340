"""What the normaliser's English lacks: Roman numerals, titles before names, emphasis marks; and what needs it at all.

`prepare` rewrites a sentence into what the normaliser reads right (`Henry VIII` -> `Henry the 8th`); `is_plain` says
that a sentence reads the same without it, as most of a novel does. Pure rules over one sentence; nothing here knows the
normaliser.
"""

from __future__ import annotations

import re

_ROMAN = r"M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_NUMBERED = (
    r"chapter|part|book|volume|vol\.|act|scene|canto|letter|section|article|appendix|psalm|stave|fit|phase|war|type|"
    r"class|figure|table|plate|number|page"
)
_REIGNED = (
    r"Albert|Alexander|Alfonso|Benedict|Boniface|Carl|Catherine|Charles|Christian|Clement|Constantine|Darius|David|"
    r"Edward|Elizabeth|Ferdinand|Francis|Frederick|Friedrich|George|Gregory|Gustav|Gustavus|Henri|Henry|Innocent|Ivan|"
    r"James|John|Joseph|Julius|Leo|Leopold|Louis|Malcolm|Margaret|Mary|Napoleon|Nicholas|Otto|Paul|Pedro|Peter|Philip|"
    r"Philippe|Pius|Ptolemy|Rameses|Ramses|Richard|Robert|Sixtus|Stephen|Thutmose|Umberto|Urban|Victor|Vittorio|"
    r"Wilhelm|William"
)
_ROMAN_AFTER_KEYWORD = re.compile(
    rf"\b(?P<world>World )?(?P<word>(?i:{_NUMBERED})) (?P<roman>(?=[IVXLCDM]){_ROMAN})(?![\w'’-])"
    r"(?P<end>\Z|(?=\s?[.,:;–—]))?"
)
_ROMAN_AFTER_NAME = re.compile(
    rf"\b(?P<name>(?:(?:King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser|Prince|Duke) [A-Z][a-z]+|{_REIGNED})) "
    rf"(?P<roman>(?=[IVXLCDM]){_ROMAN})(?!\w|['’](?!s\b)|-\w)"
)
_RULER = re.compile(r"\A(?:King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser|Prince|Duke) ")
_KEYWORD_END = re.compile(rf"\b(?i:{_NUMBERED}) \Z")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}

_TITLES = {
    "Mr.": "Mister", "Mrs.": "Missus", "Dr.": "Doctor", "Prof.": "Professor", "St.": "Saint", "Mme.": "Madame",
    "Mlle.": "Mademoiselle", "Messrs.": "Messieurs", "Capt.": "Captain", "Col.": "Colonel", "Gen.": "General",
    "Lt.": "Lieutenant", "Sgt.": "Sergeant", "Maj.": "Major", "Rev.": "Reverend", "Hon.": "Honorable",
    "Sen.": "Senator", "Rep.": "Representative", "Gov.": "Governor", "Mt.": "Mount", "Ft.": "Fort", "Sr.": "Senior",
    "Jr.": "Junior",
}  # fmt: skip
_BEFORE_NAME = re.compile(r"(?<![\w.])(?:" + "|".join(t[:-1] for t in _TITLES) + r")\.(?=\s+[“\"'‘(]?[A-Z])")
_NAME_END = re.compile(r"(?<=[a-z]),? (?P<title>[JS]r)\.")
_NUMBER_SIGN = re.compile(r"\b(?P<sign>[Nn]o)\. ?(?=\d)")
_UNITS = {
    "in": "inches", "ft": "feet", "lb": "pounds", "lbs": "pounds", "oz": "ounces", "yd": "yards", "yds": "yards",
    "mi": "miles", "hr": "hours", "hrs": "hours", "min": "minutes", "mins": "minutes", "sec": "seconds",
    "secs": "seconds", "doz": "dozen",
}  # fmt: skip
_UNIT = re.compile(r"(?P<number>\d) ?(?P<unit>" + "|".join(_UNITS) + r")\.(?P<end>\s*\Z|(?=\s))")
_OCLOCK = re.compile(r"\b(?P<hour>\d{1,2}):00 o(?P<mark>['’])clock")
_SHILLINGS = re.compile(r"\b(?P<number>(?<=£)\d+ \d+|\d+(?=s\.? \d+d\b))s\b(?:\.(?=\s+\w))?")
_PENCE = re.compile(r"(?P<shillings>shillings )?\b(?P<number>\d+)d\b(?P<stop>\.?)(?P<goes_on>(?=\s+\w))?")
_CENTS = re.compile(r"¢ ?(?P<before>\d+)|(?P<after>\d+) ?¢")
_PAGES = re.compile(r"\b(?P<sign>pp?)\. ?(?=\d)")
_RANGE = re.compile(r"(?<![\w.,/:=+–-])(?P<first>\d{1,3})[-–](?P<last>\d{1,3})(?![\w/:=+°%–-]|[.,]\d)")
_TELEPHONE = re.compile(r"(?<![\w-])555-\d{4}(?![\w-])")
"""Of fiction; with other digits it may be a range."""
_EMPHASIS = re.compile(r"(?<!\w)(?P<mark>\*{1,3}|_{1,3})(?=\S)(?P<text>[^*_]+?)(?<=\S)(?P=mark)(?!\w)")
_STRAY_MARKS = re.compile(r"(?<!\d)\s*[*_]+\s*|\s*[*_]+\s*(?!\d)")

_NEEDS_NORMALISER = re.compile(
    r"\d|[$€£¥₹¢%°±×÷=+&@#©®™§¶½¼¾⅓⅔²³µ~^|\\]"
    r"|(?<!\w)(?:[A-Za-z]\.){2,}"  # U.S.A., i.e.
    r"|(?<!\w)(?:etc|vs|dept|approx|est|ave|blvd|apt|bldg|vol|Ph\.D|Esq|Bros|Inc|Ltd|Corp|Co|[Jj]an|[Ff]eb|[Aa]ug|"
    r"[Ss]ept?|[Oo]ct|[Nn]ov|[Dd]ec)\."
    r"|://|www\."
)


def prepare(sentence: str) -> str:
    """The sentence with what the normaliser would read wrong made words, or digits that it reads right."""
    text = _EMPHASIS.sub(r"\g<text>", sentence)
    if "*" in text or "_" in text:
        text = _STRAY_MARKS.sub(" ", text).strip()
    text = _ROMAN_AFTER_KEYWORD.sub(_number, text)
    text = _ROMAN_AFTER_NAME.sub(_reign, text)
    text = _BEFORE_NAME.sub(lambda m: _TITLES[m[0]], text)
    text = _NAME_END.sub(lambda m: " " + _TITLES[m["title"] + "."], text)
    text = _NUMBER_SIGN.sub(lambda m: f"{'Number' if m['sign'][0] == 'N' else 'number'} ", text)
    text = _UNIT.sub(lambda m: f"{m['number']} {_UNITS[m['unit']]}{'.' if m.end() == len(m.string) else ''}", text)
    text = _SHILLINGS.sub(r"\g<number> shillings", text)
    text = _PENCE.sub(_pence, text)
    text = _CENTS.sub(lambda m: _counted(m["before"] or m["after"], "cent", "cents"), text)
    text = _PAGES.sub(lambda m: "pages " if m["sign"] == "pp" else "page ", text)
    text = _RANGE.sub(r"\g<first> to \g<last>", text)
    text = _TELEPHONE.sub(lambda m: " ".join(m[0].replace("-", ",")).replace(" ,", ","), text)
    return _OCLOCK.sub(r"\g<hour> o\g<mark>clock", text)


def is_plain(prepared: str) -> bool:
    """Whether a prepared sentence is words already."""
    return _NEEDS_NORMALISER.search(prepared) is None


def recased(title: str) -> str:
    """A title in capitals, as `CHAPTER IV. THE STORM`, in the case of other titles: voices spell capitals out."""
    if not title.isupper() or len(title) < 4:
        return title
    return re.sub(r"[^\W\d_][\w'’]*", lambda m: m[0] if _counts(m) else m[0].capitalize(), title)


def _counts(match: re.Match[str]) -> bool:
    """Whether a word of a title in capitals is a Roman numeral; MIX may be a word, but for `CHAPTER MIX` and `MIX.`"""
    word, title = match[0], match.string
    if re.fullmatch(_ROMAN, word) is None:
        return False
    alone = match.start() == 0 and title[match.end() : match.end() + 1] in ("", ".", ":", "–", "—")
    return set(word) <= set("IVX") or alone or _KEYWORD_END.search(title[: match.start()]) is not None


def _pence(match: re.Match[str]) -> str:
    """`10 shillings 6d` and `6d.` are money; `3d` alone is not."""
    if not (match["shillings"] or match["stop"]):
        return match[0]
    stop = "" if match["goes_on"] is not None else match["stop"]
    return f"{match['shillings'] or ''}{_counted(match['number'], 'penny', 'pence')}{stop}"


def _counted(number: str, one: str, many: str) -> str:
    return f"{number} {one if number == '1' else many}"


def _number(match: re.Match[str]) -> str:
    """`Chapter IV` -> `Chapter 4`; a lone letter counts where it can be nothing else: not in "the book I read"."""
    word, roman = match["word"], match["roman"]
    lone = len(roman) == 1 and roman not in "VX" and match["world"] is None
    if lone and (roman != "I" or word[0].islower() or match["end"] is None):
        return match[0]
    return f"{match['world'] or ''}{word} {_value(roman)}"


def _reign(match: re.Match[str]) -> str:
    """`Henry VIII` -> `Henry the 8th`; `Henry I` may go on with a verb, unless he is a king."""
    value = _value(match["roman"])
    if value == 1 and not _RULER.match(match["name"]):
        return match[0]
    suffix = "th" if value % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return f"{match['name']} the {value}{suffix}"


def _value(roman: str) -> int:
    values = [_VALUES[letter] for letter in roman]
    return sum(-v if v < following else v for v, following in zip(values, [*values[1:], 0], strict=True))
