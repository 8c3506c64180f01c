"""The tool by which an agent has back what was left out of its prompt.

Its schema is part of every prompt that offers it. Tool schemas precede everything else in a prompt, so to begin
offering it rewrites all that is cached.
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


@cache
def expand_schema() -> str:
    """Return the schema of the tool as it stands in a prompt."""
    return json.dumps(EXPAND_TOOL, separators=(",", ":"))
