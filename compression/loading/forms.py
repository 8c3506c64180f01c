"""How a tool stands in a prompt: whole, brief, or as a line in the description of the one tool that loads the others.

Whole is what the tool's list says. Brief is a definition that can be called: each description is cut to its first
sentence and to those that bind (`compression.validation.constraints`). A line is the name and the first sentence; to
call such a tool, a model loads it first. Nothing is lost by that: the original is kept, and comes back byte for byte.
"""

from __future__ import annotations

import json
from typing import Any

import re2

from apportion.compression.loading.tool_lists import named
from apportion.compression.validation.constraints import constraint_sentences, sentences
from apportion.errors import InputError

MAX_LINE = 160
"""Characters of a first sentence in a line."""

MAX_DEPTH = 40
"""Levels of a schema whose descriptions are shortened; what is nested deeper stays as it is."""


def first_sentence(text: str) -> str:
    """Return the first sentence of a text in one line, at most `MAX_LINE` characters.

    >>> first_sentence("Reads a file. The path must be absolute.")
    'Reads a file.'
    """
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    found = _sentence_end().search(line)
    sentence = line[: found.start() + 1] if found else line
    return sentence if len(sentence) <= MAX_LINE else sentence[: MAX_LINE - 1].rstrip() + "…"


def line_form(name: str, description: str) -> str:
    """Return a tool, skill or agent as one line: its name, and what it is for in one sentence."""
    said = first_sentence(description)
    return f"- {name}: {said}" if said else f"- {name}"


def brief_form(content: bytes) -> bytes | None:
    """Return the definition of a tool with brief descriptions, or `None` where that is not shorter.

    Raises:
        InputError: The content is no tool.
    """
    try:
        tool = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError("a tool is no JSON") from None
    if not named(tool)[0]:
        raise InputError("a tool has no name")
    shorter = json.dumps(_brief(tool, 0, described=True), ensure_ascii=False, separators=(",", ":"))
    data = shorter.encode("utf-8", "surrogatepass")
    return data if len(data) < len(content) else None


def _brief(value: Any, depth: int, *, described: bool) -> Any:
    """Shorten descriptions; a property that is called "description" is a schema, and no text."""
    if depth >= MAX_DEPTH:
        return value
    if isinstance(value, list):
        return [_brief(each, depth + 1, described=described) for each in value]
    if not isinstance(value, dict):
        return value
    short: dict[str, Any] = {}
    for key, each in value.items():
        if described and key == "description" and isinstance(each, str):
            short[key] = _brief_text(each)
        elif key in {"default", "const", "enum", "examples"}:
            short[key] = each
        else:
            short[key] = _brief(each, depth + 1, described=key not in {"properties", "$defs", "definitions"})
    return short


def _brief_text(text: str) -> str:
    said = sentences(text)
    if len(said) < 2:
        return text
    binding = set(constraint_sentences(text))
    kept = [sentence for number, sentence in enumerate(said) if number == 0 or sentence in binding]
    shorter = "\n".join(kept)
    return shorter if len(shorter) < len(text) else text


def _sentence_end() -> Any:
    return _PATTERN


_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_PATTERN = re2.compile(r"[.!?](?:\s|$)|[。！？]", _OPTIONS)
