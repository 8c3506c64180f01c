"""Measure forecasts of demand on workflows that were not learned from, by workflow and by source.

    python benchmarks/demand.py PATHS... [--quick] [--json FILE]

PATHS are logs that any importer reads. Twice a model is learned from one part and judged on the other: five folds of
whole workflows, and each source left out in turn.

`coverage` is the share of values within the 90 % interval and `above` of those beyond it, `spread` the median of its
upper by its lower bound, `width` the median of their difference (tokens, or calls). Losses are mean pinball losses over
seven quantiles, of logarithms, so that 0.1 is about 10 %: of the model, and of three baselines: quantiles of all
(`global`), quantiles of the agent type (`type`), and the last value of the same workflow (`last`).

`stage_pool` and `workflow_pool` are sums of the runs of a stage or workflow with two or more; `*_sum` adds the
bounds of the single runs up instead. Rows below a level are those of one source, or of one agent type of at least 20
workflows. Where a log gives no final count of an output, its text is counted.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from _harness import Mark, arguments, report, time_calls
from apportion.models.calibration import LEAST_WORKFLOWS, pinball
from apportion.models.demand import Ask, DemandModel
from apportion.models.examples import examples_of
from apportion.models.held_out import Judged, by_source, by_workflow, judge, last_values, plain_quantiles
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from apportion.models.examples import Examples

QUICK_WORKFLOWS = 60
AGENTS = 10
LEVELS_JUDGED = ("output", "growth", "calls", "run", "stage", "workflow")
SINGLE = ("output", "run", "stage", "workflow")
"""Levels that have a mark for their coverage."""

LOSSES = ("model", "global", "type", "last")


class Split:
    """Judgements of one way to split, collected over its parts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: dict[str, list[Judged]] = {}
        self.losses: dict[str, list[NDArray[np.float64]]] = {}

    def add(self, train: Examples, test: Examples) -> None:
        """Learn from one part, and judge on the other."""
        model = DemandModel().fit_examples(train)
        known, judged = judge_values(train), judge(model, test)
        for level, each in judged.items():
            self.parts.setdefault(level, []).append(each)
            if level in known:
                self.losses.setdefault(level, []).append(_losses(known[level], each))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the table: each level, and below it sources and agent types."""
        for level, parts in self.parts.items():
            judged = Judged.joined(parts)
            losses = np.concatenate(self.losses[level]) if level in self.losses else None
            yield _row(self.name, level, "all", judged, losses)
            if level in LEVELS_JUDGED:
                for group, rows in _groups(judged):
                    yield _row(self.name, level, group, judged.where(rows), None if losses is None else losses[rows])


def judge_values(train: Examples) -> dict[str, Judged]:
    """Return what was used at each level, for the baselines."""
    none = np.zeros((0, 0))

    def judged(examples: list[Any], values: list[int]) -> Judged:
        return Judged([e.caller for e in examples], [], np.log1p(np.array(values, dtype=np.float64)), none, none)

    growing = [call for call in train.calls if call.growth_tokens is not None]
    return {
        "output": judged(train.calls, [call.output_tokens for call in train.calls]),
        "growth": judged(growing, [call.growth_tokens or 0 for call in growing]),
        "calls": judged(train.runs, [run.use.calls for run in train.runs]),
        "run": judged(train.runs, [run.total_tokens for run in train.runs]),
        "stage": judged(train.stages, [span.total_tokens for span in train.stages]),
        "workflow": judged(train.workflows, [span.total_tokens for span in train.workflows]),
    }


def _losses(train: Judged, test: Judged) -> NDArray[np.float64]:
    """Return the loss of each row by the model and the three baselines, shape (n, 4)."""
    baselines = (
        test.quantiles,
        plain_quantiles(train, test, by_type=False),
        plain_quantiles(train, test, by_type=True),
        last_values(train, test),
    )
    return np.stack([pinball(test.values, quantiles) for quantiles in baselines], axis=1)


def _groups(judged: Judged) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield sources, and agent types of enough workflows, with their rows."""
    for kind in ("source", "agent"):
        names = [c.source if kind == "source" else f"{c.framework}/{c.agent}" for c in judged.callers]
        for name in sorted(set(names)):
            rows = np.flatnonzero(np.array(names) == name)
            if kind == "source" or len({judged.workflows[int(row)] for row in rows}) >= LEAST_WORKFLOWS:
                yield f"{kind} {name}", rows


def _row(split: str, level: str, group: str, judged: Judged, losses: NDArray[np.float64] | None) -> dict[str, Any]:
    means = [None] * len(LOSSES) if losses is None else [float(loss) for loss in losses.mean(axis=0)]
    row: dict[str, Any] = {
        "split": split,
        "level": level,
        "group": group,
        "n": len(judged),
        "workflows": len(set(judged.workflows)),
        "coverage": judged.coverage,
        "above": float(np.mean(judged.values > judged.quantiles[:, -1])),
        "spread": judged.spread,
        "width": float(np.median(np.expm1(judged.quantiles[:, -1]) - np.expm1(judged.quantiles[:, 0]))),
    }
    return row | {f"loss {name}": mean for name, mean in zip(LOSSES, means, strict=True)}


def main() -> None:
    """Measure and report."""
    options = arguments(
        __doc__ or "", paths=True, quick=f"only the first {QUICK_WORKFLOWS} workflows, one fold, no sources"
    )
    skipped = SkipLog()
    logs = islice(read_logs(options.paths, skipped), QUICK_WORKFLOWS if options.quick else None)
    examples = examples_of(logs)
    began, before = time.process_time(), _peak_mb()
    model = DemandModel().fit_examples(examples)
    seconds, peak = time.process_time() - began, _peak_mb()
    latency, marks = _latency(model, examples)
    workflow, source = Split("workflow"), Split("source")
    for train, test in islice(by_workflow(examples), 1 if options.quick else None):
        workflow.add(train, test)
    if not options.quick:
        for _, train, test in by_source(examples):
            source.add(train, test)
    rows = [*workflow.rows(), *source.rows()]
    notes = (
        f"{len(examples.workflows):,} workflows, {len(examples.calls):,} calls; {skipped.files} files skipped",
        f"trained on all of them in {seconds:.0f} s of processor time",
        f"peak memory {before:.0f} MB after reading, {peak:.0f} MB after training; arrays {_array_mb(model):.1f} MB",
        f"boosting used for: {', '.join(name for name, kept in model.report_.items() if kept.get('boosted'))}",
        latency,
        options.cut,
    )
    marks = [*_marks(rows), *_narrower(workflow), *marks]
    report("demand", rows, marks, packages=("numpy", "scikit-learn"), file=options.json, notes=notes)


def _marks(rows: list[dict[str, Any]]) -> Iterator[Mark]:
    for row in rows:
        agent = row["split"] == "workflow" and row["group"].startswith("agent ")
        if row["level"] in SINGLE and (row["group"] == "all" or agent):
            share = 100 * row["coverage"]
            name = f"coverage, {row['level']}, {row['group']}, split by {row['split']}"
            yield Mark(name, share, "%", "88-92", 88 <= share <= 92)


def _narrower(split: Split) -> Iterator[Mark]:
    """Yield by how much pooled intervals are narrower than sums of single ones, and the coverage of both."""
    for level in ("stage", "workflow"):
        if f"{level}_pool" not in split.parts:
            continue
        pooled, added = (Judged.joined(split.parts[f"{level}_{kind}"]) for kind in ("pool", "sum"))
        widths = [np.exp(each.quantiles[:, -1]) - np.exp(each.quantiles[:, 0]) for each in (pooled, added)]
        gain = 100 * float(1 - np.median(widths[0] / widths[1]))
        covered = f"{100 * pooled.coverage:.1f} % covered against {100 * added.coverage:.1f} %"
        yield Mark(f"pooled {level} narrower than its sum (median, {covered})", gain, "%", ">= 30", gain >= 30)
        share = 100 * pooled.coverage
        yield Mark(f"coverage, pooled {level}, split by workflow", share, "%", "88-92", 88 <= share <= 92)


def _latency(model: DemandModel, examples: Examples) -> tuple[str, list[Mark]]:
    """Time forecasts for ten agents, with features and without."""
    picked = [examples.runs[int(row)] for row in np.linspace(0, len(examples.runs) - 1, 50 * AGENTS)]
    asks = [Ask(run.caller.role, run.prompt_tokens, run.history, run.caller, run.features) for run in picked]
    batches = [asks[start : start + AGENTS] for start in range(0, len(asks), AGENTS)]
    bare = [[ask._replace(features=None) for ask in batch] for batch in batches]

    def one_by_one(batch: list[Ask]) -> None:
        for ask in batch:
            model.forecast(ask.role, prompt_tokens=ask.prompt_tokens, history=ask.history, caller=ask.caller)

    def calls(run: Callable[[list[Ask]], object], given: list[list[Ask]]) -> list[Callable[[], object]]:
        return [lambda batch=batch: run(batch) for batch in given]  # type: ignore[misc]

    ways = {
        "with features": calls(model.forecast_all, batches),
        "without": calls(model.forecast_all, bare),
        "one by one": calls(one_by_one, bare),
    }
    timed = {name: time_calls(each, repetitions=4).columns() for name, each in ways.items()}
    note = "ms of processor time for ten agents, p50 and p95: " + "; ".join(
        f"{name} {each['cpu_ms_p50']:.2f} {each['cpu_ms_p95']:.2f}" for name, each in timed.items()
    )
    p50, p95 = (timed["with features"][f"cpu_ms_{p}"] for p in ("p50", "p95"))
    return note, [
        Mark("forecast for ten agents at once, with features, p50", p50, "ms", "< 1", p50 < 1),
        Mark("forecast for ten agents at once, with features, p95", p95, "ms", "< 1", p95 < 1),
    ]


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _array_mb(value: Any) -> float:
    """Return the size of all arrays within a value."""
    if isinstance(value, np.ndarray):
        return value.nbytes / 1e6
    if isinstance(value, dict):
        return sum(map(_array_mb, value.values()))
    return _array_mb(vars(value)) if hasattr(value, "__dict__") and not isinstance(value, Counter) else 0.0


if __name__ == "__main__":
    main()
