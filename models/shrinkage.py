"""Distributions that are shrunk down a hierarchy: all agents, role, framework, agent type, model, project.

A group's distribution is a mixture: its own observations, and the distribution of the group above it, which weighs as
much as `weight` workflows. A group seen in many workflows speaks for itself; one seen once says little more than its
parent. The history of the running workflow is mixed in the same way at the end. Each distribution is kept as `ATOMS`
observations of equal weight, so that they can be carried over to another prompt before quantiles are taken.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from apportion.models.features import Caller

ATOMS = 64
"""How many observations represent a distribution: enough for its 5 % and 95 % quantiles."""

ROOT = "all"
"""The group to which everybody belongs."""

SHARED = 2
"""So many groups at the head of a chain hold callers of any framework."""

WEIGHT = 5.0
"""How many workflows the group above is worth."""


@lru_cache(maxsize=4096)
def chain(caller: Caller) -> tuple[str, ...]:
    """Return the groups to which a caller belongs, the widest first.

    >>> from apportion.models.features import Caller
    >>> chain(Caller("codex-cli", "shop", "main", "main", "gpt-5.5"))[:4]
    ('all', 'all main', 'codex-cli/main', 'codex-cli/main/main')
    """
    framework, source, agent, role, model = map(_escaped, caller)
    return (
        *shared_chain(role),
        f"{framework}/{role}",
        f"{framework}/{role}/{agent}",
        f"{framework}/{role}/{agent}/{model}",
        f"{framework}/{role}/{agent}/{model}/{source}",
    )


def shared_chain(role: str) -> tuple[str, ...]:
    """Return the groups to which all callers of a role belong, whatever their framework.

    Those of a framework have a slash in their names, so that none can be taken for these.
    """
    return ROOT, f"{ROOT} {role}"


def framework_of(groups: Sequence[str]) -> str:
    """Return the framework of a chain, or nothing where it names none.

    >>> framework_of(("all", "all main", "codex-cli/main")), framework_of(("all", "all main"))
    ('codex-cli', '')
    """
    return groups[SHARED].partition("/")[0] if len(groups) > SHARED else ""


def _escaped(name: str | None) -> str:
    """Return a name without slashes, so that different callers never share a group by their names alone."""
    return str(name).replace("~", "~0").replace("/", "~1")


class Shrinkage:
    """Learns the distribution of each group of a hierarchy.

    Args:
        weight: How many workflows the group above is worth.

    Attributes:
        atoms_: Observations that represent each group, shrunk, shape (`ATOMS`, d).
        counts_: Number of workflows in which each group was seen.
        examples_: Number of observations of each group.
    """

    def __init__(self, weight: float = WEIGHT) -> None:
        self.weight = weight

    def fit(
        self, chains: Sequence[Sequence[str]], values: NDArray[np.float64], workflows: Sequence[Hashable]
    ) -> Shrinkage:
        """Learn from observations.

        Args:
            chains: Groups of each observation, the widest first; a group always has the same ones above it.
            values: The observations, shape (n, d).
            workflows: Workflow of each observation.
        """
        members: dict[str, list[int]] = {}
        above: dict[str, str | None] = {}
        for position, groups in enumerate(chains):
            for depth, group in enumerate(groups):
                members.setdefault(group, []).append(position)
                above[group] = groups[depth - 1] if depth else None
        self.counts_ = {group: len({workflows[row] for row in rows}) for group, rows in members.items()}
        self.examples_ = {group: len(rows) for group, rows in members.items()}
        self.atoms_: dict[str, NDArray[np.float64]] = {}
        for group, rows in members.items():  # a group comes after those above it
            parent = above[group]
            wider = self.atoms_[parent] if parent is not None else np.zeros((0, values.shape[1]))
            self.atoms_[group] = self._mixed(wider, values[rows], self.counts_[group])
        return self

    def _mixed(self, wider: NDArray[np.float64], own: NDArray[np.float64], workflows: int) -> NDArray[np.float64]:
        share = workflows / (workflows + self.weight) if len(wider) else 1.0
        weights = [np.full(len(wider), (1.0 - share) / max(1, len(wider))), np.full(len(own), share / len(own))]
        return _represented(np.concatenate((wider, own)), np.concatenate(weights))

    def group(self, groups: Sequence[str]) -> str:
        """Return the narrowest of some groups that is known."""
        return next(group for group in reversed(groups) if group in self.atoms_)

    def atoms(self, groups: Sequence[str]) -> NDArray[np.float64]:
        """Return observations of equal weight that represent the narrowest known group, shape (`ATOMS`, d)."""
        return self.atoms_[self.group(groups)]

    def mixtures(
        self, chains: Sequence[Sequence[str]], histories: Sequence[NDArray[np.float64]], own_weight: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what may be observed next, and how likely each is, where workflows have a history of their own.

        Args:
            chains: Groups of each row, the widest first.
            histories: Earlier observations of the same workflow, each of shape (any, d).
            own_weight: What all other workflows are worth in observations of the running one.

        Returns:
            Observations, shape (n, m, d), and weights that add up to 1, shape (n, m).
        """
        counts = np.array([len(each) for each in histories])
        longest = int(counts.max(initial=0))
        known = [self.atoms(groups) for groups in chains]
        values = np.zeros((len(known), ATOMS + longest, known[0].shape[1]))
        for row, (atoms, history) in enumerate(zip(known, histories, strict=True)):
            values[row, :ATOMS] = atoms
            values[row, ATOMS : ATOMS + len(history)] = history
        weights = np.empty(values.shape[:2])
        weights[:, :ATOMS] = (own_weight / ATOMS / (own_weight + counts))[:, None]
        if longest:
            weights[:, ATOMS:] = (np.arange(longest) < counts[:, None]) / (own_weight + counts)[:, None]
        return values, weights


def quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], levels: Sequence[float]
) -> NDArray[np.float64]:
    """Return the smallest values that are not exceeded with the given probabilities, shape (n, len(levels)).

    Args:
        values: Shape (n, m).
        weights: Shape (n, m), adding up to 1 in each row; values of weight 0 do not count.
        levels: Probabilities in (0, 1).

    >>> quantiles(np.array([[3.0, 1.0, 2.0]]), np.array([[0.2, 0.4, 0.4]]), (0.1, 0.5, 0.9)).tolist()
    [[1.0, 2.0, 3.0]]
    """
    n, m = values.shape
    start = np.arange(0, n * m, m)[:, None]  # flat positions: half the time of `take_along_axis`
    order = values.argsort(axis=1) + start
    reached = weights.take(order).cumsum(axis=1)
    below = (reached[:, None, :] < np.asarray(levels)[:, None] - 1e-9).sum(axis=2)
    positions = order.take(np.minimum(below, m - 1) + start)
    found: NDArray[np.float64] = values.take(positions)
    return found


def _represented(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `ATOMS` observations: one from the middle of each of as many equally likely parts, ordered by column."""
    order = np.lexsort(values.T[::-1])
    reached = weights[order].cumsum()
    middles = (np.arange(ATOMS) + 0.5) / ATOMS * reached[-1]
    found: NDArray[np.float64] = values[order[np.minimum(reached.searchsorted(middles), len(order) - 1)]]
    return found
