"""Training examples from logged workflows, at four levels: call, agent run in a stage, stage, workflow.

Each example pairs what was known when it began with what it used in the end:

    examples = examples_of(logs)
    examples.runs[0].features      # what was known, in the order of `features.FEATURES`
    examples.runs[0].use.calls     # what came of it

Output tokens are the final counts of the log where there are any; otherwise the text that the model wrote is counted,
and `final` is false. Prompts without a count are counted from their visible text likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from apportion.models.features import Caller, Watch
from apportion.models.priors import StageUse
from apportion.telemetry.stored import StoredWorkflow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from apportion.models._runs import RunSoFar, UnitSoFar
    from apportion.telemetry.events import Event, WorkflowLog
    from apportion.telemetry.stored import StoredEvent

HISTORY = 32
"""How many earlier values an example carries at most, the latest ones."""


class CallExample(NamedTuple):
    """One model call.

    Attributes:
        workflow: Identifier of the workflow.
        caller: Who called.
        features: What was known before, in the order of `FEATURES`.
        prompt_tokens: Its prompt.
        outputs: Output tokens of the run's earlier calls, the latest last.
        growths: Growth of the run's prompt between its earlier calls, likewise.
        output_tokens: What it put out; at least 0.
        growth_tokens: By how much the run's next prompt was longer, at least 0; `None` where no call of the same
            stage follows, or a compaction lies between.
        final: Whether the log gives the final count of the output.
    """

    workflow: str
    caller: Caller
    features: tuple[float, ...]
    prompt_tokens: int
    outputs: tuple[int, ...]
    growths: tuple[int, ...]
    output_tokens: int
    growth_tokens: int | None
    final: bool


class RunExample(NamedTuple):
    """One agent in one context window in one stage.

    Attributes:
        workflow: Identifier of the workflow.
        stage: Number of the stage.
        caller: Who called.
        features: What was known before its first call.
        prompt_tokens: Prompt of its first call.
        history: What earlier runs of the same agent type in this workflow used, the latest last.
        use: What it used.
        total_tokens: Prompt and output tokens over all its calls.
        agent_run: Identifier of the agent run within the workflow.
    """

    workflow: str
    stage: int
    caller: Caller
    features: tuple[float, ...]
    prompt_tokens: int
    history: tuple[StageUse, ...]
    use: StageUse
    total_tokens: int
    agent_run: str


class SpanExample(NamedTuple):
    """A stage or a whole workflow.

    Attributes:
        workflow: Identifier of the workflow.
        caller: Who made its first call.
        features: What was known before its first call.
        prompt_tokens: Prompt of its first call.
        history: First prompt and total tokens of each earlier stage; empty for a workflow.
        runs: Positions of its runs in `Examples.runs`.
        total_tokens: Prompt and output tokens of all its calls.
    """

    workflow: str
    caller: Caller
    features: tuple[float, ...]
    prompt_tokens: int
    history: tuple[tuple[int, int], ...]
    runs: tuple[int, ...]
    total_tokens: int


class Overhead(NamedTuple):
    """What the first prompt of a context window holds beyond its visible text.

    Attributes:
        workflow: Identifier of the workflow.
        caller: Who called.
        tokens: Counted prompt minus visible text, at least 0.
    """

    workflow: str
    caller: Caller
    tokens: int


@dataclass(frozen=True, slots=True)
class Examples:
    """The examples of any number of workflows.

    Attributes:
        calls: One per model call.
        runs: One per agent, context window and stage.
        stages: One per stage.
        workflows: One per workflow.
        overheads: One per context window whose first prompt the log counts.
    """

    calls: list[CallExample] = field(default_factory=list)
    runs: list[RunExample] = field(default_factory=list)
    stages: list[SpanExample] = field(default_factory=list)
    workflows: list[SpanExample] = field(default_factory=list)
    overheads: list[Overhead] = field(default_factory=list)

    def of(self, workflows: Collection[str]) -> Examples:
        """Return the examples of some of the workflows."""
        place = {row: new for new, row in enumerate(r for r, run in enumerate(self.runs) if run.workflow in workflows)}

        def some(spans: list[SpanExample]) -> list[SpanExample]:
            kept = (span for span in spans if span.workflow in workflows)
            return [span._replace(runs=tuple(place[run] for run in span.runs)) for span in kept]

        return Examples(
            [call for call in self.calls if call.workflow in workflows],
            [self.runs[row] for row in place],
            some(self.stages),
            some(self.workflows),
            [overhead for overhead in self.overheads if overhead.workflow in workflows],
        )


def examples_of(workflows: Iterable[WorkflowLog | StoredWorkflow]) -> Examples:
    """Return the examples of workflows, each in the order in which they began."""
    found = Examples()
    for workflow in workflows:
        _Reader(workflow, found).read()
    return found


@dataclass(slots=True)
class _Call:
    """A call whose answer is not known yet."""

    caller: Caller
    features: tuple[float, ...]
    prompt_tokens: int
    unit: tuple[str, str, int]
    outputs: tuple[int, ...]
    growths: tuple[int, ...]
    final: bool
    number: int
    """Position among the calls of its run."""
    followed: bool = False
    """Whether a call of the same unit follows without a compaction in between."""


class _Reader:
    """Walks one workflow once, and adds its examples."""

    def __init__(self, workflow: WorkflowLog | StoredWorkflow, found: Examples) -> None:
        about = workflow.summary if isinstance(workflow, StoredWorkflow) else workflow
        self.workflow = about.id
        self.events = workflow.events
        self.found = found
        self.watch = Watch(framework=about.framework, source=about.source)
        self.calls: list[tuple[_Call, RunSoFar]] = []
        self.units: dict[tuple[str, str, int], tuple[_Call, tuple[StageUse, ...]]] = {}
        self.stages: dict[int, tuple[_Call, tuple[tuple[int, int], ...]]] = {}
        self._latest: dict[str, _Call] = {}

    def read(self) -> None:
        for event in self.events:
            if self.watch.begins_call(event):
                self._begin(event)
            else:
                self.watch.see(event)
        if self.calls:
            self._finish()

    def _begin(self, event: Event | StoredEvent) -> None:
        watch, run = self.watch, self.watch.run(event)
        usage = event.usage
        call = _Call(
            caller=watch.caller(event),
            features=watch.features(event),
            prompt_tokens=watch.prompt_tokens(event),
            unit=watch.unit_key(event),
            outputs=tuple(run.outputs[-HISTORY:]),
            growths=tuple(run.growths[-HISTORY:]),
            final=usage is not None and usage.output is not None and "output" not in usage.estimated,
            number=run.calls,
        )
        self._note_overhead(event, run, call.caller)
        if call.unit not in self.units:
            history = tuple(StageUse.of_calls(u.prompts, u.outputs) for u in watch.earlier_units(event)[-HISTORY:])
            self.units[call.unit] = (call, history)
        if event.stage not in self.stages:
            self.stages[event.stage] = (call, tuple(watch.earlier_stages(event)[-HISTORY:]))
        before = self._latest.get(event.agent_run)
        if before is not None and before.unit == call.unit and not run.compacted:
            before.followed = True
        self._latest[event.agent_run] = call
        watch.see(event)
        self.calls.append((call, watch.run(event)))

    def _note_overhead(self, event: Event | StoredEvent, run: RunSoFar, caller: Caller) -> None:
        counted = event.usage.prompt_tokens if event.usage is not None else None
        if run.calls == 0 and counted:
            hidden = max(0, counted - self.watch.visible_tokens(event))
            self.found.overheads.append(Overhead(self.workflow, caller, hidden))

    def _finish(self) -> None:
        self.found.calls.extend(self._call_example(call, run) for call, run in self.calls)
        first_run = len(self.found.runs)
        for key, (call, history) in self.units.items():
            unit = self.watch.units[key]
            self.found.runs.append(self._run_example(call, history, unit))
        runs = range(first_run, len(self.found.runs))
        for stage, (call, stages) in self.stages.items():
            members = tuple(number for number in runs if self.found.runs[number].stage == stage)
            self.found.stages.append(self._span(call, stages, members))
        self.found.workflows.append(self._span(self.calls[0][0], (), tuple(runs)))

    def _call_example(self, call: _Call, run: RunSoFar) -> CallExample:
        growth = run.prompts[call.number + 1] - call.prompt_tokens if call.followed else None
        return CallExample(
            self.workflow,
            call.caller,
            call.features,
            call.prompt_tokens,
            call.outputs,
            call.growths,
            run.outputs[call.number],
            None if growth is None else max(0, growth),
            call.final,
        )

    def _run_example(self, call: _Call, history: tuple[StageUse, ...], unit: UnitSoFar) -> RunExample:
        use = StageUse.of_calls(unit.prompts, unit.outputs)
        about = (self.workflow, unit.stage, call.caller, call.features, call.prompt_tokens)
        return RunExample(*about, history, use, unit.total_tokens, unit.agent_run)

    def _span(self, call: _Call, history: tuple[tuple[int, int], ...], members: tuple[int, ...]) -> SpanExample:
        total = sum(self.found.runs[number].total_tokens for number in members)
        prompt = call.prompt_tokens
        return SpanExample(self.workflow, call.caller, call.features, prompt, history, members, total)
