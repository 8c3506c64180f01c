"""Sees runs that go round in circles, and says why their next call should not be made.

It refuses the next call and never stops a running one. What it has seen stays until the run is forgiven: a loop does
not end by being asked again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apportion.errors import InputError
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apportion.planner.live import ContextItem


@dataclass(frozen=True, slots=True)
class WatchdogLimits:
    """How far runs may go before their next call is refused; `None` switches one off.

    Attributes:
        depth: Runs above one another. Agents that start agents are rarely three deep in logs; 6 leaves twice that.
        same_agent: Runs of one agent type above one another: an agent that starts itself that starts itself again has
            not made its task smaller.
        same_results: Times in a row that one tool call with the same input gives the same result. Retrying three times
            is a habit; at the fifth equal answer nothing new is to be expected.
        empty_outputs: Calls in a row whose output is empty.
        calls_per_minute: Calls of one run within 60 s. A model takes a second or more for an answer, so a run that
            makes more calls than seconds pass does not wait for answers.

    Raises:
        InputError: A limit is below 1.
    """

    depth: int | None = 6
    same_agent: int | None = 3
    same_results: int | None = 5
    empty_outputs: int | None = 3
    calls_per_minute: int | None = 60

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, not {value}", hint="None switches it off")


MINUTE_S = 60.0
"""Seconds within which calls are counted."""


@dataclass(slots=True)
class _Watched:
    """What is known of one run."""

    agent: str
    parent: str | None
    calls: deque[float]
    seen: int = 0
    last: tuple[object, ...] | None = None
    repeated: int = 0
    empty: int = 0


class Watchdog:
    """Watches the runs of one session.

    Args:
        limits: How far they may go.
        timer: Tells seconds that never go back.
    """

    def __init__(self, limits: WatchdogLimits, timer: Callable[[], float]) -> None:
        self.limits = limits
        self._timer = timer
        self._runs: dict[str, _Watched] = {}

    def refusal(self, agent: str, run_id: str, parent: str | None, items: Sequence[ContextItem]) -> str | None:
        """Take note of a call that is asked for, and return why it should not be made, or `None`.

        Args:
            agent: Type name of the agent.
            run_id: Its context window.
            parent: The run that started it, or `None`.
            items: The pieces of its prompt.
        """
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = _Watched(agent, parent, deque())
        elif parent is not None:
            run.parent = parent
        self._look_at(run, items)
        return self._circle(run_id) or self._no_progress(run) or self._too_fast(run)

    def ran(self, run_id: str) -> None:
        """Take note that a call is made."""
        run = self._runs.get(run_id)
        if run is not None:
            run.calls.append(self._timer())

    def answered(self, run_id: str, *, empty: bool) -> None:
        """Take note of an answer."""
        run = self._runs.get(run_id)
        if run is not None:
            run.empty = run.empty + 1 if empty else 0

    def forgive(self, run_id: str) -> None:
        """Forget what was seen of a run, so that it may go on."""
        run = self._runs.get(run_id)
        if run is not None:
            run.repeated = run.empty = 0
            run.last = None
            run.calls.clear()

    def _circle(self, run_id: str) -> str | None:
        """Say why a run is too deep, if it is."""
        depth, own, limits = 0, 0, self.limits
        agent, above, met = self._runs[run_id].agent, run_id, set[str]()
        while above in self._runs and above not in met:
            met.add(above)
            depth += 1
            own += self._runs[above].agent == agent
            above = self._runs[above].parent or ""
        if above in met:
            return "runaway recursion: the run is among those that started it"
        if limits.same_agent is not None and own > limits.same_agent:
            return f"runaway recursion: {own} runs of this agent stand above one another (limit {limits.same_agent})"
        if limits.depth is not None and depth > limits.depth:
            return f"runaway recursion: {depth} runs stand above one another (limit {limits.depth})"
        return None

    def _no_progress(self, run: _Watched) -> str | None:
        limits = self.limits
        if limits.same_results is not None and run.repeated >= limits.same_results:
            return f"no progress: the same tool call gave the same result {run.repeated} times in a row"
        if limits.empty_outputs is not None and run.empty >= limits.empty_outputs:
            return f"no progress: {run.empty} outputs in a row were empty"
        return None

    def _too_fast(self, run: _Watched) -> str | None:
        if self.limits.calls_per_minute is None:
            return None
        now = self._timer()
        while run.calls and run.calls[0] <= now - MINUTE_S:
            run.calls.popleft()
        if len(run.calls) >= self.limits.calls_per_minute:
            return f"too many calls: {len(run.calls)} of this run within a minute"
        return None

    def _look_at(self, run: _Watched, items: Sequence[ContextItem]) -> None:
        """Count how often the last tool call gave the same result; looks at new pieces only."""
        if len(items) < run.seen:  # the history was edited
            run.seen, run.last, run.repeated = 0, None, 0
        calls: dict[str | None, tuple[str | None, str]] = {}
        start = run.seen
        if start and items[start - 1].kind is Kind.TOOL_CALL:
            start -= 1
        for position in range(start, len(items)):
            item = items[position]
            if item.kind is Kind.TOOL_CALL:
                calls[item.link] = (item.name, item.content)
            elif item.kind is Kind.TOOL_RESULT and position >= run.seen:
                pair = (calls.get(item.link), item.content)
                run.repeated = run.repeated + 1 if pair == run.last else 1
                run.last = pair
        run.seen = len(items)
