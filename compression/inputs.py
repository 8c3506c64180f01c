"""Inputs of tool calls with their long texts left out: the call stays, with its names and short values.

    fold_input(content, handle=handle, count=count)
    # {"file_path": "a.py", "content": "[812 tokens left out; read .apportion/3fa9c2d1]"}

What a model wrote to a file it hardly needs word for word once the file is there. Which file it was stays in view, and
the input stays one that its tool could have been given. The handle stands for the whole input.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from apportion.compression.expand_tool import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.compression.store import Handle

MAX_INPUT = 2**20
"""Characters of the longest input that is looked at."""

MAX_DEPTH = 20
"""Nesting of the deepest value that is looked at."""

MIN_FOLDED_TOKENS = 60
"""A shorter text stays: its stub would hardly be shorter."""

SHOWN_CHARS = 120
"""Characters of a text that stay in view before its stub."""


def fold_input(content: bytes, *, handle: Handle, count: Callable[[str], int], as_file: bool = False) -> bytes | None:
    """Return an input without its long texts, as JSON; `None` where it has none or is no JSON object. Never raises.

    Args:
        content: The input, as the model wrote it.
        handle: Its handle in the store.
        count: Counts the tokens of a text.
        as_file: Whether the receiver reads files: then the first stub names the file that holds the original.
    """
    if len(content) > MAX_INPUT:
        return None
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    fold = _Fold(f"read {FOLDER}/{handle.short}" if as_file else f"expand {handle}", count)
    folded = fold.value(fields, MAX_DEPTH)
    if not fold.folded:
        return None
    return json.dumps(folded, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def is_folded(content: bytes, folded: bytes) -> bool:
    """Say whether a text is an input with nothing but long texts left out: same names, same short values. Never raises.

    It reads both anew. An input that names something twice, or holds a number that JSON has not, is never one.
    """
    try:
        before, after = (
            json.loads(text, object_pairs_hook=_once, parse_constant=_refused) for text in (content, folded)
        )
    except (ValueError, RecursionError):
        return False
    return isinstance(before, dict) and isinstance(after, dict) and _same_but_folded(before, after)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _same_but_folded(before: Any, after: Any) -> bool:
    if type(before) is not type(after):
        return False
    if isinstance(before, dict):
        return list(before) == list(after) and all(_same_but_folded(before[key], after[key]) for key in before)
    if isinstance(before, list):
        return len(before) == len(after) and all(map(_same_but_folded, before, after))
    if isinstance(before, str) and before != after:
        return after.startswith(f"{before[:SHOWN_CHARS]} [") and after.endswith("]") and len(after) < len(before)
    return bool(before == after)


class _Fold:
    """Leaves long texts out of a value; the first stub names the way back for all of them."""

    def __init__(self, way: str, count: Callable[[str], int]) -> None:
        self.folded = 0
        self._way = way
        self._count = count

    def value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if depth and isinstance(value, dict):
            return {key: self.value(each, depth - 1) for key, each in value.items()}
        if depth and isinstance(value, list):
            return [self.value(each, depth - 1) for each in value]
        return value

    def _text(self, text: str) -> str:
        if len(text) < 2 * MIN_FOLDED_TOKENS:
            return text
        tokens = self._count(text)
        if tokens < MIN_FOLDED_TOKENS:
            return text
        first = text[:SHOWN_CHARS]
        way = "" if self.folded else f"; {self._way}"
        self.folded += 1
        return f"{first} [{tokens:,} tokens in all, the rest left out{way}]"
