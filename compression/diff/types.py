"""What is compared: a context is a sequence of sections, and a section is bytes with a kind and a name.

    context = Context((Section("system", content=b"You are..."), Section("tool_result", "read", b"...")))
    context.digest                      # names this context, and no other

Sections are messages, tool definitions, agents, files or a JSON state: whatever comes and goes as one piece. Nothing
here is parsed and written anew: two contexts are the same if all their bytes are.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DIGEST_DIGITS = 32
"""Hexadecimal digits of a digest: 128 bits of SHA-256, so that nobody finds two contexts that share one."""

MAX_KIND = 64
"""Characters of a kind."""

MAX_NAME = 1024
"""Characters of a name."""


class Reason(StrEnum):
    """Why a context is sent whole, or why what was received is not used."""

    NO_BASE = "no_base"
    """The receiver holds nothing that could be built upon."""
    BASE_EXPIRED = "base_expired"
    """What the receiver held is gone: its run ended, was compacted, or too much time has passed."""
    BASE_EVICTED = "base_evicted"
    """The sender no longer has what the receiver holds, so nothing can be compared with it."""
    NOT_UNDERSTOOD = "not_understood"
    """The receiver does not understand deltas."""
    NOT_WORTH_IT = "not_worth_it"
    """The delta would be nearly as long as the context."""
    TOO_LARGE = "too_large"
    """The context is larger than what is compared or rebuilt."""
    NOT_REPRODUCED = "not_reproduced"
    """The delta does not give the context back; found by the sender, who tries each delta."""
    ASKED = "asked"
    """The receiver asked for the whole context."""
    UNKNOWN_VERSION = "unknown_version"
    """The delta is of a version that the receiver does not know."""
    WRONG_BASE = "wrong_base"
    """The delta is against another base than the one at hand."""
    MALFORMED = "malformed"
    """The delta is damaged: it cannot be read, or names what is not there."""
    HASH_MISMATCH = "hash_mismatch"
    """The delta gives another context than it says."""
    STALE = "stale"
    """The message was received before, or is older than what was received since."""
    DELTA_DROPPED = "delta_dropped"
    """Somebody between sender and receiver dropped the delta and passed the rest on."""


def is_word(text: str) -> bool:
    """Say whether a text can stand in a header as it is: ASCII letters, digits and `_-./` only.

    >>> is_word("mcp.read-file"), is_word("two words"), is_word("")
    (True, False, False)
    """
    return text.isascii() and text.replace("_", "").replace("-", "").replace(".", "").replace("/", "").isalnum()


@dataclass(frozen=True, slots=True)
class Section:
    """One piece of a context.

    Attributes:
        kind: What it is, for example `"user"`, `"tool_result"`, `"tool_definition"`, `"agent"` or `"state"`: one word
            of letters, digits and `_-./`.
        name: Which one it is, for example the tool's name; empty where there is none.
        content: Its bytes.
    """

    kind: str
    name: str = ""
    content: bytes = b""

    def __post_init__(self) -> None:
        if not isinstance(self.content, bytes):
            raise InputError("the content of a section is bytes", hint="Encode text as UTF-8.")
        if len(self.kind) > MAX_KIND or not is_word(self.kind) or not self.kind[0].isalpha():
            raise InputError(
                f"unusable kind of section {self.kind[:MAX_KIND]!r}", hint="Use one word, for example tool_result."
            )
        if len(self.name) > MAX_NAME:
            raise InputError(f"the name of a section has more than {MAX_NAME} characters", hint="Shorten it.")


@dataclass(frozen=True)
class Context:
    """What an agent holds or is to get: sections in their order."""

    sections: tuple[Section, ...] = ()

    @classmethod
    def of(cls, sections: Iterable[Section]) -> Context:
        """Return the context of some sections."""
        return cls(tuple(sections))

    @classmethod
    def of_text(cls, content: bytes, *, kind: str = "text") -> Context:
        """Return the context that consists of one content."""
        return cls((Section(kind, content=content),))

    @cached_property
    def digest(self) -> str:
        """Name of this context: `DIGEST_DIGITS` hexadecimal digits over kinds, names and contents."""
        parts: list[bytes] = []
        for section in self.sections:
            kind, name = section.kind.encode(), section.name.encode("utf-8", "surrogatepass")
            parts += (b"%d %d %d\n%b%b" % (len(kind), len(name), len(section.content), kind, name), section.content)
        return hashlib.sha256(b"".join(parts)).hexdigest()[:DIGEST_DIGITS]

    @cached_property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(len(section.content) for section in self.sections)

    def tokens(self, count: Callable[[bytes], int]) -> int:
        """Return the tokens of all contents, each counted for itself."""
        return sum(count(section.content) for section in self.sections)


EMPTY = Context()
"""The context without sections; whoever holds nothing holds it."""
