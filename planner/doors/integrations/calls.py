"""What the adapters have in common: the pieces of a request, the run it belongs to, and what becomes of the call.

    call, sent = calls.begin("writer", messages, rewrite)
    if call.refused is None:
        calls.end(call, usage, output="...")

`rewrite(messages, pieces)` gives every text to `pieces` and puts what it gets back in the same place; it is called once
to read and once to write. Whatever fails here, the original goes through, and the call says so.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from apportion.errors import ApportionError, BudgetExhaustedError, LedgerError, StoreError
from apportion.planner.doors.integrations.pieces import EXPAND, Pieces
from apportion.planner.doors.integrations.variants import AS_ASKED, Variants, lowered, tool_name
from apportion.planner.session import Decision, Session, Step
from apportion.records import Kind, Usage
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from apportion.planner.live import ContextItem

T = TypeVar("T")
LOG = logging.getLogger("apportion.integrations")

UNPLANNED = "the request could not be planned and is passed on as it is"
"""Why a call was not planned although nothing forbade it."""

NOT_CALLABLE = "the call is made with the model that was asked for, because nothing is given to call instead"
"""Why a call was not made with the model of its variant; it is booked at the price of the model that was called."""

ESTIMATED = "the usage was not reported and is estimated from the texts"
"""What is said of a call after which nobody told what it used."""

MAX_RUNS = 256
"""Runs of one agent that are remembered; the oldest is forgotten."""

_NAMES: WeakKeyDictionary[Session, Counter[str]] = WeakKeyDictionary()
"""How many runs of each agent a session has seen: adapters of one session never use a name twice."""


class CallRefusedError(ApportionError):
    """The session defers or aborts a call of a model; the step says why.

    Args:
        step: The answer of the session.
    """

    def __init__(self, step: Step) -> None:
        super().__init__(refusal(step), hint="Give the session a larger budget, or hand back what is done.")
        self.step = step


def refusal(step: Step) -> str:
    """Say in one sentence, without a full stop, what the session decided and why."""
    done = {Decision.DEFER: "deferred", Decision.ABORT: "aborted"}.get(step.decision, "refused")
    return f"The call of '{step.agent}' is {done}: {'; '.join(step.reasons) or 'no reason is given'}"


def usage_of(
    tokens: int | None,
    output: int | None,
    *,
    cache_read: int | None = 0,
    cache_write: int | None = 0,
    reasoning: int | None = None,
) -> Usage | None:
    """Return the usage of a response whose prompt tokens include what was cached; `None` where it says nothing."""
    if not tokens and not output:
        return None
    read, write = cache_read or 0, cache_write or 0
    uncached = max(0, (tokens or 0) - read - write)
    return Usage(input_uncached=uncached, cache_read=read, cache_write_5m=write, output=output, reasoning=reasoning)


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call of a model, as the adapter saw it.

    Attributes:
        agent: Who called.
        run_id: Its context window.
        step: The answer of the session; `None` where there is none, and the original was passed on.
        texts: The texts that were sent.
        unread: Content parts that are no text, by type: passed on as they are, and in no count before the call.
        offers_expand: Whether the request has to offer the tool `expand`.
        flags: What is not as it should be; empty if nothing.
        usage: What the call used; `None` while it is not known.
        model: The model that was asked for.
        other: What to call in place of it, as `Variants` has it; `None`: the model that was asked for.
        keeps: Names of the tools that the variant keeps; `None`: all.
    """

    agent: str
    run_id: str = ""
    step: Step | None = None
    texts: tuple[str, ...] = ()
    unread: Mapping[str, int] = field(default_factory=dict)
    offers_expand: bool = False
    flags: tuple[str, ...] = ()
    usage: Usage | None = None
    model: str | None = None
    other: Any = None
    keeps: frozenset[str] | None = None

    @property
    def refused(self) -> Step | None:
        """The step, if it must not be carried out."""
        return None if self.step is None or self.step.runs else self.step

    @property
    def max_output_tokens(self) -> int | None:
        """Most tokens that the output may have, or `None` for no limit."""
        return None if self.step is None else self.step.max_output_tokens

    @property
    def at_other_price(self) -> bool:
        """Whether the session counts on another model than the one that is called."""
        return self.step is not None and self.step.runs and self.step.model != self.model and self.other is None

    def effort(self, asked: Any) -> Any:
        """Return the level of effort for one that was asked for; what nobody asked for is never added."""
        return asked if self.step is None else lowered(asked, self.step.effort_share)

    def tools(self, offered: Iterable[T], *, ours: bool = False) -> list[T]:
        """Return those of the tools that the variant keeps.

        Args:
            offered: What the request offers.
            ours: Whether `expand` is among them because of the adapter: then it goes while nothing is left out.
        """
        keeps = None if self.keeps is None else self.keeps | {EXPAND}
        hidden = {EXPAND} if ours and not self.offers_expand else set()
        named = ((tool_name(tool), tool) for tool in offered)
        return [tool for name, tool in named if name not in hidden and (keeps is None or name in keeps)]

    def settings(
        self, given: Mapping[str, Any], *, most: str | None, efforts: Collection[str], of: Any = None
    ) -> dict[str, Any]:
        """Return the settings of a request with no longer output and no more effort than the step allows.

        Args:
            given: Those that were asked for.
            most: Name of the one that limits the output; `None`: nothing limits it.
            efforts: Names of those that say how much effort is made.
            of: The model that is called, whose attributes are the settings that are not given.
        """
        asked = {name: given.get(name) or getattr(of, name, None) for name in efforts}
        less = {name: self.effort(level) for name, level in asked.items() if self.effort(level) != level}
        if most is not None and self.max_output_tokens is not None:
            less[most] = min(self.max_output_tokens, given.get(most) or self.max_output_tokens)
        return {**given, **less}


@dataclass(slots=True)
class _Run:
    """A context window: its last prompt, by which its next call is recognised, and the call that is under way."""

    run_id: str
    prompt: list[int]
    call: PlannedCall | None = None
    offers: bool = False


class Calls:
    """Plans the calls of one framework with one session; safe to share between threads and tasks.

    Args:
        session: Whose budget all agents share.
        sub_agents: Names of the agents that others start.
        optional: Names of the agents without which the workflow still makes sense: they are deferred, not aborted.
        reports_late: Whether a call may be reported after the next one has begun; else a call is taken as not reported
            at all once its answer stands in the next prompt, and its usage is estimated.
        variants: What simplified variants stand for.
        keep: Calls that `done` remembers.

    Attributes:
        done: The last calls, whether they went well or not.
    """

    def __init__(
        self,
        session: Session,
        *,
        sub_agents: Collection[str] = (),
        optional: Collection[str] = (),
        reports_late: bool = False,
        variants: Variants = AS_ASKED,
        keep: int = 1_000,
    ) -> None:
        self.session = session
        self.variants = variants
        self._reports_late = reports_late
        self.done: deque[PlannedCall] = deque(maxlen=keep)
        self._sub_agents, self._optional = frozenset(sub_agents), frozenset(optional)
        self._runs: dict[str, list[_Run]] = {}
        self._open: dict[int, tuple[PlannedCall, _Run]] = {}
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether anything is planned at all."""
        return self.session.options.enabled

    def begin(
        self,
        agent: str,
        request: T,
        rewrite: Callable[[T, Pieces], T],
        *,
        model: str | None = None,
        expands: bool = False,
        swaps: bool = True,
    ) -> tuple[PlannedCall, T]:
        """Plan a call; return it with what is to be sent, the request itself where nothing changes.

        What goes wrong lets the original through, within the budget all the same; what the user wants to stop the work
        does stop it.

        Args:
            agent: Its name.
            request: What the framework would send.
            rewrite: Gives the texts of a request to `Pieces`, and returns it with what comes back.
            model: The model that is called.
            expands: Whether the agent can be offered `expand`.
            swaps: Whether another model can be called in place of it.

        Raises:
            BudgetExhaustedError: It does not fit, and a policy says to abort.
            LedgerError: The ledger refuses the booking.
            StoreError: The ledger cannot be used, and is set to let nothing through then.
        """
        read, run, step = Pieces(), None, None
        try:
            rewrite(request, read)
            run = self._run(agent, read.items)
            step = self.session.before(
                agent,
                read.items,
                model=model,
                task=next((item.content for item in reversed(read.items) if item.kind is Kind.USER), ""),
                run_id=run.run_id,
                sub_agent=agent in self._sub_agents,
                expands=expands,
                mandatory=agent not in self._optional,
            )
            changed = step.runs and any(new != old.content for new, old in zip(step.contents, read.items, strict=True))
            sent = rewrite(request, Pieces(iter(step.contents))) if changed else request
        except (BudgetExhaustedError, LedgerError, StoreError):
            raise
        except Exception as error:  # noqa: BLE001  (planning must never stand in the way of the work)
            return self._unplanned(agent, read, model, error, run, step), request
        run.offers = expands and (run.offers or step.offers_expand)
        flags = step.reasons + tuple(f"{n} x {what} passed on, not counted" for what, n in read.unread.items())
        other = self.variants.models.get(step.model or "") if swaps and step.model != model else None
        keeps = self.variants.tools.get(step.variant)
        call = PlannedCall(
            agent, run.run_id, step, step.contents, dict(read.unread), run.offers, flags,
            model=model, other=other, keeps=None if keeps is None else frozenset(keeps),
        )  # fmt: skip
        if call.at_other_price:
            call = replace(call, flags=(*flags, f"{NOT_CALLABLE} for '{step.model}'"))
        self._note(call, step, run)
        return call, sent

    def _unplanned(
        self, agent: str, read: Pieces, model: str | None, error: Exception, run: _Run | None, begun: Step | None
    ) -> PlannedCall:
        """Return a call that is passed on as it is, if the budget holds what could be read of it.

        Raises:
            LedgerError: The ledger refuses the booking.
            StoreError: The budget cannot be checked, and the ledger is not set to let calls through then.
        """
        flag = f"{UNPLANNED}: {type(error).__name__}: {error}"
        LOG.warning("%s: %s", agent, flag)
        run = _Run(f"{agent}#unplanned", []) if run is None else run
        try:
            if begun is not None and begun.runs:  # what is held for it may be less than the original takes
                self.session.after(begun, None)
            step = self.session.unplanned(agent, read.items, reason=flag, model=model, run_id=run.run_id)
        except (LedgerError, StoreError):
            raise
        except Exception as failed:
            if self.session.fails_open:
                return PlannedCall(agent, flags=(flag,), model=model)
            hint = "This is a defect of apportion: go on without its session, or with Planner(ledger=None)."
            raise StoreError(f"the budget cannot be checked: {type(failed).__name__}", hint=hint) from failed
        texts = tuple(item.content for item in read.items)
        flags = step.reasons or (flag,)
        call = PlannedCall(agent, run.run_id, step, texts, dict(read.unread), flags=flags, model=model)
        self._note(call, step, run)
        return call

    def _note(self, call: PlannedCall, step: Step, run: _Run) -> None:
        with self._lock:
            if step.runs:
                run.call, self._open[step.number] = call, (call, run)
            else:
                self.done.append(call)

    def end(self, call: PlannedCall, usage: Usage | None, output: str = "", *, final: bool = False) -> None:
        """Book what a call used, once; never raises.

        Args:
            call: What `begin` returned.
            usage: What the response says; where it says nothing, the usage is estimated from the texts.
            output: What the model wrote.
            final: Whether it is an answer: a sub-agent has ended then.
        """
        flags = call.flags
        if usage is None:
            tokens = sum(count_tokens(text) for text in call.texts)
            estimated = frozenset({"input_uncached", "output"})
            usage = Usage(input_uncached=tokens, output=count_tokens(output), estimated=estimated)
            flags += (ESTIMATED,)
        self._book(replace(call, usage=usage, flags=flags), output, final=final)

    def fail(self, call: PlannedCall) -> None:
        """Take note that a call failed: what is held for it is free again."""
        self._book(call, "", final=False)

    def release(self) -> None:
        """Take note that all calls that are still under way have failed."""
        with self._lock:
            calls = [call for call, _ in self._open.values()]
        for call in calls:
            self.fail(call)

    def expand_call(self, handle: str = "", range: str | None = None, **_: Any) -> str:  # noqa: A002  (as in the schema)
        """Carry out a call of `expand`: return what a handle stands for, or in words what is wrong with it."""
        try:
            return self.session.expand(str(handle), None if range is None else str(range))
        except ApportionError as error:
            return str(error)

    def _book(self, call: PlannedCall, output: str, *, final: bool) -> None:
        step = call.step
        with self._lock:
            begun = None if step is None else self._open.pop(step.number, None)
            if begun is None and step is not None:
                return
            if begun is not None and begun[1].call is begun[0]:
                begun[1].call = None
            self.done.append(replace(call, texts=()))
        try:
            planned = step is not None and not call.at_other_price
            if step is not None:
                self.session.after(step, call.usage if planned else None, output=output)
            if not planned and call.usage is not None:
                self.session.spend(call.usage, agent=call.agent, model=call.model)
            if final and call.agent in self._sub_agents:
                self.session.finished(call.run_id)
        except Exception:
            LOG.warning("%s: the usage could not be booked", call.agent, exc_info=True)

    def _run(self, agent: str, items: list[ContextItem]) -> _Run:
        """Return the run whose last prompt this one continues, else a new one.

        A run whose call is under way goes on only if its answer is already part of the prompt: nobody reported it.
        """
        prompt = [hash((item.kind, item.name, item.content)) for item in items]
        with self._lock:
            runs = self._runs.setdefault(agent, [])
            known = [run for run in runs if run.prompt == prompt[: len(run.prompt)]]
            known = [run for run in known if run.call is None or len(run.prompt) < len(prompt)]
            run = max(known, key=lambda run: (run.call is None, len(run.prompt)), default=None)
            if run is None:
                names = _NAMES.setdefault(self.session, Counter())
                names[agent] += 1
                run = _Run(agent if names[agent] == 1 else f"{agent}#{names[agent]}", prompt)
                runs.append(run)
                del runs[:-MAX_RUNS]
            unreported, run.prompt = run.call, prompt
        if unreported is not None and not self._reports_late:
            self.end(unreported, None)
        return run
