"""Damages that change what a text says, and rewrites that do not: drawn at random, the same ones each time.

Each kind takes a text and a source of chance, and returns the changed text, or `None` where it does not apply. The
places are found with the plainest means, `str` methods and short `re` patterns of this file alone; nothing is shared
with any detector. The generator of number n of a kind is `random.Random(f"{seed}:{kind}:{n}")`, and it first draws the
text. Two rules keep damages honest: a line or sentence that stands twice is not dropped, since nothing would be lost;
and digits of terminal colours are not facts.
"""

from __future__ import annotations

import json
import random
import re
import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Change = Callable[[str, random.Random], str | None]

TRIES = 400
"""Draws after which a kind is given up, where few texts have what it changes."""

OPPOSITES = (
    ("increase", "decrease"), ("enabled", "disabled"), ("enable", "disable"), ("true", "false"), ("True", "False"),
    ("before", "after"), ("allow", "deny"), ("success", "failure"), ("min", "max"), ("open", "closed"), ("all", "some"),
    ("start", "stop"), ("read", "write"), ("first", "last"), ("up", "down"), ("and", "or"), ("with", "without"),
    ("always", "never"), ("more", "less"), ("from", "to"), ("new", "old"), ("public", "private"),
)  # fmt: skip
UNITS = ("ms", "s", "seconds", "minutes", "hours", "days", "KB", "MB", "GB", "bytes", "lines", "files", "tokens", "%")
INVENTED = (
    "The deployment was approved by the security team.", "Note: the second replica is read-only.",
    "All {n} checks passed on {d} November.", "The limit was raised to {n} requests.",
    "See ticket OPS-{n} for details.",
    "Rollback is not possible after this step.", "Contact Maria Jensen before merging.",
    "retries: {n}",
)  # fmt: skip


class Case(NamedTuple):
    """A text and what became of it.

    Attributes:
        kind: What was done.
        original: The text.
        changed: The text afterwards, different from it.
    """

    kind: str
    original: str
    changed: str


def draw(kinds: Mapping[str, Change], texts: Sequence[str], *, per_kind: int, seed: int = 0) -> list[Case]:
    """Return up to `per_kind` cases of each kind, no two alike."""
    cases: dict[Case, None] = {}
    for kind, change in kinds.items():
        made = 0
        for number in range(TRIES):
            chance = random.Random(f"{seed}:{kind}:{number}")  # noqa: S311  (reproducible, no secret)
            text = chance.choice(texts)
            changed = change(text, chance)
            if changed is None or changed == text or Case(kind, text, changed) in cases:
                continue
            cases[Case(kind, text, changed)] = None
            made += 1
            if made == per_kind:
                break
    return list(cases)


def _replace_at(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _pick(pattern: str, text: str, chance: random.Random, flags: int = 0) -> re.Match[str] | None:
    found = list(re.finditer(pattern, text, flags))
    return chance.choice(found) if found else None


def _other_digit(digit: str, chance: random.Random) -> str:
    return chance.choice([other for other in "0123456789" if other != digit])


def _other_letter(letter: str, chance: random.Random) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    other = chance.choice([other for other in letters if other != letter.lower()])
    return other.upper() if letter.isupper() else other


def _change_letter(text: str, start: int, end: int, chance: random.Random) -> str | None:
    places = [place for place in range(start, end) if text[place].isascii() and text[place].isalpha()]
    if not places:
        return None
    place = chance.choice(places)
    return _replace_at(text, place, place + 1, _other_letter(text[place], chance))


def _colours(text: str) -> set[int]:
    """Return where terminal colours stand; they are no facts."""
    return {place for match in re.finditer("\x1b\\[[0-9;]*m", text) for place in range(*match.span())}


def changed_digit(text: str, chance: random.Random) -> str | None:
    """Change one digit, wherever it stands."""
    colours = _colours(text)
    places = [place for place, mark in enumerate(text) if mark in "0123456789" and place not in colours]
    if not places:
        return None
    place = chance.choice(places)
    return _replace_at(text, place, place + 1, _other_digit(text[place], chance))


def borrowed_number(text: str, chance: random.Random) -> str | None:
    """Replace a number by another one that stands in the text as well."""
    colours = _colours(text)
    found = [match for match in re.finditer(r"(?<![\w.])\d+(?![\w.])", text) if match.start() not in colours]
    numbers = sorted({match[0] for match in found})
    if len(numbers) < 2:
        return None
    match = chance.choice(found)
    return _replace_at(text, *match.span(), chance.choice([number for number in numbers if number != match[0]]))


def _swap(text: str, one: re.Match[str], other: re.Match[str], group: int) -> str:
    first, second = sorted((one, other), key=lambda match: match.start())
    text = _replace_at(text, *second.span(group), first[group])
    return _replace_at(text, *first.span(group), second[group])


def _swapped(pattern: str, group: int, text: str, chance: random.Random, flags: int = 0) -> str | None:
    found = list(re.finditer(pattern, text, flags))
    if len(found) < 2:
        return None
    one = chance.choice(found)
    others = [match for match in found if match[group] != one[group]]
    return _swap(text, one, chance.choice(others), group) if others else None


def swapped_values(text: str, chance: random.Random) -> str | None:
    """Exchange the values of two keys."""
    return _swapped(r"[A-Za-z_]\"?[:=] ?\"?([\w.-]+)", 1, text, chance)


def swapped_names(text: str, chance: random.Random) -> str | None:
    """Exchange two capitalised words within lines."""
    return _swapped(r"(?<=[a-z] )([A-Z][a-z]{2,})\b", 1, text, chance)


def swapped_identifiers(text: str, chance: random.Random) -> str | None:
    """Exchange two identifiers."""
    return _swapped(r"\b([a-z]+(?:_[a-z0-9]+)+|[a-z]+[A-Z]\w+)\b", 1, text, chance)


def _sentences(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"[^.!?\n]*[^.!?\s][^.!?\n]*(?:[.!?](?= |\n|$)|(?=\n|$))", text)]


def dropped_constraint(text: str, chance: random.Random) -> str | None:
    """Drop a sentence that says must, never, not, only, unless, except, required or always."""
    words = re.compile(r"\b(must|never|not|only|unless|except|required|always)\b", re.IGNORECASE)
    spans = [
        (start, end)
        for start, end in _sentences(text)
        if words.search(text[start:end]) and text.count(text[start:end].strip()) == 1
    ]
    return _replace_at(text, *chance.choice(spans), "") if spans else None


def removed_negation(text: str, chance: random.Random) -> str | None:
    """Take a not, never, no or without away."""
    match = _pick(r"\b(?:not|never|no|without|Never|No|cannot) ", text, chance)
    if match is None:
        return None
    return _replace_at(text, *match.span(), "can " if match[0] == "cannot " else "")


def added_negation(text: str, chance: random.Random) -> str | None:
    """Put a not behind a verb."""
    match = _pick(r"\b(?:is|are|was|were|must|should|can|will|may|has|have) (?!not)", text, chance)
    return None if match is None else _replace_at(text, match.end(), match.end(), "not ")


def dropped_identifier(text: str, chance: random.Random) -> str | None:
    """Drop one occurrence of an identifier."""
    match = _pick(r"\b(?:\w+_\w+|[a-z]+[A-Z]\w+|[A-Za-z]+\d+\w*)\b", text, chance)
    return None if match is None else _replace_at(text, *match.span(), "")


def altered_identifier(text: str, chance: random.Random) -> str | None:
    """Change one letter of an identifier."""
    match = _pick(r"\b(?:\w+_\w+|[a-z]+[A-Z]\w+|[A-Za-z]+\d+\w*)\b", text, chance)
    return None if match is None else _change_letter(text, *match.span(), chance)


def altered_path(text: str, chance: random.Random) -> str | None:
    """Change a letter of a path, drop one of its folders, or its leading slash."""
    match = _pick(r"/?[\w.-]+(?:/[\w.-]+)+", text, chance)
    if match is None:
        return None
    way = chance.randrange(3)
    if way == 0 and match[0].startswith("/"):
        return _replace_at(text, match.start(), match.start() + 1, "")
    if way == 1:
        parts = match[0].split("/")
        del parts[chance.randrange(len(parts))]
        return _replace_at(text, *match.span(), "/".join(parts))
    return _change_letter(text, *match.span(), chance)


def altered_url(text: str, chance: random.Random) -> str | None:
    """Change one letter behind the scheme of a URL."""
    match = _pick(r"https?://([\w./-]+)", text, chance)
    return None if match is None else _change_letter(text, *match.span(1), chance)


def changed_unit(text: str, chance: random.Random) -> str | None:
    """Change the unit of a number."""
    match = _pick(rf"\d ?({'|'.join(UNITS)})(?!\w)", text, chance)
    if match is None:
        return None
    return _replace_at(text, *match.span(1), chance.choice([unit for unit in UNITS if unit != match[1]]))


def changed_date(text: str, chance: random.Random) -> str | None:
    """Change one digit of a date or time of day."""
    match = _pick(r"\d{4}-\d\d-\d\d|\d\d:\d\d(?::\d\d)?|\d{4}/\d\d/\d\d", text, chance)
    if match is None:
        return None
    place = chance.choice([place for place in range(*match.span()) if text[place].isdigit()])
    return _replace_at(text, place, place + 1, _other_digit(text[place], chance))


def changed_sign(text: str, chance: random.Random) -> str | None:
    """Take the minus of a number away, or give it one."""
    match = _pick(r"(?<=[ (=:])-?(?=\d+(?:\.\d+)?[ ,)\n])", text, chance)
    if match is None:
        return None
    return _replace_at(text, *match.span(), "" if match[0] else "-")


def invented(text: str, chance: random.Random) -> str | None:
    """Put in a sentence that nobody said, at the end of a line."""
    said = chance.choice(INVENTED).format(n=chance.randrange(2, 5000), d=chance.randrange(1, 30))
    lines = text.split("\n")
    lines.insert(chance.randrange(len(lines) + 1), said)
    return "\n".join(lines)


def dropped_item(text: str, chance: random.Random) -> str | None:
    """Drop an item of a list, or another line of three words or more."""
    lines = text.split("\n")
    items = [number for number, line in enumerate(lines) if re.match(r"\s*(?:[-*+•]|\d+[.)])\s+\w", line)]
    wanted = items or [number for number, line in enumerate(lines) if len(line.split()) >= 3]
    once = [number for number in wanted if text.count(lines[number].strip()) == 1]
    if not once:
        return None
    del lines[chance.choice(once)]
    return "\n".join(lines)


def dropped_error_line(text: str, chance: random.Random) -> str | None:
    """Drop a line that speaks of an error or a failure."""
    lines = text.split("\n")
    once = [
        number
        for number, line in enumerate(lines)
        if re.search(r"error|fail|exception|warn|denied|refused", line, re.IGNORECASE) and text.count(line) == 1
    ]
    if not once:
        return None
    del lines[chance.choice(once)]
    return "\n".join(lines)


def dropped_line(text: str, chance: random.Random) -> str | None:
    """Drop a line that has a letter or digit and stands once."""
    lines = text.split("\n")
    once = [number for number, line in enumerate(lines) if re.search(r"\w", line) and text.count(line.strip()) == 1]
    if len(once) < 2:
        return None
    del lines[chance.choice(once)]
    return "\n".join(lines)


def truncated(text: str, chance: random.Random) -> str | None:
    """Drop the end: a twentieth to a half."""
    return text[: int(len(text) * chance.uniform(0.5, 0.95))]


def swapped_lines(text: str, chance: random.Random) -> str | None:
    """Exchange two lines that follow each other and differ."""
    lines = text.split("\n")
    places = [
        number
        for number in range(len(lines) - 1)
        if all(re.search(r"\w{3}", line) for line in lines[number : number + 2])
        and lines[number].strip() != lines[number + 1].strip()
    ]
    if not places:
        return None
    place = chance.choice(places)
    lines[place], lines[place + 1] = lines[place + 1], lines[place]
    return "\n".join(lines)


def opposite(text: str, chance: random.Random) -> str | None:
    """Replace a word by its opposite."""
    turned = dict(OPPOSITES) | {other: one for one, other in OPPOSITES}
    match = _pick(rf"\b(?:{'|'.join(turned)})\b", text, chance)
    return None if match is None else _replace_at(text, *match.span(), turned[match[0]])


def flipped_comparison(text: str, chance: random.Random) -> str | None:
    """Turn a comparison or a logical operator of code around."""
    turned = {"==": "!=", "!=": "==", "<=": ">=", ">=": "<=", "&&": "||", "||": "&&", " < ": " > ", " > ": " < "}
    match = _pick(r"==|!=|<=|>=|&&|\|\|| < | > ", text, chance)
    return None if match is None else _replace_at(text, *match.span(), turned[match[0]])


def altered_quote(text: str, chance: random.Random) -> str | None:
    """Change one letter of what stands in quotes."""
    match = _pick(r"\"([^\"\n]{3,60})\"|`([^`\n]{3,60})`", text, chance)
    return None if match is None else _change_letter(text, *match.span(), chance)


DAMAGES: dict[str, Change] = {
    change.__name__.replace("_", " "): change
    for change in (
        changed_digit, borrowed_number, swapped_values, swapped_names, swapped_identifiers, dropped_constraint,
        removed_negation, added_negation, dropped_identifier, altered_identifier, altered_path, altered_url,
        changed_unit, changed_date, changed_sign, invented, dropped_item, dropped_error_line, dropped_line, truncated,
        swapped_lines, opposite, flipped_comparison, altered_quote,
    )
}  # fmt: skip
"""Kinds of damage: each must be rejected."""


def _paragraphs(text: str) -> Iterator[str]:
    yield from re.split(r"\n[ \t]*\n", text)


def _is_prose(paragraph: str) -> bool:
    return bool(re.match(r"[A-Za-z\"(]", paragraph)) and not re.search(
        r"^[ \t]+|[{}|;]$|^[-*#>`]", paragraph, re.MULTILINE
    )


def wrapped(text: str, chance: random.Random) -> str | None:
    """Wrap paragraphs of prose to another width."""
    width = chance.choice((40, 60, 72, 100))
    return "\n\n".join(
        "\n".join(textwrap.wrap(each, width, break_long_words=False, break_on_hyphens=False))
        if _is_prose(each)
        else each
        for each in _paragraphs(text)
    )


def unwrapped(text: str, _chance: random.Random) -> str | None:
    """Write each paragraph of prose on one line."""
    return "\n\n".join(" ".join(each.split()) if _is_prose(each) else each for each in _paragraphs(text))


def trailing_space(text: str, chance: random.Random) -> str | None:
    """Put white space at the ends of lines, or take it away."""
    if chance.random() < 0.5:
        return "\n".join(line.rstrip() for line in text.split("\n"))
    return "\n".join(line + chance.choice(("", " ", "  ", "\t")) for line in text.split("\n"))


def blank_lines(text: str, chance: random.Random) -> str | None:
    """Double blank lines, or take them away."""
    return re.sub(r"\n\s*\n", chance.choice(("\n", "\n\n\n")), text)


def carriage_returns(text: str, _chance: random.Random) -> str | None:
    """End lines as Windows does."""
    return text.replace("\r\n", "\n").replace("\n", "\r\n")


def indentation(text: str, chance: random.Random) -> str | None:
    """Indent all lines, or write tabs as spaces and the other way around."""
    way = chance.randrange(3)
    if way == 0:
        return textwrap.indent(text, chance.choice(("  ", "    ", "\t")))
    return (
        text.replace("\t", "    ") if way == 1 else re.sub(r"(?m)^(?: {4})+", lambda m: "\t" * (len(m[0]) // 4), text)
    )


def bullets(text: str, chance: random.Random) -> str | None:
    """Write bullets in another style."""
    return re.sub(r"(?m)^(\s*)[-*+•](\s+)(?=\S)", rf"\1{chance.choice('-*+•')}\2", text)


def list_markers(text: str, chance: random.Random) -> str | None:
    """Write `1.` as `1)`, `(1)` or a bullet."""
    return re.sub(r"(?m)^(\s*)(\d{1,2})\.(\s+)(?=\S)", chance.choice((r"\1\2)\3", r"\1(\2)\3", r"\1-\3")), text)


def emphasis(text: str, chance: random.Random) -> str | None:
    """Take the marks of bold text away, or write others."""
    return re.sub(r"\*\*(\w[^*\n]*[\w.:])\*\*", chance.choice((r"\1", r"__\1__", r"*\1*")), text)


def quotes(text: str, chance: random.Random) -> str | None:
    """Write double quotes around words as single, curly or angle ones."""
    return re.sub(r"(?<![\w\\])\"([\w ./-]+)\"(?!\w)", chance.choice((r"'\1'", r"“\1”", r"«\1»", r"`\1`")), text)


def backticks(text: str, _chance: random.Random) -> str | None:
    """Take the marks of inline code away."""
    return re.sub(r"(?<![`\\])`([^`\n]+)`(?!`)", r"\1", text)


def thousands(text: str, _chance: random.Random) -> str | None:
    """Write numbers that stand alone with separators, and those with separators without."""
    plain = re.sub(r"(?<= )\d{1,3}(?:,\d{3})+(?= )", lambda match: match[0].replace(",", ""), text)
    return plain if plain != text else re.sub(r"(?<= )[1-9]\d{3,8}(?= )", lambda match: f"{int(match[0]):,}", text)


def json_layout(text: str, chance: random.Random) -> str | None:
    """Indent JSON anew, write it on one line, or with other escapes."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict | list):
        return None
    indent = chance.choice((None, 1, 2, 4, "\t"))
    separators = (",", ":") if indent is None and chance.random() < 0.5 else None
    return json.dumps(value, indent=indent, separators=separators, ensure_ascii=chance.random() < 0.5)


def headings(text: str, _chance: random.Random) -> str | None:
    """Underline headings of markdown, or take their marks away."""
    return re.sub(r"(?m)^##? +(.+)$", lambda match: f"{match[1]}\n{'-' * len(match[1])}", text)


def dashes(text: str, chance: random.Random) -> str | None:
    """Write dashes and ellipses in another style."""
    return re.sub(r" -- | - | — | – ", chance.choice((" – ", " — ", " -- ")), text).replace("...", "…")


def quoted_lines(text: str, _chance: random.Random) -> str | None:
    """Write the text as a quotation of markdown."""
    return textwrap.indent(text, "> ", lambda _line: True)


def fences(text: str, _chance: random.Random) -> str | None:
    """Mark blocks of code in the other style."""
    return text.replace("```", "~~~")


def table_padding(text: str, _chance: random.Random) -> str | None:
    """Take the padding of tables away, or give them more."""
    return re.sub(r"(?m)^\|.*\|$", lambda match: re.sub(r" *\| *", "  |  ", match[0]).strip(), text)


def byte_order_mark(text: str, _chance: random.Random) -> str | None:
    """Begin with a byte order mark, end without a line end."""
    return "\ufeff" + text.rstrip("\n")


REWRITES: dict[str, Change] = {
    change.__name__.replace("_", " "): change
    for change in (
        wrapped, unwrapped, trailing_space, blank_lines, carriage_returns, indentation, bullets, list_markers, emphasis,
        quotes, backticks, thousands, json_layout, headings, dashes, quoted_lines, fences, table_padding,
        byte_order_mark,
    )
}  # fmt: skip
"""Kinds of rewrite that change nothing of what is said: each should be accepted."""
