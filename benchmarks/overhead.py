"""How long `before` and `after` of a call take, in a workflow of ten agents, in process and over HTTP.

    python benchmarks/overhead.py [--quick] [--json FILE]

Ten agents take turns. Before each call an agent has read a file of 40 to 400 lines, and it sends its whole history.
`off` plans nothing. `ingested` is as an orchestrator does it: the shorter forms of a result are worked out when it
arrives, and the next plan while the model works (the benchmark waits for that between calls, where a model would take
seconds). `back to back` does not wait: background work and calls share the interpreter. `cold` ingests nothing, so that
`before` works out the forms. `tight` has a budget of half of what the workflow needs, so that masks and budgets are
planned together. `rereads` reads one of three files again and again, each time with another line changed, so that
results refer to what stands in the prompt; no mark is set for it. `ledger` books in a SQLite file as well. Over HTTP
the same orchestrator asks a server of its own process, by one connection, and sends what is new of each history.

`cpu` is processor time of the thread that asks, `wall` is what a stopwatch says, and `background` is processor time of
all other threads, per call. Marks are for `ingested`, by processor time; the machine may be busy with something else.
"""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import Mark, arguments, percentile, report
from apportion.planner.ledger import Ledger
from apportion.planner.live import ContextItem
from apportion.planner.planner import PlanOptions
from apportion.planner.session import Planner
from apportion.records import Budget, Kind, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENTS = 10
CALLS, QUICK_CALLS = 30, 2
MODEL = "claude-sonnet-4-5"
ROOMY, TIGHT = 50_000_000, 0.5
OUTPUT = (
    "The largest value so far is in the file that was read last; the next one to read is named in its first line. " * 4
)


class Times(NamedTuple):
    """Milliseconds, call by call; `background` is one figure for all."""

    cpu: list[float]
    wall: list[float]
    parts: list[tuple[float, float]]
    background: list[float]


def text_of(rng: random.Random, number: int) -> str:
    """A result as tools give them: lines with names and numbers."""
    return "\n".join(
        f"{number}:{line} value_{rng.randrange(10**6)} = {rng.random()}" for line in range(rng.randint(40, 400))
    )


def edited(rng: random.Random, files: list[list[str]]) -> str:
    """A file of some, read after one of its lines was changed."""
    lines = rng.choice(files)
    lines[rng.randrange(len(lines))] = f"changed_{rng.randrange(10**6)} = {rng.random()}"
    return "\n".join(f"{number:6d}→{line}" for number, line in enumerate(lines, 1))


def histories(calls: int, seed: int, *, again: bool = False) -> Iterator[tuple[str, list[ContextItem], int]]:
    """Yield agent, its history before its next call, and how many pieces are new; the agents take turns."""
    rng = random.Random(seed)  # noqa: S311  (no secret)
    known = {f"agent {number}": [ContextItem("Find the largest value.")] for number in range(AGENTS)}
    files = [text_of(rng, number).split("\n") for number in range(3)] if again else []
    for turn in range(calls):
        for agent, history in known.items():
            text = edited(rng, files) if again else text_of(rng, turn)
            new = [
                ContextItem("{}", Kind.TOOL_CALL, "Read", f"{agent} {turn}"),
                ContextItem(text, Kind.TOOL_RESULT, "Read", f"{agent} {turn}"),
            ]
            history.extend(new)
            yield agent, history, len(new) + 1
            history.append(ContextItem(OUTPUT, Kind.ASSISTANT))


def usage_of(history: list[ContextItem]) -> Usage:
    """What a response would say, roughly."""
    prompt = sum(len(item.content) for item in history) // 3
    return Usage(input_uncached=prompt // 10, cache_read=prompt - prompt // 10, output=len(OUTPUT) // 4)


def run(
    planner: Planner, calls: int, *, ingest: bool, pause: bool, budget: int, seed: int = 0, again: bool = False
) -> Times:
    """Run one workflow in this process."""
    times = Times([], [], [], [])
    with planner.session(f"run {time.monotonic_ns()}", budget=Budget(max_tokens=budget)) as session:
        process = time.process_time()
        for agent, history, _new in histories(calls, seed, again=again):
            if ingest:
                session.ingest(history[-1], model=MODEL, run_id=agent)
            usage = usage_of(history)
            wall, cpu, process = time.perf_counter(), time.thread_time(), time.process_time()
            step = session.before(agent, history, model=MODEL, expands=True, mandatory=False)
            asked_cpu = time.thread_time()
            if step.runs:
                session.after(step, usage, output=OUTPUT)
            done, done_cpu = time.perf_counter(), time.thread_time()
            if pause and planner.ahead is not None:
                planner.ahead.wait()
            both = (done_cpu - cpu) * 1e3
            times.cpu.append(both)
            times.wall.append((done - wall) * 1e3)
            times.parts.append(((asked_cpu - cpu) * 1e3, (done_cpu - asked_cpu) * 1e3))
            times.background.append((time.process_time() - process) * 1e3 - both)
    return times


class Client:
    """Speaks to a server over one connection."""

    def __init__(self, url: str, token: str) -> None:
        self._place = url.removeprefix("http://")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(self._place)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request."""
        self._connection.request("POST", path, json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        told: dict[str, Any] = json.loads(answer.read())
        assert answer.status < 300, told
        return told


@contextmanager
def server(folder: Path) -> Iterator[Client]:
    """Run a server in a process of its own."""
    token = folder / "token"
    command = [sys.executable, "-m", "apportion", "serve", "--port", "0", "--token-file", str(token)]
    command += ["--ledger", "none", "--store", str(folder / "originals")]
    with subprocess.Popen(  # noqa: S603  (our own command)
        command, stderr=subprocess.PIPE, text=True, cwd=folder
    ) as process:
        try:
            assert process.stderr is not None
            url = next(line.split()[-1] for line in process.stderr if "serving at" in line)
            yield Client(url, token.read_text().strip())
        finally:
            process.terminate()


def run_http(client: Client, calls: int, *, enabled: bool, pause_s: float) -> Times:
    """Run one workflow against a server."""
    times = Times([], [], [], [])
    opened = client.post("/v1/sessions", {"workflow": f"run {time.monotonic_ns()}", "enabled": enabled})
    path = f"/v1/sessions/{opened['session_id']}"
    for agent, history, new in histories(calls, 0):
        items = [{"content": item.content, "kind": item.kind.value, "name": item.name} for item in history[-new:]]
        if enabled:
            client.post(f"{path}/ingest", {"items": items[-1:], "model": MODEL, "run_id": agent})
        usage = usage_of(history).model_dump(include={"input_uncached", "cache_read", "output"})
        asked = {"agent": agent, "unchanged": len(history) - new, "items": items, "model": MODEL, "expands": True}
        wall, cpu = time.perf_counter(), time.thread_time()
        step = client.post(f"{path}/before", asked)
        client.post(f"{path}/after", {"number": step["number"], "usage": usage, "output": OUTPUT})
        times.wall.append((time.perf_counter() - wall) * 1e3)
        times.cpu.append((time.thread_time() - cpu) * 1e3)
        time.sleep(pause_s)
    return times


def row_of(name: str, times: Times) -> dict[str, Any]:
    """Return one row of the table."""
    parts = [[percentile([part[which] for part in times.parts], 0.5)] if times.parts else [] for which in (0, 1)]
    return {
        "session": name,
        "calls": len(times.wall),
        "cpu ms p50 p95 p99": [percentile(times.cpu, share) for share in (0.5, 0.95, 0.99)],
        "wall ms p50 p95 p99": [percentile(times.wall, share) for share in (0.5, 0.95, 0.99)],
        "before after": parts[0] + parts[1],
        "background": sum(times.background) / len(times.background) if times.background else 0.0,
    }


def need_of(calls: int) -> int:
    """Return roughly how many tokens the workflow uses without planning."""
    total = 0
    for _agent, history, _new in histories(calls, 0):
        usage = usage_of(history)
        total += (usage.prompt_tokens or 0) + (usage.output or 0)
    return total


def main() -> None:
    """Measure and report."""
    asked = arguments(__doc__ or "", quick=f"{QUICK_CALLS} calls of each agent")
    calls = QUICK_CALLS if asked.quick else CALLS
    rows: list[dict[str, Any]] = []
    found: dict[str, Times] = {}
    tight = int(need_of(calls) * TIGHT)
    with tempfile.TemporaryDirectory() as place, Ledger(Path(place) / "ledger.db") as ledger:
        cases: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
            ("off", {"options": PlanOptions(enabled=False)}, {"ingest": False, "pause": True, "budget": ROOMY}),
            ("ingested", {}, {"ingest": True, "pause": True, "budget": ROOMY}),
            ("tight", {}, {"ingest": True, "pause": True, "budget": tight}),
            ("rereads", {}, {"ingest": True, "pause": True, "budget": ROOMY, "again": True}),
            ("back to back", {}, {"ingest": True, "pause": False, "budget": ROOMY}),
            ("cold", {}, {"ingest": False, "pause": True, "budget": ROOMY}),
            ("ledger", {"ledger": ledger}, {"ingest": True, "pause": True, "budget": ROOMY}),
        )
        for name, makes, runs in cases:
            planner = Planner(**makes)
            planner.warm()
            run(planner, 2, seed=99, **runs)
            found[name] = run(planner, calls, **runs)
            planner.close()
            rows.append(row_of(name, found[name]))
        for name, enabled in (("HTTP off", False), ("HTTP ingested", True)):
            folder = Path(place) / name
            folder.mkdir()
            with server(folder) as client:
                run_http(client, 2, enabled=enabled, pause_s=0.0)
                found[name] = run_http(client, calls, enabled=enabled, pause_s=0.0 if asked.quick else 0.02)
            rows.append(row_of(name, found[name]))
    marks = [
        Mark("ingested: p50", percentile(found["ingested"].cpu, 0.5), "ms CPU", "< 0.5", False),
        Mark("ingested: p99", percentile(found["ingested"].cpu, 0.99), "ms CPU", "< 5", False),
        Mark("tight: p99", percentile(found["tight"].cpu, 0.99), "ms CPU", "< 5", False),
        Mark("HTTP ingested: p50", percentile(found["HTTP ingested"].wall, 0.5), "ms", "< 5", False),
    ]
    marks = [mark._replace(holds=mark.value < float(mark.mark.removeprefix("< "))) for mark in marks]
    report("overhead", rows, marks, packages=("ortools", "numpy", "starlette"), file=asked.json, notes=(asked.cut,))


if __name__ == "__main__":
    main()
