"""How an agent has back what was left out of its prompt: by a tool of its own that reads files, or by one of ours.

An agent that reads files or runs commands needs nothing more: originals lie as files in `FOLDER`, and stubs name them.
Any other agent needs our tool, whose schema is part of every prompt that offers it. Tool schemas precede everything
else in a prompt, so to begin offering it rewrites all that is cached.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

EXPAND_TOOL: Final[dict[str, Any]] = {
    "name": "expand",
    "description": "Returns text that was left out of this conversation, by the handle in its stub.",
    "input_schema": {
        "type": "object",
        "properties": {
            "handle": {"type": "string", "description": "for example h:3fa9c2d1"},
            "range": {"type": "string", "description": "bytes, for example 0-4000; all if missing"},
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


@cache
def expand_schema() -> str:
    """Return the schema of the tool as it stands in a prompt."""
    return json.dumps(EXPAND_TOOL, separators=(",", ":"))
