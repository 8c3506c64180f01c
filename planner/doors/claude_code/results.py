"""The texts within a tool's response, and the response with other texts, in the shape that Claude Code expects.

Every tool has a shape of its own, and the client refuses a response of another shape. So nothing is built here: the
response that came is copied, and its texts are put in their place.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Final

import re2

Place = tuple[str | int, ...]
"""Where a text is within a response: the keys that lead to it."""

DATA_SUFFIXES: Final = frozenset(
    {".csv", ".err", ".jsonl", ".log", ".ndjson", ".out", ".stderr", ".stdout", ".trace", ".tsv", ".txt"}
)
"""Files that are read and seldom edited: what an agent may edit, it must see as it is."""

CODE_SUFFIXES: Final = (
    "bash|c|cc|cfg|cjs|clj|cpp|cs|css|cxx|dart|ex|exs|go|graphql|gradle|h|hpp|hs|htm|html|ini|ipynb|java|jl|js|json|jsx|"
    "kt|less|lua|m|md|mjs|ml|mm|php|pl|proto|ps1|py|pyi|r|rb|rs|rst|sass|scala|scss|sh|sql|svelte|swift|tf|toml|ts|tsx|"
    "vue|xml|yaml|yml|zig|zsh"
)

OURS: Final = "apportion"
"""Part of the name of our own MCP server: what it gives back is what was asked for."""


def texts_of(tool: str, given: dict[str, Any], response: Any) -> dict[Place, str]:
    """Return the texts of a response that may be written shorter, by their places; none where that is not safe.

    Args:
        tool: Name of the tool.
        given: What it was called with.
        response: What it gave back.
    """
    if tool.startswith("mcp__"):
        return {} if OURS in tool.split("__")[1] else _texts_of_blocks(response)
    if not isinstance(response, dict):
        return {}
    if tool == "Read":
        places: tuple[Place, ...] = (("file", "content"),) if _is_data(given) else ()
    elif tool == "Bash":
        code = response.get("isImage") or shows_code(given.get("command"))
        places = () if code else (("stdout",), ("stderr",))
    elif tool == "Grep":
        places = (("content",),) if response.get("mode") == "content" else ()
    elif tool == "WebFetch":
        places = (("result",),)
    else:
        places = ()
    return {place: text for place in places if isinstance(text := _at(response, place), str) and text}


def with_texts(response: Any, texts: dict[Place, str]) -> Any:
    """Return a copy of a response with other texts at these places; everything else stays as it is."""
    changed = deepcopy(response)
    for place, text in texts.items():
        if not place:
            return text
        holder = _at(changed, place[:-1])
        holder[place[-1]] = text
    return changed


def shows_code(command: object) -> bool:
    """Say whether a command shows, or compares, files that an agent may edit.

    >>> shows_code("sed -n 1,40p src/app.py"), shows_code("cat build.log"), shows_code("git diff")
    (True, False, True)
    """
    if not isinstance(command, str) or len(command) > 10_000:
        return True
    return bool(_code_pattern().search(command))


def _is_data(given: dict[str, Any]) -> bool:
    """Say whether a whole file was read that nobody edits; who asks for a range wants these very lines."""
    path = given.get("file_path")
    if not isinstance(path, str) or given.get("offset") is not None or given.get("limit") is not None:
        return False
    name = (PureWindowsPath if "\\" in path else PurePosixPath)(path)
    return name.suffix.lower() in DATA_SUFFIXES and not name.name.lower().startswith(("requirements", "cmakelists"))


def _texts_of_blocks(response: Any) -> dict[Place, str]:
    """Return the texts of what an MCP server gave back: a text, a list of blocks, or an object that has one."""
    if isinstance(response, str):
        return {(): response}
    found: dict[Place, str] = {}
    start: Place = ()
    if isinstance(response, dict):
        if response.get("structuredContent") is not None:  # says the same in another way: both or neither
            return {}
        start, response = ("content",), response.get("content")
    for index, block in enumerate(response if isinstance(response, list) else ()):
        if isinstance(block, dict) and block.get("type") == "text" and isinstance(block.get("text"), str):
            found[(*start, index, "text")] = block["text"]
    return found


def _at(value: Any, place: Place) -> Any:
    for key in place:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value = value[key]
        else:
            return None
    return value


_pattern: list[Any] = []


def _code_pattern() -> Any:
    if not _pattern:
        options = re2.Options()
        options.log_errors = False
        options.case_sensitive = False
        _pattern.append(re2.compile(rf"\.(?:{CODE_SUFFIXES})\b|\b(?:diff|patch|git\s+show|blame)\b|makefile", options))
    return _pattern[0]
