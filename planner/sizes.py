"""How many tokens texts have, each counted once while it is remembered: as anybody counts them, and as a model does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apportion.planner.recent import Recent
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from apportion.tokens import TokenCounter


MOST_CHARACTERS = 32_000_000
"""Characters of the texts in each half of what is remembered."""

ENTRY = 200
"""What a text weighs besides its characters."""


class Size(NamedTuple):
    """The size of a text.

    Attributes:
        visible: Tokens in the common encoding.
        tokens: Tokens as the model counts them.
    """

    visible: int
    tokens: float


class Sizes:
    """Remembers the sizes of the texts of one session; safe to share between threads."""

    def __init__(self) -> None:
        self._known: Recent[tuple[str | None, str], Size] = Recent(MOST_CHARACTERS)

    def of(self, text: str, counter: TokenCounter) -> Size:
        """Return the size of a text for a model."""
        key = (counter.model, text)
        size = self._known.get(key)
        if size is None:
            size = Size(count_tokens(text), float(counter.estimate(text).tokens))
            self._known.keep(key, size, len(text) + ENTRY)
        return size
