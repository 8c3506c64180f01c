"""What followed which context, counted for contexts of several lengths and interpolated.

The probability of a step after a context is that after the context without its oldest step, corrected by what was seen
after the whole context (Witten and Bell 1991; Chen and Goodman 1999, section 2.4):

    P(x | c) = (n(c, x) + t(c) * P(x | shorter c)) / (n(c) + t(c))

n counts occurrences after the context, t how many different steps followed it: the more kinds of steps have followed,
the likelier a new one is. A context that was never seen changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class _Shares(NamedTuple):
    """What one context adds: the weight of shorter contexts, and the shares of the steps that were seen."""

    shorter: float
    places: NDArray[np.intp]
    seen: NDArray[np.float64]


class BackoffCounts:
    """Counts of steps after contexts of up to `max_order` earlier steps.

    >>> counts = BackoffCounts(max_order=2)
    >>> for _ in range(3):
    ...     counts.add(("plan", "code"), "review")
    >>> base = np.array([0.5, 0.5])
    >>> counts.probabilities(("plan", "code"), base, {"review": 0, "(end)": 1}).round(3).tolist()
    [0.992, 0.008]

    Args:
        max_order: Longest context that is told apart, in steps.
    """

    def __init__(self, max_order: int) -> None:
        self.max_order = max_order
        self._shares: dict[tuple[str, ...], _Shares] = {}
        self._after: dict[tuple[str, ...], dict[str, int]] = {}
        self._totals: dict[tuple[str, ...], int] = {}

    def add(self, context: Sequence[str], step: str, count: int = 1) -> None:
        """Count a step after a context, and after all that are shorter."""
        for order in range(min(self.max_order, len(context)) + 1):
            self._count(tuple(context[len(context) - order :]), step, count)

    def _count(self, context: tuple[str, ...], step: str, count: int) -> None:
        after = self._after.setdefault(context, {})
        after[step] = after.get(step, 0) + count
        self._totals[context] = self._totals.get(context, 0) + count
        self._shares.pop(context, None)

    @property
    def steps(self) -> set[str]:
        """All steps that were counted."""
        return set(self._after.get((), ()))

    def total(self, context: Sequence[str]) -> int:
        """Return how often exactly this context was seen, of at most `max_order` steps."""
        return self._totals.get(tuple(context), 0)

    def probabilities(
        self, context: Sequence[str], base: NDArray[np.float64], index: Mapping[str, int]
    ) -> NDArray[np.float64]:
        """Return the probability of each step after a context.

        Args:
            context: The earlier steps, the latest last.
            base: Probabilities before anything is counted, of shape (n,), summing to 1.
            index: Where in the result each step that was ever counted stands; always the same for these counts.

        Returns:
            Array of shape (n,) that sums to 1.
        """
        found = base.copy()
        for order in range(min(self.max_order, len(context)) + 1):
            key = tuple(context[len(context) - order :])
            shares = self._shares.get(key) or self._shares_of(key, index)
            if shares is None:
                break
            found *= shares.shorter
            found[shares.places] += shares.seen
        return found

    def _shares_of(self, context: tuple[str, ...], index: Mapping[str, int]) -> _Shares | None:
        """Return what a context says; kept, because the same contexts come again and again."""
        after = self._after.get(context)
        if after is None:
            return None
        whole = self._totals[context] + len(after)
        places = np.array([index[step] for step in after])
        shares = _Shares(len(after) / whole, places, np.array(list(after.values())) / whole)
        self._shares[context] = shares
        return shares

    def to_state(self) -> dict[str, Any]:
        """Return the counts as names and arrays: a row per context and step, names as positions in `names`."""
        names = sorted({name for context, after in self._after.items() for name in (*context, *after)})
        position = {name: nth for nth, name in enumerate(names)}
        rows = [
            (*[position[name] for name in context], *[-1] * (self.max_order - len(context)), position[step], count)
            for context, after in self._after.items()
            for step, count in after.items()
        ]
        table = np.array(rows, dtype=np.int64).reshape(len(rows), self.max_order + 2)
        return {"max_order": self.max_order, "names": names, "table": table}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the counts from what `to_state` returned.

        Raises:
            ValueError: The state is none of such counts.
            KeyError: A part is missing.
        """
        max_order, names, table = state["max_order"], state["names"], state["table"]
        if not (isinstance(max_order, int) and 0 <= max_order <= 16 and all(isinstance(name, str) for name in names)):
            raise ValueError("a table of counts has no usable order or names")
        if not (isinstance(table, np.ndarray) and table.dtype == np.int64 and table.shape[1:] == (max_order + 2,)):
            raise ValueError("a table of counts has a wrong shape or type")
        lowest = [*[-1] * max_order, 0, 1]
        if (table < lowest).any() or (table[:, :-1] >= len(names)).any():
            raise ValueError("a table of counts names what it does not hold, or counts less than one")
        counts = cls(max_order)
        for *context, step, count in table.tolist():
            counts._count(tuple(names[nth] for nth in context if nth >= 0), names[step], count)
        return counts
