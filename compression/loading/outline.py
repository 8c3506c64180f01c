"""An agent or skill file with some of its sections left out: headings stay, and name the way to have the rest back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.loading.loader_tool import LOAD_TOOL
from apportion.compression.loading.markdown import Section, split_sections
from apportion.compression.validation.constraints import constraint_sentences
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from apportion.compression.loading.loader_tool import Loader


class Part(NamedTuple):
    """A section of a file as something that can be left out.

    Attributes:
        name: Name of the file's entry, `#`, and the number of the section from 1.
        title: Its heading.
        content: Its bytes.
        tokens: Its tokens.
        pinned: Whether it stays: front matter, introduction, and whatever binds.
        stub: What stands in its place if it is left out.
    """

    name: str
    title: str
    content: bytes
    tokens: int
    pinned: bool
    stub: bytes


def parts_of(name: str, content: bytes) -> list[Part]:
    """Return the sections of a file; put together, their contents are the file."""
    return [_part(f"{name}#{number}", section) for number, section in enumerate(split_sections(content), start=1)]


def outline(parts: list[Part], left_out: Collection[str], loader: Loader) -> bytes:
    """Return the file with the named parts left out, each kept in the loader; pinned ones stay.

    Raises:
        StoreError: The loader's store is full.
    """
    written = []
    for part in parts:
        leaves = part.name in left_out and not part.pinned
        if leaves:
            loader.leave_out(part.name, part.content, part.title, listed=False)
        written.append(part.stub if leaves else part.content)
    return b"".join(written)


def restore(parts: list[Part], loaded: Mapping[str, bytes]) -> bytes:
    """Return the file, with what was loaded in place of what was left out."""
    return b"".join(loaded.get(part.name, part.content) for part in parts)


def _part(name: str, section: Section) -> Part:
    text = section.content.decode("utf-8", "replace")
    lines = section.content.count(b"\n") or 1
    heading = section.content.splitlines(keepends=True)[:1] if section.level else []
    stub = b"".join(heading) + f"[{lines} lines left out: {LOAD_TOOL} {name}]\n".encode("utf-8", "replace")
    pinned = not section.level or bool(constraint_sentences(text)) or len(stub) >= len(section.content)
    return Part(name, section.title, section.content, count_tokens(text), pinned, stub)
