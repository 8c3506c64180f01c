"""How an agent has back what was left out of its prompt: by a tool of its own that reads files, or by one of ours.

An agent that reads files or runs commands needs nothing more: originals lie as files in `FOLDER`, and stubs name them.
Any other agent needs our tool, whose schema is part of every prompt that offers it. Tool schemas precede everything
else in a prompt, so to begin offering it rewrites all that is cached.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import re2

from apportion.compression.markers import Lines
from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.compression.store import Handle, HandleStore

EXPAND_TOOL: Final[dict[str, Any]] = {
    "name": "expand",
    "description": "Returns text left out of this conversation, by the handle in its stub.",
    "input_schema": {
        "type": "object",
        "properties": {
            "handle": {"type": "string", "description": "like h:3fa9c2d1"},
            "range": {"type": "string", "description": "lines 40-97 or bytes b0-4000; all if missing"},
        },
        "required": ["handle"],
    },
}
"""The tool as it is offered to a model."""

FOLDER = ".apportion"
"""Where originals lie for agents that read files; relative to the agent's working directory."""

READING_TOOLS = frozenset(
    {
        "bash", "bash_command", "cat", "container.exec", "exec", "exec_command", "execute_bash", "grep", "local_shell",
        "open", "open_file", "read", "read_file", "read_files", "read_many_files", "run_command", "run_shell_command",
        "run_terminal_cmd", "shell", "shell_command", "str_replace_based_edit_tool", "str_replace_editor", "terminal",
        "view", "view_file",
    }
)  # fmt: skip
"""Tools of coding agents, in lower case, that read any file of the working directory or run a command that does."""


def reads_files(tool: str | None) -> bool:
    """Say whether a tool reads files, so that the agent that has it needs no other to expand a stub.

    >>> reads_files("Read"), reads_files("get_weather"), reads_files(None)
    (True, False, False)
    """
    return tool is not None and tool.lower() in READING_TOOLS


def expand(store: HandleStore, handle: Handle | str, text_range: str | None = None) -> bytes:
    r"""Carry out a call of the tool: return an original, or a range of it.

    `40-97` are lines as markers name them, from 1, both ends included; `40` is one line, `40-` all from there on.
    `b0-4000` are bytes from 0, the last one not included, and may begin or end within a letter.

    >>> from apportion.compression.store import HandleStore
    >>> store = HandleStore()
    >>> handle = store.put(b"one\ntwo\nthree\n")
    >>> expand(store, handle, "2-3"), expand(store, str(handle), "b0-3")
    (b'two\nthree\n', b'one')

    Args:
        store: Where originals are.
        handle: A handle, or its spelling with or without the leading `h:`.
        text_range: What part; `None` or an empty text is all.

    Raises:
        StoreError: The store does not have the original, or not undamaged.
        InputError: The range is none, or the original has nothing there.
    """
    if text_range is None or not text_range.strip():
        return store.expand(handle)
    found = _range_pattern().fullmatch(text_range.strip())
    if found is None:
        hint = "Give lines as 40-97, or bytes as b0-4000."
        raise InputError(f"{text_range[:40]!r} is not a range", hint=hint)
    unit, first, dash, last = found.groups()
    start = int(first)
    if unit:
        return store.expand(handle, start, int(last) if last else None if dash else start + 1)
    return store.expand_lines(handle, Lines(start, int(last) if last else sys.maxsize if dash else start))


@cache
def _range_pattern() -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(r"(b?)([0-9]{1,18})(?:(-)([0-9]{1,18})?)?", options)


@cache
def expand_schema() -> str:
    """Return the schema of the tool as it stands in a prompt."""
    return json.dumps(EXPAND_TOOL, separators=(",", ":"))
