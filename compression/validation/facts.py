r"""The facts of a text: what must neither get lost nor change when context is left out.

A fact is a number of two or more digits, an identifier (snake_case, camelCase, CONST_CASE, dotted, or letters mixed
with digits), a path, a URL, a hash, a date, a version, a quoted string, or an error line. The longest reading counts:
`/etc/app_v2.conf` is one fact, not three. Facts are compared as whole strings, never searched as substrings, so `12`
is not found in `123`.

Escapes in JSON strings (`\n`, `\"`) and terminal colours are undone first: a tool result is often JSON, and the text
inside is what an agent quotes. Every pattern runs in RE2, hence in linear time, on untrusted text of any length.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import re2

if TYPE_CHECKING:
    from collections.abc import Iterable

MIN_QUOTE = 3
"""Characters of the shortest quoted string that counts as a fact."""

MAX_QUOTE = 80
"""Characters of the longest one; beyond it is prose or code."""

MAX_ERROR_LINE = 200
"""Characters of an error line that are kept."""

MAX_RUN = 1000
"""Bytes without white space, quote, bracket or comma that are read as one; more is data. Bounds the work per byte."""

_DELIMITERS = bytes.maketrans(b"'`()[]{}<>,;|", b'"' * 13)
"""Turns all marks that no fact contains, thousands separators apart, into one of them."""

_MARKS = bytes(code for code in range(128) if not chr(code).isalnum())
"""What a quoted string does not consist of alone: marks between two strings, as `}},` in JSON, are none."""

_COLOUR = r"\x1b\[[0-9;?]*[A-Za-z]"
_DRIVE_PATH = r"\b[A-Za-z]:(?:\\[\w.@$~+-]+)+"
_EMAIL = r"[\w.%+-]+@[A-Za-z][\w-]*(?:\.[\w-]+)*\.[A-Za-z]{2,}"
_SINGLE_QUOTED = rf"\B'[^'\n]{{{MIN_QUOTE},{MAX_QUOTE}}}'\B"
_CONTEXT_LINE = r"([^:]*\.[A-Za-z]\w*)-(\d+)-(?:[^./]*$|$)"  # of a search result: path-12-text
_ERROR = (
    r"(?i:\b(?:error|fatal|panic))(?:\[\w+\])?[ \t]*:|\w(?:Error|Exception)[ \t]*:"
    r"|\b(?:ERROR|FATAL|FAIL|FAILED|FAILURE)\b|Traceback \(most recent call last\)"
)


def extract_facts(text: str) -> frozenset[str]:
    """Return the distinct facts of a text, in canonical form.

    Canonical means: no thousands separators, date and time apart, no white space at the ends of a quoted string.
    E-mail addresses are left out.

    >>> sorted(extract_facts("See src/app.py:120, it took 1,234.5ms on 2026-01-02T10:20:30Z"))
    ['10:20:30Z', '120', '1234.5ms', '2026-01-02', 'src/app.py']
    """
    data = _without_noise(text.encode("utf-8", "surrogatepass"))
    paths, data = _unescape(data)
    found = paths | _words(data) | _quotes(data) | _error_lines(data)
    found.discard(b"")
    return frozenset(b"\n".join(found).decode("utf-8", "replace").split("\n")) if found else frozenset()


def error_lines(text: str) -> frozenset[str]:
    """Return the distinct lines that report an error, without white space around them, cut to `MAX_ERROR_LINE`."""
    return frozenset(line.decode() for line in _error_lines(text.encode("utf-8", "replace")))


def without_colours(text: str) -> str:
    """Return a text without the codes of terminal colours; the same object where it has none."""
    if "\x1b[" not in text:
        return text
    plain = _pattern(_COLOUR).sub(b"", text.encode("utf-8", "surrogatepass"))
    return bytes(plain).decode("utf-8", "surrogatepass")


def missing_facts(facts: Iterable[str], text: str) -> frozenset[str]:
    """Return the facts that a text does not show: it does not state them, nor hold them between other characters.

    A fact that another notation shows without its quotes is shown; `12` is not shown by `123` or `x12`.

    >>> sorted(missing_facts(["12", "a b", "src/app.py"], "x12 of a b|src/app.py"))
    ['12']
    """
    plain = without_colours(text)
    return frozenset(fact for fact in frozenset(facts) - extract_facts(text) if not _shows(plain, fact))


def _shows(text: str, fact: str) -> bool:
    start = text.find(fact)
    while start >= 0:
        end = start + len(fact)
        begins = not (_joins(text[start - 1 : start]) and _joins(fact[:1]))
        if begins and not (_joins(text[end : end + 1]) and _joins(fact[-1:])):
            return True
        start = text.find(fact, start + 1)
    return False


def _joins(character: str) -> bool:
    return character.isalnum() or character == "_"


def _without_noise(data: bytes) -> bytes:
    """Drop terminal colours and e-mail addresses."""
    data = data.replace(b"\\u001b[", b"\x1b[")
    if b"\x1b[" in data:
        data = _pattern(_COLOUR).sub(b"", data)
    return _pattern(_EMAIL).sub(b"", data) if b"@" in data else data


def _unescape(data: bytes) -> tuple[set[bytes], bytes]:
    r"""Return the drive paths of Windows, and the text without them where `\n` and its like are white space."""
    paths: set[bytes] = set()
    if b"\\" not in data:
        return paths, data
    while b"\\\\" in data:
        data = data.replace(b"\\\\", b"\\")
    if b":\\" in data:
        drive_path = _pattern(_DRIVE_PATH)
        paths.update(drive_path.findall(data))
        data = drive_path.sub(b" ", data)
    for escape in (b"\\n", b"\\r", b"\\t"):
        data = data.replace(escape, b"\n")
    return paths, data


def _words(data: bytes) -> set[bytes]:
    """Return the facts that contain no white space; each distinct chunk of text is read once."""
    chunks = set(data.split())
    if max(map(len, chunks), default=0) > MAX_RUN:
        chunks = {chunk if len(chunk) <= MAX_RUN else _in_runs(chunk) for chunk in chunks}
    if not data.isascii():
        chunks = _without_symbols(chunks)
    return _canonical({match[0] for match in _facts_pattern().finditer(b"\n".join(chunks))})


class _Symbols(dict[int, int]):
    """Translates what is not a letter of a script that is written with spaces to a space, character by character.

    Chinese or Japanese text runs on around a name without a space, as do arrows and frames of a terminal.
    """

    def __missing__(self, code: int) -> int:
        letter = chr(code).isalpha() or 0x300 <= code < 0x370  # combining marks
        spaced = code < 0x530 or 0x1E00 <= code < 0x2000  # Latin, Greek and Cyrillic blocks
        self[code] = code if code < 0x80 or (letter and spaced) else 0x20
        return self[code]


_SYMBOLS = _Symbols()


def _without_symbols(chunks: set[bytes]) -> set[bytes]:
    """Leave letters as the only characters beyond ASCII."""
    others = {chunk for chunk in chunks if not chunk.isascii()}
    text = b"\n".join(others).decode("utf-8", "replace").translate(_SYMBOLS)
    return (chunks - others).union(text.encode().split())


def _in_runs(chunk: bytes) -> bytes:
    """Keep each distinct run between delimiters once, cut into equal lengths where it is still too long."""
    runs = chunk.translate(_DELIMITERS).split(b'"')
    parts = (run[start : start + MAX_RUN] for run in runs for start in range(0, len(run) or 1, MAX_RUN))
    return b'"'.join(dict.fromkeys(parts))


def _canonical(found: set[bytes]) -> set[bytes]:
    for fact in [fact for fact in found if b"," in fact or fact[10:11] == b"T"]:
        if b"," in fact:
            found.remove(fact)
            found.add(fact.strip(b"('\"~:=+.,;!?)").replace(b",", b""))
        elif fact[13:14] == b":":
            found.remove(fact)
            found.update((fact[:10], fact[11:]))
    for fact in [fact for fact in found if fact[:1] != b"-" and b"-" in fact and b"." in fact]:
        context = _pattern(_CONTEXT_LINE).match(fact)
        if context:
            found.remove(fact)
            found.update(part for part in context.groups() if len(part) > 1)
    return found


def _quotes(data: bytes) -> set[bytes]:
    """Return the quoted strings of each line; quotes pair up within the line, so an odd one spoils no other line."""
    lines = set(data.splitlines())
    found: set[bytes] = set()
    if b'\\"' in data:
        for line in lines:
            found.update(line.split(b'\\"')[1:-1:2])
        lines = {line.replace(b'\\"', b"\n") for line in lines}
    for mark in (b'"', b"`"):
        if mark in data:
            for line in lines:
                if mark in line:
                    found.update(line.split(mark)[1:-1:2])
    if b"'" in data:
        single = b"\n".join(line for line in lines if b"'" in line)
        found.update(match[0][1:-1] for match in _pattern(_SINGLE_QUOTED, utf8=True).finditer(single))
    return {quote for quote in map(bytes.strip, found) if _is_quote(quote)}


def _is_quote(quote: bytes) -> bool:
    if not MIN_QUOTE <= len(quote) <= 4 * MAX_QUOTE or b"\n" in quote or not quote.translate(None, _MARKS):
        return False
    characters = len(quote) if quote.isascii() else len(quote.decode("utf-8", "replace"))
    return MIN_QUOTE <= characters <= MAX_QUOTE


def _error_lines(data: bytes) -> set[bytes]:
    pattern, found, position = _pattern(_ERROR), set(), 0
    while match := pattern.search(data, position):
        start = data.rfind(b"\n", position, match.start()) + 1 or position
        end = data.find(b"\n", match.end())
        line = data[start : len(data) if end < 0 else end].strip()
        found.add(line[: 4 * MAX_ERROR_LINE].decode("utf-8", "ignore")[:MAX_ERROR_LINE].encode())
        if end < 0:
            break
        position = end + 1
    return found


def _alternatives() -> tuple[str, ...]:
    """Return what a fact looks like, in the order of preference.

    A run of letters and digits is always read from its beginning, so that no fact starts inside a word.
    """
    word, letter = r"\w\x80-\xff", r"A-Za-z\x80-\xff"  # content of character classes; what is not ASCII is a letter
    w, name = f"[{word}]", f"[{letter}_][{word}]*"
    component = rf"(?:\.?[{word}@-]+(?:\.+[{word}@-]+)*)"  # no dot at the end: it would be the sentence's full stop
    grouped = rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?{w}*%?"
    scheme = r"(?:https?|ftp|file|git|ssh|wss?|s3|gs|redis|mysql|mongodb|postgres(?:ql)?)"
    return (
        # URL, without the punctuation behind it
        rf"{scheme}://[^\s\"'`()\[\]{{}}<>,;|\\]*[{word}/#&=%-]",
        # number with thousands separators, where nothing but punctuation surrounds it: 1,234.5 but not [100,200]
        rf"(?m:^)[\"'$~:=+-]*{grouped}[)'\",.;:!?]*(?m:$)",
        rf"(?m:^)[('\"$~:=+-]*{grouped}['\",.;:!?]*(?m:$)",
        # UUID
        r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
        # date, with or without time; time of day
        r"\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?\b",
        r"\d{1,4}/\d{1,2}/\d{1,4}\b",
        r"\d{1,2}:\d{2}:\d{2}(?:\.\d+)?\b",
        r"(?m:^)\d{1,2}:\d{2}(?:[AaPp][Mm])?\b",
        # path: absolute, from the home or current folder, relative with an extension or with three components
        rf"\B/{component}(?:/{component})+|\B/[{word}@-]+\.{w}+|(?:~|\.{{1,2}})(?:/{component})+",
        rf"(?:{component}/)+[{word}.@-]*\.[{letter}][{word}-]*|[{letter}_@.][{word}@-]*(?:/{component}){{2,}}",
        rf"{w}[{word}-]*(?:\\{w}[{word}-]*)+\.[{letter}]{w}{{0,9}}",
        # version, number in scientific notation, number with sign, currency or unit
        rf"v?\d+(?:\.\d+){{2,}}(?:[-+][{letter}]{w}*(?:\.{w}+)*)?",
        r"(?:\B-)?\d+(?:\.\d+)?[eE][-+]\d+\b",
        rf"(?:\B-|\$)?\d(?:{w}+(?:\.\d{w}*)*|(?:\.\d{w}*)+)%?",
        # name: gpt-4.1-mini; docker-compose.yml, os.path.join; max_tokens, HttpClient, sha256
        rf"{name}(?:-{w}+)*-\d{w}*(?:[-.]{w}+)*",
        rf"[{letter}_][{word}-]*(?:\.[{word}-]+)*\.{w}{{2,}}",
        rf"{w}*(?:[{letter}\d]_+{w}|[a-z\d][A-Z]|[A-Z]{{2}}[a-z]{{2}}|[{letter}]\d){w}*|_+[{letter}]{w}+",
    )


@cache
def _facts_pattern() -> Any:
    return _pattern("|".join(f"(?:{alternative})" for alternative in _alternatives()))


@cache
def _pattern(pattern: str, *, utf8: bool = False) -> Any:
    """Compile for matching bytes: as UTF-8, or byte by byte, which is faster."""
    options = re2.Options()
    options.log_errors = False
    options.never_nl = True
    options.encoding = re2.Options.Encoding.UTF8 if utf8 else re2.Options.Encoding.LATIN1
    return re2.compile(pattern.encode(), options)
