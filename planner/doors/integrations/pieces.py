"""The texts of a framework's request, taken one by one to be planned, and put back in the same places.

    rewrite(request, read := Pieces())                  # read.items, read.unread
    sent = rewrite(request, Pieces(iter(step.contents)))

What is no text (an image, a file, a type that nobody knows) is never touched and is noted by its type.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from apportion.compression.expand_tool import EXPAND_TOOL
from apportion.planner.live import ContextItem
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPAND: str = EXPAND_TOOL["name"]
"""Name of the tool by which an agent has back what was left out; its results are always sent whole."""

TEXT_FIELDS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
    "reasoning": "reasoning",
}
"""Where the text of a content part stands, by its type, as LangChain, OpenAI and Anthropic call them."""

THINKING_FIELDS = frozenset({"thinking", "reasoning"})
"""Fields of what a model thought."""

CALL_TYPES = frozenset({"tool_use", "tool_call", "function_call"})
"""Content parts that repeat the calls of tools which a message lists beside its content."""


class Pieces:
    """Takes the texts of a request, or gives back what is sent for them, one by one and in the same order."""

    def __init__(self, contents: Iterator[str] | None = None) -> None:
        self.items: list[ContextItem] = []
        self.unread: Counter[str] = Counter()
        self._contents = contents
        self._tools: dict[str, str] = {}

    @property
    def joined(self) -> str:
        """All texts as one."""
        return "\n".join(item.content for item in self.items)

    def text(
        self, text: str, kind: Kind, name: str | None = None, link: str | None = None, *, pin: bool = False
    ) -> str:
        """Take a text; return what is sent for it. A result has the name of its call, found by the link."""
        if not text:
            return text
        if kind is Kind.TOOL_CALL and name and link:
            self._tools[link] = name
        name = name or self._tools.get(link or "")
        self.items.append(ContextItem(text, kind, name, link, pinned=pin or name == EXPAND))
        return text if self._contents is None else next(self._contents)

    def content(self, content: Any, kind: Kind, name: str | None = None, link: str | None = None) -> Any:
        """Take a text or a list of content parts; return the same object unless something in it changes."""
        if isinstance(content, str):
            return self.text(content, kind, name, link)
        if not isinstance(content, list | tuple):
            if content is not None:
                self.other(type(content).__name__)
            return content
        parts = [self._part(part, kind, name, link) for part in content]
        return content if all(new is old for new, old in zip(parts, content, strict=True)) else parts

    def other(self, what: Any) -> None:
        """Take note of something that is no text."""
        self.unread[str(what)] += 1

    def _part(self, part: Any, kind: Kind, name: str | None, link: str | None) -> Any:
        if isinstance(part, str):
            return self.text(part, kind, name, link)
        what = str(part.get("type", "unknown")) if isinstance(part, dict) else type(part).__name__
        field = TEXT_FIELDS.get(what, "")
        text = part.get(field) if field else None
        if not isinstance(text, str):
            if what not in CALL_TYPES:
                self.other(what)
            return part
        sent = self.text(text, Kind.THINKING if field in THINKING_FIELDS else kind, name, link)
        return part if sent == text else {**part, field: sent}
