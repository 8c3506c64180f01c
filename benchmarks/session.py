"""How long a live session takes per invocation: `before` and `after` of a coding agent's main run.

    python benchmarks/session.py [--quick] [--json FILE]

A run of 60 calls reads files of 40 to 400 lines, one per call, and sends its whole history each time. Each turn is
timed on its own: `before` plans and renders the prompt; `after` takes note of the usage, and of what the output quotes.
The shorter forms of a new result are worked out when it arrives (`ingest`), or else by `before`; both are shown. With a
ledger, both book in a SQLite file as well.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from _harness import Mark, arguments, percentile, report
from apportion.planner.ledger import Ledger
from apportion.planner.live import ContextItem
from apportion.planner.session import Planner
from apportion.records import Budget, Kind, Usage

CALLS, QUICK_CALLS = 60, 15
RUNS, QUICK_RUNS = 3, 1
MODEL = "claude-sonnet-4-5"


class Times(NamedTuple):
    """Milliseconds of CPU time, call by call."""

    ingest: list[float]
    before: list[float]
    after: list[float]


def text_of(rng: random.Random, number: int) -> str:
    """A result as tools give them: lines with names and numbers."""
    return "\n".join(
        f"{number}:{line} value_{rng.randrange(10**6)} = {rng.random()}" for line in range(rng.randint(40, 400))
    )


def one_run(planner: Planner, calls: int, seed: int, times: Times, *, ingest: bool) -> None:
    """Run one session, and add its times in milliseconds."""
    rng = random.Random(seed)  # noqa: S311  (no secret)
    history = [ContextItem("Find the largest value.")]
    with planner.session(f"run {seed}", budget=Budget(max_tokens=50_000_000)) as session:
        for number in range(calls):
            history.append(ContextItem("{}", Kind.TOOL_CALL, "Read", str(number)))
            history.append(ContextItem(text_of(rng, number), Kind.TOOL_RESULT, "Read", str(number)))
            if ingest:
                began = time.process_time()
                session.ingest(history[-1])
                times.ingest.append((time.process_time() - began) * 1e3)
            began = time.process_time()
            step = session.before("main", history, model=MODEL, expands=True)
            asked = time.process_time()
            session.after(step, Usage(input_uncached=9_000, cache_read=1_000, output=40), output="value_17 is large")
            done = time.process_time()
            times.before.append((asked - began) * 1e3)
            times.after.append((done - asked) * 1e3)
            history.append(ContextItem("value_17 is large", Kind.ASSISTANT))


def main() -> None:
    """Measure and report."""
    asked = arguments(__doc__ or "", quick=f"{QUICK_CALLS} calls of {QUICK_RUNS} run")
    calls, runs = (QUICK_CALLS, QUICK_RUNS) if asked.quick else (CALLS, RUNS)
    rows, marks = [], []
    with tempfile.TemporaryDirectory() as place, Ledger(Path(place) / "ledger.db") as ledger:
        for name, books, ingest in (("alone", None, False), ("ingested", None, True), ("ledger", ledger, True)):
            planner = Planner(ledger=books)
            planner.warm()
            times = Times([], [], [])
            one_run(planner, 3, 99, Times([], [], []), ingest=ingest)
            for seed in range(runs):
                one_run(planner, calls, seed, times, ingest=ingest)
            both = [x + y for x, y in zip(times.before, times.after, strict=True)]
            rows.append(
                {
                    "session": name,
                    "calls": len(both),
                    "ingest cpu ms": [percentile(times.ingest or [0.0], share) for share in (0.5, 0.95)],
                    "before cpu ms": [percentile(times.before, share) for share in (0.5, 0.95)],
                    "after cpu ms": [percentile(times.after, share) for share in (0.5, 0.95)],
                    "both cpu ms": [percentile(both, 0.5), percentile(both, 0.95), percentile(both, 0.99)],
                }
            )
            marks.append(Mark(f"{name}: p50", percentile(both, 0.5), "ms CPU", "< 0.5", percentile(both, 0.5) < 0.5))
            marks.append(Mark(f"{name}: p99", percentile(both, 0.99), "ms CPU", "< 5", percentile(both, 0.99) < 5))
    notes = ("Pairs are p50 and p95, triples p50, p95 and p99 over calls.", asked.cut)
    report("session", rows, marks, packages=("ortools", "numpy"), file=asked.json, notes=notes)


if __name__ == "__main__":
    main()
