"""Log lines as templates and what fills their holes; the order of the lines stays.

    [log 1; * filled by rows; > as it was; " as above]
    A:* INFO server: request * from * done
    A 10:20:30 17 10.0.0.1
     " 18 10.0.0.7

A row names its template, or none if it is that of the row above, and the words that fill it; without a name it begins
with a blank or a digit. Words are whole, so that a number, path or address can be found as it was; what all fillings of
a hole have around them is part of the template. So is how columns were aligned, and which words follow from others:

    A:[new branch] *1-origin/<20 -> *

stands for `[new branch] fix/index            -> origin/fix/index` where a row fills in `origin/fix/index`: `*1` is the
first filling, `-origin/` leaves that out in front, and `<20` pads it to 20 characters (`>20` on the left).

Templates are mined as Drain does it (He, Zhu, Zheng, Lyu: "Drain", ICWS 2017): lines of equally many words whose words
are mostly the same, words with digits being taken as variable from the start.
"""

from __future__ import annotations

from collections import Counter
from itertools import permutations, takewhile
from operator import eq
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.strategies.lossless import LosslessStrategy, split_form
from apportion.compression.validation.facts import MAX_ERROR_LINE, error_lines, extract_facts, without_colours
from apportion.compression.validation.line_facts import facts_of_lines

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

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

MIN_DERIVED_CHARS = 4
"""A shorter word is written although it is, or ends, another one of its line."""

MAX_WIDTH = 999
"""No column is padded to more characters than this."""

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
_DIGIT_SIGNS = "0123456789"
_DIGIT_STARTS = tuple(_DIGIT_SIGNS)
_CONTINUED = (" ", *_DIGIT_SIGNS)
_WITHOUT_SIGNS = frozenset("<> ")
_BEFORE = frozenset(" =([{<\"'@|")
_BEHIND = frozenset(")]}>\"',;:|")


class _Hole(NamedTuple):
    """A place in a template where lines differ.

    Attributes:
        before: What stands before the filling.
        behind: What stands behind it.
        width: Characters to which it is padded with blanks; 0 if it is not.
        right: Whether the blanks stand before it.
        source: Position of the hole whose filling says this one; below 0 where rows say it.
        without: What the filling of that hole has in front, and this one lacks.
    """

    before: str = ""
    behind: str = ""
    width: int = 0
    right: bool = False
    source: int = -1
    without: str = ""

    def cut(self, word: str) -> str:
        """Return the filling of a word."""
        return word[len(self.before) : len(word) - len(self.behind)] if self.width == 0 else word.strip(" ")

    def fill(self, filling: str) -> str:
        """Return the word that has a filling."""
        if self.width:
            filling = filling.rjust(self.width) if self.right else filling.ljust(self.width)
        return self.before + filling + self.behind

    def spell(self, hole: str, number: int) -> str:
        """Return how the legend says it, by the sign for holes and the number of the filling from which it follows."""
        parts = [self.before, hole]
        if self.source >= 0:
            parts.append(f"{number}-{self.without}" if self.without else str(number))
        if self.width:
            parts.append(f"{'>' if self.right else '<'}{self.width}")
        return "".join([*parts, self.behind])

    @classmethod
    def read(cls, word: str, hole: str) -> tuple[_Hole, int]:
        """Return what a word of the legend that has the sign of a hole says, and the number in it, or 0."""
        before, _, behind = word.partition(hole)
        said = behind.rstrip(" ")
        digits = len(said) - len(said.lstrip(_DIGIT_SIGNS))
        short = said.rstrip(_DIGIT_SIGNS)
        width = 0
        if short[-1:] in {"<", ">"} and 0 < len(said) - len(short) <= len(str(MAX_WIDTH)):
            width, right, said = int(said[len(short) :]), short[-1] == ">", short[:-1]
        rest = said[digits:]
        if before or not (width or digits) or (rest and (rest[0] != "-" or not digits)):
            return cls(before, behind), 0
        blanks = behind[len(behind.rstrip(" ")) :]
        return cls("", blanks, width, width > 0 and right, 0 if digits else -1, rest[1:]), int(said[:digits] or 0)


class _Template(NamedTuple):
    """Words of a template: text or holes."""

    words: tuple[str | _Hole, ...]

    def shown(self) -> list[tuple[int, _Hole]]:
        """Return the holes that rows fill, with their positions."""
        return [(place, word) for place, word in enumerate(self.words) if isinstance(word, _Hole) and word.source < 0]

    def derived(self) -> list[tuple[int, _Hole]]:
        """Return the holes that follow from others, with their positions."""
        return [(place, word) for place, word in enumerate(self.words) if isinstance(word, _Hole) and word.source >= 0]

    def spell(self, hole: str) -> str:
        """Return the template with a sign for each hole."""
        numbers = {position: number for number, (position, _) in enumerate(self.shown(), 1)}
        return " ".join(
            word if isinstance(word, str) else word.spell(hole, numbers.get(word.source, 0)) for word in self.words
        )

    def parts(self) -> Iterator[str]:
        """Yield all text in it."""
        for word in self.words:
            yield from (word,) if isinstance(word, str) else (word.before, word.behind, word.without)


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
            [line] if said.strip()[:MAX_ERROR_LINE] in errors else _words(line)
            for line, said in zip(lines, shown, strict=True)
        ]
        bare = [each if "  " not in line else [*map(_bare, each)] for each, line in zip(words, lines, strict=True)]
        if len(lines) > 2 * SAMPLE_BLOCKS * BLOCK_LINES and not _is_regular(_sample(bare)):
            return None
        members = _with_tails(words, _aligned(words, _clusters(bare)))
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
        filler = _Filler(ditto, templates)
        return "\n".join(map(filler.line, lines[count:]))


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
        if not row.startswith(_CONTINUED):
            sign = row.partition(" ")[0]
        yield sign


def _words(line: str) -> list[str]:
    """Return the words of a line between single blanks; further blanks belong to the word before them.

    >>> _words("  a b   c")
    [' ', 'a', 'b  ', 'c']
    """
    words = line.split(" ")
    if "" not in words:
        return words
    joined = words[:1]
    blanks = 0
    for word in words[1:]:
        if not word:
            blanks += 1
            continue
        joined[-1] += " " * blanks
        joined.append(word)
        blanks = 0
    joined[-1] += " " * blanks
    return joined


def _aligned(words: list[list[str]], members: dict[int, int]) -> dict[int, int]:
    """Return the clusters, divided where their words are padded with blanks that follow no rule."""
    clusters: dict[int, list[int]] = {}
    for number, cluster in members.items():
        clusters.setdefault(cluster, []).append(number)
    aligned = [part for found in clusters.values() for part in _align(words, found, 0)]
    divided = [part for found in aligned for part in _divide(words, found)]
    return {number: cluster for cluster, found in enumerate(divided) for number in found}


def _align(words: list[list[str]], numbers: list[int], start: int) -> Iterator[list[int]]:
    """Yield lines in whose words each run of blanks is constant, or pads the word before or behind it.

    Blanks that pad the word behind them are put there.
    """
    width = len(words[numbers[0]])
    for place in range(start, width - 1):
        column = [words[number][place] for number in numbers]
        blanks = [len(word) - len(word.rstrip(" ")) for word in column]
        if len(set(blanks)) == 1 or _padding(column) is not None:
            continue
        behind = [" " * count + words[number][place + 1] for number, count in zip(numbers, blanks, strict=True)]
        if not any(word.endswith(" ") for word in behind) and _padding(behind) is not None:
            for number, word in zip(numbers, behind, strict=True):
                words[number][place : place + 2] = words[number][place].rstrip(" "), word
            continue
        parts: dict[int, list[int]] = {}
        for number, count in zip(numbers, blanks, strict=True):
            parts.setdefault(count, []).append(number)
        for part in parts.values():
            if len(part) >= MIN_CLUSTER_LINES:
                yield from _align(words, part, place + 1)
        return
    yield numbers


def _divide(words: Sequence[list[str]], numbers: list[int]) -> Iterator[list[int]]:
    """Yield lines in which the same words end others in the same way, if they are many, and all others as one."""
    probes = (numbers[0], numbers[len(numbers) // 2], numbers[-1])
    if len(numbers) < 2 * MIN_LINES or not any(_endings(words[number]) for number in probes):
        yield numbers
        return
    parts: dict[tuple[tuple[int, int, str], ...], list[int]] = {}
    for number in numbers:
        parts.setdefault(_endings(words[number]), []).append(number)
    large = [part for endings, part in parts.items() if endings and len(part) >= MIN_LINES]
    yield from large
    apart = {number for part in large for number in part}
    if len(numbers) - len(apart) >= MIN_CLUSTER_LINES:
        yield [number for number in numbers if number not in apart]


def _endings(line: Sequence[str]) -> tuple[tuple[int, int, str], ...]:
    """Return which words of a line end others, and what those have in front."""
    return tuple(
        (position, source, line[source].strip(" ")[: -len(line[position].strip(" "))])
        for position, source in _alike(line)
    )


def _padding(column: Collection[str]) -> tuple[int, bool] | None:
    """Return to how many characters words are padded, and whether on the left; `None` if they are not."""
    width = max((len(word) for word in column if word[:1] == " " or word[-1:] == " "), default=0)
    if not 0 < width <= MAX_WIDTH:
        return None
    if all(word.strip(" ").ljust(width) == word for word in column):
        return width, False
    return (width, True) if all(word.strip(" ").rjust(width) == word for word in column) else None


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
    beginnings = {
        number: _beginning(line) for number, line in enumerate(words) if number not in members and _varies(line[0])
    }
    often = Counter(begun[:length] for begun in beginnings.values() for length in range(1, len(begun) + 1))
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, begun in beginnings.items():
        length = next((length for length in range(len(begun), 0, -1) if often[begun[:length]] >= MIN_LINES), 0)
        if length:
            groups.setdefault(begun[:length], []).append(number)
    cluster = max(members.values(), default=0) + 1
    for mask, found in groups.items():
        if len(found) >= MIN_LINES:
            for number in found:
                line = words[number]
                last = line[len(mask) - 1].rstrip(" ")
                blanks = line[len(mask) - 1][len(last) :]
                words[number] = [*line[: len(mask) - 1], last, blanks + " ".join(line[len(mask) :])]
            for part in _align(words, found, 0):
                members.update(dict.fromkeys(part, cluster))
                cluster += 1
    return members


def _beginning(line: Sequence[str]) -> tuple[str, ...]:
    """Return the first words of a line as long as they vary, all digits alike; something is left behind them."""
    return tuple(_bare(word).translate(_DIGITS) for word in takewhile(_varies, line[: min(MAX_LEADING, len(line) - 1)]))


_DIGITS = str.maketrans("123456789", "0" * 9)


def _varies(word: str) -> bool:
    return not _NO_DIGIT(word)


def _bare(word: str) -> str:
    return word.rstrip(" ") if word[-1:] == " " else word


_NO_DIGIT = frozenset("0123456789").isdisjoint
_ANY = object()  # unlike any word


def _form(lines: Sequence[str], words: Sequence[list[str]], members: dict[int, int]) -> str | None:
    templates = _templates(words, members)
    if not templates:
        return None
    names = {cluster: _name(number) for number, cluster in enumerate(templates)}
    hole = _unused(_HOLES, (part for each in templates.values() for part in each.parts()))
    rows = [
        (names[members[number]], templates[members[number]], line) if members.get(number) in templates else None
        for number, line in enumerate(words)
    ]
    shown = {cluster: template.shown() for cluster, template in templates.items()}
    fillings = {
        place.cut(words[number][position])
        for number, cluster in members.items()
        for position, place in shown.get(cluster, ())
    }
    ditto = next((sign for sign in _DITTOS if sign not in fillings), None)
    if hole is None or ditto is None:
        return None
    legend = [f"{names[cluster]}:{template.spell(hole)}" for cluster, template in templates.items()]
    filler = _Filler(ditto, dict(_read_template(line, hole) for line in legend))
    body = [filler.row(*row) if row else _RAW + line for row, line in zip(rows, lines, strict=True)]
    holes = [word for each in templates.values() for word in each.words if isinstance(word, _Hole)]
    head = f"[log {len(legend)}; {hole} filled by rows; {_RAW} as it was; {ditto} as above"
    if any(each.source >= 0 for each in holes):
        head += f"; {hole}2 as the second, {hole}2-x without x"
    if any(each.width for each in holes):
        head += f"; {hole}<9 padded to 9"
    return "\n".join([head + "]", *legend, *body])


def _read_head(head: str) -> tuple[int, str, str]:
    count, hole, _, ditto = (part.split(" ") for part in head.split("; ")[:4])
    return int(count[0]), hole[0], ditto[0]


def _templates(words: Sequence[list[str]], members: dict[int, int]) -> dict[int, _Template]:
    """Return the templates of the clusters that pay, in the order in which they occur."""
    lines: dict[int, list[list[str]]] = {}
    for number in sorted(members):
        lines.setdefault(members[number], []).append(words[number])
    templates = {cluster: _template(found) for cluster, found in lines.items() if len(found) >= MIN_CLUSTER_LINES}
    return {cluster: template for cluster, template in templates.items() if _pays(template, lines[cluster])}


def _template(lines: Sequence[Sequence[str]]) -> _Template:
    words = [_word(set(column)) for column in zip(*lines, strict=True)]
    for position, source in _alike(lines[0]):
        own, other = words[position], words[source]
        if isinstance(own, _Hole) and isinstance(other, _Hole) and own.source < 0 and other.source < 0:
            hole = _derived(own, lines[0][position], other.cut(lines[0][source]))._replace(source=source)
            if all(_follows(hole, line[position], other.cut(line[source])) for line in lines):
                words[position] = hole
    return _Template(tuple(words))


def _alike(line: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the positions of a word and of another one of the line that is the same, or ends so."""
    by_tail: dict[str, list[int]] = {}
    for position, word in enumerate(line):
        bare = word.strip(" ")
        if len(bare) >= MIN_DERIVED_CHARS:
            by_tail.setdefault(bare[-MIN_DERIVED_CHARS:], []).append(position)
    for positions in by_tail.values():
        for position, source in permutations(positions[:MAX_LEADING], 2):
            if line[source].strip(" ").endswith(line[position].strip(" ")):
                yield position, source


def _derived(own: _Hole, word: str, source: str) -> _Hole:
    """Return a hole that follows from another one as its word in one line does from the filling of that one."""
    without = source[: len(source) - len(word.strip(" "))]
    blanks = "" if own.width else " " * (len(word) - len(word.rstrip(" ")))
    return _Hole("", blanks, own.width, own.right, 0, without)


def _follows(hole: _Hole, word: str, source: str) -> bool:
    """Say whether a word is what a hole makes of the filling of another one."""
    return (
        source.startswith(hole.without)
        and hole.fill(source[len(hole.without) :]) == word
        and _WITHOUT_SIGNS.isdisjoint(hole.without)
    )


def _word(fillings: set[str]) -> str | _Hole:
    if len(fillings) == 1:
        return next(iter(fillings))
    gap = ""
    if " " in "".join(fillings):
        blanks = {len(filling) - len(filling.rstrip(" ")) for filling in fillings}
        padding = _padding(fillings) if len(blanks) > 1 or not max(blanks) else None
        if padding is not None:
            return _Hole("", "", *padding)
        gap = " " * min(blanks)
        fillings = {filling[: len(filling) - len(gap)] for filling in fillings}
    prefix = _common_prefix(fillings)
    behind = {filling[len(prefix) :] for filling in fillings}
    suffix = _common_prefix({filling[::-1] for filling in behind})[::-1]
    return _Hole(_cut_prefix(prefix), _cut_suffix(suffix) + gap)


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
    """Return as much of a suffix as begins where a fact has ended; one that looks like a width is none."""
    for start, sign in enumerate(suffix):
        if sign == ">" and suffix[start + 1 :].isdecimal():
            return ""
        if sign in _BEHIND and not (sign in ":,;|" and suffix[start + 1 : start + 2].isalnum()):
            return suffix[start:]
    return ""


def _pays(template: _Template, lines: Sequence[Sequence[str]]) -> bool:
    count = len(lines)
    fixed = 0
    for position, word in enumerate(template.words):
        if isinstance(word, str):
            fixed += len(word) + 1
        else:
            fixed += len(word.before) + len(word.behind) if word.source < 0 else len(lines[0][position]) + 1
    return (count - 1) * fixed > count * ROW_CHARS + LEGEND_CHARS


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
    words: list[str | _Hole] = []
    numbers: dict[int, int] = {}
    for word in _words(text):
        read, number = _Hole.read(word, hole) if hole in word else (word, 0)
        if number:
            numbers[len(words)] = number
        words.append(read)
    shown = [position for position, _ in _Template(tuple(words)).shown()]
    for position, number in numbers.items():
        words[position] = words[position]._replace(source=shown[number - 1])  # type: ignore[union-attr]  # a hole
    return name, _Template(tuple(words))


class _Filler:
    """Writes and reads rows one after the other, and knows which words stood above.

    Args:
        ditto: Stands for a word that is that of the row above.
        templates: By their names, as they are read: the end of a line that is one word where it is written may be
            several there. Which words stood above is told by them on both sides.
    """

    def __init__(self, ditto: str, templates: Mapping[str, _Template]) -> None:
        self._ditto = ditto
        self._template = ""
        self._templates = templates
        self._places = {name: (template.shown(), template.derived()) for name, template in templates.items()}
        self._written: dict[str, list[tuple[int, _Hole]]] = {}
        self._above: dict[tuple[str, int] | int, str] = {}

    def row(self, name: str, template: _Template, words: Sequence[str]) -> str:
        """Return the row of a line."""
        written = self._written.get(name)
        if written is None:
            written = self._written[name] = template.shown()
        cells = []
        for (place, own), (position, hole) in zip(written, self._places[name][0], strict=True):
            filling = own.cut(words[place])
            key, word = self._key(name, position), words[place] if own == hole else hole.fill(filling)
            same = self._above.get(key) == word and len(filling) > 1
            cells.append(self._ditto if same else filling)
            self._above[key] = word
        above, self._template = self._template, name
        if name != above or not cells:
            return " ".join([name, *cells])
        row = " ".join(cells)
        return row if row.startswith(_DIGIT_STARTS) else f" {row}"

    def line(self, row: str) -> str:
        """Return the line of a row."""
        if row.startswith(_RAW):
            return row[1:]
        if row.startswith(_CONTINUED):
            rest = row.removeprefix(" ")
        else:
            self._template, _, rest = row.partition(" ")
        name = self._template
        template = self._templates[name]
        words = list(template.words)
        shown, derived = self._places[name]
        cells = rest.split(" ", len(shown) - 1) if shown else []  # the last one may be the rest of its line
        for (position, hole), cell in zip(shown, cells, strict=True):
            key = self._key(name, position)
            words[position] = self._above[key] = self._above[key] if cell == self._ditto else hole.fill(cell)
        for position, hole in derived:
            source = template.words[hole.source].cut(words[hole.source])  # type: ignore[union-attr, arg-type]  # filled
            words[position] = hole.fill(source[len(hole.without) :])
        return " ".join(words)  # type: ignore[arg-type]  # all holes are filled

    def _key(self, name: str, position: int) -> tuple[str, int] | int:
        return position if position < LEADING else (name, position)
