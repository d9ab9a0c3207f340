"""English text as words: the passes, in their order."""

from __future__ import annotations

import re
import unicodedata

from app.speech.text.english.addresses import read_addresses
from app.speech.text.english.dates import read_dates
from app.speech.text.english.measures import read_measures
from app.speech.text.english.names import read_abbreviations, read_capitals, read_numerals, read_streets
from app.speech.text.english.numbers import read_numbers, read_signs_before, read_telephones
from app.speech.text.options import UrlReading

_NEEDS_READING = re.compile(
    r"[\d$€£¥₹₩₽¢%‰°±×÷=+&@#©®™§¶†‡½¼¾⅓⅔²³µ~^|\\*_<>/→←…•·√∛∜⁺⁻¯∫∑∏∂∇∞∈∉⊂⊆∪∩∀∃∅⇔∝∴¬∧∨ℂℍℕℙℚℝℤłč\[\]≤≥≠≈{}№\uff01-\uff5e\ufb00-\ufb06\u2160-\u2188\u2460-\u24ff\u3380-\u33df\u2103\u2109\U0001d400-\U0001d7ff]"
    r"|[A-Z]{2}|\b[A-Z] |\w\.[^\s]|Jan\. [a-z]|"
    r"--|:::|\(\)|:[a-z_+\d-]+:|\b[a-z]{2,}[A-Z]|[a-z][A-Z][a-z]+[A-Z][a-z]|PhD|IoT|iOS|"
    r"[⌘⌥⇧⌃]|(?<![Ͱ-Ͽ])[Α-Ωα-ω](?![Ͱ-Ͽ])|\b(?:[Gg]ov|[Ii]nt|[Nn]at|[Dd]ep)['’][tl]\b|"
    r"(?<!\w)(?:[A-Za-z]{1,6})\.(?=[ ,)]|\Z)|(?<!\w)(?:Mr|Mrs|Ms|Dr|vs|aka|w/|(?i:btw|imh?o|idk|tbh|afaik|iirc))(?!\w)"
    r"|(?i:chapter|part|book|act|war|volume|scene|section|article|phase|type|class|number|level) [IVX]"
)
_STYLED = re.compile("[ℂℍℕℙℚℝℤ\uff01-\uff5e\ufb00-\ufb06\u2160-\u2188\u2460-\u24ff\u3380-\u33df\U0001d400-\U0001d7ff]+")
"""Letters in another shape: wide, ligatures, the bold and script ones of mathematics."""
_SIGN_WORDS = {
    "&": " and ", "$": " ", "@": " at ", "%": " percent",
    "°": " degrees", "=": " equals ", "§": " section ", "©": "", "®": "",
    "™": "", "¶": "", "†": "", "‡": "", "→": " to ", "←": "", "⇒": " to ", "•": "", "·": " ", "|": ", ",
    "\\": " ", "^": " ", "~": " ",
    "{": " ", "}": " ", "<": " ", ">": " ", "*": "", "_": " ", "[": " ", "]": " ", "`": "", "√": " square root of ",
    "∑": " the sum of ", "∏": " the product of ", "∂": " partial ",
    "∇": " nabla ", "∞": " infinity ", "∈": " in ", "∉": " not in ", "⊂": " is a subset of ", "⊆": " is a subset of ",
    "∪": " union ", "∩": " intersection ", "∀": " for all ", "∃": " there exists ", "∅": " the empty set ",
    "⇔": " if and only if ", "∝": " is proportional to ", "∴": " therefore ", "¬": " not ", "∧": " and ", "∨": " or ",
    "×": " times ",
    "÷": " divided by ", "±": " plus or minus ", "≈": " about ", "≠": " is not ", "≤": " at most ", "≥": " at least ",
}  # fmt: skip
_SIGN = re.compile(f"[{re.escape(''.join(_SIGN_WORDS))}]")
_HASHTAG = re.compile(r"(?<!\w)#(?=[A-Za-z])")
_HANDLE = re.compile(r"(?<!\w)@(?P<name>[A-Za-z_]\w*(?:\.\w+)*)")
_SLASH = re.compile(r"(?<=[A-Za-z])(?<![A-Z])/(?=[A-Za-z])|(?<=[A-Z])/(?![A-Z]{2}|[A-Z]\b)(?=[A-Za-z])")
"""But for HR/IT, whose letters are read as such."""
_FENCES = re.compile(r":{3,}")
"""Around a note, in some Markdown."""
_BESIDE = re.compile(r"(?<=[\w°%)!]) / (?=[\w(])")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TAGGED = re.compile(r"((?<!\w)[#@][A-Za-z_]\w*)")
_STAR = re.compile(r"(?<!\S)\*(?!\S)")
_ANY_FILE = re.compile(r"(?:(?<!\S)|/)\*\.(?=[a-z])")
_LONE_HASH = re.compile(r"#")
_PLUS = re.compile(r"(?<=\w)\+\+|(?<=[\s])\+(?=\s)|\+")
_EMOTICON = re.compile(
    r"(?<!\S)(?:[:;=8]['’]?-?[()DPp3|/\\*]|xD|XD|\(?\^_+\^\)?|\(?-_+-\)?"
    r"|(?<!\d )(?<!\w\) )(?<!\b[a-hj-zA-HJ-Z] )(?<!\S)</?3+)"
    r"(?=[\s.,!?]|\Z)"
    r"|¯[\\_ ]*\(ツ\)[\\_]*/[\\_]*¯"
)
_SHORTCODE = re.compile(r"(?<!\S):[a-z_+-][a-z\d_+-]{1,30}:(?=[\s.,!?:]|\Z)")
"""An emoji as chats write it: `:tada:`."""
_KEY = r"(?:[A-Z][a-z]{1,7}\b|F\d\d?\b|\w\b)"
_KEYS = re.compile(
    rf"\b(?:(?:Ctrl|Cmd|Alt|Shift)(?: ?[+] ?{_KEY})+"
    rf"|(?:Control|Command|Opt|Option|Win|Windows|Fn|Meta|Super)(?:[+]{_KEY})+)"
)
_KEY_SIGNS = {"⌘": "Command ", "⌥": "Option ", "⇧": "Shift ", "⌃": "Control "}
_KEY_SIGN = re.compile(r"(?P<key>[⌘⌥⇧⌃])(?: ?[+])? ?")
_KEY_NAMES = {"Ctrl": "Control", "Cmd": "Command", "Opt": "Option", "Win": "Windows", "Del": "Delete", "Esc": "Escape"}
_CONSTANT = re.compile(r"\b[A-Z]+(?:_[A-Z\d]+)+\b")
"""As LOG_LEVEL."""
_ITEM = re.compile(r"(?<![\w(])(\d{1,2}|[a-z])\)(?=\s)")
"""Of a list, as `1)` and `a)`."""
_CALL = re.compile(r"(?<=\w)\(\)")
_CAMEL_WORD = re.compile(r"\b(?!(?:mm|in)Hg\b)[a-z]{2,}(?:[A-Z][a-z\d]+)+\b")
_PASCAL_WORD = re.compile(r"\b(?:[A-Z][a-z]+){3,}\b")
"""As NullPointerException; two such parts may be a name, as JavaScript."""
_GREEK_LETTER = re.compile(r"(?<![Ͱ-Ͽ])(?<![Ͱ-Ͽ]\s)[Α-Ωα-ω](?!\s?[Ͱ-Ͽ]{2})(?![Ͱ-Ͽ])")
"""That stands for something, and is no word among others of Greek."""
_DASHES = re.compile(r"(?<=\w)--(?=\w)|(?<=[\w\"”’.,!?)\]…]) -- (?=[\w\"“‘(\[])")
_LESS = re.compile(r"(?<=[\w)\]])<(?P<equal>=?)(?=[\w(-])(?![^<>\s]*>)")
"""As in a<b; List<int> has two signs."""
_LONG_OPTION = re.compile(r"(?<!\S)--(?=[a-z])")
_AND_OR = re.compile(r" ?(?:&&|\|\|) ?")
_OPTION = re.compile(r"(?<!\S)(?<!\d )-(?=[A-Za-z](?!\S))(?!\S+ [-+*/=])")
"""Of a command: `-m`."""
_DOT_FILE = re.compile(r"(?<![^\s(\"'])\.(?=[a-z]{2,}(?!\w|\.\w))")
_TAG = re.compile(r"(<[A-Za-z][A-Za-z_-]*>)")


def is_plain(text: str) -> bool:
    """Whether a text is words already, as most sentences are."""
    return _NEEDS_READING.search(text) is None


def read(
    text: str,
    *,
    tags: frozenset[str] = frozenset(),
    urls: UrlReading = UrlReading.HOST,
    day_first: bool = False,
) -> str:
    """The text as words; `tags` of the model stay. `day_first`: 3/5 is in May."""
    if is_plain(text):
        return text
    parts = _TAG.split(text) if "<" in text else [text]
    return "".join(part if part in tags else _read(part, urls, day_first=day_first) for part in parts)


def _read(text: str, urls: UrlReading, *, day_first: bool) -> str:
    if is_plain(text):
        return text
    text = _FENCES.sub("", text)
    text = _SHORTCODE.sub("", _EMOTICON.sub("", text))
    text = _CALL.sub("", _DASHES.sub(" — ", text))
    text = _AND_OR.sub(lambda m: " and " if "&" in m[0] else " or ", text)
    text = _LESS.sub(lambda m: " is at most " if m["equal"] else " is less than ", text)
    text = _LONG_OPTION.sub("dash dash ", text)
    text = _ANY_FILE.sub(lambda m: " slash star dot " if m[0][0] == "/" else "star dot ", text)
    text = _DOT_FILE.sub("dot ", _OPTION.sub("dash ", text))
    if not text.isascii():
        text = _KEY_SIGN.sub(lambda m: _KEY_SIGNS[m["key"]], text)
    text = _KEYS.sub(_keys, text)
    text = _CONSTANT.sub(lambda m: m[0].lower().replace("_", " "), text)
    if "(" not in text:
        text = _ITEM.sub(r"\1.", text)
    text = _STYLED.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
    text = read_addresses(text, urls)
    text = _CAMEL_WORD.sub(lambda m: _CAMEL.sub(" ", m[0]).lower(), read_numerals(text))
    text = _PASCAL_WORD.sub(lambda m: _CAMEL.sub(" ", m[0]), text)
    if any(map(str.isnumeric, text)) or _SIGN.search(text) or "/" in text:
        text = read_telephones(read_streets(text))
        text = read_dates(text, day_first=day_first)
        text = read_measures(read_signs_before(text))
        text = read_abbreviations(text)
        text = read_numbers(text)
    else:
        text = read_abbreviations(read_dates(text, day_first=day_first))
    return read_capitals(_read_signs(text))


def _keys(match: re.Match[str]) -> str:
    """`Ctrl+C`: a key after the other."""
    names = re.split(r" ?[+] ?", match[0])
    return " ".join(_KEY_NAMES.get(name, name) for name in names)


def _greek(match: re.Match[str]) -> str:
    """A letter's name, apart from what it stands beside: `2πr`."""
    text, name = match.string, unicodedata.name(match[0]).split()[-1].lower().replace("lamda", "lambda")
    before = " " if text[: match.start()][-1:].isalnum() else ""
    return before + name + (" " if text[match.end() :][:1].isalnum() else "")


def _read_signs(text: str) -> str:
    if not text.isascii():
        text = _GREEK_LETTER.sub(_greek, text)
    text = _TAGGED.sub(lambda m: _CAMEL.sub(" ", m[0]), text)
    text = _HASHTAG.sub("hashtag ", text)
    text = _HANDLE.sub(lambda m: f"at {m['name'].replace('.', ' dot ')}", text)
    text = _BESIDE.sub(", ", _SLASH.sub(" ", text))
    text = _STAR.sub("star", text)
    text = _LONE_HASH.sub(" sharp" if re.search(r"\b[A-G]#", text) else " ", text)
    text = _PLUS.sub(lambda m: " plus plus" if m[0] == "++" else " plus ", text)
    return _SIGN.sub(lambda m: _SIGN_WORDS[m[0]], text)
