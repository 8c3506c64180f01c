"""What must be known of a whole Claude Code session before its lines become events.

One completion spans several lines that repeat its usage; who a sub-agent is and who started it is often said only
when it has finished.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apportion.records import Usage
from apportion.telemetry.importers._base import as_int, unstated_lifetime
from apportion.telemetry.importers._claude_lines import MAIN, run_of
from apportion.telemetry.importers._fields import compact, mapping, string

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apportion.telemetry.importers._claude_lines import AgentFile, Line

HANDOFF_TOOLS = frozenset({"Agent", "Task"})
"""The tool that starts a sub-agent, in newer and in older versions."""

SYNTHETIC = "<synthetic>"
"""Model name of lines that Claude Code itself writes, mostly about API errors."""

_CHARS_PER_TOKEN = 4
_UNKNOWN_AGENT = "subagent"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One tool call: its tool, the agent run that made it, and for hand-offs the agent type and its task."""

    name: str
    run: str
    target: str | None
    task: str | None


@dataclass(slots=True)
class Completion:
    """One completion, gathered from all of its lines.

    Attributes:
        usage: The usage to be counted: of the line that ends the completion, else the one with the most output.
        final: Whether a line ends the completion; if none does, its output count is a streaming placeholder.
        chars: Length of what it wrote, as far as it is logged.
        blocks: All content blocks in order.
        call: Its index, once its first event has been written.
        steps: Steps of its events so far.
    """

    usage: dict[str, Any] = field(default_factory=dict)
    final: bool = False
    chars: int = 0
    blocks: list[dict[str, Any]] = field(default_factory=list)
    call: int | None = None
    steps: list[int] = field(default_factory=list)

    def observe(self, line: Line) -> None:
        """Take over the usage of a line, which may be more complete than that of earlier ones."""
        usage = mapping(line.message.get("usage"))
        final = line.message.get("stop_reason") is not None
        more = (as_int(usage.get("output_tokens")) or 0) >= (as_int(self.usage.get("output_tokens")) or 0)
        if usage and ((final and not self.final) or (final == self.final and more)):
            self.usage = usage
        self.final = self.final or final

    def write(self, block: dict[str, Any]) -> None:
        """Take over a content block."""
        self.blocks.append(block)
        for key in ("text", "thinking"):
            self.chars += len(string(block.get(key)) or "")
        if "input" in block:
            self.chars += len(compact(block["input"]))

    def counted(self) -> Usage | None:
        """Return the usage in canonical columns, or `None` where the log gives none."""
        usage = self.usage
        split = mapping(usage.get("cache_creation"))
        write_1h = as_int(split.get("ephemeral_1h_input_tokens"))
        write_5m = as_int(split.get("ephemeral_5m_input_tokens"))
        unstated = write_1h is None and write_5m is None
        if unstated:
            write_5m = as_int(usage.get("cache_creation_input_tokens"))
        output = as_int(usage.get("output_tokens"))
        estimated: frozenset[str] = frozenset()
        if output is not None and not self.final:
            output, estimated = max(output, -(-self.chars // _CHARS_PER_TOKEN)), frozenset({"output"})
        counted = Usage(
            input_uncached=as_int(usage.get("input_tokens")),
            cache_read=as_int(usage.get("cache_read_input_tokens")),
            cache_write_5m=write_5m,
            cache_write_1h=write_1h,
            output=output,
            reasoning=as_int(mapping(usage.get("output_tokens_details")).get("thinking_tokens")),
            estimated=estimated,
        )
        return None if counted == Usage() else unstated_lifetime(counted) if unstated else counted


class SessionIndex:
    """Completions, tool calls and agents of a session.

    Args:
        lines: All lines of the session, in order.
        agents: The sub-agents that have files of their own.
    """

    def __init__(self, lines: Iterable[Line], agents: Iterable[AgentFile]) -> None:
        self.tool_calls: dict[str, ToolCall] = {}
        self.totals: dict[str, dict[str, Any]] = {}
        """Per agent run, what the tool result says about tokens, tool uses and duration."""
        self._completions: dict[tuple[str, str], Completion] = {}
        self._started_by: dict[str, str] = {}
        self._types: dict[str, str] = {}
        self._tasks: dict[str, str] = {}
        seen: set[tuple[str, str]] = set()
        for line in lines:
            repeated = line.uuid is not None and (line.run, line.uuid) in seen
            if line.blocks is not None:
                seen.add((line.run, line.uuid or ""))
            self._observe(line, repeated=repeated)
        for agent in agents:
            self._describe(agent.run, agent.meta.get("agentType"), agent.meta.get("toolUseId"))

    def completion(self, line: Line) -> Completion | None:
        """Return the completion to which an assistant line belongs; `None` for lines that no model wrote."""
        if line.kind != "assistant" or line.message.get("model") == SYNTHETIC or line.data.get("isApiErrorMessage"):
            return None
        names = (line.message.get("id"), line.data.get("requestId"), line.uuid)
        key = next((name for name in names if isinstance(name, str) and name), f"{line.label}:{line.number}")
        return self._completions.setdefault((line.run, key), Completion())

    def agent(self, run: str) -> str:
        """Return the role or type name of the agent behind an agent run."""
        if run == MAIN:
            return MAIN
        call = self._start(run)
        return self._types.get(run) or (call and call.target) or _UNKNOWN_AGENT

    def parent(self, run: str) -> str | None:
        """Return the agent run that started this one, or `None` where the log does not say."""
        call = self._start(run)
        return None if call is None or call.run == run else call.run

    def handoff(self, call_id: str | None) -> ToolCall | None:
        """Return the tool call if it starts a sub-agent."""
        call = self.tool_calls.get(call_id or "")
        return call if call is not None and call.name in HANDOFF_TOOLS else None

    def _start(self, run: str) -> ToolCall | None:
        return self.tool_calls.get(self._started_by.get(run, "")) or next(
            (call for call in self.tool_calls.values() if call.task and call.task == self._tasks.get(run)), None
        )

    def _observe(self, line: Line, *, repeated: bool) -> None:
        if line.progress_of is not None:
            self._describe(line.run, None, line.progress_of)
        if (completion := self.completion(line)) is not None:
            completion.observe(line)
            self._describe(line.run, line.data.get("attributionAgent"), None)
            for block in [] if repeated else line.blocks or []:
                completion.write(block)
                self._observe_call(line.run, block)
        elif line.kind == "user":
            self._observe_user(line)

    def _observe_call(self, run: str, block: dict[str, Any]) -> None:
        identifier, name = string(block.get("id")), string(block.get("name"))
        if identifier and name:
            given = mapping(block.get("input"))
            target = (string(given.get("subagent_type")) or "general-purpose") if name in HANDOFF_TOOLS else None
            self.tool_calls.setdefault(identifier, ToolCall(name, run, target, string(given.get("prompt"))))

    def _observe_user(self, line: Line) -> None:
        blocks = line.blocks or []
        result = mapping(line.data.get("toolUseResult"))
        if blocks and (agent_id := string(result.get("agentId"))):
            self._describe(run_of(agent_id), result.get("agentType"), blocks[0].get("tool_use_id"))
            totals = {key: value for key, value in result.items() if key.startswith("total")}
            if totals:
                self.totals[run_of(agent_id)] = totals
        if line.run != MAIN and line.run not in self._tasks and blocks:
            self._tasks[line.run] = string(blocks[0].get("text")) or ""

    def _describe(self, run: str, agent_type: Any, started_by: Any) -> None:
        if string(agent_type):
            self._types.setdefault(run, agent_type)
        if string(started_by):
            self._started_by.setdefault(run, started_by)
