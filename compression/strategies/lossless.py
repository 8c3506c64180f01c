"""The base of lossless strategies: whatever they write is read back on the spot and compared byte by byte."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from apportion.compression.strategies.types import BaseStrategy, Estimate, Outcome, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.compression.strategies.types import Held, Item, Query

MAX_BYTES = 32 * 2**20
"""Longest content that is looked at; beyond it the original is sent."""

MIN_SAVED_TOKENS = 4
"""A form that saves less is not worth reading."""

MARKS: Final = ("@", "~", "^", "%", "§", "¤", "¦", "‖", "※", "†")
"""What can mark our own lines among the content's; one is chosen that the content does not use."""


class LosslessStrategy(BaseStrategy, ABC):
    """Writes a text in a shorter form from which it can be restored, without anything but that form and what is held.

    Each result is proved by its own inverse: if the restored bytes are not the original ones, the original is sent.
    A form never has more tokens than the original.
    """

    @abstractmethod
    def encode(self, text: str, item: Item, query: Query) -> str | None:
        """Return the shorter form of a text, or `None` where there is none."""

    @abstractmethod
    def decode(self, form: str, held: Sequence[Held]) -> str:
        """Return the text of which a form was made."""

    def estimate(self, item: Item, query: Query) -> Estimate:
        """Say exactly what `execute` makes of an item, by doing it."""
        outcome = self.execute(item, None, query)
        return Estimate(outcome.tokens, outcome.original_tokens, lossless=True)

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:  # noqa: ARG002  (nothing is lost)
        """Write an item shorter, or send its original and say why; never raises."""
        tokens = query.count(item.content)
        try:
            form, reason = self._form(item, tokens, query)
        except Exception as error:  # noqa: BLE001  (whatever a content provokes, it is sent as it is)
            form, reason = None, f"{type(error).__name__}: {error}"
        if form is None:
            return Outcome.unchanged(item.content, tokens, f"{self.name}: {reason}")
        return Outcome(form, item.content, query.count(form), tokens, steps=(self.name,))

    def validate(self, original: Item, result: Outcome) -> Verdict:
        """Accept what the rules for all strategies accept, and what restores the original byte for byte."""
        return self._validate_restored(original, result, lambda: self.restore(result.content, original.held))

    def restore(self, content: bytes, held: Sequence[Held] = ()) -> bytes:
        """Return the original of a content that this strategy wrote.

        Args:
            content: What `execute` made.
            held: What the receiver had, as it was then.

        Raises:
            ValueError: The content is not a form of this strategy.
        """
        return self.decode(content.decode(), held).encode()

    def _form(self, item: Item, tokens: int, query: Query) -> tuple[bytes | None, str]:
        """Return the proved form of an item, or why there is none."""
        if len(item.content) > MAX_BYTES:
            return None, f"longer than {MAX_BYTES} bytes"
        try:
            text = item.content.decode()
        except UnicodeDecodeError:
            return None, "not UTF-8"
        encoded = self.encode(text, item, query)
        if encoded is None:
            return None, "does not apply"
        form = encoded.encode()
        if query.count(form) + MIN_SAVED_TOKENS > tokens:
            return None, "saves no tokens"
        if self.decode(encoded, item.held) != text:
            return None, "would not restore the original"
        if any(pin not in form for pin in item.pins()):
            return None, "would hide a pinned span"
        return form, ""


def free_mark(text: str, marks: Iterable[str] = MARKS) -> str | None:
    r"""Return the first mark with which no line of a text begins, or `None`.

    >>> free_mark("@here\nthere")
    '~'
    """
    for mark in marks:
        if not text.startswith(mark) and f"\n{mark}" not in text:
            return mark
    return None


def split_form(form: str, name: str) -> tuple[str, str]:
    """Return what follows the name in the first line of a form, and the lines below.

    Raises:
        ValueError: The form is another strategy's.
    """
    head, _, body = form.partition("\n")
    if not head.startswith(f"[{name}") or not head.endswith("]"):
        raise ValueError(f"not a form of {name}")
    return head[len(name) + 1 : -1].strip(), body
