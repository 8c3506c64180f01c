"""Measure loading ahead: how often it is right, how much it covers, and what time and memory it takes.

    python benchmarks/preload.py PATHS... [--agents FOLDER] [--quick] [--json FILE]

PATHS are logs that any importer reads. Workflows are held out in five folds: the next agent is forecast by what the
other folds have taught, and loaded ahead where the calibrated confidence exceeds 0.7 and the forecast names an agent.
`hit` is the share of these that came next, `cover` the share of all agents after the first one that had been loaded
ahead. `wasted` are loaded agents that did not come next, in kilobytes too.

Agent files are those of FOLDER where they have the name, else files of the sizes that 120 agents of Mycelium have
(median 7 kB, at most 37 kB), filled with words; each names 17 tools of the sizes of Claude Code's. Each workflow is
gone through with a real registry, a real thread and an empty cache. Between a forecast and the agent 20 ms pass; in
real workflows it is seconds to minutes. `demand_ms` is the median time of loading on demand what the workflow had not
loaded before (measured in a second pass without loading ahead): reading, hashing, brief forms. `cold` counts the
agents of that kind that had been loaded ahead, `hidden` is the share of their time for which nobody had to wait, `all
hidden` that of all agents that came. `peak` is the most that the registry held, `traced` what Python had allocated at
its peak in the longest workflow.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
import time
import tracemalloc
from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import Mark, arguments, percentile, report
from apportion.compression.loading import MAX_BYTES, EntryKind, Preloader, Registry
from apportion.models.next_agent import END, NextAgentModel
from apportion.models.tool_needs import RunTools, folds_of
from apportion.planner.loading import preload
from apportion.planner.replay.loading import CLAUDE_CODE_TOOLS, NEW_LIST
from apportion.telemetry.importers import SkipLog, read_logs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.models.next_agent import NextForecast
    from apportion.models.trails import Step

GAP_S = 0.02
ENOUGH = 10
"""A source in which fewer agents were loaded ahead cannot be judged by the marks."""

QUICK_WORKFLOWS = 60
LARGE_AGENTS, QUICK_LARGE_AGENTS = 100, 4
TEXT = """review the change and say what is wrong with it plainly then test what you wrote before you hand it back
never push to main without being asked"""


class Said(NamedTuple):
    """One forecast of a step, made by a model that had not seen its workflow."""

    step: Step
    forecast: NextForecast


class Take(NamedTuple):
    """How long an agent took to come, whether it had been loaded ahead, and whether anything had to be read."""

    waited_ms: float
    ahead: bool
    cold: bool


def main() -> None:
    """Measure and report."""
    folder = {"--agents": {"type": Path, "metavar": "FOLDER", "help": "agent files to load"}}
    quick = f"only the first {QUICK_WORKFLOWS} workflows, and {2 * QUICK_LARGE_AGENTS} MB of large agents"
    options = arguments(__doc__ or "", paths=True, quick=quick, options=folder)
    skipped = SkipLog()
    logs = islice(read_logs(options.paths, skipped), QUICK_WORKFLOWS if options.quick else None)
    steps = [step for log in logs for step in NextAgentModel.steps_of(log)]
    said = list(_held_out(steps))
    rows: list[dict[str, Any]] = []
    marks: list[Mark] = []
    with tempfile.TemporaryDirectory() as place:
        for source in sorted({each.step.source for each in said}):
            part = [each for each in said if each.step.source == source]
            names = {each.step.name for each in part} | {each.forecast.likeliest for each in part}
            row = _measured(source, part, _write_agents(Path(place) / source, names - {END}, options.agents))
            rows.append(row)
            marks += _marks(row)
        marks.append(_ceiling(Path(place), QUICK_LARGE_AGENTS if options.quick else LARGE_AGENTS))
    read = f"{skipped.files} files and {skipped.lines} lines skipped"
    few = f"marks of hits need {ENOUGH} agents that were loaded ahead"
    report("preload", rows, marks, packages=("scikit-learn",), file=options.json, notes=(read, few, options.cut))


def _held_out(steps: Sequence[Step]) -> Iterator[Said]:
    keys = {(step.source, step.workflow_id) for step in steps}
    for learned, _ in folds_of([RunTools(workflow, source, "", 0, {}) for source, workflow in sorted(keys)]):
        inside = {(each.source, each.workflow_id) for each in learned}
        part = [step for step in steps if (step.source, step.workflow_id) in inside]
        if not part:
            continue
        model = NextAgentModel().fit_steps(part)
        for step in steps:
            if (step.source, step.workflow_id) not in inside:
                yield Said(step, model.forecast(step, step.source))


def _write_agents(place: Path, names: set[str], given: Path | None) -> Path:
    """Write a file for each agent that is not given."""
    known = Registry()
    if given is not None:
        known.add(given)
    folder = place / "agents"
    folder.mkdir(parents=True)
    for name in sorted(names):
        found = known.find(name, EntryKind.AGENT)
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        content = known.load(found) if found is not None else _agent(name, int(digest[:8], 16))
        (folder / f"{digest[:16]}.md").write_bytes(content)
    tools = [_tool(name, sizes[0]) for name, sizes in CLAUDE_CODE_TOOLS.items() if name not in NEW_LIST]
    (place / "tools.json").write_text(json.dumps({"tools": tools}), encoding="utf-8")
    return place


def _tool(name: str, tokens: int) -> dict[str, Any]:
    """Return a tool of about so many tokens; every fifth sentence binds, as in those of Claude Code."""
    said = [f"You {'must' if nth % 5 == 0 else 'may'} do this {nth} times with care." for nth in range(tokens // 11)]
    return {"name": name, "description": " ".join(said), "input_schema": {"type": "object"}}


def _agent(name: str, seed: int) -> bytes:
    drawn = random.Random(seed)  # noqa: S311  (sizes of files)
    words = TEXT.split()
    tools = ", ".join(tool for tool in CLAUDE_CODE_TOOLS if tool not in NEW_LIST)
    size = min(37_000, round(drawn.lognormvariate(8.87, 0.6)))
    text = " ".join(drawn.choice(words) for _ in range(size // 5))
    return f"---\nname: {name}\ndescription: For tests.\ntools: {tools}\n---\n{text[:size]}\n".encode(
        "utf-8", "replace"
    )


def _measured(source: str, said: Sequence[Said], files: Path) -> dict[str, Any]:
    workflows: defaultdict[str, list[Said]] = defaultdict(list)
    for each in said:
        workflows[each.step.workflow_id].append(each)
    longest = max(workflows.values(), key=len)
    tracemalloc.start()  # makes everything slow, so of one workflow, and apart from what is timed
    _walked(longest, files, loads_ahead=True)
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    ahead = [_walked(each, files, loads_ahead=True) for each in workflows.values()]
    demand = [_walked(each, files, loads_ahead=False) for each in workflows.values()]
    sums = {name: sum(walk[name] for walk in ahead) for name in ("agents", "waited", "wasted_bytes")}
    takes = [
        take
        for walk, other in zip(ahead, demand, strict=True)
        for take in zip(walk["takes"], other["takes"], strict=True)
    ]
    colds = [(with_, without.waited_ms) for with_, without in takes if without.cold]
    hidden = [(with_.waited_ms, ms) for with_, ms in colds if with_.ahead]
    loading = sum(walk["waited"] for walk in demand)
    agents = round(sums["agents"])
    named = [each for each in said if each.forecast.expected not in {None, END}]
    hits = sum(each.forecast.expected == each.step.name for each in named)
    return {
        "source": source,
        "workflows": len(workflows),
        "agents": agents,
        "loaded": len(named),
        "hits": hits,
        "hit": hits / len(named) if named else "-",
        "cover": hits / agents if agents else "-",
        "wasted": len(named) - hits,
        "wasted_kB": sums["wasted_bytes"] / 1e3,
        "demand_ms": percentile([ms for _, ms in colds], 0.5) if colds else "-",
        "cold": len(hidden),
        "hidden": 1 - sum(ms for ms, _ in hidden) / sum(ms for _, ms in hidden) if hidden else "-",
        "all hidden": 1 - sums["waited"] / loading if loading else "-",
        "peak_kB": max(walk["peak"] for walk in ahead) / 1e3,
        "traced_MB": traced / 1e6,
    }


def _walked(said: Sequence[Said], files: Path, *, loads_ahead: bool) -> dict[str, Any]:
    """Go through a workflow: forecast, wait as the log says, and take what came."""
    registry = Registry()
    registry.add(files)
    takes: list[Take] = []
    with Preloader(registry) as preloader:
        for step, forecast in said:
            if loads_ahead:
                preload(preloader, forecast)
            time.sleep(GAP_S)
            if step.name == END:
                continue
            waited, asked = preloader.counts().waited_ms, registry.counts().misses
            ahead = preloader.take(step.name).ahead
            takes.append(Take(preloader.counts().waited_ms - waited, ahead, registry.counts().misses > asked))
    counts = preloader.counts()
    return {
        "agents": len(takes),
        "waited": counts.waited_ms,
        "wasted_bytes": counts.wasted_bytes,
        "peak": counts.peak_bytes,
        "takes": takes,
    }


def _ceiling(place: Path, agents: int) -> Mark:
    """Load agents of 2 MB each ahead, and return how much of it was held at most."""
    folder = place / "large" / "agents"
    folder.mkdir(parents=True)
    for number in range(agents):
        (folder / f"{number}.md").write_bytes(
            b"---\nname: large%d\n---\n" % number + bytes([65 + number % 26]) * 2_000_000
        )
    registry = Registry()
    registry.add(folder)
    with Preloader(registry) as preloader:
        for number in range(agents):
            preloader.expect(f"large{number}", 0.9)
            preloader.settle()
    peak = preloader.counts().peak_bytes / 1e6
    return Mark(f"{2 * agents} MB of agents loaded ahead: peak", peak, "MB", "< 100", holds=peak < MAX_BYTES / 1e6)


def _marks(row: dict[str, Any]) -> Iterator[Mark]:
    if row["loaded"] >= ENOUGH:
        yield Mark(f"{row['source']}: hits", row["hit"], "", ">= 0.6", holds=row["hit"] >= 0.6)
    yield Mark(f"{row['source']}: peak", row["peak_kB"] / 1e3, "MB", "< 100", holds=row["peak_kB"] < 1e5)


if __name__ == "__main__":
    main()
