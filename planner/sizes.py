"""How many tokens texts have, each counted once: as anybody counts them, and as a model does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from apportion.tokens import TokenCounter


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
        self._known: dict[str | None, dict[str, Size]] = {}

    def of(self, text: str, counter: TokenCounter) -> Size:
        """Return the size of a text for a model."""
        known = self._known.get(counter.model)
        if known is None:
            known = self._known.setdefault(counter.model, {})
        size = known.get(text)
        if size is None:
            size = known[text] = Size(count_tokens(text), float(counter.estimate(text).tokens))
        return size
