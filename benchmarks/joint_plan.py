"""How long a joint plan takes, how good it is, and where the time goes.

    python benchmarks/joint_plan.py [--quick] [--json FILE] [--corpus PATH]

- cold: `plan_workflow`, from a checked problem to a validated plan, without a deadline: compiling, search, validation.
  `search` is its middle part alone, where a size is
  planned more than once.
- warm: `Replanner.replan` with 2 % less tokens and money. `L0`: `StandingPlan.note` of one agent.
- gap: certified, against the plan's own bound. `true gap`: against the optimum that CP-SAT proves on the whole model,
  presolve on, where it proves one within its limit on work; how many it proves is stated.
- improved: the same plans after `Replanner.improve(THOROUGH)`, as in the background.

Problems are those of `_joint_problems`, seeds fixed, and with `--corpus` some made from logs. Times are those of the
whole process. Every problem is planned several times and the least time counts, since other programs only ever add to
it; p50 and p95 are over problems. `peak` is the most memory that the process held while it planned that size.
"""

from __future__ import annotations

import functools
import importlib
import resource
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from _harness import Mark, Timing, arguments, percentile, report
from _joint_problems import corpus_problems, problems_of
from apportion.planner.choice import value
from apportion.planner.compiled import compile_problem
from apportion.planner.exact import solve_exactly
from apportion.planner.replan import Replanner, StandingPlan
from apportion.planner.solver import DEADLINE_MS, QUICK, THOROUGH, Clock, Search, plan_workflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apportion.planner.compiled import Compiled
    from apportion.planner.plan import Plan
    from apportion.planner.problem import Problem

Result = TypeVar("Result")


class Size(NamedTuple):
    """How many problems of a size are planned, and how often each."""

    agents: int
    items: int
    problems: int
    repetitions: int
    improved: int
    """How many of them are improved as well."""


SIZES = (
    Size(3, 10, 42, 4, 42),
    Size(10, 10, 42, 4, 42),
    Size(50, 10, 9, 3, 3),
    Size(200, 10, 6, 3, 0),
    Size(1000, 10, 3, 2, 0),
    Size(5000, 10, 1, 1, 0),
    Size(200, 30, 3, 1, 0),
)
QUICK_SIZES = (Size(3, 10, 1, 2, 1), Size(10, 10, 1, 2, 1))
CORPUS_PROBLEMS = 12
QUICK_CORPUS_PROBLEMS = 2

CEILING_AGENTS = 10
"""Marks of time and quality are about this many agents."""

LESS = 0.98
"""What is left of tokens and money when a plan is made anew."""

PROOF_WORK = 20.0
QUICK_PROOF_WORK = 0.2
"""Deterministic time in which CP-SAT may prove an optimum."""

TRUE_GAP = 1e-3
"""A plan counts as optimal within this share of the proven optimum."""

THREADS = (50, 200)
QUICK_THREADS = (4,)
DEADLINE_REPETITIONS = 3


def main() -> None:
    """Measure and report."""
    asked = arguments(__doc__ or "", quick="few sizes and problems, and proofs only of what is easy", corpus=True)
    plan_workflow(problems_of(3, 1)[0], deadline_ms=None)  # imports and caches are warm from here on
    sizes = QUICK_SIZES if asked.quick else SIZES
    work = QUICK_PROOF_WORK if asked.quick else PROOF_WORK
    rows = [measure(_name(size), list(_problems(size)), size, work=work) for size in sizes]
    notes = [asked.cut]
    if asked.corpus is None or not asked.corpus.exists():
        notes.append(f"problems from logs skipped: {asked.corpus or 'no --corpus given'}")
    else:
        count = QUICK_CORPUS_PROBLEMS if asked.quick else CORPUS_PROBLEMS
        taken = corpus_problems(asked.corpus, count)
        if taken:
            rows.append(measure("corpus", taken, Size(0, 0, count, 2, count), work=work))
        else:
            notes.append(f"problems from logs skipped: no workflow of enough agents in {asked.corpus}")
    ten = next(size for size in sizes if size.agents == CEILING_AGENTS)
    ceiling = at_the_deadline(_problems(ten))
    threads = [
        concurrently(count, kind, _problems(ten)) for count in (QUICK_THREADS if asked.quick else THREADS)
        for kind in ("same", "different")
    ]  # fmt: skip
    parts = where_time_goes(_problems(ten))
    marks = _marks({row["problems"]: row for row in rows}, ceiling, threads)
    notes += [
        "Pairs are p50 and p95 over problems. proven: optima that CP-SAT proved; true gaps are about those.",
        _of_deadline(ceiling),
        *(f"{row['threads']} threads, {row['kind']} problems: {_cells(row)}" for row in threads),
        f"where the time of {CEILING_AGENTS} agents goes, % of CPU: {_cells(parts)}",
    ]
    report("joint_plan", rows, marks, packages=("ortools", "numpy"), file=asked.json, notes=notes)


def _of_deadline(ceiling: Ceiling) -> str:
    return (
        f"default deadline of {DEADLINE_MS:g} ms, {CEILING_AGENTS} agents: wall ms p95 {ceiling.p95:.1f}, most "
        f"{ceiling.most:.1f}; cut short: {ceiling.cut} of {ceiling.problems}"
    )


def _name(size: Size) -> str:
    return f"{size.agents} x {size.items}"


def _problems(size: Size) -> Sequence[Problem]:
    return problems_of(size.agents, size.problems, items=size.items)


def _cells(row: dict[str, Any]) -> str:
    cells = (f"{name} {cell:.1f}" if isinstance(cell, float) else f"{name} {cell}" for name, cell in row.items())
    return ", ".join(cells)


# Times and gaps of one size.


def measure(name: str, problems: Sequence[Problem], size: Size, *, work: float) -> dict[str, Any]:
    """Plan problems cold, again, and better; compare with what is proven."""
    forget_peak()
    cold, plans = _least([partial(plan_workflow, each, deadline_ms=None) for each in problems], size.repetitions)
    peak = peak_mb()
    search, _ = _least([partial(_search, compile_problem(each)) for each in problems], size.repetitions - 1)
    warm, warm_gaps = _warm(problems, size.repetitions)
    noted = [_note_us(problem, plan) for problem, plan in zip(problems, plans, strict=True)]
    improved = problems[: size.improved]
    return {
        "problems": name,
        "count": len(problems),
        "cold cpu ms": _spread(cold.cpu_ms),
        "cold wall ms": _spread(cold.wall_ms),
        "search cpu ms": _spread(search.cpu_ms),
        "warm cpu ms": _spread(warm.cpu_ms),
        "warm wall ms": _spread(warm.wall_ms),
        "L0 us": _spread(noted),
        "gap %": _spread([100 * plan.gap for plan in plans]),
        "warm gap %": _spread([100 * gap for gap in warm_gaps]),
        "degraded": sum(bool(plan.degraded) for plan in plans),
        "peak mb": peak,
        **_quality(improved, plans[: size.improved], work=work),
    }


def _spread(values: Sequence[float]) -> list[float]:
    """Return the median and the 95 % quantile; nothing of nothing."""
    return [percentile(values, 0.5), percentile(values, 0.95)] if values else []


def _least(calls: Sequence[Callable[[], Result]], repetitions: int) -> tuple[Timing, list[Result]]:
    """Return the least time of each call, and what the last ones returned; nothing without repetitions."""
    least, results = Timing([], []), []
    for call in calls if repetitions else ():
        cpu_ms, wall_ms = [], []
        for _ in range(repetitions):
            wall, cpu = time.perf_counter_ns(), time.process_time_ns()
            result = call()
            cpu_ms.append((time.process_time_ns() - cpu) / 1e6)
            wall_ms.append((time.perf_counter_ns() - wall) / 1e6)
        least.cpu_ms.append(min(cpu_ms))
        least.wall_ms.append(min(wall_ms))
        results.append(result)
    return least, results


def _search(compiled: Compiled) -> None:
    """Do what `plan_workflow` does between compiling and making a plan of it."""
    search = Search(compiled, QUICK, Clock(None))
    search.maximise_value()
    search.lower_cost()


def _warm(problems: Sequence[Problem], repetitions: int) -> tuple[Timing, list[float]]:
    """Time re-planning with less, each time by a planner that has just made the first plan."""
    least, gaps = Timing([], []), []
    for problem in problems:
        less = {
            name: int(amount * LESS)
            for name in ("max_tokens", "max_cost_nusd")
            for amount in [getattr(problem, name)]
            if amount is not None
        }
        once = Timing([], [])
        plans: list[Plan] = []
        for _ in range(repetitions):
            replanner = Replanner(problem, deadline_ms=None)
            timing, plans = _least([partial(replanner.replan, deadline_ms=None, **less)], 1)
            once.cpu_ms.extend(timing.cpu_ms)
            once.wall_ms.extend(timing.wall_ms)
        least.cpu_ms.append(min(once.cpu_ms))
        least.wall_ms.append(min(once.wall_ms))
        gaps.append(plans[0].gap)
    return least, gaps


def _note_us(problem: Problem, plan: Plan) -> float:
    """Return the microseconds that taking note of each agent's use takes on average, the least of three rounds."""
    rounds = []
    for _ in range(3):
        standing = StandingPlan(problem, plan)
        start = time.perf_counter_ns()
        for entry in plan.agents:
            standing.note(entry.agent_id, tokens=entry.tokens + 1, cost_nusd=entry.cost_nusd)
        rounds.append((time.perf_counter_ns() - start) / 1e3 / len(plan.agents))
    return min(rounds)


def _quality(problems: Sequence[Problem], plans: Sequence[Plan], *, work: float) -> dict[str, Any]:
    """Return true gaps, and certified ones after improvement; nothing where nothing is improved."""
    better = [_improved(problem) for problem in problems]
    optima = [_optimum(problem, plan, work=work) for problem, plan in zip(problems, better, strict=True)]
    proven = [number for number, optimum in enumerate(optima) if optimum is not None]
    first = [_true_gap(plans[number], optima[number]) for number in proven]
    later = [_true_gap(better[number], optima[number]) for number in proven]

    return {
        "improved gap %": _spread([100 * plan.gap for plan in better]),
        "proven": f"{len(proven)}/{len(problems)}",
        "true gap %": _spread([100 * gap for gap in first]),
        "within 0.1 %": _share(first),
        "improved true gap %": _spread([100 * gap for gap in later]),
        "improved within 0.1 %": _share(later),
    }


def _share(gaps: Sequence[float]) -> float | None:
    """Return the part of gaps that count as none."""
    return sum(gap <= TRUE_GAP for gap in gaps) / len(gaps) if gaps else None


def _improved(problem: Problem) -> Plan:
    return Replanner(problem, deadline_ms=None).improve(THOROUGH)


def _optimum(problem: Problem, plan: Plan, *, work: float) -> int | None:
    """Return the optimum if CP-SAT proves one; one above the plan's bound, or below the plan, ends the benchmark."""
    compiled = compile_problem(problem)
    answer = solve_exactly(compiled, deterministic_time=work, presolve=True)
    if answer.status != "OPTIMAL" or answer.choice is None or answer.complaints:
        return None
    optimum = value(compiled, answer.choice)
    if not plan.objective <= optimum <= plan.bound:
        raise SystemExit(f"a proof is wrong: plan {plan.objective:,}, optimum {optimum:,}, bound {plan.bound:,}")
    return optimum


def _true_gap(plan: Plan, optimum: int | None) -> float:
    assert optimum is not None
    return (optimum - plan.objective) / max(1, abs(optimum))


# The deadline, threads, and parts.


class Ceiling(NamedTuple):
    """Wall-clock times at the default deadline."""

    p95: float
    most: float
    cut: int
    problems: int


def at_the_deadline(problems: Sequence[Problem]) -> Ceiling:
    """Plan with the default deadline; the least of several times of each problem counts."""
    timing, plans = _least([partial(plan_workflow, each) for each in problems], DEADLINE_REPETITIONS)
    cut = sum(plan.stopped_by == "deadline" for plan in plans)
    return Ceiling(percentile(timing.wall_ms, 0.95), max(timing.wall_ms), cut, len(problems))


def concurrently(threads: int, kind: str, problems: Sequence[Problem]) -> dict[str, Any]:
    """Let many threads plan at once: the same problem, or different ones; count plans that differ from one alone."""
    chosen = [problems[0 if kind == "same" else number % len(problems)] for number in range(threads)]
    alone = {id(problem): plan_workflow(problem, deadline_ms=None).model_dump_json() for problem in chosen}

    def plan(problem: Problem) -> tuple[float, bool]:
        start = time.perf_counter_ns()
        made = plan_workflow(problem, deadline_ms=None)
        return (time.perf_counter_ns() - start) / 1e6, made.model_dump_json() == alone[id(problem)]

    start = time.perf_counter_ns()
    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(plan, chosen))
    times = [elapsed for elapsed, _ in done]
    return {
        "threads": threads,
        "kind": kind,
        "wall_ms p50": percentile(times, 0.5),
        "wall_ms p95": percentile(times, 0.95),
        "plans per second": threads / ((time.perf_counter_ns() - start) / 1e9),
        "plans that differ": sum(not same for _, same in done),
    }


PARTS = {
    "compile": ("solver:compile_problem",),
    "dual": ("dual:Dual.__init__", "dual:Dual.start", "dual:Dual.descend", "dual:Dual.price"),
    "columns": ("columns:Pool.__call__", "columns:Pool.add_frugal", "columns:Pool.add_around",
                "columns:Pool.columns", "solver:select"),
    "relaxation": ("master:Master.__init__", "master:Master.relax"),
    "CP-SAT": ("master:Master.decide", "master:Master.best", "master:Master.cheapest"),
    "plan and validation": ("solver:finish",),
}  # fmt: skip
"""Which functions a part of the time is spent in, less what is spent in those of other parts that they call."""


def where_time_goes(problems: Sequence[Problem]) -> dict[str, float]:
    """Return the part of the CPU time that each step takes, in percent; the clocks themselves take a little."""
    spent: defaultdict[str, int] = defaultdict(int)
    with _clocks(spent):
        start = time.process_time_ns()
        for problem in problems:
            plan_workflow(problem, deadline_ms=None)
        total = time.process_time_ns() - start
    shares = {part: 100 * spent[part] / total for part in PARTS}
    return shares | {"other": 100 - sum(shares.values())}


@contextmanager
def _clocks(spent: defaultdict[str, int]) -> Iterator[None]:
    """Clock the functions of `PARTS`."""
    running: list[str] = []
    since = time.process_time_ns()

    def switch(part: str | None) -> None:
        nonlocal since
        now = time.process_time_ns()
        if running:
            spent[running[-1]] += now - since
        since = now
        if part is None:
            running.pop()
        else:
            running.append(part)

    def clocked(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            switch(part)
            try:
                return function(*args, **kwargs)
            finally:
                switch(None)

        return call

    kept = []
    for part, names in PARTS.items():
        for name in names:
            module, _, path = name.partition(":")
            owner: Any = importlib.import_module(f"apportion.planner.{module}")
            *outer, attribute = path.split(".")
            for each in outer:
                owner = getattr(owner, each)
            kept.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, clocked(getattr(owner, attribute), part))
    try:
        yield
    finally:
        for owner, attribute, function in kept:
            setattr(owner, attribute, function)


# Memory.


def forget_peak() -> None:
    """Let the peak of memory begin anew, where the system can."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb() -> float:
    """Return the most memory held since `forget_peak`, or of the whole process where the system cannot tell."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# Marks.


def _marks(rows: dict[str, dict[str, Any]], ceiling: Ceiling, threads: list[dict[str, Any]]) -> list[Mark]:
    def mark(size: str, name: str, column: str, unit: str, most: float) -> list[Mark]:
        if size not in rows or not rows[size][column]:
            return []
        amount = float(rows[size][column][1])
        return [Mark(f"{size}: {name}", amount, unit, f"<= {most:g}", amount <= most)]

    ten = f"{CEILING_AGENTS} x 10"
    within = rows[ten]["improved within 0.1 %"]
    return [
        *mark(ten, "cold, p95", "cold cpu ms", "ms CPU", 10),
        *mark(ten, "certified gap, p95", "gap %", "%", 1),
        *mark(ten, "warm, p95", "warm cpu ms", "ms CPU", 3),
        Mark(f"{ten}: at the default deadline, most", ceiling.most, "ms wall", "<= 50", ceiling.most <= 50),
        *([] if within is None else [
            Mark(f"{ten}: improved plans within 0.1 % of the proven optimum", within, "share", ">= 0.95",
                 within >= 0.95)
        ]),
        *mark(ten, "improved, certified gap, p95", "improved gap %", "%", 0.3),
        *mark("1000 x 10", "cold, p95", "cold cpu ms", "ms CPU", 1000),
        *mark("1000 x 10", "certified gap, p95", "gap %", "%", 0.3),
        *mark("5000 x 10", "cold, p95", "cold cpu ms", "ms CPU", 8000),
        *mark("200 x 30", "certified gap, p95", "gap %", "%", 1),
        *mark(ten, "L0, p95", "L0 us", "us wall", 50),
        *[
            Mark(f"{row['threads']} threads, {row['kind']} problems: plans that differ", row["plans that differ"], "",
                 "0", row["plans that differ"] == 0)
            for row in threads
        ],
    ]  # fmt: skip


if __name__ == "__main__":
    main()
