"""Measures how likely a tool result is needed again, by its size, its age and its earlier uses.

    python benchmarks/prior_need.py PATH... [--quick] [--json FILE]

A result is used by a call whose output holds 30 or more of its characters in a row, where nothing newer in the context
holds them. The table shows, for results as they stand before each call, the share that is used by that or a later call
of the same context, beside `planner.prompt.prior_need` and its decay. `--quick` takes five workflows a source.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import arguments, report
from apportion.planner.prompt import MIN_REPLACED_TOKENS, need_after, prior_need
from apportion.planner.replay.context import LoggedCall, logged_calls
from apportion.planner.replay.run_evidence import RunEvidence
from apportion.records import Kind
from apportion.telemetry.importers import SkipLog, read_logs
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.telemetry.events import WorkflowLog

QUICK_WORKFLOWS = 5
SIZES = (60, 300, 1000, 3000)
AGES = (1, 2, 3, 5, 9, 17, 33)
MOST_USES = 3


class Life(NamedTuple):
    """One tool result in one context: its size, when it came, when it was used, and when the context ended."""

    tokens: int
    born: int
    uses: list[int]
    end: int


def main() -> None:
    """Measure and print the table."""
    asked = arguments(__doc__ or "", paths=True, quick=f"only the first {QUICK_WORKFLOWS} workflows of each source")
    seen: defaultdict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])
    taken: defaultdict[str, int] = defaultdict(int)
    for log in read_logs(asked.paths, SkipLog()):
        taken[log.source] += 1
        if asked.quick and taken[log.source] > QUICK_WORKFLOWS:
            continue
        for life in lives(log):
            count(life, seen)
    rows = [_row(key, counts) for key, counts in sorted(seen.items())]
    report("prior_need", rows, file=asked.json, notes=(asked.cut,))


def lives(log: WorkflowLog) -> Iterator[Life]:
    """Yield the tool results of a workflow with their uses."""
    runs: defaultdict[str, list[LoggedCall]] = defaultdict(list)
    for call in logged_calls(log):
        runs[call.first.agent_run].append(call)
    for calls in runs.values():
        evidence = RunEvidence(log, calls)
        alive: dict[int, tuple[int, list[int]]] = {}
        for number, call in enumerate(calls):
            if call.fresh:
                yield from _ended(log, alive, number)
                alive = {}
            for position in call.added:
                evidence.enter(position)
                if log.events[position].kind is Kind.TOOL_RESULT:
                    alive[position] = (number, [])
            for position in evidence.used(call.number):
                if position in alive:
                    alive[position][1].append(number)
        yield from _ended(log, alive, len(calls))


def _ended(log: WorkflowLog, alive: dict[int, tuple[int, list[int]]], end: int) -> Iterator[Life]:
    for position, (born, uses) in alive.items():
        tokens = count_tokens(log.events[position].content)
        if tokens >= MIN_REPLACED_TOKENS:
            yield Life(tokens, born, uses, end)


def count(life: Life, seen: dict[tuple[int, int, int], list[int]]) -> None:
    """Count a result before each call after the one that saw it first, and whether it was used from then on."""
    size = max(index for index, least in enumerate(SIZES) if least <= life.tokens)
    for call in range(life.born + 1, life.end):
        past = [use for use in life.uses if use < call]
        age = call - (past[-1] if past else life.born)
        bucket = max(index for index, least in enumerate(AGES) if least <= age)
        counts = seen[min(len(past), MOST_USES), size, bucket]
        counts[0] += 1
        counts[1] += any(use >= call for use in life.uses)


def _row(key: tuple[int, int, int], counts: list[int]) -> dict[str, Any]:
    uses, size, age = key
    middle = SIZES[size] * 1.8
    prior = prior_need(middle, tool=None, handed_back=False)
    return {
        "earlier uses": uses,
        "tokens from": SIZES[size],
        "calls since last use from": AGES[age],
        "results": counts[0],
        "needed again": round(counts[1] / counts[0], 3),
        "prior": round(float(need_after(prior, uses=uses, calls=AGES[age] * 1.3, age=AGES[age] * 1.3)), 3),
    }


if __name__ == "__main__":
    main()
