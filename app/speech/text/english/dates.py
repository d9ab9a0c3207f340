"""Dates and times of day."""

from __future__ import annotations

import re
from functools import partial

from app.speech.text.english.words import cardinal, digits, ordinal, year

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_MONTH = (
    r"(?P<month>January|February|March|April|May|June|July|August|September|October|November|December|"
    r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?)"
)
_DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
_ISO = re.compile(
    r"(?<![\w-])(?P<year>[12]\d{3})[-/](?P<month>0[1-9]|1[0-2])[-/](?P<day>0[1-9]|[12]\d|3[01])(?:T"
    r"(?=\d\d:)|(?![\w/-]))"
)
_ISO_MONTH = re.compile(r"(?<![\w.,/-])(?P<year>[12]\d(?P<ten>\d\d))-(?P<month>0[1-9]|1[0-2])(?![\w/-])")
_SLASHED = re.compile(r"(?<![\w/.-])(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>[12]\d{3}|\d\d)(?![\w/])")
_DASHED = re.compile(r"(?<![\w.,-])(?P<first>\d{1,2})-(?P<second>\d{1,2})-(?P<year>[12]\d{3})(?![\w-])")
_DOTTED = re.compile(r"(?<![\w.])(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>[12]\d{3})(?!\w|\.\d)")
_MONTH_DAY = re.compile(
    rf"\b{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:(?P<dash>\s?[-–]\s?)(?P<last>\d{{1,2}})(?:st|nd|rd|th)?)?\b"
    r"(?!\s?[:%])(?:(?P<comma>,?) (?P<year>[12]\d{3})\b)?"
)
_DAY_MONTH = re.compile(
    rf"(?<![\w.,/:-])(?P<the>the )?(?:(?P<first>\d{{1,2}})(?:st|nd|rd|th)?\s?[-–—]\s?)?"
    rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:(?: of)? |-(?=\w+-\d)){_MONTH}(?:(?:,? |-)(?P<year>[12]\d{{3}}))?(?!\w)"
)
_A_MONTH = _MONTH.replace("?P<month>", "?:")
_DATES = re.compile(rf"\b({_A_MONTH} \d{{1,2}}(?:, \d{{4}})?)\s?[-–—]\s?(?={_A_MONTH} \d)")
_ORDINALS = re.compile(r"(?<!\w)(?P<first>\d{1,3})(?:st|nd|rd|th)\s?[-–—]\s?(?=\d{1,3}(?:st|nd|rd|th)\b)")
_MONTHS_RANGE = re.compile(rf"\b{_MONTH}\s?[-–—]\s?{_MONTH.replace('<month>', '<last>')}(?!\w)")
_MONTH_YEAR = re.compile(rf"\b{_MONTH}(?: of)?,? (?P<year>[12]\d{{3}})\b")
_DAY = re.compile(
    rf"\b(?P<day>{'|'.join(_DAYS)})\.?(?=,? (?:\d{{1,2}}\b|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)))"
)
_LONE_DAY = re.compile(r"\b(?P<day>Mon|Tues?|Wed|Thu(?:rs?)?|Fri)\.(?P<end>(?=\s*\Z|\s+[A-Z]))?(?=\s|[,;)]|\Z)")
_DAY_LIST = re.compile(rf"\b(?:{'|'.join(_DAYS)})\.?(?:(?:,? (?:and|&|or) |, ?|/)(?:{'|'.join(_DAYS)})\b)+")
_SHORT_MONTH = re.compile(
    r"\b(?P<month>(?<=in )Jan|Jan(?=\. [a-z])|(?<=of )Jan|"
    r"(?<=since )Jan|(?<=last )Jan|(?<=next )Jan|Feb|Aug|Sept?|Oct|Nov|Dec)\."
    r"(?:(?P<end>(?=\s+[A-Z]))|(?=\s))"
)
_WEEK = re.compile(
    r"\b(?P<first>Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)\.?\s?[-–—]\s?(?P<last>Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun)\b"
    r"(?P<stop>\.(?=\s+[a-z\d]))?"
)


def _two_figures(first: str, second: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<sure>(?:\b(?:[Oo]n|until|till|due|dated|through|{'|'.join((*_DAYS.values(), *_DAYS))})\.?,? )?)"
        rf"(?<![\w/.,:-]){first}/{second}(?![\w/:]|[.,]\d|[ -](?:cups?|of|an?|the|"
        r"t?b?sp|inch|in|teaspoons?|tablespoons?|mile|hour|way|full|empty|time|stars?)\b)"
    )


_MONTH_FIGURES, _DAY_FIGURES = r"(?P<month>0?[1-9]|1[0-2])", r"(?P<day>0?[1-9]|[12]\d|3[01])"
_MONTH_AND_DAY = _two_figures(_MONTH_FIGURES, _DAY_FIGURES)
_DAY_AND_MONTH = _two_figures(_DAY_FIGURES, _MONTH_FIGURES)
_PLAIN_FRACTIONS = frozenset((2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16))
_CENTURY = re.compile(r"(?<=\d)(?P<th>st|nd|rd|th) c\.(?=(?P<end>\s+[A-Z]|\s*\Z)|\W)")
_DECADE = re.compile(
    r"(?<![\w.,])(?P<century>1[0-9]|20)(?P<ten>\d)0['’]?s\b|(?<!\w)['’](?P<short>\d)0['’]?s\b|(?<!"
    r"[\w.,$€£])(?<!\d[hm] )(?P<bare>[2-9])0['’]?s\b"
)
_SECONDS = re.compile(
    r"(?i:(?<=\bwait )|(?<=\bfor )|(?<=\bwithin )|(?<=\bafter )|(?<=\bevery )|"
    r"(?<=\btook )|(?<=\btakes )|(?<=\bthan )|(?<=\babout )|(?<=\blasts ))"
    r"(?P<figures>[2-9]0)s(?=[.,;:!?)]|\Z| (?:then|and|or|before|after|at|between|per|on|to|until)\b)"
)
"""Rather than a decade: "wait 90s"."""
_SPLIT = re.compile(r"(?<![\w:.,])(?P<minutes>\d{1,2}):(?P<seconds>[0-5]\d)\.(?P<part>\d{1,3})(?![\w:])")
"""A race's time."""
_HOURS_LONG = re.compile(r"(?<![\w:.,])(?P<hours>[1-9])h(?P<minutes>[0-5]\d)(?!\w)")
_ERA = re.compile(
    r"(?<![\w.,])(?P<year>\d{1,5}) ?(?P<era>BCE?|CE|AD|B\.C\.E?\.?|A\.D\.)(?!\w)|\b(?P<ad>AD|A\.D\.)"
    r" (?P<after>\d{1,4})\b"
)
_TIME = re.compile(
    r"(?<![\w:.,])(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.\d+)?)?(?!\.\d)"
    r"(?:\s?(?P<half>[aApP]\.?\s?[mM]\b\.?))?(?P<zulu>Z\b)?(?:\s?h\b)?(?![\w:])"
)
_HOUR = re.compile(
    r"(?<![\w:.,])(?P<hour>1[0-2]|0?[1-9])(?:[.](?P<minute>[0-5]\d))?\s?(?P<half>[ap]\.m\.?|[ap]m\b|[AP]\.M\.?|[AP]M\b)"
)
_HOURS = re.compile(
    r"(?<![\w:.,])(?P<first>1[0-2]|0?[1-9])(?::(?P<m1>[0-5]\d))?(?:\s?(?P<h1>[aApP])\.?[mM]\b\.?)?\s?[-–]\s?(?P<last>1[0-2]|0?[1-9])"
    r"(?::(?P<m2>[0-5]\d))?\s?"
    r"(?P<half>[ap]\.m\.?|[ap]m\b|[AP]\.M\.?|[AP]M\b)"
)
_TIME_RANGE = re.compile(r"(?<![\w:.,])(?P<first>\d{1,2}:[0-5]\d)\s?[-–—]\s?(?=\d{1,2}:[0-5]\d(?!\w|:))")
_ZONE = re.compile(r"\b(?P<zone>UTC|GMT) ?(?P<sign>[+−–-]) ?(?P<hours>0?\d|1[0-4])(?::?(?P<minutes>[0-5]\d))?(?![\w:])")
_OCLOCK = re.compile(r"\b(?P<hour>\d{1,2})(?::00)? o(?P<mark>['’])clock")
_CALENDAR = re.compile(rf" (?:{'|'.join((*MONTHS, *_DAYS.values()))}|[A-Z]{{2,4}}\b|I\b)")
_NAMED_HOUR = re.compile(r" (?:noon|midnight|[A-Z]{1,3}[SD]?T|UTC)\b")
"""Behind an hour: of it, or its zone, nobody says o'clock."""
_PACE = re.compile(r"(?<=:[0-5]\d)/(?P<per>mi|km)\b")
_HALF = re.compile(r"(?<=[a-z] )(?P<half>[ap]\.m\.)")
_SHORT_YEAR = re.compile(r"(?<![^\s(])['’](?P<figures>\d\d)(?![\w'’%:°]|[.,]\d)")
"""As in the class of '08."""
_CIRCA = re.compile(r"(?<![\w.])(?P<word>ca?|[Ee]st|estd)\. ?(?=[12]?\d{3}\b)")
_YEARS = re.compile(
    r"(?<![\w.,$€£-])(?P<first>1[1-9]\d\d|20\d\d)\s?[-–—/]\s?(?P<last>1[1-9]\d\d|20\d\d|\d\d)(?![\w:/-]|[.,]\d)"
)
_OLD_YEAR = re.compile(r"(?:(?<=\b[Ii]n )|(?<=\bof )|(?<=\byear )|(?<=\bsince ))10[1-9]\d(?![\w%]|[.,]\d| [a-z]+s\b)")
_YEAR = re.compile(
    r"(?<![\w.,:/$€£¥#+-])(?P<year>1[1-9]\d\d|20[0-4]\d)(?P<own>['’]s)?(?![\w:/%°×-]|[.,]\d| ?(?:%"
    r"|percent|dollars|euros|pounds|people|men|women|words|miles|kilometers|meters|times|million|billion"
    r"|thousand|steps|items|points|tons|[kcm]m\b|kg\b|[MGT]B\b|MHz\b))"
)


def read_dates(text: str, *, day_first: bool = False) -> str:
    """The text with dates and times as words; `day_first` where 3/5 is in May."""
    text = _ISO.sub(
        lambda m: f"{_date(int(m['month']), int(m['day']), m['year'])}{' at ' if m[0].endswith('T') else ''}", text
    )
    text = _ISO_MONTH.sub(_iso_month, text)
    read_figures = partial(_in_figures, day_first=day_first)
    if "/" in text:
        text = _SLASHED.sub(read_figures, text)
        text = (_DAY_AND_MONTH if day_first else _MONTH_AND_DAY).sub(_month_and_day, text)
    text = _DASHED.sub(read_figures, text)
    text = _DOTTED.sub(_dotted, text)
    text = _WEEK.sub(lambda m: f"{_DAYS[m['first']]} to {_DAYS[m['last']]}", text)
    text = _DAY_LIST.sub(lambda m: re.sub(r"([A-Z][a-z]+)\.?", lambda day: _DAYS[day[1]], m[0]), text)
    text = _DAY.sub(lambda m: _DAYS[m["day"]], text)
    text = _LONE_DAY.sub(lambda m: _DAYS[m["day"]] + ("." if m["end"] is not None else ""), text)
    text = _DATES.sub(r"\1 to ", text)
    text = _MONTHS_RANGE.sub(lambda m: f"{_month(m['month'])} to {_month(m['last'])}", text)
    text = _DAY_MONTH.sub(_day_month, text)
    text = _ORDINALS.sub(lambda m: f"{ordinal(int(m['first']))} to ", text)
    text = _MONTH_DAY.sub(_month_day, text)
    text = _MONTH_YEAR.sub(lambda m: f"{_month(m['month'])} {year(int(m['year']))}", text)
    text = _SHORT_MONTH.sub(lambda m: _month(m["month"]) + ("." if m["end"] is not None else ""), text)
    text = _ZONE.sub(_zone, text)
    text = _HOURS.sub(_hours, text)
    text = _OCLOCK.sub(lambda m: f"{cardinal(int(m['hour']))} o{m['mark']}clock", text)
    text = _HOURS_LONG.sub(_hours_long, text)
    text = _SPLIT.sub(_split, _PACE.sub(lambda m: f" per {'mile' if m['per'] == 'mi' else 'kilometer'}", text))
    text = _TIME_RANGE.sub(r"\g<first> to ", text)
    text = _TIME.sub(_time, text)
    text = _HOUR.sub(lambda m: _clock(m["hour"], m["minute"] or "00", m["half"], m), text)
    text = _HALF.sub(lambda m: _half(m["half"], m), text)
    return _read_years(text)


def _read_years(text: str) -> str:
    text = _CIRCA.sub(lambda m: "circa " if m["word"][0] == "c" else f"{m['word'][0]}stablished ", text)
    text = _CENTURY.sub(lambda m: f"{m['th']} century{'.' if m['end'] is not None else ''}", text)
    text = _SECONDS.sub(lambda m: f"{cardinal(int(m['figures']))} seconds", text)
    text = _DECADE.sub(_decade, text)
    text = _SHORT_YEAR.sub(lambda m: f"{'oh ' if m['figures'][0] == '0' else ''}{cardinal(int(m['figures']))}", text)
    text = _ERA.sub(_era, text)
    text = _YEARS.sub(_years, text)
    text = _OLD_YEAR.sub(lambda m: year(int(m[0])), text)
    return _YEAR.sub(lambda m: year(int(m["year"])) + (m["own"] or ""), text)


def _month(name: str) -> str:
    return next(month for month in MONTHS if month.startswith(name.strip(".")[:3]))


def _iso_month(match: re.Match[str]) -> str:
    """`2019-11`, but the years of 2010-12 are a span."""
    if match["month"] > match["ten"] and match["month"][0] != "0":
        return match[0]
    return f"{MONTHS[int(match['month']) - 1]} {year(int(match['year']))}"


def _date(month: int, day: int, written_year: str) -> str:
    spoken = f"{MONTHS[month - 1]} {ordinal(day)}"
    return f"{spoken}, {year(_full(written_year))}" if written_year else spoken


def _full(written: str) -> int:
    number = int(written)
    return number if number > 99 else number + (2000 if number < 50 else 1900)


def _in_figures(match: re.Match[str], *, day_first: bool) -> str:
    """Month first, as in America, unless it is the day's place or can only be the day."""
    month, day = int(match["first"]), int(match["second"])
    if month > 12 or (day_first and day <= 12):
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return _date(month, day, match["year"])


def _month_and_day(match: re.Match[str]) -> str:
    """`12/25`, and `on 1/2`; else a fraction, a score or a ratio."""
    month, day = int(match["month"]), int(match["day"])
    fraction = day in _PLAIN_FRACTIONS or month >= day
    known = (month, day) in ((9, 11),)
    if known or (fraction and not match["sure"]):
        return match[0]
    return match["sure"] + _date(month, day, "")


def _dotted(match: re.Match[str]) -> str:
    month, day = int(match["month"]), int(match["day"])
    return _date(month, day, match["year"]) if 1 <= month <= 12 and 1 <= day <= 31 else match[0]


def _month_day(match: re.Match[str]) -> str:
    day = int(match["day"])
    if not 1 <= day <= 31:
        return match[0]
    spoken = f"{_month(match['month'])} {ordinal(day)}"
    if match["last"]:
        spoken += f" to {ordinal(int(match['last']))}"
    return f"{spoken}, {year(int(match['year']))}" if match["year"] else spoken


def _day_month(match: re.Match[str]) -> str:
    day = int(match["day"])
    if not 1 <= day <= 31:
        return match[0]
    first = f"{ordinal(int(match['first']))} to " if match["first"] else ""
    spoken = f"the {first}{ordinal(day)} of {_month(match['month'])}"
    return f"{spoken}, {year(int(match['year']))}" if match["year"] else spoken


def _decade(match: re.Match[str]) -> str:
    if match["century"]:
        ten = int(match["ten"])
        head = cardinal(int(match["century"]))
        if not ten:
            return _plural(0) if head == "twenty" else f"{head} hundreds"
        return f"{head} {_plural(ten)}"
    return _plural(int(match["short"] or match["bare"]))


def _plural(ten: int) -> str:
    return f"{cardinal(10 * ten).removesuffix('y')}ies" if ten > 1 else "tens" if ten else "two thousands"


def _era(match: re.Match[str]) -> str:
    if match["ad"]:
        return f"A D {year(int(match['after']))}"
    return f"{year(int(match['year']))} {' '.join(match['era'].replace('.', ''))}"


def _years(match: re.Match[str]) -> str:
    last = match["last"]
    return f"{year(int(match['first']))} to {year(int(last)) if len(last) == 4 else cardinal(int(last))}"


def _time(match: re.Match[str]) -> str:
    read = _clock(match["hour"], match["minute"], match["half"], match)
    if _NAMED_HOUR.match(match.string, match.end()):
        read = read.removesuffix(" o'clock")
    if match["second"]:
        seconds = cardinal(int(match["second"]))
        read += f" and {seconds} second{'' if match['second'] == '01' else 's'}"
    return read + (" U T C" if match["zulu"] else "")


def _zone(match: re.Match[str]) -> str:
    minutes = int(match["minutes"] or 0)
    sign = "plus" if match["sign"] == "+" else "minus"
    return f"{match['zone']} {sign} {cardinal(int(match['hours']))}{f' {cardinal(minutes)}' if minutes else ''}"


def _clock(hour: str, minute: str, half: str | None, match: re.Match[str]) -> str:
    read = _hour_minute(hour, minute, halved=half is not None)
    return f"{read} {_half(half, match)}" if half else read


def _hour_minute(hour: str, minute: str, *, halved: bool) -> str:
    read = cardinal(int(hour))
    if minute != "00":
        return f"{read} {'oh ' if minute[0] == '0' else ''}{cardinal(int(minute))}"
    return read if halved else f"{read} hundred" if int(hour) > 12 else f"{read} o'clock"


def _hours_long(match: re.Match[str]) -> str:
    """`1h30`."""
    hours = int(match["hours"])
    return f"{cardinal(hours)} hour{'' if hours == 1 else 's'} {cardinal(int(match['minutes']))}"


def _split(match: re.Match[str]) -> str:
    seconds = match["seconds"]
    read = f"{cardinal(int(match['minutes']))} {'oh ' if seconds[0] == '0' else ''}{cardinal(int(seconds))}"
    return f"{read} point {digits(match['part'])}"


def _half(half: str, match: re.Match[str]) -> str:
    """The letters; the stop of an abbreviation ends its sentence, too, before a capital that is no day's or month's."""
    following = match.string[match.end() :].lstrip("\"'”’)")
    goes_on = following.strip() and (not following[1:2].isupper() or _CALENDAR.match(following))
    return f"{half[0].upper()} M{'.' if half.endswith('.') and not goes_on else ''}"


def _hours(match: re.Match[str]) -> str:
    first = _hour_minute(match["first"], match["m1"] or "00", halved=True)
    first += f" {match['h1'].upper()} M" if match["h1"] else ""
    return f"{first} to {_clock(match['last'], match['m2'] or '00', match['half'], match)}"
