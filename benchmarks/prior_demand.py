"""Measure how agents work through a stage, and how well the prior demand covers it.

    python benchmarks/prior_demand.py PATHS... [--quick] [--json FILE]

PATHS are logs that any importer reads. For main agents and sub-agents, per framework and over all, the table holds
quantiles of calls, of the prompt's growth per call, and of output per call; the rows for all are the priors of
`models/priors.py`, before rounding. A stage of a main agent is a user turn; every stage counts once. Stages without
prompt counts are left out; output counts only where the log gives final ones.

`within_*` is the share of stages that stayed within each forecast quantile, and `loss_*` the mean pinball loss in
tokens: by the prior alone, and with the earlier stages of the same workflow. Where a log gives no final output, its
median stands in; output is about 1 % of the total. On the logs from which the priors come this shows how much the
formula loses, not how well it would do elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import arguments, percentile, report
from apportion.models.demand import PRIORS, PROBABILITIES, PriorDemand, StageUse
from apportion.telemetry.events import iter_calls
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.records import Demand, Usage
    from apportion.telemetry.events import WorkflowLog

QUICK_WORKFLOWS = 40
QUANTITIES = ("calls", "growth_tokens", "output_tokens")


class Stage(NamedTuple):
    """What one agent run did in one stage of a logged workflow."""

    framework: str
    workflow: str
    role: str
    use: StageUse
    prompt_tokens: int
    total_tokens: int


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", paths=True, quick=f"only the first {QUICK_WORKFLOWS} workflows")
    skipped = SkipLog()
    logs = islice(read_logs(options.paths, skipped), QUICK_WORKFLOWS if options.quick else None)
    stages = [stage for log in logs for stage in stages_of(log)]
    groups: dict[tuple[str, str], list[Stage]] = defaultdict(list)
    for stage in stages:
        groups[stage.role, stage.framework].append(stage)
        groups[stage.role, "all"].append(stage)
    forecasts = _forecasts(stages)
    rows = [measure(*key, groups[key], forecasts) for key in sorted(groups)]
    read = f"{len(stages):,} stages; {skipped.files} files and {skipped.lines} lines skipped"
    report("prior_demand", rows, file=options.json, notes=(read, options.cut))


def stages_of(log: WorkflowLog) -> Iterator[Stage]:
    """Yield the stages of a workflow whose prompts are all counted, in the order in which they start."""
    usage: dict[tuple[str, int], Usage] = {}
    stage_of: dict[tuple[str, int], int] = {}
    for event in log.events:
        if event.call is not None:
            stage_of.setdefault((event.agent_run, event.call), event.stage)
            if event.usage is not None:
                usage[event.agent_run, event.call] = event.usage
    calls: dict[tuple[str, int], list[Usage | None]] = defaultdict(list)
    for call in iter_calls(log):
        calls[call[0], stage_of[call]].append(usage.get(call))
    for (agent_run, _), uses in calls.items():
        prompts = [use.prompt_tokens for use in uses if use is not None and use.prompt_tokens]
        if len(prompts) == len(uses):
            role = "main" if agent_run == "main" else "sub"
            yield _stage(log, role, prompts, [use for use in uses if use is not None])


def _stage(log: WorkflowLog, role: str, prompts: list[int], uses: list[Usage]) -> Stage:
    outputs = [use.output for use in uses if use.output is not None and "output" not in use.estimated]
    missing = len(uses) - len(outputs)
    usual_output = PRIORS[role].output_tokens.quantiles[PROBABILITIES.index(0.5)]
    return Stage(
        framework=log.framework,
        workflow=log.id,
        role=role,
        use=StageUse.of_calls(prompts, outputs),
        prompt_tokens=prompts[0],
        total_tokens=sum(prompts) + sum(outputs) + missing * usual_output,
    )


def measure(
    role: str, framework: str, stages: list[Stage], forecasts: dict[int, tuple[Demand, Demand]]
) -> dict[str, Any]:
    """Return the quantiles of one group of stages, and how well both forecasts covered them."""
    row: dict[str, Any] = {"role": role, "framework": framework, "stages": len(stages)}
    for quantity in QUANTITIES:
        values = [value for stage in stages if (value := getattr(stage.use, quantity)) is not None]
        row[quantity] = [percentile(values, probability) for probability in PROBABILITIES] if values else None
    for position, name in enumerate(("prior", "history")):
        pairs = [(stage.total_tokens, forecasts[id(stage)][position]) for stage in stages]
        row[f"within_{name}"] = [
            round(sum(used <= demand.tokens[level] for used, demand in pairs) / len(pairs), 2)
            for level in range(len(PROBABILITIES))
        ]
        row[f"loss_{name}"] = round(sum(_pinball_loss(used, demand) for used, demand in pairs) / len(pairs))
    return row


def _forecasts(stages: Sequence[Stage]) -> dict[int, tuple[Demand, Demand]]:
    """Forecast each stage twice: by the prior alone, and with the earlier stages of that role in the workflow."""
    history: dict[tuple[str, str], list[StageUse]] = defaultdict(list)
    forecasts = {}
    model = PriorDemand()
    for stage in stages:
        before = history[stage.workflow, stage.role]
        forecasts[id(stage)] = (
            model.forecast(stage.role, prompt_tokens=stage.prompt_tokens),
            model.forecast(stage.role, prompt_tokens=stage.prompt_tokens, history=before),
        )
        before.append(stage.use)
    return forecasts


def _pinball_loss(used: int, demand: Demand) -> float:
    """Return the mean over the quantiles of what a forecast loses: p per token too low, 1 - p per token too high."""
    losses = [
        max(probability * (used - tokens), (probability - 1) * (used - tokens))
        for probability, tokens in zip(demand.probabilities, demand.tokens, strict=True)
    ]
    return sum(losses) / len(losses)


if __name__ == "__main__":
    main()
