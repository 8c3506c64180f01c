"""Carrying out a plan's decision on one piece of context: keep it, refer to an earlier copy, or mask it.

Stubs are for the model to read. They are never parsed: what was replaced by what is known from the record, so a text
that looks like a stub is a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apportion.compression.expand_tool import FOLDER
from apportion.compression.store import Handle
from apportion.records import Action, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from apportion.compression.store import HandleStore

_RESULTS = frozenset({Kind.TOOL_RESULT, Kind.HANDOFF_RESULT})

MAX_NAME = 40
"""Characters of a tool's name that a stub shows."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the receiver gets for one piece.

    Attributes:
        action: What was done; `Action.KEEP` where the stub would not have been shorter.
        content: The bytes to send.
        handle: Where the original is, or `None` for a kept piece.
    """

    action: Action
    content: bytes
    handle: Handle | None = None


def mask(
    content: bytes, *, handle: Handle, name: str | None, tokens: int | None, as_file: bool = False, summary: str = ""
) -> bytes:
    """Return the one-line stub that stands for a masked content.

    Args:
        content: The original.
        handle: Its handle in the store.
        name: Tool that produced it, or `None`.
        tokens: Its size in tokens; `None` shows bytes.
        as_file: Whether the receiver reads files: then the stub names the file that holds the original.
        summary: What it holds, in one line without brackets (`summary.summarise`); empty for none.
    """
    size = f"{len(content):,} bytes" if tokens is None else f"{tokens:,} tokens"
    way = f"read {FOLDER}/{handle.short}" if as_file else f"expand {handle}"
    return f"[{_one_line(name)} result, {size}, left out{': ' + summary if summary else ''}; {way}]".encode()


def reference(content: bytes, *, number: int) -> bytes:
    """Return the one-line stub for a content that the receiver already has.

    Results are what is counted, because every reader sees the same ones: how many messages a prompt has depends on the
    framework, and system prompts and calls of tools are messages in some of them only.

    Args:
        content: The original.
        number: Which result of the same prompt holds it, as `result_number` counts them.
    """
    return f"[same {len(content):,} bytes as result {number} above]".encode()


def result_number(pieces: Iterable[tuple[Kind, str | None]]) -> int:
    """Return which result the last of some pieces is, counted from 1 at the beginning of the prompt.

    Args:
        pieces: Kind and link of each piece up to that one; parts of one result have the same link, and count once.
    """
    number, last = 0, None
    for kind, link in pieces:
        if kind in _RESULTS:
            number += link is None or link != last
            last = link
    return number


def render(
    content: bytes,
    action: Action,
    *,
    store: HandleStore,
    tokens: int,
    count: Callable[[bytes], int],
    name: str | None = None,
    number: int | None = None,
    as_file: bool = False,
    summary: str = "",
) -> Rendered:
    """Carry out an action on a content.

    Args:
        content: The original.
        action: What the plan wants.
        store: Keeps the original of whatever is replaced.
        tokens: Size of the original in tokens.
        count: Counts the tokens of a stub.
        name: Tool that produced the content, or `None`.
        number: Which result holds the content, see `reference`; needed for `Action.REFERENCE`.
        as_file: Whether the receiver reads files, so that a stub can name one.
        summary: What a stub says about the content, in one line; empty for nothing.

    Raises:
        StoreError: The store is full.
        ValueError: `Action.REFERENCE` without a number.
    """
    if action is Action.REFERENCE and number is None:
        raise ValueError("a reference needs the number of the earlier copy")
    if action is Action.KEEP:
        return Rendered(Action.KEEP, content)

    def stub(handle: Handle) -> bytes:
        if number is not None and action is Action.REFERENCE:
            return reference(content, number=number)
        return mask(content, handle=handle, name=name, tokens=tokens, as_file=as_file, summary=summary)

    expected = Handle.of(content)
    if count(stub(expected)) >= tokens:
        return Rendered(Action.KEEP, content)
    handle = store.put(content)  # the same handle, unless another content took it
    return Rendered(action, stub(handle), handle)


def restore(rendered: Rendered, store: HandleStore) -> bytes:
    """Return the original of a rendered piece, byte for byte.

    Raises:
        StoreError: The store does not hold it.
    """
    return rendered.content if rendered.handle is None else store.expand(rendered.handle)


def _one_line(name: str | None) -> str:
    shown = "".join(mark for mark in (name or "") if mark.isalnum() or mark in "_-.:/")
    return shown[:MAX_NAME] or "tool"
