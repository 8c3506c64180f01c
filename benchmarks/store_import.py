"""How fast the telemetry store takes in workflows, and how much room they need.

    python benchmarks/store_import.py [--quick] [--json FILE]

Workflows are made up from a fixed seed: events of log-normal length, a third of them calls with usage. Token counting
is measured on its own ("with token counts"); it costs more than everything else. Sizes are of the closed file.
The last mark lets several processes write to one store at once, and counts what is lost or refused.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, report
from apportion.records import Kind, Usage
from apportion.telemetry.events import Event, WorkflowLog
from apportion.telemetry.store import TelemetryStore
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EVENTS = 150  # the mean of the workflows in real logs
WORKERS = 4
WORDS = ("the", "agent", "reads", "src/planner/solver.py", "and", "writes", "42", "tests", "because", "error", "E1043")


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", quick="40 workflows instead of 300")
    logs = [make_log(seed) for seed in range(40 if options.quick else 300)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure("no contents", logs, Path(folder, "plain.db"), count=len),
            measure("contents captured", logs, Path(folder, "captured.db"), count=len, capture=True),
            measure("with token counts", logs, Path(folder, "counted.db"), count=count_tokens),
        ]
        parallel = measure_parallel(Path(folder, "shared.db"), workflows=50 if options.quick else 250)
    plain, missing = rows[0], parallel["lost"] + parallel["refused"]
    add, again, room, summary = (
        plain[name] for name in ("add_events_per_s", "again_events_per_s", "bytes_per_event", "summary_ms")
    )
    marks = [
        Mark("adding, without token counts", add, "events/s", ">= 5000", add >= 5000),
        Mark("adding again what is unchanged", again, "events/s", ">= 15000", again >= 15_000),
        Mark("room without contents", room, "bytes/event", "<= 250", room <= 250),
        Mark("summary", summary, "ms", "<= 500", summary <= 500),
        Mark(f"lost or refused with {WORKERS} writers", missing, "workflows", "0", missing == 0),
    ]
    report("store_import", rows, marks, file=options.json, notes=(options.cut,))


def make_log(seed: int) -> WorkflowLog:
    """Return a workflow like those of a coding agent."""
    rng = random.Random(seed)  # noqa: S311  (nothing secret)
    events = []
    for step in range(EVENTS):
        is_call = step % 3 == 1
        events.append(
            Event(
                step=step,
                agent="main",
                agent_run="main",
                kind=Kind.ASSISTANT if is_call else Kind.TOOL_RESULT,
                content=" ".join(rng.choices(WORDS, k=max(1, int(rng.lognormvariate(4.5, 1.2))))),
                call=step // 3 if is_call else None,
                model="model-a" if is_call else None,
                usage=Usage(input_uncached=12, cache_read=rng.randrange(150_000), output=rng.randrange(2000))
                if is_call
                else None,
            )
        )
    return WorkflowLog(id=f"workflow-{seed}", source="benchmark", framework="none", events=tuple(events))


def measure(
    name: str, logs: Sequence[WorkflowLog], path: Path, *, count: Callable[[str], int], capture: bool = False
) -> dict[str, Any]:
    """Fill a store, fill it again, and read it."""
    events = sum(len(log.events) for log in logs)
    with TelemetryStore(path, capture_content=capture, count_tokens=count) as store:
        add = seconds(lambda: [store.add(log) for log in logs])
        again = seconds(lambda: [store.add(log) for log in logs])
        load = seconds(lambda: [store.load(log.id) for log in logs])
        summary = seconds(store.summary)
        check = seconds(store.check)
    return {
        "store": name,
        "workflows": len(logs),
        "events": events,
        "add_events_per_s": events / add,
        "again_events_per_s": events / again,
        "load_events_per_s": events / load,
        "check_events_per_s": events / check,
        "summary_ms": summary * 1000,
        "bytes_per_event": path.stat().st_size / events,
    }


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure_parallel(path: Path, *, workflows: int) -> dict[str, int]:
    """Let several processes fill one store, and count what does not arrive."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(WORKERS) as pool:
        refused = pool.starmap(write, [(path, worker * 10_000, workflows) for worker in range(WORKERS)])
    with TelemetryStore(path, count_tokens=len) as store:
        stored = store.summary().workflows
    return {"lost": WORKERS * workflows - sum(refused) - stored, "refused": sum(refused)}


def write(path: Path, first: int, workflows: int) -> int:
    """Store workflows in a process of its own, and return how many were refused."""
    from apportion.errors import StoreError

    refused = 0
    with TelemetryStore(path, count_tokens=len) as store:
        for seed in range(first, first + workflows):
            try:
                store.add(make_log(seed))
            except StoreError:
                refused += 1
    return refused


if __name__ == "__main__":
    main()
