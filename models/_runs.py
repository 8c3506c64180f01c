"""What is known of agent runs while a workflow goes on; bookkeeping of `features.Watch`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from apportion.records import Kind
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apportion.telemetry.events import Event
    from apportion.telemetry.stored import StoredEvent


def chars_of(event: Event | StoredEvent) -> int:
    """Return the length of an event's text: in characters, or in bytes where only that was kept."""
    return event.content_bytes if event.content is None else len(event.content)


def tokens_of(events: Iterable[Event | StoredEvent]) -> int:
    """Return the tokens of the texts of events, as counted when they were stored where the texts were not kept."""
    return sum(e.content_tokens if e.content is None else count_tokens(e.content) for e in events)


@dataclass(slots=True)
class RunSoFar:
    """One agent run up to now.

    Attributes:
        parent: The agent run that started it, or `None`.
        depth: Agents above it.
        first: Position of its first event.
        last: Position of its latest event.
        last_call: Position of the latest event that its model wrote, or -1.
        stage: The latest stage in which it was seen.
        context: Pieces of its context.
        task: The latest message from outside.
        task_call: Calls made when that message came.
        prompts: Prompt tokens of its calls.
        outputs: Output tokens of its calls: final counts where given, else counted from the text.
        growths: Growth of the prompt between consecutive calls without a compaction in between.
        begun: Numbers of its calls.
        unit: Unit of its latest call.
        compacted: Whether its context began anew since its latest call.
    """

    parent: str | None
    depth: int
    first: int
    last: int = -1
    last_call: int = -1
    stage: int = 0
    context: list[Event | StoredEvent] = field(default_factory=list)
    context_chars: int = 0
    new_chars: int = 0
    new_results: int = 0
    new_errors: int = 0
    last_result_chars: int = 0
    declared_chars: int = 0
    tools: set[str] = field(default_factory=set)
    last_tool: str | None = None
    task: Event | StoredEvent | None = None
    task_call: int = 0
    prompts: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    growths: list[int] = field(default_factory=list)
    begun: set[int] = field(default_factory=set)
    unit: tuple[str, str, int] = ("", "", 0)
    compacted: bool = False
    _final_output: bool = False
    _counted: tuple[int, int] = (0, 0)
    """Pieces of the context that were counted, and their tokens."""

    @property
    def calls(self) -> int:
        """Calls that have begun."""
        return len(self.prompts)

    def visible_tokens(self, stated: list[Event | StoredEvent] | None = None) -> int:
        """Return the tokens of the visible context, or of the pieces that the log states."""
        if stated is not None:
            return tokens_of(stated)
        pieces, tokens = self._counted
        tokens += tokens_of(self.context[pieces:])
        self._counted = (len(self.context), tokens)
        return tokens

    def begin_call(self, event: Event | StoredEvent, prompt_tokens: int) -> None:
        """Note that a call with this first event begins."""
        assert event.call is not None
        if self.prompts and not self.compacted:
            self.growths.append(max(0, prompt_tokens - self.prompts[-1]))
        self.begun.add(event.call)
        self.prompts.append(prompt_tokens)
        usage = event.usage
        self._final_output = usage is not None and usage.output is not None and "output" not in usage.estimated
        self.outputs.append(usage.output or 0 if self._final_output and usage is not None else 0)
        self.new_chars = self.new_results = self.new_errors = 0
        self.compacted = False

    def see(self, event: Event | StoredEvent, position: int) -> None:
        """Take an event of this run into account."""
        self.last, self.stage = position, max(self.stage, event.stage)
        if event.compaction:
            self.context.clear()
            self.context_chars, self._counted, self.compacted = 0, (0, 0), True
        self.context.append(event)
        self.context_chars += chars_of(event)
        if event.call is not None and event.kind.written_by_model:
            self._see_output(event)
        else:
            self._see_input(event)

    def _see_output(self, event: Event | StoredEvent) -> None:
        if not self._final_output:
            self.outputs[-1] += tokens_of([event])
        if event.kind in {Kind.TOOL_CALL, Kind.HANDOFF} and event.name is not None:
            self.tools.add(event.name)
            self.last_tool = event.name

    def _see_input(self, event: Event | StoredEvent) -> None:
        self.new_chars += chars_of(event)
        if event.kind in {Kind.TOOL_RESULT, Kind.HANDOFF_RESULT}:
            self.new_results += 1
            self.new_errors += event.is_error
            self.last_result_chars = chars_of(event)
        elif event.kind is Kind.TOOL_DEFINITIONS:
            self.declared_chars += chars_of(event)
        elif event.kind is Kind.USER:
            self.task, self.task_call = event, self.calls


@dataclass(slots=True)
class UnitSoFar:
    """One unit up to now: an agent in one context window in one stage."""

    agent_run: str
    agent: str
    stage: int
    prompts: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, int]:
        """What identifies it in its workflow."""
        return self.agent_run, self.agent, self.stage

    @property
    def calls(self) -> int:
        """Calls that have begun."""
        return len(self.prompts)

    @property
    def total_tokens(self) -> int:
        """Prompt and output tokens of all its calls."""
        return sum(self.prompts) + sum(self.outputs)
