"""Strategies one after the other, or the best of several; both are strategies themselves.

    strategies, broken = load_strategies()
    outcome = Lossless().execute(Item(content), None, Query(task="fix the failing test"))
    outcome = Recoverable().execute(Item(content), None, Query(task="fix the failing test", can_expand=True))

Whatever goes wrong in a strategy (an exception, a refused validation, a content that grew), the content is as it was
before that strategy, byte for byte, and the outcome says why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from apportion.compression.strategies.cutting import CutStrategy
from apportion.compression.strategies.grep_groups import GrepGroups
from apportion.compression.strategies.json_columns import JsonColumns
from apportion.compression.strategies.log_templates import LogTemplates
from apportion.compression.strategies.lossless import LosslessStrategy
from apportion.compression.strategies.ranges import Ranges
from apportion.compression.strategies.repeats import Repeats
from apportion.compression.strategies.types import (
    BaseStrategy,
    Estimate,
    Item,
    Outcome,
    Query,
    Span,
    Strategy,
    Verdict,
)
from apportion.compression.strategies.white_space import WhiteSpace
from apportion.errors import InputError
from apportion.plugins import load_plugins

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Held

GROUP = "apportion.strategies"
"""Entry-point group under which strategies join."""

PROVING: Final = (LosslessStrategy.execute, CutStrategy.execute)
"""Ways of running a strategy that have validated what comes out."""


def load_strategies(store: HandleStore | None = None) -> tuple[dict[str, Strategy], tuple[str, ...]]:
    """Return all installed strategies by name, and what is wrong with those that cannot be used.

    Args:
        store: Where those that have a `store` keep originals: they are made anew with it. `None`: each has its own.
    """
    strategies: dict[str, Strategy] = {}
    broken: list[str] = []
    for plugin in load_plugins(GROUP):
        error = plugin.error
        if error is None and not isinstance(plugin.value, Strategy):
            error = f"{type(plugin.value).__name__} does not follow the strategy protocol"
        if error is None and plugin.name in strategies:
            error = "another strategy has this name"
        value = plugin.value
        if error is None and store is not None and hasattr(value, "store"):
            try:
                value = type(value)(store=store)
            except Exception as raised:  # noqa: BLE001  (a foreign plug-in may raise anything)
                error = f"{type(raised).__name__}: {raised}"
        if error is None:
            strategies[plugin.name] = value
        else:
            broken.append(f"{plugin.distribution}:{plugin.name}: strategy does not load: {error}")
    return strategies, tuple(broken)


def apply(strategy: Strategy, item: Item, query: Query, *, target_tokens: int | None = None) -> Outcome:
    """Run one strategy on an item and validate what it made; never raises.

    Returns:
        What the strategy made, or the original and the reason why that was not used.
    """
    return _guarded(strategy, item, query, target_tokens, proved=False)


def _guarded(strategy: Strategy, item: Item, query: Query, target_tokens: int | None, *, proved: bool) -> Outcome:
    """Run one strategy; `proved` tells that its `execute` has validated what it made."""
    name = getattr(strategy, "name", type(strategy).__name__)
    try:
        outcome = strategy.execute(item, target_tokens, query)
        verdict = Verdict(accepted=True) if proved else strategy.validate(item, outcome)
        if not verdict:
            reason = f"{name}: refused: {verdict.reason}"
        elif outcome.original != item.content or not isinstance(outcome.content, bytes):
            reason = f"{name}: refused: not a result of this item"
        elif outcome.changed and (grown := query.count(outcome.content) - query.count(item.content)) > 0:
            reason = f"{name}: refused: grew by {grown} tokens"
        else:
            return outcome
    except Exception as error:  # noqa: BLE001  (a strategy of others may raise anything)
        reason = f"{name}: {type(error).__name__}: {error}"
    return Outcome.unchanged(item.content, query.count(item.content), reason)


def _step(strategy: Strategy, item: Item, query: Query, target_tokens: int | None) -> Outcome:
    """Run one strategy within another; those of ours that prove each result are not asked to do it again."""
    proved = type(strategy).execute in PROVING or isinstance(strategy, (Chain, Best, WithOrWithout))
    return _guarded(strategy, item, query, target_tokens, proved=proved)


class Composite(BaseStrategy, ABC):
    """A strategy made of others.

    Args:
        strategies: Those that it is made of, in their order.
        name: The name under which it is asked for.
    """

    def __init__(self, strategies: Iterable[Strategy], *, name: str) -> None:
        self.strategies = tuple(strategies)
        self.name = name

    @property
    def leaves(self) -> dict[str, Strategy]:
        """Those that it is made of, and those that these are made of, by name."""
        return _leaves(self.strategies)

    @abstractmethod
    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Make an item shorter."""

    def estimate(self, item: Item, query: Query) -> Estimate:
        """Say exactly what `execute` makes of an item, by doing it."""
        outcome = self.execute(item, None, query)
        return Estimate(outcome.tokens, outcome.original_tokens, lossless=_is_lossless(outcome, self.strategies))

    def validate(self, original: Item, result: Outcome) -> Verdict:
        """Accept what the rules for all strategies accept, and what restores the original where that is visible."""
        if not _is_restorable(result, self.strategies):
            return super().validate(original, result)
        return self._validate_restored(original, result, lambda: restore(result, self.strategies, original.held))


class Chain(Composite):
    """Strategies that are applied one after the other, each to what the one before it made.

    What is cut is cut first: encoded before, rows would refer to rows that are no longer there.
    """

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Apply each strategy to what the one before it made."""
        tokens = query.count(item.content)
        result = Outcome.unchanged(item.content, tokens)
        for strategy in self.strategies:
            result = _joined(result, _step(strategy, _with_content(item, result.content), query, target_tokens))
        return result


class Best(Composite):
    """Of several strategies the one that leaves the fewest tokens; the first of equals."""

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Apply each strategy to the original and return the shortest result."""
        outcomes = [_step(strategy, item, query, target_tokens) for strategy in self.strategies]
        if not outcomes:
            return Outcome.unchanged(item.content, query.count(item.content), f"{self.name}: no strategies")
        best = min(outcomes, key=lambda outcome: outcome.tokens)
        reasons = tuple(reason for outcome in outcomes for reason in outcome.reasons)
        return replace(best, reasons=reasons)


class WithOrWithout(Composite):
    """A strategy and then another, or the other alone, whichever leaves fewer tokens.

    Args:
        first: What is tried; where it changes nothing, nothing is done twice.
        rest: What is done in any case.
        name: The name under which it is asked for.
    """

    def __init__(self, first: Strategy, rest: Strategy, *, name: str) -> None:
        super().__init__((first, rest), name=name)

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Apply both in turn, and the second alone, and return the shorter result."""
        first, rest = self.strategies
        tried = _step(first, item, query, target_tokens)
        alone = _step(rest, item, query, target_tokens)
        if not tried.changed:
            return replace(alone, reasons=tried.reasons + alone.reasons)
        both = _joined(tried, _step(rest, _with_content(item, tried.content), query, target_tokens))
        return both if both.tokens <= alone.tokens else alone


class Lossless(Chain):
    """Our lossless strategies in the order that saves most; the default for everybody who may not lose anything.

    What the receiver holds is referred to, or not, whichever is shorter: before and after the white space that follows
    a rule is left out, because what is held may have been sent either way. The rest is written by its structure. All
    of it is restored from the visible text. `literals` is not among them: what it folds is recoverable, not visible.
    """

    def __init__(self) -> None:
        held = Repeats(within=False)
        structure = Chain([JsonColumns(), GrepGroups(), LogTemplates(), Repeats()], name="structure")
        narrow = Chain([WhiteSpace(), WithOrWithout(held, structure, name="held")], name="narrow")
        super().__init__([WithOrWithout(held, narrow, name="held_or_narrow")], name="lossless")


SMALL_CUT = 0.05
"""Share of the tokens; a cut that saves less may cost more in what the lossless form then cannot do."""

SHORT = 400
"""Tokens of a content that is short."""


class Recoverable(Composite):
    """Cuts what stands elsewhere, then writes the rest losslessly; what is left out is had back by handle.

    Where cutting first leaves more tokens than the lossless form of the whole, that form is sent: for small cuts and
    short contents, where markers may weigh more than what they stand for, both are tried. Each result is undone
    on every use: the lossless steps from the visible text, the gaps from the store.

    Args:
        store: Keeps the originals; one of its own where none is given.
        price: A fact may leave the view where that saves at least so many tokens; 0: none may, the default.
        visible: Share of an item's new facts that must stay visible, in [0, 1]; see `Ranges`. `LEVELS` has some.
        keeps_code: Whether code is left whole, because the receiver may edit it.
        name: The name under which it is asked for.
    """

    def __init__(
        self,
        store: HandleStore | None = None,
        *,
        price: float = 0,
        visible: float | None = None,
        keeps_code: bool = True,
        name: str = "recoverable",
    ) -> None:
        self.cuts = Ranges(store, price=price, visible=visible, keeps_code=keeps_code)
        self.lossless = Lossless()
        super().__init__([self.cuts, self.lossless], name=name)

    @property
    def store(self) -> HandleStore:
        """Where the originals are."""
        return self.cuts.store

    def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
        """Cut and then encode, or only encode, whichever leaves fewer tokens."""
        if target_tokens is not None:
            alone = _step(self.lossless, item, query, target_tokens)
            if alone.tokens <= target_tokens:
                return alone
        cut = _step(self.cuts, item, query, target_tokens)
        if not cut.changed:
            alone = _step(self.lossless, item, query, target_tokens)
            return replace(alone, reasons=cut.reasons + alone.reasons)
        both = _joined(cut, _step(self.lossless, _with_content(item, cut.content), query, target_tokens))
        if cut.saved_share >= SMALL_CUT and cut.original_tokens >= SHORT:
            return both
        alone = _step(self.lossless, item, query, target_tokens)
        return both if both.tokens < alone.tokens else alone


LEVELS: Final = {
    "recoverable": None,
    "recoverable_98": 0.98,
    "recoverable_95": 0.95,
    "recoverable_90": 0.9,
    "recoverable_85": 0.85,
}
"""Levels of `Recoverable` by what they promise: the share of each item's new facts that stays visible; `None`: all."""


def recoverable(
    level: str = "recoverable", store: HandleStore | None = None, *, keeps_code: bool = True
) -> Recoverable:
    """Return `Recoverable` at one of `LEVELS`.

    Args:
        level: For example `"recoverable_95"`: at least 95 % of the facts of each item stay visible.
        store: Keeps the originals; one of its own where none is given.
        keeps_code: Whether code is left whole, because the receiver may edit it.

    Raises:
        InputError: There is no such level.
    """
    if level not in LEVELS:
        raise InputError(f"unknown level {level!r}", hint=f"Choose one of {', '.join(LEVELS)}.")
    return Recoverable(store, visible=LEVELS[level], keeps_code=keeps_code, name=level)


def _joined(before: Outcome, step: Outcome) -> Outcome:
    """Return the outcome of two steps, the second applied to what the first made.

    Gaps are parts of the original, so those of a later step are no longer told where the text had changed before.
    """
    return Outcome(
        step.content,
        before.original,
        step.tokens,
        before.original_tokens,
        before.steps + step.steps,
        before.reasons + step.reasons,
        before.handles + step.handles,
        before.gaps if before.changed else step.gaps,
    )


def restore(result: Outcome, strategies: Iterable[Strategy], held: Sequence[Held] = ()) -> bytes:
    """Return the original of a result: each step is undone, the last one first.

    Lossless steps are undone from the content alone, cuts from the store of the strategy that cut, and only as the
    first step of all, because gaps are parts of the original.

    Args:
        result: What strategies made; its content, steps and gaps are looked at.
        strategies: Those that may have made it, by themselves or inside others.
        held: What the receiver had, as it was then.

    Raises:
        ValueError: The content is not what the steps made, or a step cannot be undone.
        StoreError: The store does not hold what was left out.
    """
    leaves = _leaves(strategies)
    content = result.content
    for number, name in reversed(tuple(enumerate(result.steps))):
        strategy = leaves.get(name)
        if isinstance(strategy, CutStrategy) and number == 0:
            return strategy.restore(replace(result, content=content))
        if not isinstance(strategy, LosslessStrategy):
            raise ValueError(f"{name} cannot be undone from the content alone")  # noqa: TRY004  (it is the result's)
        content = strategy.restore(content, held)
    return content


def _leaves(strategies: Iterable[Strategy]) -> dict[str, Strategy]:
    found: dict[str, Strategy] = {}
    for strategy in strategies:
        if isinstance(strategy, Composite):
            found.update(_leaves(strategy.strategies))
        else:
            found[strategy.name] = strategy
    return found


def _is_lossless(outcome: Outcome, strategies: Iterable[Strategy]) -> bool:
    leaves = _leaves(strategies)
    return all(isinstance(leaves.get(name), LosslessStrategy) for name in outcome.steps)


def _is_restorable(outcome: Outcome, strategies: Iterable[Strategy]) -> bool:
    """Say whether `restore` knows how to undo each step: all of them lossless, or the first one a cut."""
    leaves = _leaves(strategies)
    rest = outcome.steps[1:] if isinstance(leaves.get(next(iter(outcome.steps), "")), CutStrategy) else outcome.steps
    return all(isinstance(leaves.get(name), LosslessStrategy) for name in rest)


def _with_content(item: Item, content: bytes) -> Item:
    """Return the item with what a strategy made of it; its pins are where they now stand."""
    if content == item.content:
        return item
    starts = [(content.index(pin), len(pin)) for pin in item.pins()]
    return replace(item, content=content, pinned=tuple(Span(start, start + size) for start, size in starts))
