"""Measure forecasts of the next agent and the next tool against Markov chains of order 1 to 3.

    python benchmarks/next_agent.py PATHS... [--quick] [--json FILE]

PATHS are logs that any importer reads. Every forecast is of a workflow that nothing was learned from, in two ways:

    by workflow    five folds of workflows; each is forecast by what the other four have taught
    by source      each source is forecast by what all others have taught, without naming the source to the model

The forecasts of agents are those after the first one, with "(end)" for no further agent; those of tools include the
end of a turn. A Markov chain of order k forecasts the commonest step after the latest k, after fewer where those were
never seen, of the same source where it is known; its confidence is that step's share. For all of them: `top1` over all
forecasts; `hit` over those with a confidence of more than 0.7, `cover` their share (for the model: those that do not
abstain); `ece` the expected calibration error over all, 10 bins of equal width; `noise` what ece would be on average
with perfect calibration. `named` and `named_hit` leave out the end.

Latency is that of ten forecasts in a row by a model of everything, CPU time, in the order of the logs: every other
workflow warms up, and what is timed are the other ones, each step once. Training is of everything, reading the logs
apart; size is that of the saved file.
"""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import Mark, Timing, arguments, percentile, report
from apportion.models.evaluation import calibration_error, calibration_noise, hit_rate_above
from apportion.models.next_agent import END, NextAgentModel, NextToolModel
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apportion.models.trails import Step

    Model = NextAgentModel | NextToolModel

FOLDS = 5
LEAST = 0.7
ENOUGH = 100
"""A source with fewer forecasts, or fewer sure ones than a tenth of this, cannot be judged by the marks."""

QUICK_WORKFLOWS = 60
TIMED = 500
AGENTS = 10


class Forecast(NamedTuple):
    """What one forecaster said of one step: the name, its confidence, and whether it would act on it."""

    step: Step
    name: str
    confidence: float
    sure: bool


class Chain:
    """A Markov chain of one order, falling back to lower orders where a context was never seen."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.after: dict[tuple[str | None, tuple[str, ...]], Counter[str]] = {}

    def fit(self, steps: Sequence[Step]) -> Chain:
        """Count."""
        for step in steps:
            for source in (step.source, None):
                for order in range(self.order + 1):
                    context = _context(step, order)
                    self.after.setdefault((source, context), Counter())[step.name] += 1
        return self

    def forecast(self, step: Step, *, known: bool) -> Forecast:
        """Forecast a step from the longest context that was seen, in its source before all sources."""
        keys = [
            (source, order)
            for source in ((step.source, None) if known else (None,))
            for order in range(self.order, -1, -1)
        ]
        seen = next(found for source, order in keys if (found := self.after.get((source, _context(step, order)))))
        name, count = seen.most_common(1)[0]
        share = count / seen.total()
        return Forecast(step, name, share, share > LEAST)


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", paths=True, quick=f"only the first {QUICK_WORKFLOWS} workflows")
    skipped = SkipLog()
    both: dict[type[Model], list[Step]] = {NextAgentModel: [], NextToolModel: []}
    for log in islice(read_logs(options.paths, skipped), QUICK_WORKFLOWS if options.quick else None):
        for kind, steps in both.items():
            steps.extend(kind.steps_of(log))
    rows: list[dict[str, Any]] = []
    marks: list[Mark] = []
    for kind, steps in both.items():
        if steps:
            measured = list(_measured(kind, steps))
            rows += measured
            marks += _marks(kind.what, measured)
            marks += _speed(kind, steps)
    read = f"{skipped.files} files and {skipped.lines} lines skipped"
    few = f"marks of sources need {ENOUGH} forecasts, those of hits {ENOUGH // 10} sure ones"
    report(
        "next_agent", rows, marks, packages=("numpy", "scikit-learn"), file=options.json, notes=(read, few, options.cut)
    )


def _measured(kind: type[Model], steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    """Yield a row for each source, forecaster and way of holding out."""
    for split, parts in (("workflow", list(_by_workflow(steps))), ("source", list(_by_source(steps)))):
        found: dict[str, list[Forecast]] = {}
        for learned, held_out in parts:
            for name, forecast in _forecasters(kind, learned, known=split == "workflow"):
                found.setdefault(name, []).extend(map(forecast, held_out))
        for source in (None, *sorted({step.source for step in steps})):
            for name, forecasts in found.items():
                of_source = [each for each in forecasts if source in {None, each.step.source}]
                if of_source:
                    yield _row(kind.what, split, source or "all", name, of_source)


def _forecasters(
    kind: type[Model], steps: Sequence[Step], *, known: bool
) -> Iterator[tuple[str, Callable[[Step], Forecast]]]:
    model = kind().fit_steps(steps)

    def by_model(step: Step) -> Forecast:
        said = model.forecast(step, step.source if known else None)
        return Forecast(step, said.likeliest, said.confidence, said.expected is not None)

    yield "model", by_model
    for order in (1, 2, 3):
        chain = Chain(order).fit(steps)
        yield f"Markov {order}", lambda step, chain=chain: chain.forecast(step, known=known)  # type: ignore[misc]


def _by_workflow(steps: Sequence[Step]) -> Iterator[tuple[list[Step], list[Step]]]:
    """Yield what is learned from and what is held out, in five folds of workflows, each source spread evenly."""
    keys = sorted(
        {
            (step.source, zlib.crc32(step.workflow_id.encode("utf-8", "surrogatepass")), step.workflow_id)
            for step in steps
        }
    )
    fold_of = {(source, name): nth % FOLDS for nth, (source, _, name) in enumerate(keys)}
    for fold in range(FOLDS):
        learned = [step for step in steps if fold_of[step.source, step.workflow_id] != fold]
        held_out = [step for step in steps if fold_of[step.source, step.workflow_id] == fold]
        if learned and held_out:
            yield learned, held_out


def _by_source(steps: Sequence[Step]) -> Iterator[tuple[list[Step], list[Step]]]:
    for source in sorted({step.source for step in steps}):
        learned = [step for step in steps if step.source != source]
        if learned:
            yield learned, [step for step in steps if step.source == source]


def _row(what: str, split: str, source: str, name: str, forecasts: Sequence[Forecast]) -> dict[str, Any]:
    confidences = [each.confidence for each in forecasts]
    hits = [each.name == each.step.name for each in forecasts]
    sure = [float(each.sure) for each in forecasts]
    named = [float(each.sure and each.name != END) for each in forecasts]
    hit, cover = hit_rate_above(sure, hits, 0.5)
    return {
        "next": what,
        "held out": split,
        "source": source,
        "forecaster": name,
        "forecasts": len(forecasts),
        "abstained": round(len(sure) - sum(sure)),
        "top1": sum(hits) / len(hits),
        "hit": hit,
        "cover": cover,
        "named": round(sum(named)),
        "named_hit": hit_rate_above(named, hits, 0.5)[0],
        "ece": calibration_error(confidences, hits),
        "noise": calibration_noise(confidences),
    }


def _marks(what: str, rows: Sequence[dict[str, Any]]) -> Iterator[Mark]:
    """Yield what the model must reach, in all sources together and in each that has enough forecasts."""
    for row in rows:
        if row["held out"] != "workflow" or row["forecaster"] != "model" or row["forecasts"] < ENOUGH:
            continue
        title = f"next {what}, {row['source']}"
        if row["forecasts"] - row["abstained"] >= ENOUGH / 10:
            yield Mark(f"{title}: hits when sure", row["hit"], "", ">= 0.6", holds=row["hit"] >= 0.6)
        yield Mark(f"{title}: calibration error", row["ece"], "", "<= 0.05", holds=row["ece"] <= 0.05)


def _speed(kind: type[Model], steps: Sequence[Step]) -> Iterator[Mark]:
    """Yield training time, memory, size and latency of a model of everything."""
    start = time.process_time()
    model = kind().fit_steps(steps)
    seconds = time.process_time() - start
    tracemalloc.start()
    kind().fit_steps(steps)
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    timing = _timed(model, steps)
    median, slow = (percentile(timing.cpu_ms, share) for share in (0.5, 0.95))
    title = f"next {kind.what}: "
    yield Mark(f"{title}ten forecasts, p50", median, "ms CPU", "< 1", holds=median < 1)
    yield Mark(f"{title}ten forecasts, p95", slow, "ms CPU", "< 1", holds=slow < 1)
    yield Mark(f"{title}training on {len(steps):,} steps", seconds, "s CPU", "< 60", holds=seconds < 60)
    yield Mark(f"{title}memory of training", megabytes, "MB", "< 500", holds=megabytes < 500)
    size = _saved_bytes(model) / 1e6
    yield Mark(f"{title}saved file", size, "MB", "< 5", holds=size < 5)


def _timed(model: Model, steps: Sequence[Step]) -> Timing:
    """Time ten forecasts in a row, in workflows that the model was not asked about before."""
    names = list(dict.fromkeys((step.source, step.workflow_id) for step in steps))
    first = {*names[::2]}
    for step in steps:
        if (step.source, step.workflow_id) in first:
            model.forecast(step, step.source)
    fresh = [step for step in steps if (step.source, step.workflow_id) not in first]
    batches = [fresh[start : start + AGENTS] for start in range(0, max(1, len(fresh) - AGENTS + 1), AGENTS)]
    taken = batches[:: max(1, len(batches) // TIMED)]

    timing = Timing([], [])
    for batch in taken:  # one after the other, and each once: a second round would find everything worked out
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        for step in batch:
            model.forecast(step, step.source)
        timing.cpu_ms.append((time.process_time_ns() - cpu) / 1e6)
        timing.wall_ms.append((time.perf_counter_ns() - wall) / 1e6)
    return timing


def _saved_bytes(model: Model) -> int:
    import zipfile

    import skops.io

    return len(skops.io.dumps(model.to_state(), compression=zipfile.ZIP_DEFLATED))


def _context(step: Step, order: int) -> tuple[str, ...]:
    before = (f"^{step.agent or ''}", *step.history)
    return before[max(0, len(before) - order) :]


if __name__ == "__main__":
    main()
