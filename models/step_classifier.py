"""A linear classifier of the next step: from the steps before, and from the text that was asked.

It is fitted by scikit-learn and applied by numpy, because a single forecast must take microseconds.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from apportion.models.trails import Step

WORD_SLOTS = 512
"""Slots into which words are hashed."""

MAX_WORDS = 64
"""Different words of a text that count, from its beginning."""

MAX_CHARS = 4_000
"""Characters of a text that are looked at, from its beginning."""

MIN_OUTCOMES = 5
"""A step that was seen less often is not told apart by a classifier."""

LENGTHS = 8
"""Numbers of earlier steps that are told apart; more count as this many."""

INVERSE_PENALTY = 3.0
"""Inverse strength of the quadratic penalty on weights."""

MAX_ITERATIONS = 60

MOST_TEXTS = 256
"""Texts of which the scores are kept; beyond that all are forgotten."""

_WORD = re.compile(r"[a-z][a-z0-9_:/.-]{1,39}")


class StepClassifier:
    """Multinomial logistic regression over the steps that were seen often enough.

    Features are the source, the calling agent, the latest two steps and their number, each as an indicator, and with
    `reads_text` the hashed words of the text, scaled to length 1.

    Args:
        reads_text: Whether the text that was asked counts.

    Attributes:
        outcomes_: Names of the steps that are told apart; fewer than two mean that nothing could be learned.
        columns_: Position of each indicator, behind the slots for words.
        weights_: Array of shape (n_columns + 1, n_outcomes), the intercepts last; no columns where nothing was learned.
        covered_: Share of the training steps that these outcomes are, in [0, 1].
    """

    def __init__(self, *, reads_text: bool) -> None:
        self.reads_text = reads_text
        self.outcomes_: list[str] = []
        self.columns_: dict[str, int] = {}
        self.weights_: NDArray[np.float64] = np.zeros((1, 0))
        self.covered_ = 0.0
        self._texts: dict[str, NDArray[np.float64]] = {}

    def fit(self, steps: Sequence[Step]) -> Self:
        """Learn from steps; what was learned before is forgotten."""
        self._texts.clear()
        seen = Counter(step.name for step in steps)
        self.outcomes_ = sorted(name for name, count in seen.items() if count >= MIN_OUTCOMES)
        used = [step for step in steps if seen[step.name] >= MIN_OUTCOMES]
        self.covered_ = len(used) / max(1, len(steps))
        names = dict.fromkeys(name for step in used for name in _indicators(step))
        self.columns_ = {name: WORD_SLOTS + nth for nth, name in enumerate(names)}
        self.weights_ = np.zeros((WORD_SLOTS + len(names) + 1, 0))
        if len(self.outcomes_) > 1:
            self.weights_ = self._fitted(used)
        return self

    def _fitted(self, steps: Sequence[Step]) -> NDArray[np.float64]:
        import warnings

        from scipy.sparse import csr_array
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        rows = [self._features(step) for step in steps]
        ends = np.cumsum([0, *map(len, rows)])
        cells = [cell for row in rows for cell in row]
        columns, values = [column for column, _ in cells], [value for _, value in cells]
        features = csr_array((values, columns, ends), shape=(len(rows), len(self.weights_) - 1))
        estimator = LogisticRegression(C=INVERSE_PENALTY, max_iter=MAX_ITERATIONS, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # good enough is good enough: it is weighed later
            estimator.fit(features, [step.name for step in steps])
        weights = np.vstack([estimator.coef_.T, estimator.intercept_])
        return weights if weights.shape[1] > 1 else np.hstack([np.zeros_like(weights), weights])

    def probabilities(self, step: Step) -> NDArray[np.float64] | None:
        """Return the probability of each of `outcomes_` as the name of a step, or `None` where nothing was learned.

        Returns:
            Array of shape (n_outcomes,) that sums to 1. The step's own name is not looked at.
        """
        if not self.weights_.size:
            return None
        scores = self.weights_[[*self._columns(step), -1]].sum(axis=0)
        if self.reads_text and step.text:
            scores += self._text_scores(step.text[:MAX_CHARS])
        odds = np.exp(scores - scores.max())
        return np.asarray(odds / odds.sum())

    def _text_scores(self, text: str) -> NDArray[np.float64]:
        """Return what the words of a text add; kept, because an agent is asked one thing and takes many steps."""
        scores = self._texts.get(text)
        if scores is None:
            slots = _slots(text)
            scores = slots.values @ self.weights_[slots.columns]
            if len(self._texts) >= MOST_TEXTS:
                self._texts.clear()
            self._texts[text] = scores
        return scores

    def _columns(self, step: Step) -> list[int]:
        """Return the columns of the indicators that hold."""
        return [self.columns_[name] for name in _indicators(step) if name in self.columns_]

    def _features(self, step: Step) -> list[tuple[int, float]]:
        """Return column and value of each feature that is not 0."""
        found = [(column, 1.0) for column in self._columns(step)]
        if self.reads_text and step.text:
            slots = _slots(step.text[:MAX_CHARS])
            found += zip(slots.columns.tolist(), slots.values.tolist(), strict=True)
        return found

    def to_state(self) -> dict[str, Any]:
        """Return what was learned as names, numbers and arrays."""
        return {
            "reads_text": self.reads_text,
            "outcomes": list(self.outcomes_),
            "columns": list(self.columns_),
            "weights": self.weights_,
            "covered": self.covered_,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the classifier from what `to_state` returned.

        Raises:
            ValueError: The parts do not fit together.
            KeyError: A part is missing.
        """
        made = cls(reads_text=bool(state["reads_text"]))
        made.outcomes_ = [str(name) for name in state["outcomes"]]
        made.columns_ = {str(name): WORD_SLOTS + nth for nth, name in enumerate(state["columns"])}
        made.weights_, made.covered_ = state["weights"], float(state["covered"])
        known = len(made.outcomes_) if len(made.outcomes_) > 1 else 0
        shape = (WORD_SLOTS + len(made.columns_) + 1, known)
        if made.weights_.shape != shape or made.weights_.dtype != np.float64 or not np.isfinite(made.weights_).all():
            raise ValueError("the weights of a classifier do not fit its outcomes and columns")
        return made


def _indicators(step: Step) -> Iterator[str]:
    """Yield the names of the indicators that hold for a step."""
    latest = step.history[::-1]
    yield f"source {step.source}"
    if step.agent is not None:
        yield f"agent {step.agent}"
    yield from (f"back {nth} {name}" for nth, name in enumerate(latest[:2], start=1))
    yield f"steps {min(len(latest), LENGTHS)}"


class _Slots(NamedTuple):
    """The words of a text, hashed: slots, and their counts scaled to length 1."""

    columns: NDArray[np.intp]
    values: NDArray[np.float64]


@lru_cache(maxsize=256)
def _slots(text: str) -> _Slots:
    words = list(dict.fromkeys(_WORD.findall(text.lower())))[:MAX_WORDS]
    counts = Counter(zlib.crc32(word.encode()) % WORD_SLOTS for word in words)
    values = np.array(list(counts.values()), dtype=np.float64)
    return _Slots(np.array(list(counts), dtype=np.intp), values / max(1.0, float(np.linalg.norm(values))))
