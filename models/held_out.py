"""How good forecasts are on workflows that the model has not seen: what was forecast beside what was used.

for train, test in by_workflow(examples):
    judged = judge(DemandModel().fit_examples(train), test)
    judged["run"].coverage, judged["run"].loss
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from apportion.models.calibration import LEVELS, coverage, pinball
from apportion.models.pooling import sum_bounds
from apportion.models.quantiles import FOLDS, Measure, fold_of
from apportion.models.rows import call_rows, pool_rows, run_rows, span_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from apportion.models.demand import DemandModel
    from apportion.models.examples import Examples
    from apportion.models.features import Caller
    from apportion.models.pooling import Pooling
    from apportion.models.quantiles import QuantileModel, Rows


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Forecasts of one level, and what was used in the end; both as ln(1 + count).

    Attributes:
        callers: Who was forecast.
        workflows: Workflow of each.
        values: What was used, shape (n,).
        quantiles: What was forecast at `LEVELS`, shape (n, len(LEVELS)).
        last: What the same workflow used last of the same kind, NaN where nothing, shape (n,).
    """

    callers: Sequence[Caller]
    workflows: Sequence[str]
    values: NDArray[np.float64]
    quantiles: NDArray[np.float64]
    last: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def coverage(self) -> float:
        """Share of values within the 90 % interval."""
        return coverage(self.values, self.quantiles)

    @property
    def loss(self) -> float:
        """Mean pinball loss over the levels, in log units."""
        return float(pinball(self.values, self.quantiles).mean())

    @property
    def spread(self) -> float:
        """Median of upper by lower bound of the 90 % interval, each plus 1."""
        return float(np.exp(np.median(self.quantiles[:, -1] - self.quantiles[:, 0])))

    def where(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Judged:
        """Return some of the rows."""
        chosen = np.arange(len(self))[rows]
        callers, workflows = [self.callers[row] for row in chosen], [self.workflows[row] for row in chosen]
        return Judged(callers, workflows, self.values[chosen], self.quantiles[chosen], self.last[chosen])

    @staticmethod
    def joined(parts: Sequence[Judged]) -> Judged:
        """Return the rows of several."""
        return Judged(
            [caller for part in parts for caller in part.callers],
            [workflow for part in parts for workflow in part.workflows],
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.quantiles for part in parts]),
            np.concatenate([part.last for part in parts]),
        )


def by_workflow(examples: Examples, *, folds: int = FOLDS, seed: int = 1) -> Iterator[tuple[Examples, Examples]]:
    """Yield training and test examples; all of one workflow stay together."""
    names = [span.workflow for span in examples.workflows]
    numbers = fold_of(names, folds, seed)
    for fold in range(folds):
        test = {name for name, number in zip(names, numbers, strict=True) if number == fold}
        yield examples.of(set(names) - test), examples.of(test)


def by_source(examples: Examples) -> Iterator[tuple[str, Examples, Examples]]:
    """Yield each source, training examples of all others, and its own as test examples."""
    sources = {span.workflow: span.caller.source for span in examples.workflows}
    for source in sorted(set(sources.values())):
        test = {name for name, each in sources.items() if each == source}
        yield source, examples.of(set(sources) - test), examples.of(test)


def judge(model: DemandModel, examples: Examples) -> dict[str, Judged]:
    """Forecast examples at every level.

    The levels: `output` and `growth` of a call; `calls` and tokens of a `run`; `stage` and `workflow`, of which only
    the first prompt is known; `stage_pool` and `workflow_pool`, given their runs, each forecast as it begins (for a
    workflow without its own history); `stage_sum` and `workflow_sum`, the same with single bounds added up. The last
    four hold only those of at least two runs.
    """
    found = {
        "output": _judged(model.output_, call_rows(examples.calls, "output"), [c.caller for c in examples.calls]),
        "calls": _judged(model.calls_, run_rows(examples.runs, calls=True), [r.caller for r in examples.runs]),
        "run": _judged(model.run_, run_rows(examples.runs), [r.caller for r in examples.runs]),
        "stage": _judged(model.stage_, span_rows(examples.stages), [s.caller for s in examples.stages]),
        "workflow": _judged(model.workflow_, span_rows(examples.workflows), [s.caller for s in examples.workflows]),
    }
    growing = [call for call in examples.calls if call.growth_tokens is not None]
    if model.growth_ is not None and growing:
        found["growth"] = _judged(model.growth_, call_rows(growing, "growth"), [call.caller for call in growing])
    found |= _sums("stage", model, model.stage_pool_, examples)
    return found | _sums("workflow", model, model.workflow_pool_, examples)


def _judged(model: QuantileModel, rows: Rows, callers: Sequence[Caller]) -> Judged:
    measure = Measure(model.measure)
    latest = [each[-1:] if len(each) else np.full((1, rows.values.shape[1]), np.nan) for each in rows.histories]
    last = measure.of(np.concatenate(latest), rows.prompts)
    return Judged(callers, rows.workflows, rows.targets, model.predict(rows), last)


def _sums(name: str, model: DemandModel, pool: Pooling, examples: Examples) -> dict[str, Judged]:
    spans = examples.stages if name == "stage" else examples.workflows
    rows = run_rows(examples.runs, history=name == "stage")
    single = model.run_.predict(replace(rows, features=np.zeros((len(rows), 0))))
    spans = [span for span in spans if len(span.runs) > 1]
    if not spans:
        return {}
    sums = pool_rows(spans)
    members = [single[list(runs)] for runs in sums.runs]
    pooled = np.array([pool.predict(each, groups) for each, groups in zip(members, sums.chains, strict=True)])
    added = np.array([sum_bounds(each) for each in members])
    callers, unknown = [span.caller for span in spans], np.full(len(spans), np.nan)
    return {
        f"{name}_pool": Judged(callers, sums.workflows, sums.totals, pooled, unknown),
        f"{name}_sum": Judged(callers, sums.workflows, sums.totals, added, unknown),
    }


def plain_quantiles(train: Judged, test: Judged, *, by_type: bool) -> NDArray[np.float64]:
    """Return uncalibrated quantiles of the training values, shape (n, len(LEVELS)): a baseline.

    Args:
        train: What was used in other workflows.
        test: What is to be forecast.
        by_type: Whether they are taken per framework and agent type, where that occurs in training.
    """
    overall = np.quantile(train.values, LEVELS)
    if not by_type:
        return np.tile(overall, (len(test), 1))
    groups: dict[tuple[str, str], list[int]] = {}
    for row, caller in enumerate(train.callers):
        groups.setdefault((caller.framework, caller.agent), []).append(row)
    known = {group: np.quantile(train.values[rows], LEVELS) for group, rows in groups.items()}
    return np.array([known.get((caller.framework, caller.agent), overall) for caller in test.callers])


def last_values(train: Judged, test: Judged) -> NDArray[np.float64]:
    """Return the last value of each workflow at all levels, and the type's median before there is one: a baseline."""
    median = plain_quantiles(train, test, by_type=True)[:, LEVELS.index(0.5)]
    return np.tile(np.where(np.isnan(test.last), median, test.last)[:, None], (1, len(LEVELS)))
