r"""Agent and skill files: front matter, and a body in sections that put together are the file, byte for byte.

    sections = split_sections(b"---\nname: tester\n---\nYou test.\n\n## Rules\nBe quick.\n")
    [section.title for section in sections]      # ["(front matter)", "(introduction)", "Rules"]

Front matter is read line by line, not as YAML: many files in use are no valid YAML (a colon within a description), and
a reader of lines cannot be made to build something huge.
"""

from __future__ import annotations

import json
from typing import NamedTuple

FRONT_MATTER = "(front matter)"
INTRODUCTION = "(introduction)"
"""Titles of what stands before the first heading."""

MAX_FRONT_MATTER_LINES = 500
"""Lines after which front matter that does not end is taken to be none."""


class Section(NamedTuple):
    """A part of a file: front matter, introduction, or a heading with what follows it.

    Attributes:
        title: The heading without its signs.
        level: 0 for what stands before the first heading, else the number of `#`.
        content: All of it, the heading included.
    """

    title: str
    level: int
    content: bytes


def split_sections(content: bytes) -> list[Section]:
    """Return the sections of a file; put together, their contents are the file."""
    found: list[Section] = []
    end = front_matter_end(content)
    if end:
        found.append(Section(FRONT_MATTER, 0, content[:end]))
    title, level, start, position, fence = INTRODUCTION, 0, end, end, b""
    for line in content[end:].splitlines(keepends=True):
        bare = line.strip()
        if fence:
            fence = b"" if bare.startswith(fence) and not bare.strip(fence[:1]) else fence
        elif bare.startswith((b"```", b"~~~")):
            fence = bare[:3]
        elif _level(line):
            if position > start:
                found.append(Section(title, level, content[start:position]))
            level, start = _level(line), position
            title = bare[level:].strip().strip(b"#").strip().decode("utf-8", "replace") or "(no title)"
        position += len(line)
    if position > start or not found:
        found.append(Section(title, level, content[start:position]))
    return found


def _level(line: bytes) -> int:
    signs = len(line) - len(line.lstrip(b"#"))
    return signs if 1 <= signs <= 6 and line[signs : signs + 1] in {b" ", b"\t", b"\n", b"\r"} else 0


def front_matter_end(content: bytes) -> int:
    """Return how many leading bytes are front matter with its fences; 0 where there is none."""
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    position = start
    for number, line in enumerate(content[start:].splitlines(keepends=True)):
        position += len(line)
        if number == 0 and line.rstrip() != b"---":
            return 0
        if number and line.rstrip() == b"---":
            return position
        if number > MAX_FRONT_MATTER_LINES:
            return 0
    return 0


def front_matter(content: bytes) -> dict[str, str]:
    r"""Return the values of front matter by name; of lists the items with commas between, of blocks their text.

    >>> front_matter(b"---\nname: tester\ndescription: Tests: all of it\ntools:\n  - Read\n  - Bash\n---\nYou test.\n")
    {'name': 'tester', 'description': 'Tests: all of it', 'tools': 'Read, Bash'}
    """
    lines = content[: front_matter_end(content)].decode("utf-8", "replace").lstrip("\ufeff").splitlines()[1:-1]
    values: dict[str, str] = {}
    name = ""
    for line in lines:
        if line[:1].strip() and not line.startswith(("#", "-")) and ":" in line:
            name, _, value = line.partition(":")
            name = name.strip()
            values[name] = "" if value.strip() in {"|", ">", "|-", ">-", "|+", ">+"} else _unquoted(value.strip())
        elif name and line.strip():
            item = line.strip()
            comma = ", " if item.startswith("- ") else " "
            text = _unquoted(item.removeprefix("- "))
            values[name] = f"{values[name]}{comma}{text}" if values[name] else text
    return values


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            value = json.loads(text)
        except ValueError:
            return text[1:-1]
        return value if isinstance(value, str) else text
    return text[1:-1].replace("''", "'") if len(text) > 1 and text[0] == text[-1] == "'" else text
