"""What can be loaded: agents, skills and tools, each known by its name and by the hash of its content."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

MAX_DESCRIPTION = 1_024
"""Characters of a description that an index keeps; the content has the rest."""

MAX_NAME = 200
"""Characters of a name; no agent, skill or tool needs more."""


class EntryKind(StrEnum):
    """What an entry is."""

    AGENT = "agent"
    SKILL = "skill"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent, skill or tool, without its content.

    Attributes:
        kind: What it is.
        name: Its name, as its file says.
        description: What its file says it is for, at most `MAX_DESCRIPTION` characters.
        digest: SHA-256 of the content, as 64 hexadecimal digits.
        tokens: Tokens of the content, in `tokens.DEFAULT_ENCODING`.
        size: Bytes of the content.
        path: The file it stands in.
        place: First byte and the byte after the last one in that file, or `None` where it is the whole file.
        words: Further words by which it is found, such as keywords or names of tools.
    """

    kind: EntryKind
    name: str
    description: str
    digest: str
    tokens: int
    size: int
    path: Path
    place: tuple[int, int] | None = None
    words: tuple[str, ...] = ()

    @property
    def index_bytes(self) -> int:
        """Bytes that the entry itself takes in memory, about."""
        texts = (self.name, self.description, self.digest, str(self.path), *self.words)
        return 400 + sum(4 * len(text) if not text.isascii() else len(text) for text in texts)


class Skipped(NamedTuple):
    """A file, or a part of one, that could not be used.

    Attributes:
        path: The file.
        reason: Why.
    """

    path: Path
    reason: str


class Changes(NamedTuple):
    """What `Registry.refresh` found changed, by name."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """How much is read at most.

    Attributes:
        file_bytes: Bytes of one file.
        files: Files of all folders together.
        depth: Folders below a folder that was given.

    Raises:
        InputError: A limit is below 1.
    """

    file_bytes: int = 4 * 2**20
    files: int = 10_000
    depth: int = 8

    def __post_init__(self) -> None:
        if min(self.file_bytes, self.files, self.depth) < 1:
            raise InputError("a limit of what is loaded is below 1", hint="Leave it out to have the default.")


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds: entries, and what of it could not be used."""

    entries: tuple[Entry, ...] = ()
    reasons: tuple[str, ...] = field(default=())
