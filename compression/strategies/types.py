"""What a strategy is: the protocol that all share, and the records that go in and come out.

    outcome = strategy.execute(Item(content), None, Query(task="fix the failing test"))
    if not strategy.validate(item, outcome):
        content = strategy.rollback(outcome)

Content is bytes: it may be parsed to decide what to do, and is never parsed and written anew as if that were exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from apportion.errors import InputError
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.compression.store import Handle


def count_bytes(content: bytes) -> int:
    """Return the tokens of a content with the default encoding; bytes that are not UTF-8 count as U+FFFD."""
    return count_tokens(content.decode("utf-8", "replace"))


class Span(NamedTuple):
    """Bytes of a content from `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Held:
    """A content that stands word for word in what the receiver already has.

    Attributes:
        label: How the receiver finds it, for example `"#12"` for its message 12; printable, without blanks.
        content: What stands there: the form in which it was sent, not the original of that.
    """

    label: str
    content: bytes

    def __post_init__(self) -> None:
        if not self.label.isprintable() or not self.label or set(self.label) & set(" :[]"):
            raise InputError(f"unusable label {self.label!r}", hint="Use one printable word, for example '#12'.")


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of context on its way to one receiver.

    Attributes:
        content: The original.
        name: Tool that produced it, or `None`.
        pinned: Spans that the receiver must see word for word.
        held: What the receiver already has, the oldest first; references may point there.
    """

    content: bytes
    name: str | None = None
    pinned: tuple[Span, ...] = ()
    held: tuple[Held, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.content, bytes):
            raise InputError("the content of an item is bytes", hint="Encode text as UTF-8.")
        size = len(self.content)
        for span in self.pinned:
            if not 0 <= span.start <= span.end <= size:
                raise InputError(f"span {span.start}..{span.end} is not within 0..{size}", hint="Count bytes from 0.")
        labels = [held.label for held in self.held]
        if len(set(labels)) < len(labels):
            raise InputError("two held contents have the same label", hint="Number them.")

    def pins(self) -> tuple[bytes, ...]:
        """Return the pinned parts of the content."""
        return tuple(self.content[start:end] for start, end in self.pinned)


@dataclass(frozen=True, slots=True)
class Query:
    """What the content is for.

    Attributes:
        task: The receiver's task, in its own words; empty where unknown.
        count: Counts the tokens of a content for the receiver's model.
        can_expand: Whether the receiver can have back what a handle stands for.
        nonce: What markers begin with in this session; empty where each content may have its own.
    """

    task: str = ""
    count: Callable[[bytes], int] = count_bytes
    can_expand: bool = False
    nonce: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a strategy expects to make of an item.

    Attributes:
        tokens: Tokens of the result.
        original_tokens: Tokens of the original.
        lossless: Whether the original can be restored from the visible result alone.
    """

    tokens: int
    original_tokens: int
    lossless: bool

    @property
    def saved_tokens(self) -> int:
        """Tokens by which the result is expected to be shorter."""
        return self.original_tokens - self.tokens


class Gap(NamedTuple):
    """A part of an original that is not visible in the result.

    Attributes:
        span: Its bytes in the original.
        handle: Where the original is; the part is had back by its range.
        reason: Why it was left out, in a few words.
        marker: What stands in its place, exactly as in the result.
    """

    span: Span
    handle: Handle
    reason: str
    marker: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an item.

    Attributes:
        content: What the receiver gets; the original where nothing was done.
        original: The original, byte for byte.
        tokens: Tokens of the content.
        original_tokens: Tokens of the original.
        steps: Names of the strategies that changed the content, in their order; empty where it is the original.
        reasons: Why strategies left the content as it was, or were undone.
        handles: Where left-out parts can be had back; empty where all is visible.
        gaps: Parts of the original that were left out, in their order; the rest is visible.
    """

    content: bytes
    original: bytes
    tokens: int
    original_tokens: int
    steps: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    handles: tuple[Handle, ...] = field(default=())
    gaps: tuple[Gap, ...] = field(default=())

    @classmethod
    def unchanged(cls, content: bytes, tokens: int, *reasons: str) -> Outcome:
        """Return the outcome in which the receiver gets the original."""
        return cls(content, content, tokens, tokens, reasons=reasons)

    @property
    def changed(self) -> bool:
        """Whether the receiver gets anything else than the original."""
        return bool(self.steps)

    @property
    def left_out_share(self) -> float:
        """Share of the original's bytes that is not visible, in [0, 1]."""
        return sum(gap.span.end - gap.span.start for gap in self.gaps) / max(1, len(self.original))

    @property
    def saved_share(self) -> float:
        """Share of the tokens that is saved, in [0, 1]."""
        return 1 - self.tokens / self.original_tokens if self.original_tokens else 0.0


class Verdict(NamedTuple):
    """Whether a result may be sent, and if not, why; true where it may."""

    accepted: bool
    reason: str | None = None

    def __bool__(self) -> bool:
        return self.accepted


@runtime_checkable
class Strategy(Protocol):
    """A way of making an item shorter for its receiver.

    None of the methods changes an item, keeps state between calls that alters a result, or adds tokens.

    Attributes:
        name: The name under which it is asked for; one printable word.
    """

    name: str

    def estimate(self, item: Item, query: Query) -> Estimate:
        """Say what `execute` would make of an item, as far as that can be told."""
        ...

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Make an item shorter.

        Args:
            item: The original.
            target_tokens: Size that suffices; a strategy that loses something stops there. `None`: as short as it can.
            query: What the content is for.
        """
        ...

    def validate(self, original: Item, result: Outcome) -> Verdict:
        """Say whether a result may be sent instead of the original."""
        ...

    def rollback(self, result: Outcome) -> bytes:
        """Return the original, byte for byte."""
        ...


class BaseStrategy:
    """Supplies `validate` and `rollback`: the rules that hold for every strategy, whatever it does."""

    name = "none"

    def validate(self, original: Item, result: Outcome) -> Verdict:
        """Accept a result that belongs to the original, has no more tokens, and shows what is pinned."""
        if result.original != original.content:
            return Verdict(accepted=False, reason="the result is of another original")
        if not isinstance(result.content, bytes):
            return Verdict(accepted=False, reason=f"the content is {type(result.content).__name__}, not bytes")
        if not result.changed and result.content != original.content:
            return Verdict(accepted=False, reason="the content changed without a step that did it")
        if result.tokens > result.original_tokens:
            return Verdict(accepted=False, reason=f"grew from {result.original_tokens} to {result.tokens} tokens")
        if any(pin not in result.content for pin in original.pins()):
            return Verdict(accepted=False, reason="a pinned span is not visible")
        return Verdict(accepted=True)

    def _validate_restored(self, original: Item, result: Outcome, restore: Callable[[], bytes]) -> Verdict:
        """Accept what `validate` of this class accepts, and what restores the original byte for byte."""
        verdict = BaseStrategy.validate(self, original, result)
        if not verdict or not result.changed:
            return verdict
        try:
            restored = restore()
        except Exception as error:  # noqa: BLE001  (a damaged form may provoke anything)
            return Verdict(accepted=False, reason=f"cannot be restored: {type(error).__name__}: {error}")
        if restored != original.content:
            return Verdict(accepted=False, reason="does not restore the original")
        return verdict

    def rollback(self, result: Outcome) -> bytes:
        """Return the original, byte for byte."""
        return result.original
