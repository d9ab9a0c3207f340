"""Roman numerals, titles before names, abbreviations, acronyms, and words in capitals."""

from __future__ import annotations

import re

from app.speech.text.english.words import FIRST_WORDS, cardinal, listed, ordinal, year

ROMAN = r"M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
NUMBERED = (
    r"chapter|part|book|volume|vol\.|act|scene|canto|letter|section|article|appendix|psalm|stave|fit|phase|war|type|"
    r"class|figure|table|plate|number|page|stage|level|grade|title|step|episode|season|tier|mark|apollo|super bowl|"
    r"rocky|final fantasy|mach"
)
_REIGNED = (
    r"Albert|Alexander|Alfonso|Benedict|Boniface|Carl|Catherine|Charles|Christian|Clement|Constantine|Darius|David|"
    r"Edward|Elizabeth|Ferdinand|Francis|Frederick|Friedrich|George|Gregory|Gustav|Gustavus|Henri|Henry|Innocent|Ivan|"
    r"James|John|Joseph|Julius|Leo|Leopold|Louis|Malcolm(?! X\b)|Margaret|Mary|Napoleon|Nicholas|Otto|Paul|"
    r"Pedro|Peter|Philip|Philippe|Pius|Ptolemy|Rameses|Ramses|Richard|Robert|Sixtus|Stephen|Thutmose|Umberto|Urban|Victor|Vittorio|"
    r"Wilhelm|William"
)
_RULERS = r"King|Queen|Pope|Emperor|Empress|Tsar|Czar|Kaiser|Prince|Duke"
_ROMAN_AFTER_KEYWORD = re.compile(
    rf"\b(?P<world>World )?(?P<word>(?i:{NUMBERED})) (?P<roman>(?=[IVXLCDM]){ROMAN})(?![\w'’-])"
    r"(?P<end>\Z|(?=\s?[.,:;–—!?\n)]))?"
)
_NOUN_BEHIND = re.compile(
    r" (?!(?:am|ever|have|had|was|will|would|can|could|did|do|don't|also|just|really|never|should|must|might|may|think"
    r"|want|like|need|love|know|see|use|used|read|wrote|write|bought|saw|made|make|mean|meant|got|get|took|take|said|say)"
    r"\b)[a-z]{2,}"
)
"""What may follow Part I, rather than a part I know."""
_ROMAN_AFTER_NAME = re.compile(
    rf"\b(?P<name>(?:(?:{_RULERS}) [A-Z][a-z]+|{_REIGNED}(?: Paul)?)) "
    rf"(?P<roman>(?=[IVXLCDM]){ROMAN})(?!\w|['’](?!s\b)|-\w)"
)
_ROMAN_SMALL = re.compile(
    r"\b(?P<word>(?i:act|scene|chapter|part|volume|vol\.|book|pages?|appendix|section|canto|stage|phase)) "
    r"(?P<roman>[ivxl]{2,7})(?![\w'’-])"
)
_ROMAN_CENTURY = re.compile(rf"\b(?P<roman>(?=[VXI]{{2,}}){ROMAN})(?:th)? (?=(?:century|centuries|dynasty|Olympiad)\b)")
_DRIP = re.compile(
    r"\bIV(?= (?:drips?|fluids?|lines?|bags?|antibiotics?|therapy|access|infusions?|injections?|pole|pump)\b)"
)
_ROMAN_YEAR = re.compile(rf"(?<![\w'’-])(?=MM|MCM|MDC|[MDCLXVI]{{6}}){ROMAN}(?![\w'’-])")
_PADDED = re.compile(rf"\b(?P<word>(?i:{NUMBERED})) 0+(?=[1-9])")
_RULER = re.compile(rf"\A(?:{_RULERS}) ")
_KEYWORD_END = re.compile(rf"\b(?i:{NUMBERED}) \Z")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}

_TITLES = {
    "Mr.": "Mister", "Mrs.": "Missus", "Ms.": "Miz", "Dr.": "Doctor", "Prof.": "Professor", "St.": "Saint",
    "Mme.": "Madame", "Mlle.": "Mademoiselle", "Messrs.": "Messieurs", "Capt.": "Captain", "Col.": "Colonel",
    "Gen.": "General", "Lt.": "Lieutenant", "Sgt.": "Sergeant", "Maj.": "Major", "Rev.": "Reverend",
    "Hon.": "Honorable", "Sen.": "Senator", "Rep.": "Representative", "Gov.": "Governor", "Pres.": "President",
    "Mt.": "Mount", "Ft.": "Fort", "Sr.": "Senior", "Jr.": "Junior", "Fr.": "Father", "Cmdr.": "Commander",
    "Adm.": "Admiral", "Sec.": "Secretary", "Supt.": "Superintendent", "Pvt.": "Private", "Cpl.": "Corporal",
    "Brig.": "Brigadier", "Amb.": "Ambassador", "Insp.": "Inspector",
}  # fmt: skip
_OPENER = (
    r"(?:He|She|It|They|We|I|You|The|This|That|These|Those|There|Then|But|And|So|His|Her|Its|Their|My|Our|Your|When|"
    r"What|Who|How|Why|If|As|At|In|On|After|Before|Now|Nobody|Everyone)\b(?!\.)"
)
"""Words that after a full stop begin a sentence, and are no name."""
_TITLE = "|".join(title[:-1] for title in _TITLES)
_BEFORE_NAME = re.compile(
    rf"(?<![\w.])(?:{_TITLE})\.(?=\s+(?:and|or|&)\s+(?:{_TITLE})\.)"
    rf"|(?<![\w.])(?:(?!(?:St|Dr|Ft)\. {_OPENER})(?:{_TITLE}))\.(?=\s+[“\"'‘(]?[A-Z])"
)
_BARE_BEFORE_NAME = re.compile(r"(?<![\w.])(?P<title>Mr|Mrs|Ms|Dr)(?=\s+[A-Z][a-z])")
_NAME_END = re.compile(r"(?<=[a-z]),? (?P<title>[JS]r)\.(?P<end>(?=\s+[A-Z])|(?=[\"'”’)]*\Z))?")
_STREET = re.compile(
    r"(?<=[a-z\d]) (?P<kind>St|Ave|Blvd|Rd|Ln|Hwy|Pkwy|Sq|Apt|Dr|Ct|Pl)\.(?=\s*(?:[,;&\n]|\Z|[a-z]"
    r"|\d|(?=[A-Z])(?!\s*[A-Z][a-z]+ (?:[A-Z]|is|was))| "
    rf"{_OPENER}))"
)
_STREETS = {
    "St": "Street", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane", "Hwy": "Highway",
    "Pkwy": "Parkway", "Sq": "Square", "Apt": "Apartment", "Dr": "Drive", "Ct": "Court", "Pl": "Place",
}  # fmt: skip
_HOUSE = re.compile(
    rf"\b(?P<before>\d{{1,5}}[A-Za-z]? (?:[NSEW] )?(?:[A-Z][a-z'’]+ ){{1,3}})(?P<kind>{'|'.join(_STREETS)})\b(?!\.)"
)
"""`10 Downing St`, without a stop."""
_QUARTERS = {"NW": "Northwest", "NE": "Northeast", "SW": "Southwest", "SE": "Southeast"}
_QUARTER = re.compile(rf"\b(?P<street>{'|'.join(_STREETS.values())}) (?P<quarter>{'|'.join(_QUARTERS)})\b")
_DIRECTIONS = {"N": "North", "S": "South", "E": "East", "W": "West"}
_DIRECTION = re.compile(
    rf"\b(?P<number>\d{{1,5}}[A-Za-z]?) (?P<way>[NSEW])\.? (?=(?:\d+(?:st|nd|rd|th)|[A-Z][a-z]+)"
    rf" (?:{'|'.join((*_STREETS, *_STREETS.values()))})\b)"
)
_ROOMS = {"App": "Appendix", "Apt": "Apartment", "Ste": "Suite", "Rm": "Room", "Bldg": "Building", "Fl": "Floor"}
_ROOM = re.compile(rf"(?<![\w.])(?P<kind>{'|'.join(_ROOMS)})\. ?(?=#?\d|[A-Z]\b|[a-z]+ [A-Z]\b)")
_NUMBER_SIGN = re.compile(r"\b(?P<sign>[Nn]os?)\. ?(?=\d)")
_WORDS = {
    "e.g.": "for example", "i.e.": "that is", "E.g.": "For example", "I.e.": "That is", "etc.": "et cetera",
    "vs.": "versus", "v.": "versus", "cf.": "compare",
    "approx.": "approximately", "dept.": "department", "Dept.": "Department", "est.": "established", "min.": "minimum",
    "max.": "maximum", "avg.": "average", "incl.": "including", "excl.": "excluding", "ca.": "circa", "c.": "circa",
    "viz.": "namely", "al.": "al", "Inc.": "Incorporated", "Ltd.": "Limited", "Corp.": "Corporation", "Co.": "Company",
    "Bros.": "Brothers", "Esq.": "Esquire", "Univ.": "University", "Assn.": "Association", "bldg.": "building",
    "Bldg.": "Building", "govt.": "government", "Govt.": "Government",
    "depts.": "departments", "misc.": "miscellaneous", "Fig.": "Figure", "fig.": "figure",
    "Figs.": "Figures", "Vol.": "Volume", "vol.": "volume", "Ch.": "Chapter", "ch.": "chapter", "Sect.": "Section",
    "Sec.": "Section",
    "sec.": "section", "Eq.": "Equation", "eq.": "equation", "Ver.": "Version", "ver.": "version", "ext.": "extension",
    "tel.": "telephone", "Tel.": "Telephone", "Ph.D.": "P H D", "M.D.": "M D", "B.A.": "B A", "M.A.": "M A",
    "a.k.a.": "also known as", "w.r.t.": "with respect to", "P.S.": "P S", "R.S.V.P.": "R S V P",
}  # fmt: skip
_ONLY_BEFORE_NUMBERS = frozenset(
    listed("Fig. fig. Figs. Vol. vol. Ch. ch. Sect. Sec. sec. Eq. eq. Ver. ver. ext. c. ca. est. min. max.")
)
_FIGURES = re.compile(rf"[ (]*(?:\d|(?:{'|'.join(FIRST_WORDS)})\b)")
_ENDS = frozenset(listed("etc. Inc. Ltd. Corp. Co. al. Ph.D. M.D. B.A. M.A. P.S. Esq. Bros."))
_ABBREVIATION = re.compile(
    r"(?<![\w.])(?:" + "|".join(map(re.escape, sorted(_WORDS, key=len, reverse=True))) + r")(?P<comma>,)?(?!\w)"
)
_COMMON = {
    "w/": "with",
    "w/o": "without",
    "b/c": "because",
    "&c": "et cetera",
    "vs": "versus",
    "approx": "approximately",
    "aka": "also known as",
    "AKA": "also known as",
    "ASAP": "A S A P",
    "FAQ": "F A Q",
    "btw": "by the way",
    "imo": "in my opinion",
    "imho": "in my humble opinion",
    "idk": "I don't know",
    "tbh": "to be honest",
    "afaik": "as far as I know",
    "iirc": "if I recall correctly",
}
_CLIPPED_WORDS = {"gov": "government", "int": "international", "nat": "national", "dep": "department"}
_CLIPPED = re.compile(r"\b(?P<word>[Gg]ov|[Ii]nt|[Nn]at|[Dd]ep)['’][tl]\b")
"""As gov't."""
_SHORT = re.compile(r"(?<![\w/&])(?:w/o|w/|b/c|&c|vs|aka|AKA|(?i:btw|imh?o|idk|tbh|afaik|iirc))(?![\w/])")
_MIXED_CASE = {
    "PhD": "P H D", "PhDs": "P H Ds", "MSc": "M S C", "BSc": "B S C", "IoT": "I O T", "iOS": "I O S",
    "macOS": "mac O S", "SaaS": "sass", "VoIP": "voip", "QoS": "Q O S", "DoS": "D O S", "DDoS": "D DOS",
    "IPv4": "I P version four", "IPv6": "I P version six", "WWI": "World War one", "WWII": "World War two",
    "WW1": "World War one", "WW2": "World War two", "TL;DR": "T L D R", "TLDR": "T L D R",
}  # fmt: skip
_MIXED = re.compile(rf"(?<![\w-])(?:{'|'.join(_MIXED_CASE)})(?![\w-])")
_SENTENCE = re.compile(rf"\s+[“\"'‘(]?{_OPENER}")
_DOTTED = re.compile(r"(?<![\w.])(?P<letters>(?:[A-Za-z]\.){2,})(?P<more>[A-Za-z](?!\w))?")

_AMPERSAND = re.compile(r"(?<![\w&])(?P<before>[A-Z]{1,3})&(?P<after>[A-Z]{1,3})(?![\w&])")
_CONTRACTED = re.compile(r"(?<![\w'’])(?P<stem>[A-Z]+)['’](?P<end>T|RE|VE|LL|D|M|S)(?![\w'’])")
_WORD = re.compile(
    r"(?<![\w'’&.-])(?P<word>[A-Z][A-Z0-9]*(?:[-/&][A-Z0-9]+)*)(?P<own>['’]?s)?(?![\w&-])(?!['’][A-Za-z])"
)
_SHOUTED = frozenset(
    listed(
        "A ABOUT AFTER AGAIN ALL ALSO ALWAYS AM AN AND ANY ANYONE ARE AS ASK AT AWAY BACK BAD BAN BE BEEN BEFORE BEST "
        "BIG BOTH BUT BUY BY CALL CAN CLICK COME COULD DAY DEAL DEAR DELETE DID DO DOES DONE DOWN DROP EACH END EVEN "
        "EVER EVERY FAR FAST FIND FIRE FIRST FIX FOR FREE FROM FULL FUN GET GIVE GO GOD GOOD GOT GREAT HAD HAS HATE "
        "HAVE HE HELL HELLO HELP HER HERE HEY HIM HIS HOT HOW HUGE IF IN INTO IS IT ITS JOB JUST KEEP KNOW LAST LATE "
        "LEFT LESS LET LIFE LIKE LIVE LONG LOOK LOT LOVE LOW MADE MAKE MAN MANY MAY ME MIX MORE MOST MUCH MUST MY "
        "NAME NEED NEVER NEW NEXT NICE NO NOBODY NONE NOPE NOT NOTE NOTHING NOW OF OFF OH OK OLD ON ONCE ONE ONLY "
        "OPEN OR OTHER OUR OUT OVER OWN PART PAY PLAY PLEASE PUT RAY READ REAL REALLY REST RIGHT RUN SAD SAFE SAID "
        "SALE SAME SAVE SAW SAY SEE SEND SET SHE SHOW SO SOME SOON SORRY STAY STILL STOP SUCH SURE TAKE TALK TELL THAN "
        "THANK THANKS THAT THE THEIR THEM THEN THERE THESE THEY THING THIS THOSE TIME TO TODAY TOLD TOO TOP TRUE TRY "
        "TURN TWO UP USE VERY WAIT WALK WANT WAR WARNING WAS WAY WE WELL WENT WERE WHAT WHEN WHERE WHICH WHILE WHO "
        "WHY WILL WIN WITH WON WORD WORK WOULD WOW WRONG YEAH YEAR YES YET YOU YOUR ZERO"
    )
)
SAID = frozenset(
    listed(
        "NASA NATO UNESCO UNICEF OPEC ASAP RAM ROM LASER RADAR SONAR SCUBA AIDS SARS COVID FIFA UEFA NAFTA NAFTAS "
        "ASEAN JPEG GIF PIN SIM RAID LAN WAN VOIP SAAS JSON YAML TOML BIOS SWAT NASDAQ IKEA LEGO OSHA PETA POTUS "
        "SCOTUS FOMO YOLO LOL DRAM SRAM CAPTCHA CUDA LIDAR ISIS HIPAA FEMA NORAD WASP BASIC COBOL FORTRAN ACID REST "
        "CRUD SAM TED MOMA SOHO NIMBY GUI WYSIWYG OPUS FLAC BERT LORA ANSI ASCII UTC_ ENUM CRISPR DARPA NOAA STEM "
        "SAT_ MIDI"
    )
)
"""Acronyms that are said as words; others are spelt, as FBI is."""
_SAID_AS = {
    "JPEG": "jay peg",
    "SQL": "S Q L",
    "OK": "okay",
    "WIFI": "wi-fi",
    "SAAS": "sass",
    "JSON": "jason",
    "GIF": "gif",
}
_BARE_TITLES = frozenset(listed("MR MRS MS DR ST JR SR VS"))
_PRONOUNS = frozenset(("IT", "WHO", "US"))
_ARTICLE = re.compile(r"\b(?:the|an|our|your|their|my|his|her) \Z", re.I)
"""Behind which a pronoun in capitals is none: the IT team, the WHO."""
_GLUED = re.compile(r"(?<![A-Za-z])(?P<letters>[A-Z]{2,5})(?=[A-Z][a-z]{2,})")
_ROMAN_ONLY = re.compile(rf"(?=[IVX]{{2,}}){ROMAN}\Z")
MIN_SHOUTED_CHARS = 6
"""A word of so many capitals is one, not letters."""
_BEGIN = (
    "(?:s?[pt]r|s?[pck]l|s?cr|s[cklmnptw]|str|[bfg][rl]|kr|"
    "[dt][rw]|shr?|chr?|thr?|w[hr]|kn|qu|[gp]h|[bcdfghjklmnprstvwyz])"
)
_VOWEL = "(?:[aeiouy]|ai|au|aw|ay|ea|ee|ei|eo|eu|ew|ey|ia|ie|io|oa|oi|oo|ou|ow|oy|ue|ui)"
_END = (
    "(?:bb|dd|ff|gg|ll|mm|nn|pp|rr|ss|tt|zz|ck|ct|ft|ght|gh|l[bdfkmptv]|m[bp]|n[cdgkst]|pt|r[bcdfgklmnpstv]|s[hkpt]|ch|"
    "rch|nch|rld|rst|hn|mn|tch|th|rth|nth|[bcdfgklmnprstvwxz])"
)
_SAYABLE = re.compile(f"{_BEGIN}?(?:{_VOWEL}(?:{_END}|{_BEGIN}|{_END}{_BEGIN}))*{_VOWEL}(?:{_END}s?)?", re.I)
"""The shape of an English word: what may begin and end a syllable around its vowel."""
_SPELT = frozenset(
    listed("ACLU ACPI AARP APIS CEOS EBIT EEOC EULA IATA ICAO IDOR IEEE OLED UCLA UEFI USAA USAF USDA USPS YMCA YWCA")
)


def read_numerals(text: str) -> str:
    """The text with Roman numerals as words, where they can be nothing else."""
    text = _DRIP.sub("I V", text)
    text = _ROMAN_YEAR.sub(lambda m: year(value(m[0])) if len(m[0]) > 2 else m[0], text)
    text = _PADDED.sub(r"\g<word> ", text)
    text = _ROMAN_AFTER_KEYWORD.sub(_number, text)
    text = _ROMAN_AFTER_NAME.sub(_reign, text)
    text = _ROMAN_SMALL.sub(_small, text)
    return _ROMAN_CENTURY.sub(lambda m: f"{ordinal(value(m['roman']))} ", text)


def read_streets(text: str) -> str:
    """The text with `1600 Pennsylvania Ave NW` in full, while its number is still in figures."""
    text = _DIRECTION.sub(lambda m: f"{m['number']} {_DIRECTIONS[m['way']]} ", text)
    text = _HOUSE.sub(lambda m: m["before"] + _STREETS[m["kind"]], text)
    return _QUARTER.sub(lambda m: f"{m['street']} {_QUARTERS[m['quarter']]}", text)


def read_abbreviations(text: str) -> str:
    """The text with titles and other abbreviations in full."""
    if "." in text:
        text = _BEFORE_NAME.sub(lambda m: _TITLES[m[0]], text)
        text = _NAME_END.sub(lambda m: f" {_TITLES[m['title'] + '.']}{'.' if m['end'] is not None else ''}", text)
        text = _STREET.sub(lambda m: f" {_STREETS[m['kind']]}{'.' if _at_end(m) else ''}", text)
        text = _ROOM.sub(lambda m: f"{_ROOMS[m['kind']]} ", text)
        text = _NUMBER_SIGN.sub(_number_sign, text)
        text = _ABBREVIATION.sub(_abbreviation, text)
        text = _DOTTED.sub(_dotted, text)
    text = _MIXED.sub(lambda m: _MIXED_CASE[m[0]], text)
    text = _AMPERSAND.sub(lambda m: f"{' '.join(m['before'])} and {' '.join(m['after'])}", text)
    if "'" in text or "’" in text:
        text = _CLIPPED.sub(_clipped, text)
    text = _BARE_BEFORE_NAME.sub(lambda m: _TITLES[m["title"] + "."], text)
    return _SHORT.sub(lambda m: _COMMON.get(m[0]) or _COMMON[m[0].lower()], text)


def read_capitals(text: str) -> str:
    """The text with acronyms as letters or words, and what is shouted in small letters: voices spell capitals."""
    text = _GLUED.sub(r"\g<letters> ", text)
    words = list(_WORD.finditer(text))
    if not words:
        return _CONTRACTED.sub(_contracted, text)
    shouted = _in_a_row(text)
    parts, done = list[str](), 0
    for found in words:
        parts += (text[done : found.start()], _capital(found, shouted=shouted(found.start())))
        done = found.end()
    return _CONTRACTED.sub(_contracted, "".join((*parts, text[done:])))


def value(roman: str) -> int:
    """Of a Roman numeral."""
    values = [_VALUES[letter] for letter in roman]
    return sum(-v if v < following else v for v, following in zip(values, [*values[1:], 0], strict=True))


def recased(title: str) -> str:
    """A title in capitals, as `CHAPTER IV. THE STORM`, in the case of other titles: voices spell capitals out."""
    if not title.isupper() or len(title) < 4:
        return title
    return re.sub(r"[^\W\d_][\w'’]*", lambda m: m[0] if _counts(m) else m[0].capitalize(), title)


def _counts(match: re.Match[str]) -> bool:
    """Whether a word of a title in capitals is a Roman numeral; MIX may be a word, but for `CHAPTER MIX` and `MIX.`"""
    word, title = match[0], match.string
    if re.fullmatch(ROMAN, word) is None:
        return False
    alone = match.start() == 0 and title[match.end() : match.end() + 1] in ("", ".", ":", "–", "—")
    return set(word) <= set("IVX") or alone or _KEYWORD_END.search(title[: match.start()]) is not None


def _number(match: re.Match[str]) -> str:
    """`Chapter IV` -> `Chapter four`; a lone letter counts where it can be nothing else: not in "the book I read"."""
    word, roman = match["word"], match["roman"]
    lone = len(roman) == 1 and roman not in "VX" and match["world"] is None
    if lone and (
        roman != "I"
        or word[0].islower()
        or (match["end"] is None and not _NOUN_BEHIND.match(match.string, match.end()))
    ):
        return match[0]
    return f"{match['world'] or ''}{word} {cardinal(value(roman))}"


def _small(match: re.Match[str]) -> str:
    """`Scene iv`."""
    roman = match["roman"].upper()
    return f"{match['word']} {cardinal(value(roman))}" if re.fullmatch(ROMAN, roman) else match[0]


def _reign(match: re.Match[str]) -> str:
    """`Henry VIII` -> `Henry the eighth`; `Henry I` may go on with a verb, unless he is a king."""
    number = value(match["roman"])
    ends = re.match(r"[.,;:!?)]|\Z", match.string[match.end() :])
    if number == 1 and not _RULER.match(match["name"]) and not ends:
        return match[0]
    return f"{match['name']} the {ordinal(number)}"


def _clipped(match: re.Match[str]) -> str:
    word = _CLIPPED_WORDS[match["word"].lower()]
    return word.capitalize() if match["word"][0].isupper() else word


def _number_sign(match: re.Match[str]) -> str:
    word = "numbers" if match["sign"][-1] == "s" else "number"
    return f"{word.capitalize() if match['sign'][0] == 'N' else word} "


def _at_end(match: re.Match[str]) -> bool:
    """Whether the stop of an abbreviation is its sentence's, too."""
    following = match.string[match.end() :].lstrip(" \"'”’)")
    return not following or (match.string[match.end() : match.end() + 1].isspace() and following[0].isupper())


def _abbreviation(match: re.Match[str]) -> str:
    written = match[0].rstrip(",")
    if written in _ONLY_BEFORE_NUMBERS and not _FIGURES.match(match.string, match.end()):
        return match[0]
    ends = written in _ENDS and not match["comma"] and _at_end(match)
    return _WORDS[written] + ("." if ends else "") + (match["comma"] or "")


def _dotted(match: re.Match[str]) -> str:
    """`U.S.`, `J.R.R.`: letters; the stop stays where a sentence ends with it."""
    letters = " ".join((match["letters"] + (match["more"] or "")).replace(".", "").upper())
    following = match.string[match.end() :].lstrip("\"'”’)")
    ends = not following.strip() or _SENTENCE.match(following)
    return letters + ("." if ends and not match["more"] else "")


def _in_a_row(text: str):
    """Whether a place is in a row of three words in capitals or more, half of them no acronyms."""
    spans: list[tuple[int, int]] = []
    for row in re.finditer(r"(?:(?<!\w)[A-Z][A-Z'’-]*\b(?:[^\w\n]+|\Z)){3,}", text):
        words = re.findall("[A-Z]+", row[0])
        if 2 * sum(word not in SAID and _is_word(word) for word in words) >= len(words):
            spans.append(row.span())
    return lambda at: any(start <= at < end for start, end in spans)


def _is_word(word: str) -> bool:
    """Whether capitals are a word that is shouted: a common one, a long one, or one with the shape of English."""
    if word in _SHOUTED or len(word) >= MIN_SHOUTED_CHARS:
        return True
    return len(word) > 3 and word not in _SPELT and _SAYABLE.fullmatch(word) is not None


def _capital(match: re.Match[str], *, shouted: bool) -> str:  # noqa: PLR0911 - one a kind
    word, own = match["word"], match["own"] or ""
    if word in _SAID_AS:
        return _SAID_AS[word] + own
    if word in ("I", "A") or (len(word) == 1 and not own):
        return match[0]
    if not word.isalpha():
        if not set(word) & set("-/&") or any(map(str.isdigit, word)):
            return match[0]
        return (
            re.sub("[A-Z]+", lambda m: _part(m[0]), word.replace("&", " and ")).replace("-", " ").replace("/", " ")
            + own
        )
    if word in SAID:
        return match[0]
    if word in _PRONOUNS and not shouted and _ARTICLE.search(match.string[: match.start()]):
        return " ".join(word) + own
    if _is_word(word) or (shouted and (word in _BARE_TITLES or _SAYABLE.fullmatch(word))):
        return _lowered(match, word) + own
    if _ROMAN_ONLY.match(word):
        return cardinal(value(word)) + own
    return " ".join(word) + own


def _contracted(match: re.Match[str]) -> str:
    """`DON'T` is no acronym; `FBI'S` may be one."""
    stem = match["stem"]
    if match["end"] == "S" and not _is_word(stem):
        return match[0]
    return f"I{match[0][1:].lower()}" if stem == "I" else _lowered(match, match[0])


def _part(part: str) -> str:
    if part in _SAID_AS and part == "OK":
        return _SAID_AS[part]
    if part in SAID or len(part) >= MIN_SHOUTED_CHARS or (part in _SHOUTED and part not in _PRONOUNS):
        return part.capitalize() if part not in SAID else part
    return " ".join(part)


def _lowered(match: re.Match[str], word: str) -> str:
    before = match.string[: match.start()].rstrip("\"'“‘( ")
    begins = not before or before[-1] in ".!?…:\n"
    return word.capitalize() if begins or word == "GOD" else word.lower()
