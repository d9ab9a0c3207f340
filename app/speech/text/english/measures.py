"""Money, percent, units, temperatures and heights."""

from __future__ import annotations

import itertools
import re

from app.speech.text.english.units import DENOMINATORS, UNITS
from app.speech.text.english.words import cardinal, count, number

NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_SCALE = r"(?P<scale>\s?(?:thousand|million|billion|trillion)\b|\s?(?:mn|bn|tn)\b|[kKmMbBT](?![\w]))"
_SCALES = {
    "k": "thousand",
    "m": "million",
    "b": "billion",
    "t": "trillion",
    "mn": "million",
    "bn": "billion",
    "tn": "trillion",
}

_CURRENCIES = {
    "US$": ("US dollar", "US dollars", "cent", "cents"),
    "C$": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "CA$": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "A$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "AU$": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "NZ$": ("New Zealand dollar", "New Zealand dollars", "cent", "cents"),
    "HK$": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "S$": ("Singapore dollar", "Singapore dollars", "cent", "cents"),
    "MX$": ("Mexican peso", "Mexican pesos", "centavo", "centavos"),
    "R$": ("real", "reais", "centavo", "centavos"),
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "jeon", "jeon"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "₫": ("dong", "dong", "", ""),
    "₱": ("peso", "pesos", "centavo", "centavos"),
    "₦": ("naira", "naira", "kobo", "kobo"),
    "₴": ("hryvnia", "hryvnias", "kopiyka", "kopiykas"),
    "zł": ("zloty", "zlotys", "grosz", "groszy"),
    "Kč": ("koruna", "korunas", "haler", "halers"),
    "฿": ("baht", "baht", "satang", "satang"),
    "₺": ("lira", "lira", "kurus", "kurus"),
    "₪": ("shekel", "shekels", "agora", "agorot"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
    "USD": ("US dollar", "US dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"),
    "JPY": ("yen", "yen", "sen", "sen"),
    "INR": ("rupee", "rupees", "paisa", "paise"),
    "CAD": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "AUD": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "NZD": ("New Zealand dollar", "New Zealand dollars", "cent", "cents"),
    "CNY": ("yuan", "yuan", "fen", "fen"),
    "BRL": ("real", "reais", "centavo", "centavos"),
    "MXN": ("Mexican peso", "Mexican pesos", "centavo", "centavos"),
    "PLN": ("zloty", "zlotys", "grosz", "groszy"),
    "SEK": ("Swedish krona", "Swedish kronor", "öre", "öre"),
    "NOK": ("Norwegian krone", "Norwegian kroner", "øre", "øre"),
    "DKK": ("Danish krone", "Danish kroner", "øre", "øre"),
    "ZAR": ("rand", "rand", "cent", "cents"),
    "Rs": ("rupee", "rupees", "paisa", "paise"),
    "AED": ("dirham", "dirhams", "fils", "fils"),
    "SGD": ("Singapore dollar", "Singapore dollars", "cent", "cents"),
    "HKD": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "kr": ("krone", "kroner", "øre", "øre"),
    "KRW": ("won", "won", "jeon", "jeon"),
}
_SIGN = "|".join(sorted(map(re.escape, _CURRENCIES), key=len, reverse=True))
_CODES = sorted(code for code in _CURRENCIES if code.isalpha() and code.isascii())
_CODE = "|".join(_CODES)
_HAS_MONEY = re.compile(rf"[$€£¥₹₩₽₿₺₪¢₫₱₦₴฿]|zł|Kč|\b(?:{_CODE})\b|\d[dp]\b")
_PER_WHAT = (
    r"(?:mo|month|yr|year|hr|hour|day|week|wk|kg|lb|person|user|night|unit|GB|TB|sq ft|gal|oz|ton|L"
    r"|min|call|page|word|item|piece|seat|head|image|token|request|square foot|h|d|m|1[KkM])\b"
)
_PER = rf"(?P<per>(?:/{_PER_WHAT})+)?"
_PER_UNIT = re.compile(r"(?<=[a-z\d]) per (?P<unit>lb|kg|sq\.? ft|oz|hr|mo|yr|GB|TB)\b\.?(?=\s+[a-z]|[,;)]|\s*\Z)")
_PERS = {
    "mo": "month",
    "yr": "year",
    "hr": "hour",
    "h": "hour",
    "wk": "week",
    "kg": "kilogram",
    "lb": "pound",
    "oz": "ounce",
    "d": "day",
    "m": "month",
    "gal": "gallon",
    "L": "liter",
    "min": "minute",
    "GB": "gigabyte",
    "TB": "terabyte",
    "sq ft": "square foot",
    "1K": "thousand",
    "1k": "thousand",
    "1M": "million",
}
_MONEY = re.compile(
    rf"(?<![\w$])(?P<minus>[-−–])?(?P<sign>{_SIGN})\s?(?P<minus2>[-−])?(?P<figures>{NUMBER})(?:{_SCALE})?{_PER}"
    rf"(?![\w]|[.,]\d)"
)
_MONEY_RANGE = re.compile(
    rf"(?<![\w$])(?P<sign>{_SIGN})(?P<first>{NUMBER})(?P<s1>[kKmMbB](?=[-–—\s]))?\s?[-–—]\s?(?:{_SIGN})?"
    rf"(?P<figures>{NUMBER})(?:{_SCALE})?{_PER}(?![\w]|[.,]\d)"
)
_MONEY_AFTER = re.compile(
    rf"(?<![\w.,])(?P<minus>[-−])?(?P<figures>{NUMBER})(?:{_SCALE})?\s?(?P<sign>[€£¥₹₽₩$₫₱₦₴฿₺₪₿]|zł|Kč|{_CODE})(?!\w)"
)
_COMMA = re.compile(r"(?<=[€£$])\s?(\d+),(\d\d)(?!\d|,\d)|(?<![\d.,])(\d+),(\d\d)(?=\s?€)")
_STOPS = re.compile(r"(?<![\d.,])\d{1,3}(?:\.\d{3})+(?=(?:,\d\d)?\s?€)")
"""As in 3.000 €, in much of Europe."""
_LAKHS = re.compile(r"(?<![\d,.])\d{1,2}(?:,\d\d)+,\d{3}(?!\d|,\d)")
"""As in ₹1,50,000, in India."""
_ABOUT = re.compile(rf"(?<![\w)])[~≈]\s?(?=(?:{_SIGN})\d)")
_SHILLINGS = re.compile(r"\b(?P<number>(?<=£)\d+ \d+|\d+(?=s\.? \d+d\b))s\b(?:\.(?=\s+\w))?")
_PENCE = re.compile(r"(?P<shillings>shillings )?\b(?P<number>\d+)d\b(?P<stop>\.?)(?P<goes_on>(?=\s+\w))?")
_RUPEES = re.compile(r"\bRs\.(?=\s?\d)")
_CENTS = re.compile(r"¢ ?(?P<before>\d+)|(?P<after>\d+) ?¢|(?<![\w.])(?P<pence>\d{1,2})p\b(?! ?m)")
_PERCENT = re.compile(rf"(?P<minus>(?<!\w)[-−+])?(?P<figures>{NUMBER})\s?(?P<sign>%|‰|percent\b|pct\b)")
_DEGREES = re.compile(
    rf"(?P<minus>(?<![\w.])[-−–])?(?P<figures>{NUMBER})\s?(?:°|º|℃|℉|deg(?:rees)?\b)(?:\s?(?P<scale>[CFK](?!\w)))?"
    r"(?:\s?(?P<minutes>\d{1,2})['’′](?:\s?(?P<seconds>\d{1,2}(?:\.\d+)?)(?:[\"”″]|''))?)?(?:\s?(?P<way>[NSEW])(?![\w'’]))?"
)
_WAYS = {"N": " north", "S": " south", "E": " east", "W": " west"}
_ARTICLE = re.compile(r"\b[Aa]n? \Z")
_NOUN = re.compile(r" (?!(?:of|per|and|or|is|was|in|to|for|from|at|on|than|total|each|apiece|a|as|if|when)\b)[a-z]{2,}")
_EXTENT = re.compile(r" (?:x|by|wide|long|tall|high|deep|thick)\b")
_SCALE_ALONE = re.compile(r"(?<!\w)°(?P<scale>[CF])(?!\w)")
_KELVIN = re.compile(r"℃|℉")
_INCHES = re.compile(r"(?<=\d)(?<!/\d)(?<!/\d\d)\"(?!\w)")
"""The only such sign in a text: one that opens or closes what is quoted has a partner."""
_INCHES_WHICH = re.compile(
    r"(?<=\b[Aa] )(?P<figures>\d{1,3}(?:\.\d)?)\"(?= [a-z])|(?<=\b[Aa]n )(?P<more>\d{1,3}(?:\.\d)?)\"(?= [a-z])"
)
"""As in a 6" pipe."""
_PRESSURE = re.compile(
    r"(?<![\w.,/])(?P<high>\d{2,3})/(?P<low>\d{2,3})(?= ?mmHg)"
    r"|(?i:(?<=pressure of )|(?<=pressure is )|(?<=pressure was )|(?<=BP ))"
    r"(?P<upper>\d{2,3})/(?P<lower>\d{2,3})(?![\w/])"
)
_HEIGHT = re.compile(r"(?<![\w.])(?P<feet>\d{1,2})['’′]\s?(?P<inches>\d{1,2})(?:\"|”|″|''|’’)?(?!\w)")
_FEET = re.compile(
    r"(?<![\w.,])(?P<figures>\d+(?:\.\d+)?)(?P<sign>′|″|(?<=\d)\"(?=\s?(?:x|×|by|wide|long|tall|high"
    r"|deep|screen|monitor|display|pipe|thick|T ?V|pizza|tablet|laptop|wheels?|rims?|tall)))"
)
_FEET_BY_FEET = re.compile(r"(?<![\w.,])(?P<first>\d{1,4})['’′]\s?[x×]\s?(?P<last>\d{1,4})['’′](?!\w)")
_FEET_INCHES = re.compile(r"(?<![\w.,])(?P<feet>\d{1,2}) ?(?:ft|feet|foot)\.? (?P<inches>\d{1,2}) ?in(?:ch(?:es)?)?\b")
_DURATION = re.compile(r"(?<![\w.,-])\d{1,4}[dhm](?: ?\d{1,3}[hms]){1,3}(?!\w)")
_IN_TIME = {"d": "day", "h": "hour", "m": "minute", "s": "second"}
_NUMBERED_PLACE = re.compile(
    r"\b(?:apt|apartment|suite|ste|unit|room|rm|seat|gate|flat|platform|row|block)\.? #?\Z", re.I
)
_SIZE = re.compile(
    rf"(?<![\w.,])(?<![÷+=−-] )(?P<first>(?:{NUMBER})(?:\s?(?:[cmk]?m|in|ft|px)\b)?)(?P<gap>\s?)[x×](?P=gap)(?=\d)"
    r"(?!10(?:\^|\*\*|[⁰¹²³⁴-⁹⁻])|[\d.,]+\s?[=+−÷]|[\d.,]+ -)"
)

_PER_UNITS = "|".join(map(re.escape, sorted(DENOMINATORS, key=len, reverse=True)))
_PER_NAMES = "|".join(sorted(filter(str.isalpha, DENOMINATORS), key=len, reverse=True))
_UNIT_NAMES = "|".join(sorted(map(re.escape, UNITS), key=len, reverse=True))
_RANGED = re.compile(
    rf"(?<![\w.,/:–-])(?P<first>(?:{NUMBER})[%°]?)\s?[-–—]\s?(?=(?:{NUMBER})(?:\s?(?:%|‰|°|percent\b)|[ -]?"
    rf"(?:{{units}})(?:/[a-zA-Z]+)?(?![\w/])))".replace("{units}", _UNIT_NAMES)
)
_AMBIGUOUS_GAP = frozenset(
    {
        "in",
        "m",
        "s",
        "t",
        "A",
        "K",
        "B",
        "V",
        "h",
        "g",
        "l",
        "L",
        "W",
        "J",
        "N",
        "pt",
        "bar",
        "min",
        "mo",
        "ac",
        "cal",
        "sq",
    }
)
"""Units that with a space before them may be words: "5 in a row", "the 5 A students"."""
_UNIT = re.compile(
    rf"(?<![\w.,$€£¥/])(?P<minus>[-−–])?(?P<figures>{NUMBER})(?P<gap>[ -]?|\u00a0|\u202f)(?P<square>sq\.?"
    rf" |cu\.? )?(?P<unit>{_UNIT_NAMES})(?P<power>\^?[23](?![\d.])|[²³])?"
    rf"(?:(?:/|\s?per )(?P<per>{_PER_UNITS})(?!\w))?(?P<stop>\."
    rf"(?=\s*\Z|\s|[,;)]))?(?![\w/])"
)
_PRODUCT = re.compile(
    rf"(?<=[\d\s])(?P<unit>{_UNIT_NAMES})[ ·⋅](?P<per>{_PER_NAMES})"
    r"(?:⁻|\^-)(?P<power>[¹²³123])(?!\w)"
)
"""As in `m s⁻²`, which is m/s²."""
_PER_THING = re.compile(rf"(?<= )(?P<things>[a-z]{{3,}})/(?P<per>{_PER_NAMES})(?![\w/])")
"""As in cells/mL and requests/s."""
_POWERS = {"²": "square ", "2": "square ", "³": "cubic ", "3": "cubic "}
_RATE = re.compile(
    r"(?<![\w/.-])(?P<unit>k?m|cm|mi|ft|[kKMGT]?B|[kKMG]b|[kmµμ]?g|m?L)/(?P<per>h|s|min|s²|m²|m³|d?L|mL|ml|kg)(?![\w/²³])"
)
"""With no figures before it."""
_FRACTION_OF_UNIT = re.compile(
    r"(?P<figures>(?<![\w.,/])(?P<whole>\d{1,3}[ -])?\d{1,2}/\d{1,3}|(?P<one>\d{1,3} ?)?[½⅓⅔¼¾⅛⅜⅝⅞])(?P<gap>[ -]?)"
    rf"(?P<unit>{_UNIT_NAMES})\b\.?(?=\s|[,;)]|\Z)"
)
_PEOPLE = re.compile(
    rf"(?<![\w.,$€£¥/-])(?P<figures>{NUMBER})m(?= (?:active |new |more |daily |monthly |unique |young |different )*"
    r"(?!(?:across|steps|races|pools|cables|lengths|sprints|hurdles|waves|always|is|was|as|has)\b)"
    r"(?:[a-z]{2,}(?<!s)s|people|men|women|children)\b)"
)
"""`5m users` are millions, and `5m deep` is meters."""
_MAGNITUDE = re.compile(
    rf"(?<![\w.,/-])(?P<minus>[-−])?(?P<figures>{NUMBER})(?P<scale>[kKMBT]|bn|mn)\b(?P<plus>\+)?(?!\w|[’'/])"
)
_RAISED = {"¹": "", "1": "", "²": "²", "2": "²", "³": "³", "3": "³"}
_NAME = re.compile(" [A-Z][a-z]")
_FOUR_K = frozenset({"2K", "4K", "5K", "8K"})


def read_measures(text: str) -> str:
    """The text with amounts of money and of other things as words."""
    if "⁻" in text or "^-" in text:
        text = _PRODUCT.sub(lambda m: f"{m['unit']}/{m['per']}{_RAISED[m['power']]}", text)
    if _HAS_MONEY.search(text):
        text = _read_money(text)
    text = _RANGED.sub(lambda m: f"{m['first']} to ", text)
    if "%" in text or "‰" in text or "percent" in text or "pct" in text:
        text = _PERCENT.sub(_percent, text)
    if re.search("[°º℃℉]|deg", text):
        text = _DEGREES.sub(_degrees, _KELVIN.sub(lambda m: "°" + {"℃": "C", "℉": "F"}[m[0]], text))
        text = _SCALE_ALONE.sub(lambda m: f"degrees {'Celsius' if m['scale'] == 'C' else 'Fahrenheit'}", text)
    text = _PRESSURE.sub(lambda m: f"{m['high'] or m['upper']} over {m['low'] or m['lower']}", text)
    text = _INCHES_WHICH.sub(lambda m: f"{m['figures'] or m['more']}-inch", text)
    if text.count('"') == 1 and "'" not in text:
        text = _INCHES.sub("″", text)
    text = _HEIGHT.sub(_height, text)
    text = _FEET_BY_FEET.sub(r"\g<first> feet by \g<last> feet", text)
    text = _FEET_INCHES.sub(_height, text)
    text = _DURATION.sub(_duration, text)
    text = _FEET.sub(_feet, text)
    text = _SIZE.sub(lambda m: f"{m['first']} by ", text)
    text = _FRACTION_OF_UNIT.sub(_fraction_of_unit, text)
    text = _PEOPLE.sub(lambda m: f"{m['figures']} million", text)
    text = _PER_THING.sub(_per_thing, text)
    text = _UNIT.sub(_unit, text)
    text = _RATE.sub(lambda m: f"{UNITS[m['unit']][1]} per {DENOMINATORS[m['per']]}", text)
    return _MAGNITUDE.sub(_magnitude, text)


def _read_money(text: str) -> str:
    text = _RUPEES.sub("Rs", text)
    text = _LAKHS.sub(lambda m: m[0].replace(",", ""), text)
    text = _STOPS.sub(lambda m: m[0].replace(".", ""), text)
    text = _COMMA.sub(lambda m: f"{m[1] or m[3]}.{m[2] or m[4]}", text)
    text = _ABOUT.sub("about ", text)
    text = _SHILLINGS.sub(r"\g<number> shillings", text)
    text = _PENCE.sub(_pence, text)
    text = _CENTS.sub(_cents, text)
    text = _MONEY_RANGE.sub(_money_range, text)
    text = _MONEY.sub(_money, text)
    text = _MONEY_AFTER.sub(_money, text)
    return _PER_UNIT.sub(lambda m: f" per {_PERS[m['unit'].replace('.', '')]}", text)


def _money(match: re.Match[str]) -> str:
    found = match.groupdict()
    minus = "minus " if found.get("minus") or found.get("minus2") else ""
    which = _before_noun(match) and not found.get("per")
    return minus + _amount(match["sign"], match["figures"], match["scale"], which=which) + _per(found.get("per"))


def _amount(sign: str, figures: str, scale: str | None, *, which: bool = False) -> str:
    one, many, cent, cents = _CURRENCIES[sign]
    many, cents = (one, cent) if which else (many, cents)
    figures = figures.replace(",", "")
    if scale:
        return f"{number(figures)} {_scale(scale)} {many}"
    whole, point, fraction = figures.partition(".")
    if not point or not fraction.strip("0"):
        return count(str(int(whole or 0)), one, many)
    if len(fraction) > 2 or not cent:
        return f"{number(figures)} {many}"
    small = int(fraction.ljust(2, "0"))
    minor = count(str(small), cent, cents)
    return f"{count(str(int(whole)), one, many)} {minor}" if int(whole or 0) else minor


def _money_range(match: re.Match[str]) -> str:
    first = number(match["first"]) + (f" {_scale(match['s1'])}" if match["s1"] else "")
    return f"{first} to {_amount(match['sign'], match['figures'], match['scale'])}{_per(match['per'])}"


def _per(written: str | None) -> str:
    if not written:
        return ""
    return "".join(f" per {_PERS.get(what, what)}" for what in written[1:].split("/"))


def _scale(scale: str) -> str:
    scale = scale.strip()
    return _SCALES.get(scale.lower(), scale)


def _pence(match: re.Match[str]) -> str:
    """`10 shillings 6d` and `6d.` are money; `3d` alone is not."""
    if not (match["shillings"] or match["stop"]):
        return match[0]
    stop = "" if match["goes_on"] is not None else match["stop"]
    return f"{match['shillings'] or ''}{count(match['number'], 'penny', 'pence')}{stop}"


def _cents(match: re.Match[str]) -> str:
    if match["pence"]:
        return count(match["pence"], "penny", "pence")
    return count(match["before"] or match["after"], "cent", "cents")


def _percent(match: re.Match[str]) -> str:
    sign = {"-": "minus ", "−": "minus ", "+": "plus "}.get(match["minus"] or "", "")
    return f"{sign}{number(match['figures'])} {'per mille' if match['sign'] == '‰' else 'percent'}"


def _degrees(match: re.Match[str]) -> str:
    """A temperature, an angle, a place on the globe."""
    scale = {"C": " Celsius", "F": " Fahrenheit", "K": " Kelvin"}.get(match["scale"] or "", "")
    minus = "minus " if match["minus"] else ""
    parts = [count(match["figures"], "degree", "degree" if _before_noun(match) else "degrees")]
    parts += [count(match[part], part[:-1], part) for part in ("minutes", "seconds") if match[part]]
    way = _WAYS.get(match["way"] or "", "")
    return f"{minus}{' '.join(parts)}{scale}{way}"


def _before_noun(match: re.Match[str]) -> bool:
    """Whether an amount says which: a 90° turn."""
    text, begin = match.string, match.start()
    return bool(_ARTICLE.search(text, max(0, begin - 4), begin) and _NOUN.match(text, match.end()))


def _height(match: re.Match[str]) -> str:
    if int(match["inches"]) > 12:
        return match[0]
    inches = int(match["inches"])
    last = count(str(inches), "inch", "inches") if "i" in match[0] else cardinal(inches)
    return f"{count(match['feet'], 'foot', 'feet')} {last}"


def _feet(match: re.Match[str]) -> str:
    """A 13″ screen is so many inch; it is so many inches wide."""
    if match["sign"] == "′":
        return count(match["figures"], "foot", "feet")
    which = _NOUN.match(match.string, match.end()) or match.string[match.end() :].startswith((" TV", " T V"))
    which = which and not _EXTENT.match(match.string, match.end())
    return count(match["figures"], "inch", "inch" if which else "inches")


def _duration(match: re.Match[str]) -> str:
    """`1h 30m`, `2m30s`; each unit is smaller than the one before."""
    parts = re.findall(r"(\d+)([dhms])", match[0])
    order = ["dhms".index(unit) for _, unit in parts]
    if any(later <= earlier for earlier, later in itertools.pairwise(order)):
        return match[0]
    return " ".join(count(figures, _IN_TIME[unit], f"{_IN_TIME[unit]}s") for figures, unit in parts)


def _unit(match: re.Match[str]) -> str:
    unit, gap = match["unit"], match["gap"]
    following = match.string[match.end() : match.end() + 12]
    if unit in _AMBIGUOUS_GAP and gap == " " and not match["power"] and not match["per"] and not match["square"]:
        word = unit in ("in", "pt", "bar", "A", "K", "B", "s", "t") and not match["stop"]
        word = word and (unit == "in" or "." not in match["figures"])
        if word or (following[:1] in "'’" and following):
            return match[0]
    if gap == "-" and unit in ("m", "s", "t", "A", "B", "K", "V", "in") and not match["per"]:
        return match[0]
    if unit in ("K", "B") and not match["per"] and not gap:
        return match[0]
    if unit == "s" and len(match["figures"]) > 1 and match["figures"].endswith("0") and not gap and not match["per"]:
        return match[0]  # the 1990s
    if unit in ("m", "h") and following[:1] == ":":
        return match[0]
    one, many = UNITS[unit]
    square = {"sq": "square ", "cu": "cubic "}.get((match["square"] or "")[:2], "")
    square = square or {"²": "square ", "2": "square ", "³": "cubic ", "3": "cubic "}.get(
        (match["power"] or "")[-1:], ""
    )
    attributive = gap == "-" or _before_noun(match)
    read = f"{number(match['figures'])} {square}{one if attributive or match['figures'] == '1' else many}"
    if match["per"]:
        read += f" per {DENOMINATORS[match['per']]}"
    ends = match["stop"] and (not following.strip() or following.lstrip()[:1].isupper())
    return ("minus " if match["minus"] else "") + read + ("." if ends else "")


def _per_thing(match: re.Match[str]) -> str:
    things = {"req": "requests", "reqs": "requests", "msgs": "messages", "tok": "tokens"}.get(
        match["things"], match["things"]
    )
    return f"{things} per {DENOMINATORS[match['per']]}"


def _fraction_of_unit(match: re.Match[str]) -> str:
    if match["unit"] in _AMBIGUOUS_GAP and match["gap"] and match[0][-1] != ".":
        return match[0]
    one, many = UNITS[match["unit"]]
    return f"{match['figures']} {many if match['whole'] or match['one'] else one}"


def _magnitude(match: re.Match[str]) -> str:
    if match["figures"] + match["scale"] in _FOUR_K and not match["plus"]:
        return f"{number(match['figures'])} {match['scale']}"
    if match["scale"] == "B" and _NAME.match(match.string, match.end()):
        return f"{number(match['figures'])} B"
    if _NUMBERED_PLACE.search(match.string[: match.start()]):
        return f"{number(match['figures'])} {match['scale'].upper()}"
    minus = "minus " if match["minus"] else ""
    return f"{minus}{number(match['figures'])} {_SCALES[match['scale'].lower()]}{' plus' if match['plus'] else ''}"
