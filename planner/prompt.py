"""The prompt of one agent run as the plan sends it: item by item, kept up to date between calls."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from apportion.records import Action

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

STUB_TOKENS = 24
"""Tokens that a stub is expected to have before it is written."""

REFERENCE_TOKENS = 14
"""The same for a reference."""

_ACTIONS = (Action.KEEP, Action.REFERENCE, Action.MASK)
_KEEP, _REFERENCE, _MASK = range(3)

_COLUMNS: dict[str, type[np.generic]] = {
    "piece": np.int64,
    "logged": np.int64,
    "visible": np.int64,
    "tokens": np.float64,
    "full_tokens": np.float64,
    "born": np.int64,
    "last_use": np.int64,
    "uses": np.int64,
    "need": np.float64,
    "maskable": np.bool_,
    "form": np.int8,
    "copy": np.int64,
}


class DroppedItem(NamedTuple):
    """An item that has left the prompt: its content, its visible tokens as sent, and its form."""

    piece: int
    visible: int
    action: Action


class PlannedPrompt:
    """The items of one agent run's prompt, in order, as columns of equal length.

    Columns:
        piece: Which content the item is (the caller's numbering).
        logged: Position in the prompt as logged, or -1 for an item that was expanded again at the end.
        visible: Tokens of its text as sent.
        tokens: The same in the provider's tokens.
        full_tokens: Provider tokens of the original.
        born: Number of the run's call that sent it first.
        last_use: Number of the run's call that sent it first or quoted it last.
        uses: How many calls quoted it so far.
        need: Probability, right after it was first sent, that it is needed again once it is gone.
        maskable: Whether it may be masked.
        form: What is sent: the original, a reference, or a stub.
        copy: An earlier row whose original has the same bytes, or -1.
    """

    def __init__(self) -> None:
        self._size = 0
        self._data: dict[str, NDArray[Any]] = {name: np.zeros(64, dtype=kind) for name, kind in _COLUMNS.items()}
        self.changed_from = 0
        """First item that differs from what was sent last; equal to the length then if none does."""

    def __len__(self) -> int:
        return self._size

    def column(self, name: str) -> NDArray[Any]:
        """Return a column as a view of shape (n,)."""
        return self._data[name][: self._size]

    def append(
        self,
        *,
        piece: int,
        logged: int,
        visible: int,
        tokens: float,
        born: int,
        need: float,
        maskable: bool,
        copy: int = -1,
    ) -> int:
        """Add an item at the end, whole, and return its position."""
        if self._size == len(self._data["piece"]):
            for name, column in self._data.items():
                self._data[name] = np.concatenate((column, np.zeros_like(column)))
        row = self._size
        self._size += 1
        values = (piece, logged, visible, tokens, tokens, born, born, 0, need, maskable, _KEEP, copy)
        for column, value in zip(self._data.values(), values, strict=True):
            column[row] = value
        return row

    def replace(self, row: int, action: Action, *, visible: int, tokens: float) -> None:
        """Send another form of an item from now on: a stub or a reference."""
        self._data["visible"][row] = visible
        self._data["tokens"][row] = tokens
        self._data["form"][row] = _ACTIONS.index(action)
        self._data["maskable"][row] = False
        self.changed_from = min(self.changed_from, row)

    def touch(self, row: int, call: int) -> None:
        """Note that the output of a call quoted an item: what was just used is likely to be used again."""
        self._data["last_use"][row] = call
        self._data["uses"][row] += 1

    def inherit_uses(self, row: int, earlier: int) -> None:
        """Count the uses of an item that is sent again on from those of its earlier place."""
        self._data["uses"][row] = self._data["uses"][earlier]

    def pin(self, row: int) -> None:
        """Never mask an item."""
        self._data["maskable"][row] = False

    def settle(self, row: int) -> None:
        """Note that what a stub stands for has been sent again: it will not be needed from there."""
        self._data["need"][row] = 0.0

    def truncate(self, kept: int) -> list[DroppedItem]:
        """Drop what follows the first `kept` logged items, as an edited history demands, and return it."""
        beyond = np.flatnonzero(self.column("logged") >= kept)
        first = 0 if kept == 0 else int(beyond[0]) if beyond.size else self._size
        dropped = [
            DroppedItem(int(self._data["piece"][row]), int(self._data["visible"][row]), self.action(row))
            for row in range(first, self._size)
        ]
        self._size = first
        self.changed_from = min(self.changed_from, first)
        return dropped

    def sent(self) -> None:
        """Note that the prompt has been sent as it stands."""
        self.changed_from = self._size

    def action(self, row: int) -> Action:
        """Return the form in which an item is sent."""
        return _ACTIONS[self._data["form"][row]]

    def whole(self, row: int) -> bool:
        """Say whether an item is sent as it is."""
        return bool(self._data["form"][row] == _KEEP)

    def need_at(self, call: int) -> NDArray[np.float64]:
        """Return for each item the probability that it is needed again if it is masked before a call of the run."""
        return need_after(self.column("need"), uses=self.column("uses"), calls=call - self.column("last_use"))


MAX_NEED = 0.95
"""Probabilities of a need above this are not believed."""

NEED_PER_USE = 0.3
"""How much each earlier use, up to three, raises the probability that a tool result is needed again."""

NEED_HALF_AGE = 10.0
"""Calls since the last use after which the probability that a tool result is needed again has halved."""


def need_after(prior: ArrayLike, *, uses: ArrayLike, calls: ArrayLike) -> NDArray[np.float64]:
    """Return the probability that a tool result is needed again, given its prior, earlier uses and calls since then."""
    raised = np.asarray(prior) * (1.0 + NEED_PER_USE * np.minimum(uses, 3))
    need: NDArray[np.float64] = np.minimum(raised, MAX_NEED) / (1.0 + np.asarray(calls) / NEED_HALF_AGE)
    return need


def prior_need(tokens: float, *, tool: str | None, handed_back: bool) -> float:
    """Return the prior probability that a tool result is quoted again later, in [0, 1].

    Measured on logs of coding agents by `benchmarks/prior_need.py`: it grows with the logarithm of the size (about
    0.15 at 150 tokens, 0.35 at 600, 0.5 at 1,800, 0.65 at 6,000), has halved 10 calls after the last use, is twice as
    high for what a sub-agent handed back, and a quarter for the acknowledgement of an edit.
    """
    base = 0.3 * math.log10(max(tokens, 1.0) / 45.0)
    if handed_back:
        base *= 2.0
    elif tool is not None and tool.lower() in ACKNOWLEDGING_TOOLS:
        base *= 0.25
    return float(min(max(base, 0.02), MAX_NEED))


ACKNOWLEDGING_TOOLS = frozenset(
    {"edit", "multiedit", "write", "apply_patch", "notebookedit", "todowrite", "str_replace"}
)
"""Tools whose results repeat what the model has just written."""
