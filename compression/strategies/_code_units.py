"""The functions of a source text: where each begins, where its body is. Nothing is run, and nothing is written anew.

Python is read by `ast`. Other languages are read by their braces, those in strings and comments apart, and the rest by
indentation. A text that none of these fits has no functions.
"""

from __future__ import annotations

import ast
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import re2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_SYNTAX_CHARS = 2**20
"""Longest text that is given to Python's parser."""

MAX_DEPTH = 200
"""Nesting of brackets or blocks beyond which Python's parser is not asked."""

HEADER_LINES = 8
"""Lines over which the head of a function may go."""

MAX_HEAD_CHARS = 400
"""A longer line is no head of a function."""

_NUMBERED = r"^[ \t]*\d+[→\t|:][ \t]?"
_STRUCTURE = r"[{}\"'`]|//|/\*"
_DEFINITION = (
    r"(?:^|\s)(?:func|function\*?|fn|fun|def|sub|proc|constructor|init)\b[^;]*\{\s*$"
    r"|(?:^|\s)(?:const|let|var|val)\s+[\w$]+\s*(?::[^=]*)?=[^;]*(?:=>|\bfunction\b)[^;]*\{\s*$"
    r"|[\w$>\]*&]\s*\([^;{}]*\)[^;={}()]*\{\s*$"
)
_CONTROL = (
    r"^\s*(?:\}\s*)?(?:if|else|for|foreach|while|do|switch|match|case|default|try|catch|finally|with|using|lock|return"
    r"|throw|unless|until|select|defer|go|loop|class|interface|struct|enum|union|trait|impl|namespace|module|mod|package"
    r"|object|record|type|extern|extend|extension|protocol|describe|it)\b"
)
_INDENTED = (
    r"^[ \t]*(?:(?:async|pub|export|private|public|static|local|protected)[ \t]+)*(?:def|fn|func|function|sub)\b"
)
_KEYWORDS = frozenset({"func", "function", "fn", "fun", "async", "const", "let", "var", "val"})
_NAME = r"([A-Za-z_$][\w$]*)\s*(?:<[^>(]*>)?\s*(?:=|\()"


class Unit(NamedTuple):
    """One function.

    Attributes:
        name: What it is called.
        head: Its first line, counted from 1.
        first: First line of the body that can go.
        last: Last line of the body that can go.
    """

    name: str
    head: int
    first: int
    last: int


def units_of(text: str) -> list[Unit]:
    """Return the functions of a source text in the order of their heads; inner ones follow those around them."""
    lines = _without_numbers(text.split("\n"))
    plain = "\n".join(lines)
    found = _python_units(plain)
    if not found:
        found = list(_brace_units(plain, lines))
    if not found:
        found = list(_indented_units(lines))
    return sorted((unit for unit in found if unit.last > unit.first), key=lambda unit: (unit.head, -unit.last))


def _without_numbers(lines: list[str]) -> list[str]:
    """Drop the line numbers that a tool put in front of every line."""
    pattern = _pattern(_NUMBERED)
    numbered = [pattern.match(line) for line in lines]
    filled = sum(bool(line.strip()) for line in lines)
    if sum(map(bool, numbered)) < max(2, 0.9 * filled):
        return lines
    return [line[match.end() :] if match else line for line, match in zip(lines, numbered, strict=True)]


def _python_units(text: str) -> list[Unit]:
    if "def " not in text or len(text) > MAX_SYNTAX_CHARS or _depth(text) > MAX_DEPTH:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found: list[Unit] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first, last = node.body[0].lineno, node.end_lineno or 0
            if ast.get_docstring(node, clean=False) is not None:
                first += 1  # its first line says what the function is for
            if first > node.lineno:
                found.append(Unit(node.name, min([node.lineno, *(d.lineno for d in node.decorator_list)]), first, last))
    return found


def _depth(text: str) -> int:
    """Return a bound of how deep a text nests: brackets that are open at once, or blanks before a line."""
    depth = deepest = 0
    for match in _pattern(r"[\[({]|[\])}]").finditer(text.encode("utf-8", "replace")):
        depth = depth + 1 if match[0] in b"[({" else max(0, depth - 1)
        deepest = max(deepest, depth)
    operators = max((run.count("-") + run.count("~") + run.count("+") for run in text.split("\n")), default=0)
    return max(deepest, operators // 50)


def _brace_units(text: str, lines: Sequence[str]) -> Iterator[Unit]:
    """Yield functions whose bodies stand between braces, on lines of their own."""
    data = text.encode("utf-8", "surrogatepass")
    open_braces: list[int] = []
    line, counted = 1, 0
    for position, sign in _braces(data):
        line += data.count(b"\n", counted, position)
        counted = position
        if sign == b"{":
            open_braces.append(line)
        elif open_braces:
            opened = open_braces.pop()
            name = _definition(lines, opened) if line > opened + 2 else None
            if name is not None:
                yield Unit(name, opened, opened + 1, line - 1)


def _braces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the braces outside strings and comments; each byte is looked at a fixed number of times."""
    skip = 0
    dead: dict[bytes, int] = {}  # up to where a kind of string or comment is known not to end
    for match in _pattern(_STRUCTURE).finditer(data):
        start, sign = match.start(), match[0]
        if start < skip or start < dead.get(sign, 0):
            continue
        if sign in {b"{", b"}"}:
            yield start, sign
        elif sign == b"//":
            end = data.find(b"\n", start)
            skip = len(data) if end < 0 else end
        elif sign == b"/*":
            end = data.find(b"*/", start + 2)
            skip, dead[sign] = (end + 2, 0) if end >= 0 else (0, len(data))
        else:
            line_end = data.find(b"\n", start) if sign != b"`" else len(data)
            line_end = len(data) if line_end < 0 else line_end
            end = _closing(data, start + 1, line_end, sign)
            skip, dead[sign] = (end + 1, 0) if end >= 0 else (0, line_end)


def _closing(data: bytes, start: int, end: int, sign: bytes) -> int:
    """Return where a string ends, or -1; a sign behind an odd number of backslashes belongs to it."""
    found = data.find(sign, start, end)
    while found >= 0:
        slashes = found
        while slashes > start and data[slashes - 1] == 0x5C:
            slashes -= 1
        if (found - slashes) % 2 == 0:
            return found
        found = data.find(sign, found + 1, end)
    return -1


def _definition(lines: Sequence[str], opened: int) -> str | None:
    """Return the name of the function whose body a line opens, or `None` where it opens something else."""
    head: list[str] = []
    for number in range(opened - 1, max(-1, opened - 1 - HEADER_LINES), -1):
        if len(lines[number]) > MAX_HEAD_CHARS:
            return None
        line = lines[number].rstrip()
        if number < opened - 1 and (not line or line[-1] in ";{}"):
            break
        head.insert(0, line)
    said = " ".join(head)
    if not _pattern(_DEFINITION).search(said):
        return None
    if _pattern(_CONTROL).search(head[0] if len(head) == 1 else said.lstrip()) or _pattern(_CONTROL).search(head[-1]):
        return None
    names = (match[1] for match in _pattern(_NAME).finditer(said))
    return next((name for name in names if name not in _KEYWORDS), "a function")


def _indented_units(lines: Sequence[str]) -> Iterator[Unit]:
    """Yield functions whose bodies are the lines below their heads that are indented more."""
    pattern = _pattern(_INDENTED)
    open_units: list[tuple[int, int, str]] = []  # indentation, number of the head, its name
    last_filled = 0
    for number, line in enumerate([*lines, "."], 1):
        bare = line.strip()
        if not bare:
            continue
        indentation = len(line) - len(line.lstrip())
        while open_units and open_units[-1][0] >= indentation:
            _, head, name = open_units.pop()
            yield Unit(name, head, head + 1, last_filled)
        if pattern.match(line[:MAX_HEAD_CHARS]):
            found = _pattern(r"(?:def|fn|func|function|sub)\s+([\w.:$?!]+)").search(line[:MAX_HEAD_CHARS])
            open_units.append((indentation, number, found[1] if found else "a function"))
        last_filled = number


@cache
def _pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)
