"""The planner in the live path: asked before each invocation, told after it what was used.

    planner = Planner.from_history()
    with planner.session("release notes", budget=Budget(max_tokens=200_000)) as session:
        step = session.before("writer", [ContextItem("Write the release notes.")], model="claude-sonnet-4-5")
        if step.runs:
            answer = call(step.contents, max_tokens=step.max_output_tokens)
            session.after(step, usage, output=answer)

What the plan cannot decide never stands in the way: an error inside the planner sends every piece whole, and the step
says so. A budget that is used up does stand in the way: the step is deferred or aborted, with a reason, and nothing is
sent.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from apportion.compression.expand_tool import EXPAND_TOOL, expand
from apportion.compression.store import HandleStore
from apportion.errors import InputError
from apportion.models.features import Caller
from apportion.planner.budgets.solver import solve_budget
from apportion.planner.forecasts import forecasts
from apportion.planner.forms import Forms
from apportion.planner.ledger import Refusal, Reservation
from apportion.planner.live import ContextItem, LiveRun, SentItem
from apportion.planner.planner import Invocation, InvocationPlan, PlanOptions, Used, WorkflowPlanner
from apportion.planner.replay.billing import CacheClock, split_prompt
from apportion.planner.solver import load_solvers
from apportion.records import Action, Budget
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from apportion.planner.ledger import Ledger
    from apportion.records import Usage

MIN_OUTPUT_TOKENS = 256
"""Less is not worth a call: the budget counts as used up."""

DEFAULT_OUTPUT_TOKENS = 4_096
"""Output that is held in the ledger where no budget says how much there may be."""


NUSD = 10**9
"""Nano-dollars in a US dollar: what the ledger counts in."""

PLANNER_FAILED = "the planner failed, so every piece is sent whole"
"""Why a step is not as it should be, although it runs."""


class Decision(StrEnum):
    """What becomes of an invocation."""

    RUN = "run"
    """Send what the step holds."""
    DEFER = "defer"
    """Not now: the budget does not hold it. It is offered again when tokens come free."""
    ABORT = "abort"
    """Not at all: the budget is used up, and the invocation was mandatory."""


@dataclass(frozen=True, slots=True)
class Step:
    """The answer to one question: what to send, and how much the agent may use.

    Attributes:
        agent: Type name of the agent.
        run_id: Its context window.
        number: Number of the step within the session.
        decision: Whether to send it.
        items: What to send, piece by piece; empty unless it runs.
        max_output_tokens: Most tokens that the output may have, or `None` where nothing limits it.
        allocated_tokens: What the run may use in this stage, prompts and outputs, or `None`.
        reasons: Why it is not run, or not as it should be; empty if it is.
        saved_tokens: Prompt tokens that are not sent.
        reservation: What the ledger holds for it, or `None` without one.
    """

    agent: str
    run_id: str
    number: int
    decision: Decision
    items: tuple[SentItem, ...] = ()
    max_output_tokens: int | None = None
    allocated_tokens: int | None = None
    reasons: tuple[str, ...] = ()
    saved_tokens: int = 0
    reservation: Reservation | None = None

    @property
    def runs(self) -> bool:
        """Whether to make the call."""
        return self.decision is Decision.RUN

    @property
    def contents(self) -> tuple[str, ...]:
        """The texts to send, in the order of the pieces."""
        return tuple(item.content for item in self.items)

    @property
    def offers_expand(self) -> bool:
        """Whether anything is behind a handle, so that the agent needs the way back."""
        return any(item.handle is not None for item in self.items)


@dataclass(frozen=True, slots=True)
class HandBack:
    """What is done and what is left when a session ends.

    Attributes:
        used_tokens: Tokens of all prompts and outputs.
        used_usd: What they cost, or `None` where a price is unknown.
        saved_tokens: Prompt tokens that were not sent.
        steps: Calls that were made.
        deferred: Agent runs that wait for budget, in their order.
        aborted: Agent runs that could not run.
    """

    used_tokens: int
    used_usd: float | None
    saved_tokens: int
    steps: int
    deferred: tuple[str, ...]
    aborted: tuple[str, ...]


class Planner:
    """Makes sessions that share trained models and the store of originals.

    Args:
        options: What the user wants of the plans.
        store: Keeps originals; in memory where none is given.
        ledger: Holds budgets across sessions and processes; none: each session knows only its own.
        clock: Tells the time.
        framework: Tool that runs the workflows, as its logs call it: learned forecasts are grouped by it.
        source: Project, in the same way.
    """

    def __init__(
        self,
        options: PlanOptions | None = None,
        *,
        store: HandleStore | None = None,
        ledger: Ledger | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        framework: str = "",
        source: str = "",
    ) -> None:
        self.options = options or PlanOptions()
        self.store = HandleStore() if store is None else store
        self.ledger = ledger
        self.clock = clock
        self._framework = framework
        self._source = source

    def caller(self, agent: str, run: LiveRun) -> Caller:
        """Return who is about to call, as learned forecasts want it."""
        return Caller(self._framework, self._source, agent, run.role, run.model)

    @classmethod
    def from_history(
        cls,
        models: Path | None = None,
        *,
        options: PlanOptions | None = None,
        framework: str = "",
        source: str = "",
    ) -> Planner:
        """Return a planner that forecasts demand with trained models.

        Args:
            models: Their folder, as `apportion train` writes it; `None`: documented priors.
            options: What else the user wants.
            framework: See `Planner`.
            source: See `Planner`.
        """
        return cls(replace(options or PlanOptions(), models=models), framework=framework, source=source)

    def warm(self) -> None:
        """Load what the first plan needs (solver, tables, models), so that it is as quick as the later ones."""
        load_solvers()
        forecasts(self.options.models, self.options.widening)
        count_tokens("warm")

    def session(self, workflow: str, *, budget: Budget | None = None, parent: str | None = None) -> Session:
        """Return the session of one workflow.

        Args:
            workflow: Its name; its account in the ledger has it too.
            budget: Its limits; `None`: those of the options.
            parent: Account in the ledger on whose remainder it draws, or `None`.

        Raises:
            LedgerError: The account exists with other limits.
        """
        options = self.options if budget is None else replace(self.options, budget=budget)
        return Session(self, workflow, options, parent=parent)


@dataclass(slots=True)
class _Sums:
    """What a session has used so far."""

    tokens: int = 0
    usd: float = 0.0
    priced: bool = True
    saved: int = 0
    steps: int = 0
    deferred: dict[str, None] = field(default_factory=dict)
    aborted: dict[str, None] = field(default_factory=dict)


class Session:
    """Plans one workflow while it runs; safe to share between threads.

    Made by `Planner.session`; used with `with` or `async with`.
    """

    def __init__(self, planner: Planner, workflow: str, options: PlanOptions, *, parent: str | None = None) -> None:
        self.workflow = workflow
        self.options = options
        self._home = planner
        self._planner = WorkflowPlanner(options, solve=solve_budget)
        self._clock = CacheClock()
        self._forms = Forms.at(options.select, planner.store)
        self._runs: dict[str, LiveRun] = {}
        self._asked: dict[int, Invocation] = {}
        self._sums = _Sums()
        self._number = 0
        self._stage = 0
        self._closed = False
        self._lock = threading.RLock()
        if planner.ledger is not None:
            limits = options.budget
            nusd = None if limits.max_usd is None else round(limits.max_usd * NUSD)
            planner.ledger.open_account(workflow, parent=parent, tokens=limits.max_tokens, cost_nusd=nusd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def next_stage(self) -> None:
        """Begin another stage, such as the next turn of the user: budgets are shared out anew."""
        with self._lock:
            self._stage += 1

    def before(
        self,
        agent: str,
        items: Sequence[ContextItem],
        *,
        model: str | None = None,
        task: str = "",
        run_id: str | None = None,
        sub_agent: bool = False,
        expands: bool = False,
        mandatory: bool = True,
    ) -> Step:
        """Plan one invocation.

        Args:
            agent: Type name of the agent.
            items: All pieces of the prompt that would be sent, in order; the whole history of the run.
            model: The model that is called; unknown prices are taken as relative ones.
            task: The agent's task in its own words, for choosing what stays.
            run_id: Its context window; the agent's name where it has only one.
            sub_agent: Whether another agent has started it.
            expands: Whether the agent is offered `expand_tool`, so that parts may be left out.
            mandatory: Whether the workflow makes no sense without it: then it is aborted, else deferred, when the
                budget is used up.

        Raises:
            InputError: There is nothing to send, or the session is closed.
        """
        if not items:
            raise InputError("an invocation without any piece of context", hint="Give at least the task as an item.")
        run_id = run_id or agent
        with self._lock:
            if self._closed:
                raise InputError(f"the session '{self.workflow}' is closed", hint="Make another one.")
            self._number += 1
            if not self.options.enabled:
                return Step(agent, run_id, self._number, Decision.RUN, _whole(items))
            return self._before(
                agent,
                items,
                model=model,
                task=task,
                run_id=run_id,
                sub_agent=sub_agent,
                expands=expands,
                mandatory=mandatory,
            )

    async def abefore(self, agent: str, items: Sequence[ContextItem], **options: object) -> Step:
        """Plan one invocation without holding up the event loop; see `before`."""
        return await asyncio.to_thread(self.before, agent, items, **options)  # type: ignore[arg-type]

    def after(self, step: Step, usage: Usage | None, *, output: str = "") -> None:
        """Take note of what a step used.

        Args:
            step: What `before` returned.
            usage: What the response says, or `None` where the call failed: then nothing was used.
            output: What the agent wrote: what it quotes is likely to be used again.
        """
        with self._lock:
            ledger, reservation = self._home.ledger, step.reservation
            if usage is None:
                if ledger is not None and reservation is not None:
                    ledger.release(reservation)
                self._asked.pop(step.number, None)
                return
            prompt, written = usage.prompt_tokens or 0, usage.output or 0
            ask = self._asked.pop(step.number, None)
            used_usd = self._note(step, ask, usage, output)
            if ledger is not None and reservation is not None:
                nusd = None if used_usd is None else round(used_usd * NUSD)
                ledger.settle(reservation, tokens=prompt + written, cost_nusd=nusd)

    async def aafter(self, step: Step, usage: Usage | None, *, output: str = "") -> None:
        """Take note of what a step used without holding up the event loop; see `after`."""
        await asyncio.to_thread(self.after, step, usage, output=output)

    def ingest(self, item: ContextItem, *, task: str = "") -> None:
        """Work out the shorter forms of a result as soon as it is there, for example while other tools still run.

        `before` does it otherwise. Safe to call from any thread, and without effect on any plan.
        """
        self._forms.of(item.content.encode("utf-8", "surrogatepass"), task=task, name=item.name)

    def finished(self, run_id: str) -> None:
        """Take note that an agent run has ended: what it did not use is free for the others."""
        with self._lock:
            self._planner.finished(run_id)

    def expand(self, handle: str, text_range: str | None = None) -> str:
        """Return what a handle stands for, for the agent's call of `expand_tool`.

        Args:
            handle: As its marker spells it.
            text_range: What part, as markers name it: `40-97` are lines, `b0-4000` bytes; `None` is all.

        Raises:
            StoreError: The handle was never given out.
            InputError: The range is none, or the original has nothing there.
        """
        part = expand(self._home.store, handle, text_range)
        return part.decode("utf-8", "replace" if text_range else "surrogatepass")

    @property
    def expand_tool(self) -> dict[str, object]:
        """The schema of the tool by which an agent has back what was left out."""
        return dict(EXPAND_TOOL)

    @property
    def hand_back(self) -> HandBack:
        """What is done so far, and what is left."""
        with self._lock:
            sums = self._sums
            return HandBack(
                used_tokens=sums.tokens,
                used_usd=sums.usd if sums.priced else None,
                saved_tokens=sums.saved,
                steps=sums.steps,
                deferred=tuple(sums.deferred),
                aborted=tuple(sums.aborted),
            )

    def close(self) -> None:
        """End the session; what the ledger still holds for open steps runs out by lease."""
        with self._lock:
            self._closed = True

    # What a step is made of.

    def _before(
        self,
        agent: str,
        items: Sequence[ContextItem],
        *,
        model: str | None,
        task: str,
        run_id: str,
        sub_agent: bool,
        expands: bool,
        mandatory: bool,
    ) -> Step:
        number, now = self._number, self._home.clock()
        try:
            run = self._run(run_id, "sub" if sub_agent else "main")
            cached = run.enter(items, model=model, task=task, now=now, expands=expands)
            ask = self._invocation(run, agent, cached)
            plan = self._planner.before(ask)
            if plan.status != "INFEASIBLE":
                run.carry_out(plan)
        except Exception as error:  # noqa: BLE001  (planning must never stand in the way of the work)
            self._runs.pop(run_id, None)
            reason = f"{PLANNER_FAILED}: {type(error).__name__}: {error}"
            return Step(agent, run_id, number, Decision.RUN, _whole(items), reasons=(reason,))
        if plan.status == "INFEASIBLE":
            return self._refused(agent, run_id, number, plan.degraded, mandatory=mandatory)
        step = self._granted(run, agent, plan)
        if isinstance(step, Refusal):
            return self._refused(agent, run_id, number, (str(step),), mandatory=mandatory)
        self._asked[number] = ask
        for waiting in (self._sums.deferred, self._sums.aborted):
            waiting.pop(run_id, None)
        return step

    def _run(self, run_id: str, role: str) -> LiveRun:
        if run_id not in self._runs:
            store = self._home.store
            self._runs[run_id] = LiveRun(run_id, role, store=store, forms=self._forms, clock=self._clock)
        return self._runs[run_id]

    def _invocation(self, run: LiveRun, agent: str, cached: int) -> Invocation:
        prices = run.tariff.at(run.overhead_tokens + run.tokens).prices
        return Invocation(
            run_id=run.run_id,
            role=run.role,
            stage=self._stage,
            call=run.calls,
            prompt=run.prompt,
            overhead_tokens=run.overhead_tokens,
            cached_items=cached,
            prices=prices,
            priced=run.tariff.priced,
            context_window=run.tariff.context_window,
            caller=self._home.caller(agent, run) if self._planner.forecasts.learned else None,
        )

    def _granted(self, run: LiveRun, agent: str, plan: InvocationPlan) -> Step | Refusal:
        """Return the step of an invocation that fits, or what the ledger lacks for it."""
        prompt_tokens = round(run.overhead_tokens + run.tokens)
        most = None
        if plan.allocated_tokens is not None and self.options.budget.max_tokens is not None:
            used = self._planner.stages[run.run_id, self._stage].used_tokens
            most = max(MIN_OUTPUT_TOKENS, plan.allocated_tokens - round(used) - prompt_tokens)
        reservation = None
        if self._home.ledger is not None:
            output = DEFAULT_OUTPUT_TOKENS if most is None else most
            rates = run.tariff.at(prompt_tokens)
            usd = prompt_tokens * max(rates.input, rates.prices.write) + output * rates.prices.output
            held = self._home.ledger.reserve(
                self.workflow,
                tokens=prompt_tokens + output,
                cost_nusd=round(usd * NUSD) if run.tariff.priced else None,
            )
            if isinstance(held, Refusal):
                return held
            reservation = held
        return Step(
            agent,
            run.run_id,
            self._number,
            Decision.RUN,
            run.sent,
            max_output_tokens=most,
            allocated_tokens=plan.allocated_tokens,
            reasons=plan.degraded,
            saved_tokens=round(run.full_tokens - run.tokens),
            reservation=reservation,
        )

    def _refused(self, agent: str, run_id: str, number: int, reasons: tuple[str, ...], *, mandatory: bool) -> Step:
        decision = Decision.ABORT if mandatory else Decision.DEFER
        waiting = self._sums.aborted if mandatory else self._sums.deferred
        waiting[run_id] = None
        return Step(agent, run_id, number, decision, reasons=reasons)

    def _note(self, step: Step, ask: Invocation | None, usage: Usage, output: str) -> float | None:
        """Add up what a step used; return its price in US dollars where that is known."""
        sums = self._sums
        tokens = (usage.prompt_tokens or 0) + (usage.output or 0)
        sums.tokens += tokens
        sums.saved += step.saved_tokens
        sums.steps += 1
        run = self._runs.get(step.run_id)
        if run is None or ask is None:
            sums.priced = False
            return None
        output_tokens = float(usage.output if usage.output is not None else count_tokens(output))
        prompt_tokens = float(usage.prompt_tokens or run.overhead_tokens + run.tokens)
        split = split_prompt(prompt_tokens, float(usage.cache_read or 0), run.tariff.min_cached_tokens)
        cost = run.tariff.cost(split, output_tokens)
        saved = run.saved_cost(ask)
        visible = int(run.prompt.column("visible").sum())
        run.settle(usage.prompt_tokens, output, self._home.clock())
        self._planner.after(
            Used(
                run_id=step.run_id,
                stage=ask.stage,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                cost=cost,
                cost_unplanned=cost + saved,
                visible_tokens=visible,
                visible_unplanned=visible + step.saved_tokens,
            )
        )
        if not run.tariff.priced:
            sums.priced = False
            return None
        sums.usd += cost
        return cost


def _whole(items: Sequence[ContextItem]) -> tuple[SentItem, ...]:
    return tuple(SentItem(item.content, Action.KEEP) for item in items)
