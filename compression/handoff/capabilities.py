"""What an agent says that it understands and holds, as tags of its own messages.

Tags are the one part of a message that readers pass on who drop members that they do not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from apportion.compression.diff.types import DIGEST_DIGITS, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apportion.compression.diff.types import Context

DELTAS: Final = "apportion.accepts/delta-1"
"""The tag of agents that understand text deltas of version 1."""

FRAMES: Final = "apportion.accepts/zstd-1"
"""The tag of agents that understand zstd frames of version 1."""

HOLDS: Final = "apportion.holds/"
"""What a tag begins with that names a context which an agent holds."""

MAX_HOLDS = 16
"""Contexts that an agent can say it holds."""

_HEX: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a receiver understands and holds.

    Attributes:
        deltas: Whether it understands text deltas.
        frames: Whether it understands zstd frames.
        holds: Digests of contexts that it holds, the newest first.
    """

    deltas: bool = False
    frames: bool = False
    holds: tuple[str, ...] = ()

    @classmethod
    def of_tags(cls, tags: Iterable[Any]) -> Capabilities:
        """Read tags; those of others, and those that are damaged, say nothing."""
        known = [tag for tag in tags if isinstance(tag, str)]
        holds = [tag.removeprefix(HOLDS) for tag in known if tag.startswith(HOLDS)]
        return cls(DELTAS in known, FRAMES in known, tuple(filter(is_digest, holds))[:MAX_HOLDS])

    @classmethod
    def of(cls, message: Any) -> Capabilities:
        """Read the tags of an agent's own message; one without tags understands nothing."""
        return cls.of_tags(tags_of(message))

    def tags(self) -> tuple[str, ...]:
        """Return the tags that say this."""
        said = [tag for tag, true in ((DELTAS, self.deltas), (FRAMES, self.frames)) if true]
        return (*said, *(f"{HOLDS}{digest}" for digest in self.holds[:MAX_HOLDS]))

    def shared(self, bases: Mapping[str, Context]) -> tuple[list[Context], Reason | None]:
        """Return the contexts that both sides hold, the newest first, or why a delta cannot be built on any."""
        if not self.deltas:
            return [], Reason.NOT_UNDERSTOOD
        both = [bases[digest] for digest in self.holds if digest in bases and bases[digest].digest == digest]
        if both:
            return both, None
        return [], Reason.BASE_EVICTED if self.holds else Reason.NO_BASE


NOTHING = Capabilities()
"""What every agent understands: whole contexts."""


def is_digest(text: str) -> bool:
    """Say whether a text is a digest of a context."""
    return len(text) == DIGEST_DIGITS and _HEX.issuperset(text)


def tags_of(message: Any) -> list[Any]:
    """Return the tags of a message; none where there are none or they are no list."""
    metadata = message.get("metadata") if isinstance(message, dict) else None
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return tags if isinstance(tags, list) else []
