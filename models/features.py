"""What is known before a model call, as numbers: the table of features, and how they are read from a log.

A feature may use what stands in the log before the call's first event, who calls whom, and the prompt that is about to
be sent, because an orchestrator has that prompt in its hands. It may not use the answer, nor anything after it: a test
changes all of that, and no feature may move.

    watch = Watch(framework="claude-code", source="my-project")
    for event in events:                        # live, or from a log
        if watch.begins_call(event):
            features = watch.features(event)    # shape (len(FEATURES),), before the answer is looked at
        watch.see(event)

Texts enter as lengths and counts, so that a store which keeps no texts still gives most features.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from apportion.models._runs import RunSoFar, UnitSoFar, chars_of
from apportion.prices import lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion.telemetry.events import Event
    from apportion.telemetry.stored import StoredEvent

TOOL_BUCKETS = 64
"""Into how many buckets names of tools are hashed."""

UNKNOWN = math.nan
"""What a feature is worth where the log does not say."""

MAIN, SUB = "main", "sub"
"""Roles: an agent that nobody started, and one that another agent started."""


class Feature(NamedTuple):
    """One column of the features.

    Attributes:
        name: Its name.
        unit: Its unit, for example `"tokens"`; `"log tokens"` is ln(1 + tokens).
        meaning: What it says.
    """

    name: str
    unit: str
    meaning: str


FEATURES = (
    Feature("stage", "count", "stages of the workflow before this one"),
    Feature("run_stages", "count", "stages in which this agent run was called before"),
    Feature("run_calls", "count", "earlier calls of this agent run"),
    Feature("stage_calls", "count", "earlier calls of this agent run in this stage"),
    Feature("workflow_calls", "count", "earlier calls of the whole workflow"),
    Feature("workflow_runs", "count", "agent runs that began before"),
    Feature("depth", "count", "agents above this one: 0 for a main agent"),
    Feature("siblings", "count", "earlier agent runs with the same parent"),
    Feature("prompt_tokens", "log tokens", "prompt about to be sent; visible text where the log gives no count"),
    Feature("window_share", "share", "prompt as a share of the model's context window"),
    Feature("context_chars", "log characters", "visible text of the prompt"),
    Feature("context_pieces", "count", "pieces of the prompt"),
    Feature("new_chars", "log characters", "visible text that entered the prompt since the run's previous call"),
    Feature("new_results", "count", "tool results among it"),
    Feature("new_errors", "count", "tool results among it that report an error"),
    Feature("last_result_chars", "log characters", "length of the latest tool result"),
    Feature("declared_chars", "log characters", "definitions of tools in the prompt, where the log holds them"),
    Feature("tools_used", "count", "different tools that this run has used"),
    Feature("last_tool", "bucket", f"latest tool of this run, hashed into {TOOL_BUCKETS} buckets; -1 for none"),
    Feature("calls_since_task", "count", "calls of this run since its task was last said or changed"),
    Feature("task_chars", "log characters", "length of the task: the latest message from outside"),
    Feature("task_lines", "log lines", "its lines"),
    Feature("task_items", "count", "list items in it"),
    Feature("task_questions", "count", "question marks in it"),
    Feature("task_code", "count", "fenced blocks of code in it"),
    Feature("task_paths", "count", "paths of files in it"),
    Feature("task_headings", "count", "headings in it"),
    Feature("task_demands", "count", "words such as must, all, every, test, implement, refactor in it"),
    Feature("last_output", "log tokens", "output of the run's previous call"),
    Feature("mean_output", "log tokens", "mean output of the run's earlier calls"),
    Feature("last_growth", "log tokens", "growth of the prompt before this call"),
    Feature("mean_growth", "log tokens", "mean growth of the run's prompt per call so far"),
    Feature("last_calls", "log calls", "calls in the run's previous stage, or of the latest run of this agent type"),
    Feature("mean_calls", "log calls", "mean calls per stage of this agent type in this workflow so far"),
)
"""All features, in the order of the columns; code and documentation read this table."""

_ITEM = re.compile(r"^\s*(?:[-*+]|\d{1,3}[.)])\s", re.MULTILINE)
_PATH = re.compile(r"(?<![\w/])(?:[\w.-]+/)+[\w.-]+|\b[\w-]+\.(?:py|ts|tsx|js|go|rs|java|md|json|ya?ml|toml|sql)\b")
_HEADING = re.compile(r"^#{1,6}\s", re.MULTILINE)
_DEMAND = re.compile(
    r"\b(?:must|all|every|each|thorough\w*|test\w*|implement\w*|refactor\w*|fix\w*|plan\w*|explore\w*|research\w*)\b",
    re.IGNORECASE,
)
_SCANNED_CHARS = 20_000
"""How much of a task is looked at; its length counts in full."""


def task_shape(text: str) -> tuple[float, ...]:
    """Return the features of a task text, in the order of the columns that begin with `task_`.

    >>> task_shape("Fix all of src/app.py. Why does it fail?")[3:6]
    (1.0, 0.0, 1.0)
    """
    scanned = text[:_SCANNED_CHARS]
    counts = [len(pattern.findall(scanned)) for pattern in (_PATH, _HEADING, _DEMAND)]
    return (
        math.log1p(len(text)),
        math.log1p(text.count("\n") + bool(text)),
        float(len(_ITEM.findall(scanned))),
        float(scanned.count("?")),
        float(scanned.count("```") // 2),
        *map(float, counts),
    )


class Caller(NamedTuple):
    """Who is about to call: what forecasts are grouped by.

    Attributes:
        framework: Tool that runs the workflow, as `WorkflowLog.framework`.
        source: Project or log, as `WorkflowLog.source`.
        agent: Agent type.
        role: `"main"` or `"sub"`.
        model: Model that is asked, or `None`.
    """

    framework: str
    source: str
    agent: str
    role: str
    model: str | None = None


class Watch:
    """Follows one workflow, event by event, and says at any call what is known before it.

    Args:
        framework: Tool that runs the workflow.
        source: Project or log.
    """

    def __init__(self, *, framework: str, source: str) -> None:
        self.framework = framework
        self.source = source
        self._runs: dict[str, RunSoFar] = {}
        self.units: dict[tuple[str, str, int], UnitSoFar] = {}
        self._pieces: dict[int, Event | StoredEvent] = {}
        self._calls = 0
        self._position = 0

    def begins_call(self, event: Event | StoredEvent) -> bool:
        """Say whether an event that has not been seen yet is the first of a completion."""
        if event.call is None or not event.kind.written_by_model:
            return False
        run = self._runs.get(event.agent_run)
        return run is None or event.call not in run.begun

    def caller(self, event: Event | StoredEvent) -> Caller:
        """Return who makes a call."""
        role = MAIN if event.parent_agent is None else SUB
        return Caller(self.framework, self.source, event.agent, role, event.model)

    def unit_key(self, event: Event | StoredEvent) -> tuple[str, str, int]:
        """Return the unit of a call: an agent in one context window in one stage."""
        return event.agent_run, event.agent, event.stage

    def prompt_tokens(self, event: Event | StoredEvent) -> int:
        """Return the tokens of the prompt about to be sent: as counted by the provider, or its visible text."""
        counted = event.usage.prompt_tokens if event.usage is not None else None
        return counted or self.visible_tokens(event)

    def visible_tokens(self, event: Event | StoredEvent) -> int:
        """Return the tokens of the visible text of the prompt of a call."""
        return self._run(event).visible_tokens(self._stated(event))

    def _stated(self, event: Event | StoredEvent) -> list[Event | StoredEvent] | None:
        """Return the pieces of a prompt that the log states, or `None` where it does not."""
        if event.prompt_steps is None:
            return None
        return [self._pieces[step] for step in event.prompt_steps if step in self._pieces]

    def earlier_units(self, event: Event | StoredEvent) -> list[UnitSoFar]:
        """Return what is known of the earlier units of the same agent type that are over, in the order they began.

        A unit is over once its run is called in a later stage; for a sub-agent, once its parent goes on; for one of
        several main runs, once another one began.
        """
        key = self.unit_key(event)
        return [unit for unit in self.units.values() if unit.agent == event.agent and self._is_over(unit, key)]

    def earlier_stages(self, event: Event | StoredEvent) -> list[tuple[int, int]]:
        """Return the first prompt of each earlier stage, and the tokens it has used so far, in order."""
        found: dict[int, tuple[int, int]] = {}
        for unit in self.units.values():
            if unit.stage < event.stage:
                first, tokens = found.get(unit.stage, (unit.prompts[0], 0))
                found[unit.stage] = (first, tokens + unit.total_tokens)
        return [found[stage] for stage in sorted(found)]

    def _is_over(self, unit: UnitSoFar, asking: tuple[str, str, int]) -> bool:
        run = self._runs[unit.agent_run]
        if unit.key == asking or not unit.calls:
            return False
        if run.stage > unit.stage or (asking[0] == unit.agent_run and asking[2] > unit.stage):
            return True
        if run.parent is None:
            return any(other.parent is None and other.first > run.last for other in self._runs.values()) or (
                asking[0] != unit.agent_run and asking[0] not in self._runs
            )
        parent = self._runs.get(run.parent)
        return parent is not None and parent.last_call > run.last

    def unit(self, event: Event | StoredEvent) -> UnitSoFar | None:
        """Return the unit that a call belongs to, as it was before the call; `None` before its first one."""
        return self.units.get(self.unit_key(event))

    def run(self, event: Event | StoredEvent) -> RunSoFar:
        """Return the agent run that a call belongs to, as it was before the call."""
        return self._run(event)

    def _run(self, event: Event | StoredEvent) -> RunSoFar:
        run = self._runs.get(event.agent_run)
        if run is not None:
            return run
        parent = self._runs.get(event.parent_agent) if event.parent_agent is not None else None
        depth = 0 if event.parent_agent is None else (parent.depth + 1 if parent is not None else 1)
        return RunSoFar(parent=event.parent_agent, depth=depth, first=self._position)

    def features(self, event: Event | StoredEvent) -> tuple[float, ...]:
        """Return the features of a call whose first event has not been seen yet, in the order of `FEATURES`."""
        return tuple(self._values(event))

    def _values(self, event: Event | StoredEvent) -> Iterator[float]:
        run, unit, units = self._run(event), self.unit(event), self.earlier_units(event)
        prompt = self.prompt_tokens(event)
        yield from (event.stage, len({u.stage for u in self.units.values() if u.agent_run == event.agent_run}))
        yield from (run.calls, unit.calls if unit is not None else 0, self._calls)
        yield from (len(self._runs), run.depth)
        yield sum(r.parent == event.parent_agent for name, r in self._runs.items() if name != event.agent_run)
        yield math.log1p(prompt)
        profile = lookup(event.model)
        yield prompt / profile.context_window if profile is not None and profile.context_window else UNKNOWN
        stated = self._stated(event)
        yield math.log1p(run.context_chars if stated is None else sum(map(chars_of, stated)))
        yield len(run.context) if stated is None else len(stated)
        yield from (math.log1p(run.new_chars), run.new_results, run.new_errors)
        yield from (math.log1p(run.last_result_chars), math.log1p(run.declared_chars), len(run.tools))
        yield crc32(run.last_tool.encode("utf-8", "replace")) % TOOL_BUCKETS if run.last_tool is not None else -1
        yield run.calls - run.task_call
        yield from _task_shape(run.task)
        yield from (_log(run.outputs[-1:]), _log(run.outputs))
        growths = [*run.growths, max(0, prompt - run.prompts[-1])] if run.prompts else []
        yield from (_log(growths[-1:]), _log(growths))
        calls = [u.calls for u in units]
        yield from (_log(calls[-1:]), _log(calls))

    def see(self, event: Event | StoredEvent) -> None:
        """Take an event into account."""
        begins = self.begins_call(event)
        run = self._runs.setdefault(event.agent_run, self._run(event))
        if begins:
            self._begin_call(event, run)
        self._pieces[event.step] = event
        run.see(event, self._position)
        if event.call is not None and event.kind.written_by_model:
            self.units[run.unit].outputs[-1:] = run.outputs[-1:]  # the stage may have changed since it began
            run.last_call = self._position
        self._position += 1

    def _begin_call(self, event: Event | StoredEvent, run: RunSoFar) -> None:
        prompt = self.prompt_tokens(event)
        key = self.unit_key(event)
        unit = self.units.setdefault(key, UnitSoFar(*key))
        run.begin_call(event, prompt)
        run.unit = key
        unit.prompts.append(prompt)
        unit.outputs.append(0)
        self._calls += 1


def _task_shape(task: Event | StoredEvent | None) -> tuple[float, ...]:
    """Return the shape of a task; where its text was not kept, its length alone is known."""
    if task is None or task.content is not None:
        return task_shape("" if task is None else task.content or "")
    return (math.log1p(chars_of(task)), *[UNKNOWN] * 7)


def _log(values: list[int]) -> float:
    """Return ln(1 + mean), or unknown for none."""
    return math.log1p(sum(values) / len(values)) if values else UNKNOWN
