"""Measure what sessions load of the tools on offer, what that saves in prompts, and how many calls miss a tool.

    python benchmarks/session_loading.py PATHS... [--quick] [--json FILE]

PATHS are logs that any importer reads. Workflows are held out in five folds: what a run needs is forecast by what the
other folds have taught. Each logged workflow is gone through with a real session: a run is offered its tools with its
first call, of the sizes that `overhead_share` explains (`basis`), filled with words. Where the log used a tool that was
not loaded, the session is asked for it (`load`), which counts as a miss. `tools` and `sent` are mean tokens of a call:
all schemas, and what stood in their place; `later` is what was loaded later and stood at the end of prompts from then
on. `saved` is the share of schemas that was not sent, what was loaded later deducted. `miss` is the share of calls that
needed a tool that was not loaded. `model` says whether needs were learned; without, and with no budget, nothing is left
out. `budget` rows give each workflow a budget of half the tokens of its logged prompts, which binds for some runs:
`stopped` counts those of which a call was refused. They end there, and their later calls are in no column.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, report
from apportion.models.persistence import save_models
from apportion.models.tool_needs import ToolNeeds, folds_of, runs_of
from apportion.models.training import TrainingData
from apportion.planner.live import ContextItem
from apportion.planner.loading import LoadForm
from apportion.planner.offers import Offered
from apportion.planner.planner import PlanOptions
from apportion.planner.replay.loading import RunLoading, catalogue, listed_as, run_loadings
from apportion.planner.session import Planner
from apportion.planner.watchdog import WatchdogLimits
from apportion.records import Budget, Kind, Usage
from apportion.telemetry.importers import SkipLog, read_logs
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apportion.planner.session import Session

QUICK_WORKFLOWS = 20
ENOUGH = 1_000
"""A source with fewer calls cannot be judged by the marks: one miss in a hundred is ten of them."""

NO_LIMITS = WatchdogLimits(None, None, None, None, None)
MODEL = "claude-sonnet-4-5"


@dataclass
class Sums:
    """Runs, those that were stopped, calls, and tokens of all of them."""

    runs: int = 0
    stopped: int = 0
    calls: int = 0
    misses: int = 0
    whole: int = 0
    sent: int = 0
    later: int = 0


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", paths=True, quick=f"only the first {QUICK_WORKFLOWS} workflows")
    runs: list[RunLoading] = []
    for log in islice(read_logs(options.paths, SkipLog()), QUICK_WORKFLOWS if options.quick else None):
        texts = {(run.agent, run.calls, tuple(run.used.items())): run.text for run in runs_of(log)}
        for each in run_loadings(log):
            text = texts.get((each.run.agent, each.run.calls, tuple(each.run.used.items())))
            runs.append(each._replace(run=each.run._replace(text=text)))
    sums: defaultdict[tuple[str, str, str], Sums] = defaultdict(Sums)
    by_run = {id(each.run): each for each in runs}
    for learned, held_out in folds_of([each.run for each in runs]):
        if not any(run.used for run in learned):
            continue
        needs = ToolNeeds().fit_runs(learned)
        with tempfile.TemporaryDirectory() as folder:
            data = TrainingData(fingerprint="0" * 64, workflows=len(learned), without_content=0, sources={})
            save_models(Path(folder), {"tool_needs": needs}, data, created_at=datetime.now(UTC))
            workflows: defaultdict[tuple[str, str], list[RunLoading]] = defaultdict(list)
            for run in held_out:
                workflows[run.source, run.workflow_id].append(by_run[id(run)])
            for (source, _), group in workflows.items():
                for kind, models, share in (("model", folder, None), ("prior", None, None), ("budget", folder, 0.5)):
                    planned = PlanOptions(models=None if models is None else Path(models))
                    planner = Planner(planned, source=source, ahead=False, watchdog=NO_LIMITS)
                    prompts = sum(each.prompt_tokens * each.run.calls for each in group)
                    budget = Budget(max_tokens=None if share is None else max(1, round(share * prompts)))
                    with planner.session("w", budget=budget) as session:
                        for number, each in enumerate(group):
                            basis, tools = catalogue(each, needs)
                            if tools:
                                _go_through(session, str(number), each, tools, sums[source, basis, kind])
    rows = [_row(*key, each) for key, each in sorted(sums.items()) if each.calls]
    marks = [
        Mark(f"{row['source']}: calls missing a tool", row["miss"], "", "<= 0.01", holds=row["miss"] <= 0.01)
        for row in rows
        if row["kind"] == "model" and row["calls"] >= ENOUGH
    ]
    note = f"marks need {ENOUGH:,} calls of a source"
    report("session_loading", rows, marks, packages=("scikit-learn",), file=options.json, notes=(note, options.cut))


def _go_through(
    session: Session, run_id: str, each: RunLoading, tools: Mapping[str, Sequence[int]], total: Sums
) -> None:
    """Go through the calls of one logged run."""
    run = each.run
    offered = Offered.tools(_tool(name, sizes[0]) for name, sizes in tools.items())
    history = [ContextItem(" word" * round(each.prompt_tokens / 2))]
    first: defaultdict[int, list[str]] = defaultdict(list)
    for used, number in run.used.items():
        name = listed_as(used, tools)
        if name is not None:
            first[number].append(name)
    later, had = 0, set[str]()
    for number in range(1, run.calls + 1):
        step = session.before(
            run.agent,
            history,
            model=MODEL,
            run_id=run_id,
            task=run.text or "",
            sub_agent=not each.main,
            offered=offered if number == 1 else None,
        )
        total.runs += number == 1
        if not step.runs or step.loading is None:
            total.stopped += 1
            break
        total.calls += 1
        total.whole += step.loading.whole_tokens
        total.sent += step.loading.tokens
        total.later += later
        left_out = {n for n, form in step.loading.forms.items() if form in {LoadForm.LINE, LoadForm.UNLISTED}} - had
        missed = left_out.intersection(first[number])
        total.misses += bool(missed)
        for name in missed:
            later += round(count_tokens(session.load(run_id, name)) * 1.18)
            had.add(name)
        prompt = round(each.prompt_tokens / 2) + step.loading.tokens + later
        session.after(step, Usage(input_uncached=prompt, output=100))
        history += [ContextItem("{}", Kind.TOOL_CALL, name, str(number)) for name in first[number]]
    session.finished(run_id)


def _tool(name: str, tokens: int) -> dict[str, Any]:
    words = max(1, round(tokens / 1.18) - 20)  # as the model counts, less than the frame of the schema
    return {"name": name, "description": f"Does {name}." + " word" * words, "input_schema": {"type": "object"}}


def _row(source: str, basis: str, kind: str, each: Sums) -> dict[str, Any]:
    return {
        "source": source,
        "basis": basis,
        "kind": kind,
        "runs": each.runs,
        "stopped": each.stopped,
        "calls": each.calls,
        "tools": round(each.whole / each.calls),
        "sent": round(each.sent / each.calls),
        "later": round(each.later / each.calls),
        "saved": 1 - (each.sent + each.later) / max(1, each.whole),
        "miss": each.misses / each.calls,
    }


if __name__ == "__main__":
    main()
