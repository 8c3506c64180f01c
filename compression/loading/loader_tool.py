"""The way back to whatever was not loaded: one tool, whose answers stand at the end of the prompt.

    loader = Loader(HandleStore())
    loader.leave_out("web_search", b'{"name": "web_search", ...}', "Searches the web.")
    loader.schema()                              # the tool to offer; its description lists what can be loaded
    loader.answer("web_search")                  # the original, byte for byte

A tool that is added to the list of tools in the middle of a run changes the very beginning of the prompt, and all that
is cached has to be written again. So the list never changes: the loaded schema is a tool result at the end, and the
model calls what it loaded through the same tool, with `arguments`.
"""

from __future__ import annotations

import json
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from apportion.compression.loading.forms import line_form
from apportion.errors import StoreError
from apportion.records import content_hash
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apportion.compression.store import Handle, HandleStore

LOAD_TOOL = "load_tool"
"""Name of the tool."""

ABOUT = (
    "Loads the whole text of a tool, skill or section that this prompt shows short or not at all. "
    "With arguments, calls a tool that was loaded."
)
UNLISTED = "Without a name, lists all that can be loaded."


class Loader:
    """What was left out of a prompt, by name; safe to share between threads.

    Args:
        store: Keeps the originals: for as long as the prompt may ask for them.
    """

    def __init__(self, store: HandleStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._handles: dict[str, Handle] = {}
        self._lines: dict[str, str] = {}
        self._listed: dict[str, None] = {}
        self._earlier: dict[str, Handle] = {}

    def __len__(self) -> int:
        return len(self._handles)

    def leave_out(self, name: str, content: bytes, description: str = "", *, listed: bool = True) -> Handle:
        """Keep an original, so that it can be loaded, and return its handle.

        Args:
            name: The name by which it is loaded.
            content: The original.
            description: What it is for; its first sentence stands in the list.
            listed: Whether the tool's description names it. What is not named comes with the whole list.

        Raises:
            StoreError: The store is full.
        """
        handle = self._store.put(content)
        with self._lock:
            self._handles[name] = handle
            self._lines[name] = line_form(name, description)
            self._listed.pop(name, None)
            if listed:
                self._listed[name] = None
        return handle

    def take_over(self, earlier: Loader) -> None:
        """Go on answering what an earlier loader of the same run answered, by name; it is listed no more.

        Args:
            earlier: The loader, over the same store.
        """
        with earlier._lock:
            handles = earlier._earlier | earlier._handles
        with self._lock:
            self._earlier = handles | self._earlier

    def schema(self) -> dict[str, Any]:
        """Return the tool as it is offered to a model."""
        with self._lock:
            return load_schema([self._lines[name] for name in self._listed], unlisted=len(self._listed) < len(self))

    def answer(self, name: str = "") -> bytes:
        """Carry out a call without arguments: return an original, or without a name the list of all.

        Raises:
            StoreError: There is no such name, or its original is gone or damaged.
        """
        with self._lock:
            handle = self._handles.get(name) or self._earlier.get(name)
            lines = "\n".join(self._lines.values())
        if not name:
            return lines.encode("utf-8", "replace")
        if handle is None:
            raise StoreError(f"nothing is called {name!r}", hint="Call it without a name for a list.")
        content = self._store.expand(handle)
        if content_hash(content) != handle.digest:
            raise StoreError(f"the original of {name!r} is damaged", hint="Restore the store from a copy.")
        return content


def load_schema(lines: Iterable[str], *, unlisted: bool = False) -> dict[str, Any]:
    """Return the schema of the tool that loads others.

    Args:
        lines: What its description lists (`forms.line_form`).
        unlisted: Whether there is more than that.
    """
    description = "\n".join([f"{ABOUT} {UNLISTED}" if unlisted else ABOUT, *lines])
    return {
        "name": LOAD_TOOL,
        "description": description,
        "input_schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
        },
    }


@cache
def loader_tokens() -> int:
    """Return the tokens of the tool's schema without any line."""
    return count_tokens(json.dumps(load_schema([], unlisted=True), separators=(",", ":")))
