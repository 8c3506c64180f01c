"""What learned demand changes in a replay: the same logs, planned with documented priors and with trained models.

    python benchmarks/learned_demand.py PATH... [--quick] [--json FILE]

Workflows are dealt into folds; each fold is replayed with a demand model that was trained on the others only. Every
workflow gets the same token budget twice over: once planned with priors, once with the model.

- coverage, width: share of (agent run, stage) pairs that used no more than their 90 % quantile, and the median of that
  quantile relative to the use.
- cut off: pairs that used more than they were allocated. unused: tokens allocated and not used, relative to all use.
- bill, tokens: what the planned prompts cost, relative to doing nothing, and the tokens they took.

The budget of a workflow is `SHARE` of what it used in the log, so that it binds everywhere.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, report
from apportion.models.demand import DemandModel
from apportion.models.persistence import save_models
from apportion.models.training import TrainingData
from apportion.planner.planner import PlanOptions
from apportion.planner.replay.workflow import replay_workflow
from apportion.records import Budget
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.planner.replay.results import WorkflowResult
    from apportion.telemetry.events import WorkflowLog

FOLDS = 4
SHARE = 0.6
"""Part of a workflow's logged tokens that it may use."""

MOST_EVENTS = 600
"""Longer workflows are only learned from: replaying them twice under a budget that binds takes too long."""

QUICK_WORKFLOWS = 24
QUICK_EVENTS = 120


def main() -> None:
    """Run the benchmark."""
    asked = arguments(__doc__, paths=True)
    logs = [log for log in read_logs(asked.paths, SkipLog()) if log.calls]
    short = [log for log in logs if len(log.events) <= (QUICK_EVENTS if asked.quick else MOST_EVENTS)]
    if asked.quick:
        short = short[:QUICK_WORKFLOWS]
    found: defaultdict[str, list[WorkflowResult]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for fold in range(FOLDS):
            others = [log for number, log in enumerate(logs) if number % FOLDS != fold]
            models = _trained(others, Path(folder) / str(fold))
            for log in (log for number, log in enumerate(logs) if number % FOLDS == fold and log in short):
                for name, place in (("priors", None), ("learned", models)):
                    found[name].append(replay_workflow(log, _options(log, place)))
    rows = [{"demand": name, "workflows": len(results), **_figures(results)} for name, results in found.items()]
    notes = [asked.cut, f"{len(logs)} workflows, of which those of at most {MOST_EVENTS} events were replayed"]
    report("learned_demand", rows, _marks(rows), packages=("scikit-learn", "ortools"), file=asked.json, notes=notes)


def _trained(logs: Sequence[WorkflowLog], folder: Path) -> Path:
    model = DemandModel().fit(logs)
    save_models(folder, {"demand": model}, TrainingData.of(logs), created_at=datetime.now(UTC))
    return folder


def _options(log: WorkflowLog, models: Path | None) -> PlanOptions:
    used = replay_workflow(log, PlanOptions(enabled=False)).tokens_used[0]
    return PlanOptions(budget=Budget(max_tokens=max(1, int(SHARE * used))), models=models)


def _figures(results: Sequence[WorkflowResult]) -> dict[str, Any]:
    stages = [stage for result in results for stage in result.stages if stage.used_tokens > 0]
    planned = [(stage.allocated_tokens, stage.used_tokens) for stage in stages if stage.allocated_tokens is not None]
    widths = sorted(stage.likely_tokens / stage.used_tokens for stage in stages)
    bills = [sum(result.totals.bill[side] for result in results) for side in (0, 1)]
    tokens = [sum(result.tokens_used[side] for result in results) for side in (0, 1)]
    beyond = [sum(result.calls_beyond[side] for result in results) for side in (0, 1)]
    used = sum(use for _, use in planned)
    return {
        "pairs": len(stages),
        "coverage": sum(stage.used_tokens <= stage.likely_tokens for stage in stages) / max(1, len(stages)),
        "width": widths[len(widths) // 2] if widths else None,
        "cut off": sum(use > granted for granted, use in planned) / max(1, len(planned)),
        "unused": sum(max(0.0, granted - use) for granted, use in planned) / max(1.0, used),
        "bill": bills[1] / bills[0] if bills[0] else None,
        "tokens": tokens[1] / tokens[0] if tokens[0] else None,
        "calls beyond": beyond[1],
        "calls beyond, unplanned": beyond[0],
    }


def _marks(rows: Sequence[dict[str, Any]]) -> list[Mark]:
    learned = next((row for row in rows if row["demand"] == "learned"), None)
    if learned is None:
        return []
    coverage = learned["coverage"]
    return [Mark("coverage of learned 90 % quantiles", coverage, "share", "0.88 to 0.92", 0.88 <= coverage <= 0.92)]


if __name__ == "__main__":
    main()
