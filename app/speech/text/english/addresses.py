"""Addresses of the web, of mail and of machines; versions, hashes and names of files."""

from __future__ import annotations

import re
from collections.abc import Callable

from app.speech.text.english.states import STATES
from app.speech.text.english.words import cardinal, digits, listed, number, spelt
from app.speech.text.options import UrlReading

_TLD = (
    "com|org|net|edu|gov|io|ai|dev|app|co|uk|de|fr|eu|us|ca|au|ch|at|nl|it|es|jp|info|me|tv|xyz|example|test|local|"
    "tech|cloud|news|shop|site|online"
)
_URL = re.compile(
    r"\b(?:https?|ftp|wss?)://(?P<rest>[^\s<>\"“”]+)|\b(?P<bare>www\.[^\s<>\"“”]+)"
    rf"|(?<![\w@./-])(?P<domain>(?:[a-z0-9-]+\.)+(?:{_TLD})(?:/[^\s<>\"“”]*)?)(?![\w@-])"
)
_MAIL = re.compile(r"(?:mailto:)?(?<![\w.])(?P<user>[\w.+-]+)@(?P<host>[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)")
_IP = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?P<port>:\d{1,5})?(?P<net>/\d{1,2})?(?![\w]|\.\d)")
_NO_VERSION = r"(?!\d{1,2}\.\d{1,2}\.[12]\d{3}\b|\d{3}\.\d{3}\.\d{4}\b)"
"""A date or a telephone number."""
_VERSION = re.compile(
    rf"(?<![\w.])(?:(?P<sign>[vV])(?:ersion )?(?P<marked>\d+(?:\.\d+)*)|(?P<bare>{_NO_VERSION}\d+(?:\.\d+){{2,3}}))"
    r"(?P<more>-?(?:alpha|beta|rc|a|b|dev)\.?\d*)?(?![\w]|\.\d)"
)
_POSTCODE = re.compile(rf",\s(?P<state>{'|'.join(STATES)}) (?P<code>\d{{5}}(?:-\d{{4}})?)(?![\w-])")
_HASH = re.compile(r"(?<![\w-])(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d[0-9a-f]*\d)[0-9a-f]{7,64}(?![\w-])")
_COLOUR = re.compile(
    r"(?<!\w)#(?=[0-9A-Fa-f]*[0-9])(?=[0-9A-Fa-f]*[A-Fa-f])(?P<figures>[0-9A-Fa-f]{6}(?:[0-9A-Fa-f]{2})?)(?!\w)"
)
_HEX = re.compile(r"(?<!\w)0[xX](?P<figures>[0-9A-Fa-f]{1,64})(?!\w)")
_UUID = re.compile(r"(?<![\w-])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![\w-])")
_FILE = re.compile(
    r"(?<![\w./])(?P<name>[\w~-]+(?:[./\\][\w~-]+)*)\.(?P<ending>py|js|ts|tsx|jsx|json|ya?ml|toml"
    r"|md|txt|csv|html?|css|xml|pdf|"
    r"docx?|xlsx?|pptx?|png|jpe?g|gif|svg|mp3|mp4|wav|flac|ogg|zip|tar|gz|exe|sh|rs|go|cpp|hpp|java"
    r"|rb|php|sql|ini|cfg|log|env|epub)\b"
)
_PATH = re.compile(
    r"(?<![^\s(\"'])(?<!\d )(?P<path>(?:~|\.{1,2})?/[A-Za-z_.][\w.~+-]+(?:/[\w.~+-]+)*/?"
    r"|[A-Z]:\\[\w.~+-]+(?:\\[\w.~+-]+)*)(?![\w/\\])"
)
"""On a machine: `~/.bashrc`, `/etc/hosts`, `C:\\Users`."""
_PORT = re.compile(r"\blocalhost:(?P<port>\d{2,5})\b")
_HARDWARE = re.compile(r"(?<![\w:-])[\da-fA-F]{2}(?:(?::[\da-fA-F]{2}){5}|(?:-[\da-fA-F]{2}){5})(?![\w:-])")
_IP6 = re.compile(
    r"(?<![\w:])(?=[\da-fA-F:]*(?:::|[a-f]))(?:[\da-fA-F]{1,4}:|::)(?:[\da-fA-F]{0,4}:){1,6}[\da-fA-F]{0,4}(?![\w:])"
)
_DOT_NET = re.compile(r"(?<![a-z])\.NET\b")
_SPELT_ENDINGS = frozenset(
    listed(
        "py js ts md csv html htm css xml pdf png jpg jpeg gif svg mp3 mp4 yml rs cpp hpp rb php sql cfg exe sh tsx jsx"
    )
)
_WORDY_ENDINGS = frozenset(listed("co me be is to so at in no am my us it do"))
_TRAILING = ".,;:!?)]}'\"’”»*_"
_SIGNS = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "?": "question mark", "=": "equals", "&": "and",
    "#": "hash", ":": "colon", "@": "at", "+": "plus", "~": "tilde", "%": "percent", "\\": "backslash",
}  # fmt: skip
_PART = re.compile(r"[A-Za-z]+|\d+|\S")
MAX_FULL_CHARS = 120


def read_addresses(text: str, urls: UrlReading) -> str:
    """The text with addresses as words; how much of a web address is read is `urls`."""
    if "@" in text:
        text = _MAIL.sub(_mail, text)
    if "." in text or "://" in text:
        text = _URL.sub(_url_reader(urls), text)
        text = _IP.sub(_ip, text)
        text = _DOT_NET.sub(" dot net", text)
        text = _PATH.sub(_path, text)
        text = _FILE.sub(_file, text)
    elif "/" in text or "\\" in text:
        text = _PATH.sub(_path, text)
    if ":" in text or "-" in text:
        text = _PORT.sub(lambda m: f"localhost port {_part(m['port'])}", text)
        text = _HARDWARE.sub(lambda m: ", ".join(map(spelt, re.split("[:-]", m[0]))), text)
        text = _IP6.sub(lambda m: " colon ".join(map(spelt, m[0].split(":"))), text)
    text = _UUID.sub(lambda m: spelt(m[0]), text)
    text = _COLOUR.sub(lambda m: spelt(m["figures"]), text)
    text = _HEX.sub(lambda m: f"zero X {spelt(m['figures'])}", text)
    text = _POSTCODE.sub(_postcode, text)
    text = _VERSION.sub(_version, text)
    return _HASH.sub(lambda m: spelt(m[0]), text)


def spelt_out(address: str) -> str:
    """Every word, number and sign of an address."""
    return " ".join(_part(found[0]) for found in _PART.finditer(address))


def _path(match: re.Match[str]) -> str:
    path = match["path"]
    bare = path.rstrip("." if len(path) > 2 else "")
    said = re.sub(rf"(?<=\.)(?:{'|'.join(sorted(_SPELT_ENDINGS))})\Z", lambda m: spelt(m[0]), bare)
    return spelt_out(said.replace("-", " ").replace("_", " ")) + path[len(bare) :]


def _host(host: str) -> str:
    """A country's two letters are spelt, but for those that make a word."""
    name, _, last = host.rpartition(".")
    country = len(last) == 2 and last.isalpha() and last not in _WORDY_ENDINGS
    return f"{spelt_out(name)} dot {spelt(last)}" if name and country else spelt_out(host)


def _part(part: str) -> str:
    if part.isdigit():
        return cardinal(int(part)) if len(part) < 5 and part[0] != "0" else digits(part)
    return _SIGNS.get(part, part if part.isalpha() else "")


def _url_reader(urls: UrlReading) -> Callable[[re.Match[str]], str]:
    def read(match: re.Match[str]) -> str:
        address = match["rest"] or match["bare"] or match["domain"]
        bare = address.rstrip(_TRAILING)
        tail = address[len(bare) :]
        bare = bare.removeprefix("www.").rstrip("/")
        host = re.split(r"[/?#]", bare, maxsplit=1)[0].rpartition("@")[2]
        read = spelt_out(bare) if urls is UrlReading.FULL else _host(host)
        if urls is UrlReading.FULL and len(bare) > MAX_FULL_CHARS:
            read = _host(host)
        return read + tail

    return read


def _mail(match: re.Match[str]) -> str:
    host, tail = match["host"], ""
    return f"{spelt_out(match['user'])} at {_host(host)}{tail}"


def _postcode(match: re.Match[str]) -> str:
    return f", {STATES[match['state']]} {', '.join(map(digits, match['code'].split('-')))}"


def _ip(match: re.Match[str]) -> str:
    read = " dot ".join(cardinal(int(part)) for part in match[1].split("."))
    if match["port"]:
        read += f" port {digits(match['port']) if len(match['port']) > 5 else cardinal(int(match['port'][1:]))}"
    return read + (f" slash {cardinal(int(match['net'][1:]))}" if match["net"] else "")


def _version(match: re.Match[str]) -> str:
    figures = match["marked"] or match["bare"]
    read = " point ".join(number(part) for part in figures.split("."))
    more = match["more"] or ""
    if more:
        word = more.strip("-.0123456789")
        read += f" {word if len(word) > 2 else word.upper()} {digits(more)}".rstrip()
    return f"version {read}" if match["sign"] else read


def _file(match: re.Match[str]) -> str:
    ending = match["ending"]
    said = spelt(ending) if ending in _SPELT_ENDINGS else ending
    name = match["name"].replace("_", " ").replace("-", " ").replace(".", " dot ")
    name = name.replace("/", " slash ").replace("\\", " backslash ")
    return f"{name} dot {said}"
