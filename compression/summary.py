"""One line that says what a tool result holds, for the stub that stands where it was.

    summarise(content, name="Bash")    # "tests: 58 passed, 2 failed: test_a, test_b"

A line is made of counts and of names that stand in the result; nothing is put in other words. What it says is true of
the result and may be all that the reader needs; whoever needs more follows the handle.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import re2

from apportion.compression.validation.facts import error_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_SUMMARY = 120
"""Characters of a summary."""

MAX_READ = 256 * 1024
"""Bytes of a content that are looked at."""

MAX_NAMES = 4
"""Names that a summary lists."""

MAX_NAME = 48
"""Characters of one of them."""

MIN_HIT_SHARE = 0.6
"""Share of the lines that must be hits for a content to be the result of a search."""

_DEFINITION = (
    r"(?m)^[ \t]*(?:\d+[→|:\t][ \t]*)?(?:(?:export|default|public|private|protected|static|async|abstract|pub)[ \t]+)*"
    r"(class|def|func|fn|function|interface|type|struct|enum|trait|impl)[ \t]+(?:\([^)\n]{0,60}\)[ \t]*)?(\w{1,60})"
)
_COUNTS = r"(?i)\b(\d{1,7})[ \t]+(passed|failed|failures|errors?|skipped|passing|failing|pending|todo)\b"
_FAILURE = (
    r"(?m)^(?:FAILED[ \t]+\S*?::(\w[\w.:\[\]-]{0,80})|[ \t]*--- FAIL:[ \t]+(\S{1,80})"
    r"|[ \t]*(?:✗|✕|×|●)[ \t]+(\S.{0,60}))"
)
_RESULT_LINE = r"(?m)^(?:=+ .*\b(?:passed|failed|error)s?\b.* in .*|[ \t]*Tests?:?[ \t]+.*\b(?:passed|failed)\b.*)$"
_HIT = r"(?m)^([^\s:][^:\n]{0,300}):(\d{1,7})[:-]"
_CHANGED = r"(?m)^\+\+\+ (?:b/)?(\S+)"
_NUMBERED = r"(?m)^[ \t]*(\d{1,7})(?:→|\t|\|)"


def summarise(content: bytes, *, name: str | None = None, path: str | None = None) -> str:
    """Return what a tool result holds, in one line of at most `MAX_SUMMARY` printable characters.

    Args:
        content: The result.
        name: Tool that produced it, or `None`.
        path: File that it read, or `None`.
    """
    text = content[:MAX_READ].decode("utf-8", "replace")
    said = _tests(text) or _diff(text) or _hits(text) or _json(text) or _file(text, path) or _lines(text, name)
    return _one_line(said)


def _tests(text: str) -> str:
    """Say how many tests passed, and name those that failed."""
    found = _pattern(_RESULT_LINE).search(text)
    failures = [next(filter(None, groups)) for groups in _pattern(_FAILURE).findall(text)]
    counts = _pattern(_COUNTS).findall(found[0]) if found else []
    if counts:
        said = ", ".join(f"{count} {what.lower()}" for count, what in counts)
        return f"tests: {said}" + (f": {_names(failures)}" if failures else "")
    return f"tests: {len(set(failures))} failed: {_names(failures)}" if failures else ""


def _diff(text: str) -> str:
    files = _pattern(_CHANGED).findall(text)
    if not files or "\n@@ " not in text:
        return ""
    lines = text.split("\n")
    added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
    return f"diff of {_count(len(set(files)), 'file')}, +{added} -{removed}: {_names(files)}"


def _hits(text: str) -> str:
    files = [path for path, _ in _pattern(_HIT).findall(text) if "." in path or "/" in path]
    lines = sum(bool(line.strip()) for line in text.split("\n"))
    if len(files) < 2 or len(files) < MIN_HIT_SHARE * lines:
        return ""
    return f"{_count(len(files), 'match', 'matches')} in {_count(len(set(files)), 'file')}: {_names(files)}"


def _json(text: str) -> str:
    if text.lstrip()[:1] not in {"{", "["}:
        return ""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if isinstance(value, dict):
        return f"JSON object with {_names(value)}"
    keys = {key: None for each in value if isinstance(each, dict) for key in each}
    return f"JSON list of {_count(len(value), 'item')}" + (f" with {_names(keys)}" if keys else "")


def _file(text: str, path: str | None) -> str:
    numbers = [int(number) for number in _pattern(_NUMBERED).findall(text)]
    names = [f"{kind} {found}" for kind, found in _pattern(_DEFINITION).findall(text)]
    if not (path or len(numbers) > 2) or not text.strip():
        return ""
    lines = f"lines {numbers[0]}-{numbers[-1]}" if numbers else _count(len(text.splitlines()), "line")
    return f"{path or 'a file'} {lines}" + (f": {_names(names)}" if names else "")


def _lines(text: str, name: str | None) -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if not lines:
        return "nothing"
    errors = error_lines(text)
    first = next((line for line in lines if line[:200] in errors), "") if errors else lines[0]
    which = f"{_count(len(errors), 'error')}, the first" if errors else "the first"
    return f"{f'{name}: ' if name else ''}{_count(len(lines), 'line')}, {which}: {first}"


def _names(found: Iterable[str]) -> str:
    names = list(dict.fromkeys(name[:MAX_NAME] for name in found))
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _one_line(said: str) -> str:
    line = "".join(mark if mark.isprintable() and mark not in "[]" else " " for mark in said[: 2 * MAX_SUMMARY])
    line = " ".join(line.split())
    return line if len(line) <= MAX_SUMMARY else line[: MAX_SUMMARY - 1].rstrip() + "…"


@cache
def _pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


__all__: Sequence[str] = ("MAX_SUMMARY", "summarise")
