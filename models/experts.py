"""Six opinions on the next step, from different views of what came before.

    names             what followed the latest names, in all sources, and in this source
    patterns          what followed the latest pattern of returns ("the one before the last again"), likewise
    classifiers       a linear classifier of the latest steps, and one that reads the text that was asked as well

Patterns know nothing of names, so they carry over to workflows in which every agent is new. How much each opinion is
worth is learned by `next_agent` on held-out workflows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from apportion.models.backoff import BackoffCounts
from apportion.models.step_classifier import StepClassifier
from apportion.models.trails import END, WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from apportion.models.trails import Step

OTHER = "(other)"
"""Stands for any name that was never seen."""

EXPERTS = ("names", "names here", "patterns", "patterns here", "steps", "text")
"""The opinions; "here" is in the same source."""

NEW = "new"
"""In a pattern: a name that is not among the latest steps."""

_PATTERN_INDEX = {NEW: 0, END: 1} | {str(rank): rank + 2 for rank in range(WINDOW)}
STARTS = "^"
"""Stands before the first step."""


class Opinions(NamedTuple):
    """What each expert says about the next step.

    Attributes:
        names: The possible steps: `END`, `OTHER`, all that were seen, and those of the history that were not.
        probabilities: Array of shape (n_experts, n_names); each row that is heard sums to 1.
        heard: Array of shape (n_experts,): which experts have anything to say.
    """

    names: list[str]
    probabilities: NDArray[np.float64]
    heard: NDArray[np.bool_]


class StepExperts:
    """The six experts.

    Args:
        max_order: Longest context that is told apart, in steps.

    Attributes:
        outcomes_: All steps that were seen, behind `END` and `OTHER`, with their positions.
        names_: Counts by names, per source; those of all sources under `None`.
        patterns_: Counts by patterns, likewise.
        classifiers_: The two classifiers.
    """

    def __init__(self, max_order: int) -> None:
        self.max_order = max_order
        self.outcomes_: dict[str, int] = {END: 0, OTHER: 1}
        self.names_: dict[str | None, BackoffCounts] = {None: BackoffCounts(max_order)}
        self.patterns_: dict[str | None, BackoffCounts] = {None: BackoffCounts(max_order)}
        self.classifiers_ = [StepClassifier(reads_text=False), StepClassifier(reads_text=True)]
        self._place_outcomes()

    def count(self, steps: Iterable[Step]) -> Self:
        """Add steps to what was counted by names and patterns."""
        for step in steps:
            self.outcomes_.setdefault(step.name, len(self.outcomes_))
            ranks, recent = pattern(step.history)
            rank = _rank(step.name, recent)
            for source in (None, step.source):
                self._counts(self.names_, source).add(_context(step), step.name)
                self._counts(self.patterns_, source).add((STARTS, *ranks), rank)
        return self

    def _counts(self, kept: dict[str | None, BackoffCounts], source: str | None) -> BackoffCounts:
        return kept.setdefault(source, BackoffCounts(self.max_order))

    def classify(self, steps: Sequence[Step]) -> Self:
        """Fit the classifiers anew."""
        for classifier in self.classifiers_:
            classifier.fit(steps)
        self._place_outcomes()
        return self

    def _place_outcomes(self) -> None:
        """Note where the outcomes of the classifiers stand among all."""
        self._places = [
            np.array([self.outcomes_[name] for name in classifier.outcomes_], dtype=np.intp)
            for classifier in self.classifiers_
        ]

    def seen_after(self, step: Step, source: str | None) -> int:
        """Return how often anything followed the latest step before this one, in a source or in all (`None`)."""
        counts = self.names_.get(source)
        return 0 if counts is None else counts.total(_context(step)[-1:])

    def opinions(self, step: Step) -> Opinions:
        """Return what the experts say about a step whose name is not known yet."""
        ranks, recent = pattern(step.history)
        names = [*self.outcomes_, *(name for name in dict.fromkeys(recent) if name not in self.outcomes_)]
        index = {name: nth for nth, name in enumerate(names)} if len(names) > len(self.outcomes_) else self.outcomes_
        base = even_base(len(names))
        rows: list[NDArray[np.float64] | None] = []
        for source in (None, step.source):
            counts = self.names_.get(source)
            rows.append(None if counts is None else counts.probabilities(_context(step), base, self.outcomes_))
        known = [index[END], *(index[name] for name in recent if name != OTHER)]
        fresh = _without(rows[1] if rows[1] is not None else rows[0], known)
        for source in (None, step.source):
            counts = self.patterns_.get(source)
            rows.append(None if counts is None else _by_pattern(counts, ranks, recent, index, fresh))
        rows += [self.classified(nth, step, base) for nth in range(len(self.classifiers_))]
        heard = np.array([row is not None for row in rows])
        return Opinions(names, np.array([base if row is None else row for row in rows]), heard)

    def classified(self, nth: int, step: Step, base: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return what a classifier says; nothing of an unknown source, to which none of its indicators belongs.

        Args:
            nth: Which of the classifiers.
            step: The step.
            base: Probabilities of all names before anything is known; what the classifier does not cover goes by them.
        """
        classifier = self.classifiers_[nth]
        if step.source not in self.names_ or (classifier.reads_text and not step.text):
            return None
        probabilities = classifier.probabilities(step)
        if probabilities is None:
            return None
        spread = base * (1 - classifier.covered_)
        spread[self._places[nth]] += probabilities * classifier.covered_
        return spread

    def to_state(self) -> dict[str, Any]:
        """Return what was learned as names, numbers and arrays."""
        sources = [source for source in self.names_ if source is not None]
        return {
            "max_order": self.max_order,
            "outcomes": list(self.outcomes_),
            "sources": sources,
            "names": [self.names_[source].to_state() for source in (None, *sources)],
            "patterns": [self.patterns_[source].to_state() for source in (None, *sources)],
            "classifiers": [classifier.to_state() for classifier in self.classifiers_],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the experts from what `to_state` returned.

        Raises:
            ValueError: The parts do not fit together.
            KeyError: A part is missing.
        """
        made = cls(int(state["max_order"]))
        made.outcomes_ = {str(name): nth for nth, name in enumerate(state["outcomes"])}
        sources = [None, *map(str, state["sources"])]
        for kept, saved in ((made.names_, state["names"]), (made.patterns_, state["patterns"])):
            kept.update(zip(sources, map(BackoffCounts.from_state, saved), strict=True))
        made.classifiers_ = [StepClassifier.from_state(each) for each in state["classifiers"]]
        made._check()
        made._place_outcomes()
        return made

    def _check(self) -> None:
        steps = {step for counts in self.names_.values() for step in counts.steps}
        steps.update(name for classifier in self.classifiers_ for name in classifier.outcomes_)
        ranks = {rank for counts in self.patterns_.values() for rank in counts.steps}
        if list(self.outcomes_)[:2] != [END, OTHER] or not steps <= self.outcomes_.keys():
            raise ValueError("the experts know steps that are no outcomes")
        if not ranks <= _PATTERN_INDEX.keys():
            raise ValueError("the experts know patterns that there are not")
        if [classifier.reads_text for classifier in self.classifiers_] != [False, True]:
            raise ValueError("the experts lack a classifier")


def pattern(history: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return how names return within a history, and its different names, the latest first.

    Each step becomes `NEW`, `END`, or the number of different names since the same one came last.

    >>> pattern(["plan", "code", "plan", "plan"])
    (['new', 'new', '1', '0'], ['plan', 'code'])
    """
    ranks: list[str] = []
    recent: list[str] = []
    for name in history:
        ranks.append(_rank(name, recent))
        if name != END:
            if name in recent:
                recent.remove(name)
            recent.insert(0, name)
    return ranks, recent


def _rank(name: str, recent: Sequence[str]) -> str:
    if name == END:
        return END
    return str(recent.index(name)) if name in recent else NEW


def _context(step: Step) -> tuple[str, ...]:
    """Return the names before a step, behind a mark of the beginning that names the agent which calls tools."""
    return (f"{STARTS}{step.agent or ''}", *step.history)


def _without(probabilities: NDArray[np.float64] | None, left_out: Sequence[int]) -> NDArray[np.float64]:
    assert probabilities is not None
    rest = probabilities.copy()
    rest[list(left_out)] = 0.0
    return np.asarray(rest / rest.sum())


def even_base(names: int) -> NDArray[np.float64]:
    """Return probabilities before anything is known, shape (names,): half for `OTHER`, the rest evenly."""
    base = np.full(names, 0.5 / (names - 1))
    base[1] = 0.5
    return base


def return_shares(counts: BackoffCounts, ranks: Sequence[str], recent: int) -> NDArray[np.float64]:
    """Return the probabilities of a new name, the end, and each recent name, the latest first, shape (recent + 2,).

    Args:
        counts: Counts by patterns.
        ranks: The pattern so far, or its latest steps.
        recent: How many names can return.
    """
    base = np.zeros(len(_PATTERN_INDEX))
    base[: recent + 2] = 1 / (recent + 2)
    returns = counts.probabilities(ranks, base, _PATTERN_INDEX)[: recent + 2]
    return np.asarray(returns / returns.sum())


def _by_pattern(
    counts: BackoffCounts,
    ranks: Sequence[str],
    recent: Sequence[str],
    index: Mapping[str, int],
    fresh: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Turn probabilities of returns into those of names; a new name is drawn from `fresh`."""
    returns = return_shares(counts, (STARTS, *ranks), len(recent))
    found = fresh * returns[0]
    found[index[END]] += returns[1]
    found[[index[name] for name in recent]] += returns[2:]
    return np.asarray(found)
