"""Sub-agents: whether one may start, with how much, on what prompt; and what it used when it has ended.

Every sub-agent is an agent run of the session's plan. What it may use is held in the ledger when it starts and settled
when it ends, by its own transcript: the client itself tells only the usage of a sub-agent's last request.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from apportion.errors import LedgerError, StoreError
from apportion.planner.doors.claude_code.prompts import Part, own_words, parts_of
from apportion.planner.doors.claude_code.transcripts import spent_by, tool_use_of
from apportion.planner.live import ContextItem
from apportion.planner.policies import Simplify
from apportion.planner.prompt import MIN_REPLACED_TOKENS
from apportion.records import Kind, Usage
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from apportion.planner.doors.claude_code.transcripts import Spent
    from apportion.planner.session import Session, Step

UNRESTRICTED: Final = frozenset({"general-purpose", "claude"})
"""Types of sub-agents that have all tools, so that they can have back what is left out. Others may not."""

FULL: Final = "full"
"""The variant of a step that runs as it was meant to."""

SUB_AGENT: Final = "sub-agent"
"""Type of an agent of which only the id is known."""


@dataclass(frozen=True, slots=True)
class Simplified:
    """How sub-agents run when little is left of the budget.

    Attributes:
        below: Share of the budget, in [0, 1]; simplified runs begin where less is free.
        effort: Effort of the model, or `None` for no change.
        model: `"haiku"`, `"sonnet"` or another name that the client knows; `None` for no change.
    """

    below: float = 0.25
    effort: str | None = "low"
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """What becomes of a sub-agent that is about to start.

    Attributes:
        changes: Members of the tool's input that change; empty: it starts as it was meant to.
        refusal: Why it does not start; empty where it does.
        saved_tokens: Tokens of the prompt that are not sent.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""
    saved_tokens: int = 0


class _Open(NamedTuple):
    """A sub-agent that runs: what was planned for it, by which session, and of which type it is."""

    session: Session
    step: Step
    agent: str


@dataclass(slots=True)
class _Watched:
    """A transcript that may grow, the type of its agent, its size when it was booked, and the call that started it."""

    transcript: str
    agent: str | None
    size: int | None = None
    call: str | None = None
    failed: bool = False


@dataclass(slots=True)
class SubAgents:
    """The sub-agents of one session.

    Args:
        session: Plans them.
        budget_tokens: What they may use together, or `None`.
        simplified: How they run when little is left.
    """

    session: Session
    budget_tokens: int | None
    simplified: Simplified | None = None
    used_tokens: int = 0
    least_tokens: int = 0
    started: int = 0
    refused: int = 0
    estimated: int = 0
    _open: dict[str, _Open] = field(default_factory=dict)
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _counted: dict[str, int] = field(default_factory=dict)
    _former: list[Session] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def left_tokens(self) -> int | None:
        """What is left of the budget, or `None` where there is none."""
        return None if self.budget_tokens is None else max(0, self.budget_tokens - self.used_tokens)

    @property
    def running(self) -> int:
        """Sub-agents whose usage is not known yet."""
        return len(self._open)

    @property
    def unbooked(self) -> int:
        """Sub-agents whose usage is known but could not be booked yet; that is tried again."""
        return sum(watched.failed for watched in self._watched.values())

    def start(self, call: str, given: dict[str, Any], *, model: str | None) -> Start:
        """Decide about a sub-agent.

        Args:
            call: Id of the tool call.
            given: The tool's input.
            model: Model of the conversation, or `None`.
        """
        prompt = given.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            return Start()
        agent = given.get("subagent_type")
        agent = agent if isinstance(agent, str) and agent else "general-purpose"
        with self._lock:
            with suppress(Exception):  # what is known of the budget still counts
                self.refresh()
            waits = bool(self._open)
            left = self.left_tokens
            if left is not None and left < max(1, self.least_tokens):
                self.refused += 1
                why = f"the first prompt of a sub-agent alone takes {self.least_tokens:,} tokens"
                return Start(refusal=_refusal((why,) if self.least_tokens else (), left, waits=waits))
            try:
                parts, step = self._step(call, agent, prompt, model)
            except (LedgerError, StoreError) as error:
                if self.session.fails_open:
                    raise
                self.refused += 1
                return Start(refusal=_refusal((f"the ledger cannot be used: {error.message}",), left, waits=False))
            if not step.runs:
                self.refused += 1
                return Start(refusal=_refusal(step.reasons, left, waits=waits))
            self.started += 1
            self._open[call] = _Open(self.session, step, agent)
            changes = self._simplified(given, chosen=step.variant != FULL)
        text = "".join(map(_sent, parts, step.contents))
        notes = [_BUDGET.format(step.allocated_tokens)] if self.budget_tokens and step.allocated_tokens else []
        notes += [_BACK] if step.offers_expand else []
        if notes:
            text += ("\n" if prompt.endswith("\n") else "\n\n") + "\n".join(notes)
        if text != prompt:
            changes["prompt"] = text
        return Start(changes=changes, saved_tokens=step.saved_tokens)

    def _step(self, call: str, agent: str, prompt: str, model: str | None) -> tuple[list[Part], Step]:
        """Return the parts of a prompt and its step; where planning fails, all of it goes if the budget holds it.

        Raises:
            LedgerError: The ledger refuses the booking.
            StoreError: The ledger cannot be used.
        """
        try:
            seen: set[str] = set()
            parts = parts_of(prompt)
            items = [_item(part, seen) for part in parts]
            return parts, self.session.before(
                agent,
                items,
                model=model,
                task=own_words(parts),
                run_id=call,
                sub_agent=True,
                expands=agent in UNRESTRICTED,
                policies=() if self.simplified is None else (Simplify(),),
            )
        except (LedgerError, StoreError):
            raise
        except Exception as error:  # noqa: BLE001  (planning must never stand in the way of the work)
            reason = f"it could not be planned: {type(error).__name__}"
            whole = [ContextItem(prompt)]
            step = self.session.unplanned(agent, whole, reason=reason, model=model, run_id=call)
            return [Part(prompt, pasted=False)], step

    def stopped(self, agent_id: str, transcript: str, agent: str | None) -> None:
        """Note that a sub-agent has stopped; what it used is booked when its transcript is written to the end.

        Args:
            agent_id: Its id.
            transcript: Its transcript.
            agent: Its type, for finding the call that started it where no file says that.
        """
        with self._lock:
            self._watched.setdefault(agent_id, _Watched(transcript, agent))

    def returned(self, agent_id: str, transcript: str | None, call: str, last: object) -> None:
        """Book what a sub-agent used that has given back its result.

        Args:
            agent_id: Its id.
            transcript: Its transcript.
            call: Id of the call that started it.
            last: Usage of its last request, which is all that the client tells.
        """
        with self._lock:
            spent = spent_by(transcript, last=last)
            if spent is None:
                return
            size = None if transcript is None else _size(transcript)
            if transcript is not None and size is not None:
                watched = self._watched[agent_id] = _Watched(transcript, None, call=call, failed=True)
                self._book(agent_id, spent, call)
                watched.size, watched.failed = size, False
            else:
                self.estimated += 1
                self._book(agent_id, spent, call)
            self._close_former()

    def refresh(self) -> None:
        """Book what transcripts say that have grown: they are written a little later than agents end.

        What is held for sub-agents that still run is held anew, for many run longer than a lease. What cannot be booked
        stands in the way of no other, and is tried again next time.
        """
        with self._lock:
            for found in self._open.values():
                with suppress(LedgerError, StoreError):  # it holds here all the same
                    found.session.renew(found.step)
            for agent_id, watched in self._watched.items():
                size = _size(watched.transcript)
                if size is None or size == watched.size:
                    continue
                watched.failed = True
                with suppress(Exception):  # whatever is wrong with this one
                    spent = spent_by(watched.transcript)
                    if spent is not None:
                        call = watched.call or tool_use_of(watched.transcript) or self._oldest(watched.agent)
                        self._book(agent_id, spent, call)
                    watched.size, watched.failed = size, False
            self._close_former()

    def failed(self, call: str) -> None:
        """Give back what was held for a sub-agent that did not start."""
        with self._lock:
            found = self._open.pop(call, None)
            if found is not None:
                found.session.after(found.step, None)
            self._close_former()

    def take_over(self, before: SubAgents) -> None:
        """Take over the counts, and the sub-agents that still run, of those before another budget was given."""
        with before._lock, self._lock:
            self.used_tokens, self.started, self.refused = before.used_tokens, before.started, before.refused
            self.estimated, self.least_tokens = before.estimated, before.least_tokens
            self._open.update(before._open)
            self._watched.update(before._watched)
            self._counted.update(before._counted)
            self._former = [*before._former, before.session]
            self._close_former()

    def close(self) -> None:
        """Give back what is held for sub-agents that nobody has heard of."""
        with self._lock:
            self.refresh()
            for call in list(self._open):
                with suppress(LedgerError, StoreError):  # the lease runs out then
                    self.failed(call)

    def _book(self, agent_id: str, spent: Spent, call: str | None) -> None:
        usage, first = spent
        self.least_tokens = min(first, self.least_tokens or first)
        total = (usage.prompt_tokens or 0) + (usage.output or 0)
        more = total - self._counted.get(agent_id, 0)
        found = self._open.get(call) if call is not None and agent_id not in self._counted else None
        if found is not None and call is not None:
            if found.session is self.session:
                found.session.after(found.step, usage)
            else:  # it was started under another budget, but counts against this one
                found.session.after(found.step, None)
                self.session.spend(usage, agent=found.agent, model=found.step.model, key=f"{agent_id}:{total}")
            del self._open[call]  # not before it is booked: otherwise it is said again
            found.session.finished(found.step.run_id)
        elif more > 0:
            self.session.spend(Usage(input_uncached=more), agent=SUB_AGENT, key=f"{agent_id}:{total}")
        if more > 0:
            self._counted[agent_id] = total
            self.used_tokens += more

    def _close_former(self) -> None:
        """Close the sessions of earlier budgets whose sub-agents have all ended."""
        for session in [one for one in self._former if all(one is not found.session for found in self._open.values())]:
            session.close()
            self._former.remove(session)

    def _oldest(self, agent: str | None) -> str | None:
        return next((call for call, found in self._open.items() if agent in {None, found.agent}), None)

    def _simplified(self, given: dict[str, Any], *, chosen: bool) -> dict[str, Any]:
        """Return what changes where the plan chose the simplified variant, or little of the budget is left."""
        simple, left = self.simplified, self.left_tokens
        if simple is None:
            return {}
        if not chosen and (left is None or not self.budget_tokens or left >= simple.below * self.budget_tokens):
            return {}
        wanted = {"effort": simple.effort, "model": simple.model}
        return {name: value for name, value in wanted.items() if value is not None and name not in given}


_BUDGET: Final = (
    "[apportion: this task has a budget of {:,} tokens, the prompts of all your calls included. Plan for it, and hand "
    "back what you have found before it is used up.]"
)

_BACK: Final = (
    "[apportion: to see what a marker leaves out, call expand_content, or run: apportion expand HANDLE LINES]"
)


def _item(part: Part, seen: set[str]) -> ContextItem:
    """Return a part as a piece of context; what was pasted a second time is sent as it is, for there are no numbers."""
    short = part.pasted and part.text not in seen and count_tokens(part.text) >= MIN_REPLACED_TOKENS
    seen.add(part.text)
    return ContextItem(part.text, Kind.TOOL_RESULT, name="pasted") if short else ContextItem(part.text)


def _sent(part: Part, content: str) -> str:
    """Return what is sent of a part; the fence after it stays on a line of its own."""
    return content + "\n" if part.text.endswith("\n") and not content.endswith("\n") else content


def _refusal(reasons: tuple[str, ...], left: int | None, *, waits: bool) -> str:
    why = "; ".join(reasons)[:300] or "the budget does not hold it"
    rest = "" if left is None else f" {left:,} tokens of the budget for sub-agents are left."
    if waits:
        return (
            f"apportion defers this sub-agent: {why}.{rest} Start it again when another sub-agent has ended, "
            "or do the work here."
        )
    return f"apportion does not start this sub-agent: {why}.{rest} Go on without it, with what you have."


def _size(path: str) -> int | None:
    try:
        return Path(path).lstat().st_size
    except (OSError, ValueError):
        return None
