"""Sets the planner beside simple rules on the same logs: doing nothing, and the best known rule of thumb.

    python benchmarks/replay_rules.py PATH... [--quick] [--json FILE]

Rule A masks every tool result that has been seen once as soon as the cache is cold, and every 20 calls whatever is
older than 10. Shares are percent of doing nothing; a negative saving is dearer. `--quick`: five workflows a source.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, report
from apportion.planner.planner import PlannerMaker, PlanOptions, WorkflowPlanner
from apportion.planner.replay.aggregate import RunFacts, build_report
from apportion.planner.replay.baselines import BASELINES
from apportion.planner.replay.workflow import replay_workflow
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from apportion.planner.replay.results import WorkflowResult
    from apportion.planner.report.schema import SourceRow

QUICK_WORKFLOWS = 5
MOST_DEARER = 0.02
WORST_SAVED = -0.02


RULE_A = (
    "rule A: the best known rule of thumb. It masks every tool result seen once as soon as the cache is cold, and "
    "every 20 calls whatever is older than 10."
)
SHARES = "Shares are percent of doing nothing; a negative saving is dearer. support: facts of the next action visible."

POLICIES: dict[str, PlannerMaker] = {"rule A": BASELINES["rule-a"].planner, "apportion": WorkflowPlanner}


def main() -> None:
    """Replay every log with every policy and compare."""
    asked = arguments(__doc__ or "", paths=True, quick=f"only the first {QUICK_WORKFLOWS} workflows of each source")
    options = PlanOptions()
    results: dict[str, list[WorkflowResult]] = {name: [] for name in POLICIES}
    taken: defaultdict[str, int] = defaultdict(int)
    for log in read_logs(asked.paths, SkipLog()):
        if not log.calls or (asked.quick and taken[log.source] >= QUICK_WORKFLOWS):
            continue
        taken[log.source] += 1
        for name, planner in POLICIES.items():
            results[name].append(replay_workflow(log, options, planner=planner))
    reports = {
        name: build_report(found, options, SkipLog(), RunFacts(True, 0.0, None, {})) for name, found in results.items()
    }
    rows = [_row(source, name) for name, made in reports.items() for source in made.per_source]
    rows.sort(key=lambda row: (row["source"], row["policy"]))
    marks = _marks(rows, reports["apportion"])
    report("replay_rules", rows, marks, packages=("ortools",), file=asked.json, notes=(RULE_A, SHARES, asked.cut))


def _row(source: SourceRow, policy: str) -> dict[str, Any]:
    ledgers, facts = source.ledgers, source.facts
    return {
        "source": source.source,
        "policy": policy,
        "workflows": source.workflows,
        "visible saved %": _percent(ledgers.visible_tokens.saved_share),
        "bill saved %": _percent(ledgers.bill_usd.saved_share),
        "stability": ledgers.prefix_stability.planned,
        "expansions /100": facts.expansions_per_100_calls,
        "support %": _percent(facts.next_action_visible),
        "after %": _percent(facts.next_action_after_expansion),
        "dearer %": _percent(source.dearer.share),
        "worst %": _percent(source.worst_workflow.bill_saved_share if source.worst_workflow else None),
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)


def _marks(rows: list[dict[str, Any]], ours: Any) -> list[Mark]:
    by_rule = {row["source"]: row["bill saved %"] for row in rows if row["policy"] == "rule A"}
    marks = [
        Mark(f"{row['source']}: bill saved", row["bill saved %"], "%", f">= {by_rule[row['source']]}, rule A",
             row["bill saved %"] >= by_rule[row["source"]])
        for row in rows
        if row["policy"] == "apportion" and row["bill saved %"] is not None
    ]  # fmt: skip
    if ours.dearer.share is not None and ours.worst_workflow is not None:
        worst = ours.worst_workflow.bill_saved_share
        marks.append(Mark("workflows dearer", ours.dearer.share, "share", "<= 0.02", ours.dearer.share <= MOST_DEARER))
        marks.append(Mark("worst workflow saves", worst, "share", ">= -0.02", worst >= WORST_SAVED))
    return marks


if __name__ == "__main__":
    main()
