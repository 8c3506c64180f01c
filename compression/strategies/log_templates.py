"""Log lines as templates and what fills their holes; the order of the lines stays.

    [log 1; * filled by rows; > as it was; " as above]
    A:* INFO server: request * from * done
    A 10:20:30 17 10.0.0.1
     " 18 10.0.0.7

A row names its template, or none if it is that of the row above, and the words that fill it. Words are whole, so that a
number, path or address can be found as it was; what all fillings of a hole have around them is part of the template.

Templates are mined as Drain does it (He, Zhu, Zheng, Lyu: "Drain", ICWS 2017): lines of equally many words whose words
are mostly the same, words with digits being taken as variable from the start.
"""

from __future__ import annotations

from itertools import takewhile
from operator import eq
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.strategies.lossless import LosslessStrategy, split_form
from apportion.compression.validation.facts import MAX_ERROR_LINE, error_lines, extract_facts, without_colours
from apportion.compression.validation.line_facts import facts_of_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MIN_LINES = 6
"""Shorter texts have no templates."""

MIN_SIMILARITY = 0.6
"""Share of the words that must be equal for a line to join a template."""

MAX_COMPARED = 24
"""Templates of one length and first word with which a line is compared."""

MAX_LEADING = 3
"""So many words at the beginning of a line may be a time."""

MIN_CLUSTER_LINES = 3
"""Fewer lines make no template."""

LEADING = 4
"""The first words of a line, times and levels mostly, repeat those of the line above, whatever its template."""

ROW_CHARS = 5
"""What the sign of a template costs in a row, in characters."""

LEGEND_CHARS = 16
"""What a template costs in the legend, besides its text."""

MAX_SHARE = 0.97
"""A form that is longer than this share of its text is not looked at further."""

SAMPLE_BLOCKS, BLOCK_LINES = 10, 30
"""Blocks of a long text, and lines of each, from which it is told whether templates are worth seeking."""

MIN_REGULAR_SHARE = 0.05
"""Share of the lines of a sample that must look alike: fewer could not save what a legend costs to read."""

_HOLES = ("*", "<>", "#", "§", "¤")
_DITTOS = ('"', "^", "~", "§", "¤")
_RAW = ">"
_BEFORE = frozenset(" =([{<\"'@|")
_BEHIND = frozenset(")]}>\"',;:|")


class _Template(NamedTuple):
    """Words of a template: text, or for a hole what stands before and behind its filling."""

    words: tuple[str | tuple[str, str], ...]

    def around(self, position: int) -> tuple[str, str]:
        """Return what stands before and behind the filling of a hole."""
        word = self.words[position]
        return ("", "") if isinstance(word, str) else word

    def spell(self, hole: str) -> str:
        """Return the template with a sign for each hole."""
        return " ".join(word if isinstance(word, str) else f"{word[0]}{hole}{word[1]}" for word in self.words)


class LogTemplates(LosslessStrategy):
    """Writes lines that differ in a few words as rows of those words."""

    name = "log_templates"

    def encode(self, text: str, item: Item, query: Query) -> str | None:  # noqa: ARG002  (the text says it all)
        """Return the text as rows; a line stays as it is where a fact of it would no longer stand there whole."""
        lines = text.split("\n")
        if len(lines) < MIN_LINES or _is_table(text, lines):
            return None
        plain = without_colours(text)
        errors = error_lines(plain)
        shown = plain.split("\n") if plain is not text else lines
        words = [
            [line] if said.strip()[:MAX_ERROR_LINE] in errors else line.split(" ")
            for line, said in zip(lines, shown, strict=True)
        ]
        if len(lines) > 2 * SAMPLE_BLOCKS * BLOCK_LINES and not _is_regular(_sample(words)):
            return None
        members = _with_tails(words, _clusters(words))
        form = _form(lines, words, members)
        if form is None or len(form) > MAX_SHARE * len(text):
            return None
        hiding = _hiding(lines, form)
        if not hiding:
            return form
        return _form(lines, words, {number: each for number, each in members.items() if number not in hiding})

    def decode(self, form: str, held: Sequence[Held]) -> str:  # noqa: ARG002  (the form says it all)
        """Return the lines, each template filled."""
        head, body = split_form(form, "log ")
        count, hole, ditto = _read_head(head)
        lines = body.split("\n")
        templates = dict(_read_template(line, hole) for line in lines[:count])
        filler = _Filler(ditto)
        return "\n".join(filler.line(row, templates) for row in lines[count:])


def _is_table(text: str, lines: Sequence[str]) -> bool:
    """Say whether a text is JSON that stands in rows already; rows of rows would be hard to read."""
    return text.startswith("[json ") and 2 * sum("|" in line for line in lines) > len(lines)


def _sample(words: Sequence[list[str]]) -> list[list[str]]:
    """Return blocks of lines, evenly spread."""
    step = len(words) // SAMPLE_BLOCKS
    return [line for start in range(0, step * SAMPLE_BLOCKS, step) for line in words[start : start + BLOCK_LINES]]


def _is_regular(words: Sequence[list[str]]) -> bool:
    """Say whether enough lines of a sample look alike, or begin with a time, for templates to be sought in all."""
    alike = len(_clusters(words)) + sum(_varies(line[0]) for line in words if len(line) > 1)
    return alike >= MIN_REGULAR_SHARE * len(words)


def _hiding(lines: Sequence[str], form: str) -> set[int]:
    """Return the numbers of the lines of which a fact no longer stands whole in any row or template."""
    written = form.split("\n")
    legend, body = written[: -len(lines)], written[-len(lines) :]
    rows = {number: row for number, row in enumerate(body) if not row.startswith(_RAW)}
    stated = extract_facts("\n".join([*legend, *rows.values()]))
    before = [lines[number] for number in rows]
    if extract_facts("\n".join(before)) <= stated:
        return set()
    found = facts_of_lines(before)
    unstated = {number: facts - stated for number, facts in zip(rows, found, strict=True) if not facts <= stated}
    templates = dict(_named(line) for line in legend[1:])
    signs = dict(zip(rows, _signs(rows.values()), strict=True))
    shown = {
        fact
        for number, facts in unstated.items()
        for fact in facts
        if fact in rows[number] or fact in templates[signs[number]]
    }
    return {number for number, facts in unstated.items() if not facts <= shown}


def _named(line: str) -> tuple[str, str]:
    """Return the sign of a template in the legend, and its text."""
    sign, _, text = line.partition(":")
    return sign, text


def _signs(rows: Iterable[str]) -> Iterator[str]:
    """Yield the sign of the template of each row."""
    sign = ""
    for row in rows:
        sign = row.partition(" ")[0] or sign
        yield sign


def _clusters(words: Sequence[Sequence[str]]) -> dict[int, int]:
    """Return the number of the cluster of each line that is in one large enough."""
    exact: dict[tuple[str | None, ...], list[int]] = {}
    for number, line in enumerate(words):
        if len(line) > 1:
            exact.setdefault(tuple([word if _NO_DIGIT(word) else None for word in line]), []).append(number)
    buckets: dict[tuple[int, str | None], list[tuple[list[object], list[int]]]] = {}
    for mask, numbers in exact.items():
        bucket = buckets.setdefault((len(mask), mask[0]), [])
        enough = max(1.0, MIN_SIMILARITY * (len(mask) - mask.count(None)))
        for pattern, joined in bucket[:MAX_COMPARED]:
            if sum(map(eq, pattern, mask)) >= enough:
                pattern[:] = [one if one == other else _ANY for one, other in zip(pattern, mask, strict=True)]
                joined.extend(numbers)
                break
        else:
            bucket.append(([_ANY if word is None else word for word in mask], list(numbers)))
    clusters = (found for bucket in buckets.values() for _, found in bucket)
    large = [found for found in clusters if len(found) >= MIN_CLUSTER_LINES]
    return {number: cluster for cluster, found in enumerate(large) for number in found}


def _with_tails(words: list[list[str]], members: dict[int, int]) -> dict[int, int]:
    """Return the clusters with those of lines that share no more than how they begin, with a time mostly.

    The words of such a line become the first ones and all the rest as one.
    """
    paying = _templates(words, members)
    members = {number: cluster for number, cluster in members.items() if cluster in paying}
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, line in enumerate(words):
        if number not in members:
            leading = list(takewhile(_varies, line[:MAX_LEADING]))
            if leading and len(line) > len(leading):
                groups.setdefault(tuple(word.translate(_DIGITS) for word in leading), []).append(number)
    for cluster, (mask, found) in enumerate(groups.items(), max(members.values(), default=0) + 1):
        if len(found) >= MIN_LINES:
            for number in found:
                line = words[number]
                words[number] = [*line[: len(mask)], " ".join(line[len(mask) :])]
                members[number] = cluster
    return members


_DIGITS = str.maketrans("123456789", "0" * 9)


def _varies(word: str) -> bool:
    return not _NO_DIGIT(word)


_NO_DIGIT = frozenset("0123456789").isdisjoint
_ANY = object()  # unlike any word


def _form(lines: Sequence[str], words: Sequence[list[str]], members: dict[int, int]) -> str | None:
    templates = _templates(words, members)
    if not templates:
        return None
    names = {cluster: _name(number) for number, cluster in enumerate(templates)}
    hole = _unused(_HOLES, (word for each in templates.values() for word in _texts(each)))
    rows = [
        (names[members[number]], templates[members[number]], line) if members.get(number) in templates else None
        for number, line in enumerate(words)
    ]
    fillings = {line[position] for row in rows if row for line in (row[2],) for position in _holes(row[1])}
    ditto = next((sign for sign in _DITTOS if sign not in fillings), None)
    if hole is None or ditto is None:
        return None
    filler = _Filler(ditto)
    body = [filler.row(*row) if row else _RAW + line for row, line in zip(rows, lines, strict=True)]
    legend = [f"{names[cluster]}:{template.spell(hole)}" for cluster, template in templates.items()]
    head = f"[log {len(legend)}; {hole} filled by rows; {_RAW} as it was; {ditto} as above]"
    return "\n".join([head, *legend, *body])


def _read_head(head: str) -> tuple[int, str, str]:
    count, hole, _, ditto = (part.split(" ") for part in head.split("; "))
    return int(count[0]), hole[0], ditto[0]


def _templates(words: Sequence[list[str]], members: dict[int, int]) -> dict[int, _Template]:
    """Return the templates of the clusters that pay, in the order in which they occur."""
    lines: dict[int, list[list[str]]] = {}
    for number in sorted(members):
        lines.setdefault(members[number], []).append(words[number])
    templates = {cluster: _template(found) for cluster, found in lines.items() if len(found) >= MIN_CLUSTER_LINES}
    return {cluster: template for cluster, template in templates.items() if _pays(template, len(lines[cluster]))}


def _template(lines: Sequence[Sequence[str]]) -> _Template:
    return _Template(tuple(_word(set(column)) for column in zip(*lines, strict=True)))


def _word(fillings: set[str]) -> str | tuple[str, str]:
    if len(fillings) == 1:
        return next(iter(fillings))
    prefix = _common_prefix(fillings)
    behind = {filling[len(prefix) :] for filling in fillings}
    suffix = _common_prefix({filling[::-1] for filling in behind})[::-1]
    return _cut_prefix(prefix), _cut_suffix(suffix)


def _common_prefix(texts: Iterable[str]) -> str:
    low, high = min(texts), max(texts)
    for number, (one, other) in enumerate(zip(low, high, strict=False)):
        if one != other:
            return low[:number]
    return low[: min(len(low), len(high))]


def _cut_prefix(prefix: str) -> str:
    """Return as much of a prefix as ends where a fact cannot go on."""
    for end in range(len(prefix), 0, -1):
        sign = prefix[end - 1]
        if sign == "[" and prefix[end - 2 : end - 1] == "\x1b":
            continue  # the code of a colour, with a word right behind it
        if sign in _BEFORE or (sign == ":" and end > 1 and prefix[end - 2].isalpha()):
            return prefix[:end]
        if sign == "T" and end > 10 and prefix[end - 11 : end - 1].replace("-", "").isdigit():
            return prefix[:end]
    return ""


def _cut_suffix(suffix: str) -> str:
    """Return as much of a suffix as begins where a fact has ended."""
    for start, sign in enumerate(suffix):
        if sign in _BEHIND and not (sign in ":,;|" and suffix[start + 1 : start + 2].isalnum()):
            return suffix[start:]
    return ""


def _pays(template: _Template, count: int) -> bool:
    fixed = sum(len(word) + 1 if isinstance(word, str) else len(word[0]) + len(word[1]) for word in template.words)
    return (count - 1) * fixed > count * ROW_CHARS + LEGEND_CHARS


def _texts(template: _Template) -> list[str]:
    return [part for word in template.words for part in ((word,) if isinstance(word, str) else word)]


def _holes(template: _Template) -> list[int]:
    return [position for position, word in enumerate(template.words) if not isinstance(word, str)]


def _unused(signs: Sequence[str], texts: Iterable[str]) -> str | None:
    joined = " ".join(texts)
    return next((sign for sign in signs if sign not in joined), None)


def _name(number: int) -> str:
    letters = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


def _read_template(line: str, hole: str) -> tuple[str, _Template]:
    name, _, text = line.partition(":")
    words: list[str | tuple[str, str]] = []
    for word in text.split(" "):
        before, found, behind = word.partition(hole)
        words.append((before, behind) if found else word)
    return name, _Template(tuple(words))


class _Filler:
    """Writes and reads rows one after the other, and knows which words stood above.

    Args:
        ditto: Stands for a word that is that of the row above.
    """

    def __init__(self, ditto: str) -> None:
        self._ditto = ditto
        self._template = ""
        self._holes: dict[str, list[int]] = {}
        self._above: dict[tuple[str, int] | int, str] = {}

    def row(self, name: str, template: _Template, words: Sequence[str]) -> str:
        """Return the row of a line."""
        cells = []
        for position in self._holes_of(name, template):
            key, filling = self._key(name, position), words[position]
            before, behind = template.around(position)
            shown = filling[len(before) : len(filling) - len(behind)]
            same = self._above.get(key) == filling and len(shown) > 1
            cells.append(self._ditto if same else shown)
            self._above[key] = filling
        sign, self._template = "" if name == self._template and cells else name, name
        return " ".join([sign, *cells])

    def line(self, row: str, templates: dict[str, _Template]) -> str:
        """Return the line of a row."""
        if row.startswith(_RAW):
            return row[1:]
        sign, _, rest = row.partition(" ")
        name = self._template = sign or self._template
        template = templates[name]
        words, holes = list(template.words), self._holes_of(name, template)
        cells = rest.split(" ", len(holes) - 1) if holes else []  # the last one may be the rest of its line
        for position, cell in zip(holes, cells, strict=True):
            key, (before, behind) = self._key(name, position), template.around(position)
            filling = self._above[key] if cell == self._ditto else before + cell + behind
            words[position] = self._above[key] = filling
        return " ".join(words)  # type: ignore[arg-type]  # all holes are filled

    def _holes_of(self, name: str, template: _Template) -> list[int]:
        holes = self._holes.get(name)
        if holes is None:
            holes = self._holes[name] = _holes(template)
        return holes

    def _key(self, name: str, position: int) -> tuple[str, int] | int:
        return position if position < LEADING else (name, position)
