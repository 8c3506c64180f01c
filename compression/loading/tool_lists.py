"""Tool lists: what `tools/list` of an MCP server answers, and the `tools` of requests to Anthropic and OpenAI.

Each tool keeps the bytes it has in its file: what is parsed decides, and is never written anew.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from apportion.errors import InputError

_DECODER = json.JSONDecoder()
_BLANKS = " \t\n\r\ufeff"
_INTO = ("result", "params", "shape", "body")
"""Members in which a list may stand: an answer of JSON-RPC, or a logged request."""


class Tool(NamedTuple):
    """One tool of a list.

    Attributes:
        name: Its name; empty where it has none.
        description: What it says it is for.
        start: Where its text begins, in characters.
        end: Where it ends.
    """

    name: str
    description: str
    start: int
    end: int


def read_tools(text: str) -> list[Tool] | None:
    """Return the tools of a JSON text, or `None` where it is no list of tools.

    >>> read_tools('{"tools": [{"name": "read", "inputSchema": {}}]}')
    [Tool(name='read', description='', start=11, end=46)]

    Raises:
        InputError: It is no JSON, or nested too deeply.
    """
    try:
        begin = _skip(text, 0)
        end = _DECODER.raw_decode(text, begin)[1]
        if text[end:].strip(_BLANKS):
            raise json.JSONDecodeError("more follows", text, end)
        start = _list_start(text, begin, 0)
        return None if start is None else _elements(text, start)
    except (ValueError, IndexError, RecursionError) as error:
        where = f" (character {error.pos:,})" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"is no JSON{where}") from None


def named(tool: Any) -> tuple[str, str]:
    """Return name and description of a tool as any of the providers writes it; empty where it has none."""
    if not isinstance(tool, dict):
        return "", ""
    inner = tool.get("function")
    described = inner if isinstance(inner, dict) else tool
    name, description = described.get("name"), described.get("description")
    return name if isinstance(name, str) else "", description if isinstance(description, str) else ""


def _list_start(text: str, position: int, depth: int) -> int | None:
    """Return where the list of tools begins; `None` where there is none. The first one counts."""
    if text[position] == "[":
        return position
    if text[position] != "{":
        _DECODER.raw_decode(text, position)
        return None
    found: int | None = None
    position = _skip(text, position + 1)
    while text[position] != "}":
        key, position = _DECODER.raw_decode(text, position)
        position = _skip(text, position)
        if text[position] != ":":
            raise json.JSONDecodeError("no colon", text, position)
        position = _skip(text, position + 1)
        if found is None and key == "tools" and text[position] == "[":
            found = position
        elif found is None and key in _INTO and text[position] == "{" and depth < len(_INTO):
            found = _list_start(text, position, depth + 1)
        position = _skip(text, _DECODER.raw_decode(text, position)[1])
        if text[position] == ",":
            position = _skip(text, position + 1)
        elif text[position] != "}":
            raise json.JSONDecodeError("no comma", text, position)
    return found


def _elements(text: str, position: int) -> list[Tool]:
    found: list[Tool] = []
    position = _skip(text, position + 1)
    while text[position] != "]":
        value, end = _DECODER.raw_decode(text, position)
        found.append(Tool(*named(value), position, end))
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)
        elif text[position] != "]":
            raise json.JSONDecodeError("no comma", text, position)
    return found


def _skip(text: str, position: int) -> int:
    while text[position] in _BLANKS:
        position += 1
    return position
