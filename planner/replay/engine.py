"""Replays logs: finds them, replays workflow by workflow in parallel processes, and reports.

report = replay(["~/.claude/projects"])
print(report.ledgers.bill_usd.saved_share)
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from apportion.errors import ApportionError, InputError, NothingToReplayError
from apportion.planner.forecasts import require_trained, widening_of
from apportion.planner.forms import Forms
from apportion.planner.planner import PlanOptions
from apportion.planner.replay.aggregate import RunFacts, build_report
from apportion.planner.replay.baselines import find_baselines
from apportion.planner.replay.workers import worker_pool
from apportion.planner.replay.workflow import replay_workflow
from apportion.records import Budget, Feature
from apportion.telemetry.advice import advice
from apportion.telemetry.importers import SkipLog, find_groups, load_importers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from apportion.planner.replay.results import WorkflowResult
    from apportion.planner.report.schema import ReplayReport
    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.importers import LogGroup

IN_PROCESS_BYTES = 4 * 1024 * 1024
"""Inputs up to this size are replayed in this process: starting others would take longer."""

MEMORY_MB = 1000
"""Memory that a replay takes at most, unless more processes are asked for."""

MOST_HEAD_CHARS = 10_000
"""Most characters of a piece that was left out which a report shows."""

PARENT_MB = 230
WORKER_MB = 390
"""Largest resident memory of the process that reads the logs, and of one that replays them, measured on the corpus."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay is.

    Attributes:
        workflows: Workflows replayed.
        calls: Their model calls.
        files: Log files done with.
        total_files: Log files found.
        current: Identifier of the workflow replayed last.
    """

    workflows: int
    calls: int
    files: int
    total_files: int
    current: str


def replay(
    paths: Iterable[str | Path] | str | Path,
    *,
    budget: Budget | None = None,
    target_reduction: float | None = None,
    enabled: bool = True,
    select: str | None = None,
    off: frozenset[Feature] = frozenset(),
    jobs: int | None = 1,
    limit: int | None = None,
    against: Sequence[str] = (),
    models: Path | None = None,
    outcomes: Path | None = None,
    head_chars: int = 0,
    originals: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> ReplayReport:
    """Replay logged workflows with planning, and report what it would have saved and what it would have cost.

    Args:
        paths: Log files, directories, glob patterns, or `-` for one log from standard input; a single one may stand
            without a list.
        budget: Limits of each workflow; `None` means none.
        target_reduction: Share of visible prompt tokens to save where that does not raise the bill, in [0, 1]; counts
            for nothing where planning is switched off.
        enabled: `False` sends every prompt as it was; the report then shows no saving. This argument alone decides:
            settings and environment variables are for the command line.
        select: Level at which parts of new results may be left out behind handles, such as `"recoverable_95"`
            (`compression.pipeline.LEVELS`); `None`: none.
        off: Kinds of action that are switched off.
        jobs: Parallel processes; `None` takes one per processor, as far as all of them stay within 1 GB of memory, or
            this one alone for small inputs. Others are started anew, so a script that asks for them needs the guard
            `if __name__ == "__main__":`.
        limit: Workflows to replay at most: the first ones in the order of the logs. The report says so.
        against: Names of rules to compare with on the same logs (`planner.replay.baselines`): `nothing`, `clear-10`,
            `keep-last-20`, `rule-a`, `equal-split`. Each costs one more pass over the logs.
        models: Folder of trained models (`apportion train`) whose demand forecasts the plans go by; `None` means the
            documented priors. On workflows from which the models have learned the figures flatter.
        outcomes: Telemetry store that knows what came of past forecasts of these models. Where they no longer fit,
            forecasts are widened, and the report says so.
        head_chars: Characters that the report shows of each piece that was left out, up to `MOST_HEAD_CHARS`. 0, the
            default, keeps all content out of the report.
        originals: Store in which the originals of these pieces are kept, so that `apportion expand` gives them back;
            `None` keeps none.
        progress: Called after each workflow.

    Returns:
        The report. An interrupt (Ctrl-C) ends the replay early; the report then covers what was done, and says so.

    Raises:
        NothingToReplayError: The paths hold no workflow with model calls.
        InputError: An argument is out of range, or nothing was ever trained into the folder of models.
    """
    _check(target_reduction, jobs, limit)
    if not 0 <= head_chars <= MOST_HEAD_CHARS:
        raise InputError(f"head_chars {head_chars} is not within [0, {MOST_HEAD_CHARS}]")
    Forms.at(select)
    require_trained(models)
    rivals = find_baselines(against)
    began = time.perf_counter()
    target = target_reduction if enabled else None
    options = PlanOptions(
        budget=budget or Budget(),
        target_reduction=target,
        enabled=enabled,
        select=select,
        models=models,
        widening=widening_of(models, outcomes),
        off=off,
        head_chars=head_chars,
        originals=originals,
    )
    skipped = SkipLog()
    groups = find_groups(paths, skipped)
    workers = _workers(groups, jobs)
    results: dict[str, WorkflowResult] = {}
    complete, taken = True, 0
    try:
        found = _results(groups, options, rivals, workers, limit, skipped, progress)
        for taken, result in enumerate(found, start=1):  # noqa: B007
            if result is not None:
                _take(result, results, skipped)
    except KeyboardInterrupt:
        complete = False
    if not results and complete:
        raise _nothing(skipped)
    settings: dict[str, str | int | float | bool | None] = {
        "enabled": enabled,
        "target_reduction": target,
        "select": select,
        **({"off": ", ".join(sorted(off))} if off else {}),
        "max_tokens": options.budget.max_tokens,
        "max_usd": options.budget.max_usd,
        "jobs": workers,
        "limit": limit,
        "against": ", ".join(rivals) or None,
        "models": str(models) if models is not None else None,
        "show_content": head_chars > 0,
        "keep_originals": originals is not None,
    }
    seconds = time.perf_counter() - began
    facts = RunFacts(complete, seconds, _peak_memory_mb(workers), settings, limited=taken == limit)
    return build_report(results.values(), options, skipped, facts, against=rivals)


def _take(result: WorkflowResult, results: dict[str, WorkflowResult], skipped: SkipLog) -> None:
    """Add a result; of two logs of one workflow, the one with more calls counts."""
    known = results.get(result.id)
    if known is None:
        results[result.id] = result
        return
    shorter, longer = sorted((known, result), key=lambda one: one.totals.calls)
    results[result.id] = longer
    skipped.file(shorter.origin, f"workflow {result.id} is in {longer.origin} as well: counted once", unused=True)


def _check(target_reduction: float | None, jobs: int | None, limit: int | None) -> None:
    if target_reduction is not None and not 0.0 <= target_reduction <= 1.0:
        raise InputError(f"target reduction {target_reduction} is not within [0, 1]", hint="0.5 means half")
    for name, value in (("jobs", jobs), ("limit", limit)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")


def _workers(groups: list[LogGroup], jobs: int | None) -> int:
    if jobs is not None:
        return jobs
    size = sum(source.size for group in groups for source in group.sources)
    return 1 if size <= IN_PROCESS_BYTES else _most_workers(os.cpu_count() or 1)


def _most_workers(processors: int) -> int:
    """Return how many processes fit the memory; each holds one workflow, and one more waits."""
    return max(1, min(processors, (MEMORY_MB - PARENT_MB) // WORKER_MB))


def _results(
    groups: list[LogGroup],
    options: PlanOptions,
    against: tuple[str, ...],
    workers: int,
    limit: int | None,
    skipped: SkipLog,
    progress: Callable[[Progress], None] | None,
) -> Iterator[WorkflowResult | None]:
    """Yield the result of each workflow, `None` for one that cannot be replayed."""
    total_files = sum(len(group.sources) for group in groups)
    files = workflows = calls = 0

    def logs() -> Iterator[WorkflowLog]:
        nonlocal files
        for group in groups:
            for log in group.read(skipped):
                if log.calls:
                    yield log
                else:
                    reason = f"workflow {log.id} has no model calls: nothing to replay"
                    skipped.file(log.origin or log.id, reason, unused=True)
            files += len(group.sources)

    for log, outcome in _replayed(islice(logs(), limit), options, against, workers):
        if isinstance(outcome, str):
            skipped.file(log, outcome)
            yield None
            continue
        workflows += 1
        calls += outcome.totals.calls
        yield outcome
        if progress is not None:
            progress(Progress(workflows, calls, files, total_files, outcome.id))


def _replayed(
    logs: Iterator[WorkflowLog], options: PlanOptions, against: tuple[str, ...], workers: int
) -> Iterator[tuple[str, WorkflowResult | str]]:
    """Yield `(origin, result)`, or the reason why there is none, for each workflow."""
    if workers == 1:
        for log in logs:
            yield _outcome(log, options, against)
        return
    with worker_pool(workers) as pool:
        pending: set[Future[tuple[str, WorkflowResult | str]]] = set()
        for log in logs:
            pending.add(pool.submit(_outcome, log, options, against))
            if len(pending) > workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _outcome(log: WorkflowLog, options: PlanOptions, against: tuple[str, ...]) -> tuple[str, WorkflowResult | str]:
    origin = log.origin or log.id
    try:
        return origin, replay_workflow(log, options, against=against)
    except ApportionError as error:
        return origin, f"workflow {log.id} cannot be replayed: {error}"


def _peak_memory_mb(workers: int) -> float | None:
    """Return an upper bound of the memory in use at once: this process, and as many of its largest worker."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    unit = 1024**2 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if workers > 1 else 0
    return round((own + workers * child) / unit, 1)


def _nothing(skipped: SkipLog) -> NothingToReplayError:
    reasons = "; ".join(str(message) for message in skipped.messages[:3])
    hint = advice(skipped, (importer.title for importer in load_importers()))
    return NothingToReplayError("nothing to replay" + (f" ({reasons})" if reasons else ""), hint=hint)
