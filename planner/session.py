"""The planner in the live path: asked before each invocation, told after it what was used.

    planner = Planner.from_history()
    with planner.session("release notes", budget=Budget(max_tokens=200_000)) as session:
        step = session.before("writer", [ContextItem("Write the release notes.")], model="claude-sonnet-4-5")
        if step.runs:
            answer = call(step.contents, max_tokens=step.max_output_tokens)
            session.after(step, usage, output=answer)
        for step in session.ready():    # what was deferred, and fits now; see `step.runs`
            ...

What the plan cannot decide never stands in the way: an error inside the planner sends every piece whole, and the step
says so. A budget that is used up does stand in the way: the step is simplified, deferred or aborted, with a reason.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from apportion.compression.expand_tool import EXPAND_TOOL, expand
from apportion.compression.handoff import NOTHING
from apportion.compression.loading import Preloader, Registry
from apportion.compression.store import HandleStore
from apportion.errors import ApportionError, InputError
from apportion.models.features import Caller
from apportion.planner.ahead import Ahead
from apportion.planner.booking import Open, use_of
from apportion.planner.checkpoint import read_checkpoint
from apportion.planner.exhaustion import must_be_next
from apportion.planner.forecasts import forecasts
from apportion.planner.governor import Lack
from apportion.planner.held import telling
from apportion.planner.live import ContextItem, replaceable
from apportion.planner.offers import offered_by
from apportion.planner.planner import PlanOptions, Used
from apportion.planner.replay.billing import tariff
from apportion.planner.session_core import BEFORE, PLANNER_FAILED, SessionCore, whole
from apportion.planner.solver import load_solvers
from apportion.planner.steps import Decision, HandBack, Request, Step
from apportion.planner.watchdog import WatchdogLimits
from apportion.prices import lookup
from apportion.records import Action, Budget, Kind, Usage
from apportion.tokens import TokenCounter, count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from apportion.compression.handoff import Capabilities, Party
    from apportion.planner.checkpoint import Checkpoint
    from apportion.planner.events import Telemetry
    from apportion.planner.handing import HandedOver
    from apportion.planner.ledger import Balance, Ledger
    from apportion.planner.live import LiveRun
    from apportion.planner.offers import Offered
    from apportion.planner.policies import Policy

__all__ = ["PLANNER_FAILED", "ContextItem", "Decision", "HandBack", "Planner", "Session", "Step"]

POLL_S = 0.25
"""How often a waiting session looks whether others have freed budget in the ledger, in seconds."""

OnClose = Literal["expire", "used", "released"]
"""What becomes of calls that have not come back: their leases run out, or all that they hold counts as used, or not."""


class Planner:
    """Makes sessions that share trained models and the store of originals.

    Args:
        options: What the user wants of the plans.
        store: Keeps originals; in memory where none is given.
        ledger: Holds budgets across sessions and processes; none: each session knows only its own.
        clock: Tells the time of day, by which prompt caches run out.
        timer: Tells seconds that never go back, for leases and rates; clocks that are set do not matter to it.
        framework: Tool that runs the workflows, as its logs call it: learned forecasts are grouped by it.
        source: Project, in the same way.
        telemetry: Takes events; see `events`.
        watchdog: When a run counts as going round in circles.
        ahead: Whether plans are made in the background between calls. Without it they are made when they are asked
            for: slower, and the same on every run.
        registry: Agents, skills and tools that are on offer to agents by default; see `Session.before`.
        brief_tools: Whether tools may be loaded with brief descriptions. How well models work with these is not known.
    """

    def __init__(
        self,
        options: PlanOptions | None = None,
        *,
        store: HandleStore | None = None,
        ledger: Ledger | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        timer: Callable[[], float] = time.monotonic,
        framework: str = "",
        source: str = "",
        telemetry: Telemetry | None = None,
        watchdog: WatchdogLimits | None = None,
        ahead: bool = True,
        registry: Registry | None = None,
        brief_tools: bool = False,
    ) -> None:
        self.options = options or PlanOptions()
        self.store = HandleStore() if store is None else store
        self.kept = store
        """Where telemetry keeps what was sent: a store that the user has given, or `None`."""
        self.ledger = ledger
        self.clock = clock
        self.timer = timer
        self.telemetry = telemetry
        self.watchdog = WatchdogLimits() if watchdog is None else watchdog
        self.ahead = Ahead() if ahead else None
        self.source = source
        self.registry = registry
        self.brief_tools = brief_tools
        self._framework = framework
        self._preloader: Preloader | None = None
        self._lock = threading.Lock()

    @property
    def preloader(self) -> Preloader | None:
        """Loads ahead what agents need, in one thread for all sessions; `None` without a registry."""
        if self.registry is None:
            return None
        with self._lock:
            if self._preloader is None:
                self._preloader = Preloader(self.registry)
            return self._preloader

    def caller(self, agent: str, run: LiveRun) -> Caller:
        """Return who is about to call, as learned forecasts want it."""
        return Caller(self._framework, self.source, agent, run.role, run.model)

    @classmethod
    def from_history(
        cls,
        models: Path | None = None,
        *,
        options: PlanOptions | None = None,
        framework: str = "",
        source: str = "",
        **more: Any,
    ) -> Planner:
        """Return a planner that forecasts demand with trained models.

        Args:
            models: Their folder, as `apportion train` writes it; `None`: documented priors.
            options: What else the user wants.
            framework: See `Planner`.
            source: See `Planner`.
            more: Other arguments of `Planner`.
        """
        return cls(replace(options or PlanOptions(), models=models), framework=framework, source=source, **more)

    def warm(self) -> None:
        """Load what the first plan needs (solver, tables, models), so that it is as quick as the later ones."""
        load_solvers()
        forecasts(self.options.models, self.options.widening)
        text = "\n".join(f'{{"row": {number}, "state": "warm"}}' for number in range(40))
        with Planner(self.options, ahead=False).session("warm", budget=Budget(max_tokens=1_000_000)) as session:
            step = session.before("warm", [ContextItem(text, Kind.TOOL_RESULT)], model="claude-sonnet-4-5")
            session.after(step, Usage(input_uncached=1, output=1))

    def session(
        self,
        workflow: str,
        *,
        budget: Budget | None = None,
        parent: str | None = None,
        policies: Sequence[Policy] = (),
    ) -> Session:
        """Return the session of one workflow.

        Args:
            workflow: Its name; its account in the ledger has it too.
            budget: Its limits; `None`: those of the options.
            parent: Account in the ledger on whose remainder it draws, or `None`.
            policies: What may be done where the budget does not hold a call; those of `before` go before these.

        Raises:
            LedgerError: The account exists with other limits.
            StoreError: The ledger cannot be used.
        """
        options = self.options if budget is None else replace(self.options, budget=budget)
        return Session(self, workflow, options, parent=parent, policies=policies)

    def resume(self, checkpoint: Mapping[str, Any], *, policies: Sequence[Policy] = ()) -> Session:
        """Return a session that goes on where another one was saved; see `Session.checkpoint`.

        Args:
            checkpoint: What `Session.checkpoint` returned, perhaps by way of JSON.
            policies: See `session`.

        Raises:
            InputError: It is no checkpoint.
            StoreError: The ledger cannot be used.
        """
        saved = read_checkpoint(checkpoint)
        options = replace(self.options, budget=saved.budget)
        session = Session(self, saved.workflow, options, parent=saved.parent, policies=policies, again=True)
        session.restore(saved)
        return session

    def close(self) -> None:
        """End the background work; sessions may go on, and plan when they are asked."""
        if self.ahead is not None:
            self.ahead.close()
        with self._lock:
            preloader, self._preloader = self._preloader, None
        if preloader is not None:
            preloader.close()


class Session(SessionCore):
    """Plans one workflow while it runs; safe to share between threads.

    Made by `Planner.session`; used with `with` or `async with`.
    """

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
        """Begin the next stage: what is left is shared out anew."""
        with self._lock:
            self._stage += 1

    # Asking.

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
        parent: str | None = None,
        priority: int = 0,
        policies: Sequence[Policy] = (),
        key: str | None = None,
        offered: Sequence[Offered] | Registry | None = None,
        folds: bool = False,
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
                budget is used up and no policy knows better.
            parent: The run that started it; the watchdog sees by it who starts whom.
            priority: Of those that wait, higher ones are offered first.
            policies: What may be done where the budget does not hold it (`planner.policies`).
            key: Names the question: asked again with the same key, the answer is the same step.
            offered: Tools, skills and agent files that the agent may be given; `step.loading` says what to load of
                them. `None`: what the run was offered before, or what the planner's registry has for the agent. They
                count as part of the prompt, besides `items`.
            folds: Whether long texts in old inputs of tools may be left out, too, where the agent `expands`. The call
                stays, and what is sent for its input is one with the same names. Say so only where `step.contents` is
                put back into the calls.

        Raises:
            InputError: There is nothing to send, or the session is closed.
            BudgetExhaustedError: It does not fit, and a policy says to abort.
            StoreError: The ledger cannot be used.
        """
        if not items:
            raise InputError("an invocation without any piece of context", hint="Give at least the task as an item.")
        marker = f"{BEFORE}{key}"
        if key is not None:
            with self._lock:
                if marker in self._keyed:
                    return self._keyed[marker]
        policies = (*policies, *self._policies)
        run_id = run_id or agent
        request = Request(
            agent, tuple(items), run_id, model, task, sub_agent or parent is not None, expands, mandatory,
            parent, priority, policies, self._on_offer(agent, run_id, offered), folds,
        )  # fmt: skip
        if self.options.enabled:
            self._work_out(request)
        self._expect_next(request)
        with self._lock:
            if key is not None and marker in self._keyed:
                return self._keyed[marker]
            if self._closed:
                raise InputError(f"the session '{self.workflow}' is closed", hint="Make another one.")
            step = self._answer(request)
            if key is not None:
                self._remember(marker, step)
            return step

    def unplanned(
        self,
        agent: str,
        items: Sequence[ContextItem] = (),
        *,
        reason: str,
        model: str | None = None,
        run_id: str | None = None,
    ) -> Step:
        """Return the step of an invocation that cannot be planned: all is sent whole, if the budget holds it.

        For adapters, when anything else fails: the budget is checked and booked as ever. Nothing waits; what does not
        fit is aborted. So is all that comes after `close` where there is a budget or a ledger.

        Args:
            agent: Type name of the agent.
            items: What would be sent, as far as it could be read.
            reason: What has failed; it is among the step's reasons.
            model: The model that is called.
            run_id: Its context window; the agent's name where it has only one.

        Raises:
            LedgerError: The ledger refuses the booking.
            StoreError: The ledger cannot be used.
        """
        request = Request(agent, tuple(items), run_id or agent, model)
        with self._lock:
            self._number += 1
            if not self.options.enabled:
                step = Step(agent, request.run_id, self._number, Decision.RUN, whole(items), model=model)
                return self._begun(step, Open(step, self._stage))
            if self._closed and self._limited:
                found: Step | Lack = Lack((f"the session '{self.workflow}' is closed", reason), 0)
            else:
                found = self._unplanned(request, reason)
            if isinstance(found, Step):
                return found
            self._sums.aborted[request.run_id] = None
            step = Step(agent, request.run_id, self._number, Decision.ABORT, reasons=found.reasons, model=model)
            self._teller.step(step, stage=self._stage, prompt_tokens=found.needs_tokens)
            return step

    @property
    def fails_open(self) -> bool:
        """Whether calls are made while the ledger cannot be used."""
        return self._home.ledger is not None and self._home.ledger.on_store_failure == "open"

    async def abefore(self, agent: str, items: Sequence[ContextItem], **options: Any) -> Step:
        """Plan one invocation without holding up the event loop; see `before`."""
        return await asyncio.to_thread(self.before, agent, items, **options)

    def _on_offer(self, agent: str, run_id: str, offered: Sequence[Offered] | Registry | None) -> tuple[Offered, ...]:
        """Return what an invocation is offered; nothing where that is what its run was offered before."""
        if offered is not None and not isinstance(offered, Registry):
            return tuple(offered)
        registry = self._home.registry if offered is None else offered
        if registry is None:
            return ()
        with self._lock:
            if self._loading.of(run_id) is not None or self._closed:
                return ()
        expecting = self._expecting if registry is self._home.registry else None
        found, missing = offered_by(registry, agent, None if expecting is None else expecting.take)
        for reason in missing:
            self._teller.tell("degraded", agent=agent, run_id=run_id, component="registry", reason=reason)
        return found

    def _expect_next(self, request: Request) -> None:
        """Load ahead what the next agent needs, when a run begins; in the background if there is one."""
        if self._expecting is None:
            return
        with self._lock:
            if self._closed or request.run_id in self._runs:
                return
            trail = self._expecting.took_floor(request.agent)
        asked = next((item.content for item in reversed(request.items) if item.kind is Kind.USER), request.task)
        work = partial(self._expecting.look_ahead, trail, asked)
        if self._home.ahead is not None:
            self._home.ahead.do(work)
        else:
            with suppress(Exception):  # a forecast that fails costs nothing but what it would have saved
                work()

    def ready(self) -> tuple[Step, ...]:
        """Offer again what waits, and return the steps that fit now: make these calls, and say `after` of each.

        The most important come first, then the oldest. What does not fit may be overtaken, but only so often. A run
        that the watchdog refuses waits no more: its step is returned too, and does not run (`step.runs`).

        Raises:
            StoreError: The ledger cannot be used; everybody goes on waiting.
        """
        with self._lock:
            found: list[Step] = []
            passed: list[str] = []
            for waiting in [] if self._closed else self._queue:
                step = self._offered(waiting)
                if step is not None and step.runs:
                    self._queue.let_through(waiting.request.run_id, passed)
                    found.append(step)
                elif step is not None and step.decision is Decision.REFUSE:
                    self._queue.drop(waiting.request.run_id)
                    found.append(step)
                elif must_be_next(waiting):
                    break
                else:
                    passed.append(waiting.request.run_id)
            return tuple(found)

    def wait(self, timeout_s: float | None = None) -> tuple[Step, ...]:
        """Wait until something that was deferred fits, and return it; nothing where nobody waits, or time is up.

        Args:
            timeout_s: Seconds to wait at most; `None` waits for as long as anybody waits for budget that can come
                free. A top-up is not foreseen: where only that would help, it returns at once.

        Raises:
            StoreError: The ledger cannot be used.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            while True:
                steps = self.ready()
                left = None if ends is None else ends - time.monotonic()
                if steps or not len(self._queue) or self._closed or (self._stuck() if left is None else left <= 0):
                    return steps
                self._lock.wait(POLL_S if left is None else min(POLL_S, left))

    async def await_ready(self, timeout_s: float | None = None) -> tuple[Step, ...]:
        """Wait without holding up the event loop; see `wait`."""
        return await asyncio.to_thread(self.wait, timeout_s)

    # Telling.

    def after(self, step: Step, usage: Usage | None, *, output: str = "") -> None:
        """Take note of what a step used. Saying the same again changes nothing.

        Args:
            step: What `before` returned.
            usage: What the response says, or `None` where the call failed: then nothing was used. A column that it
                does not give is estimated.
            output: What the agent wrote: what it quotes is likely to be used again.

        Raises:
            InputError: The step is not of this session or was not to be run, or an amount is negative.
            LedgerError: Something else was said of the step before.
            StoreError: The ledger cannot be used, and nothing is noted: say it again later.
        """
        with self._lock:
            opened = self._opened(step, usage)
            if opened is None:
                return
            if usage is None:
                self._governor.release(step.number, step.reservation)
            else:
                self._book(opened, usage, output)
            self._note_settled(step, usage)
        if usage is not None and opened.run is not None:
            self._think(opened.run, step, output)

    async def aafter(self, step: Step, usage: Usage | None, *, output: str = "") -> None:
        """Take note of what a step used without holding up the event loop; see `after`."""
        await asyncio.to_thread(self.after, step, usage, output=output)

    def renew(self, step: Step) -> None:
        """Say that a step still runs, so that what is held for it does not come back; without effect once it is booked.

        Leases last fifteen minutes. One that has ended begins anew as long as nothing else was asked for meanwhile.

        Args:
            step: What `before` returned.

        Raises:
            LedgerError: The ledger has taken back what was held.
            StoreError: The ledger cannot be used.
        """
        with self._lock:
            if step.number in self._open:
                self._governor.renew(step.number, step.reservation)

    def spend(self, usage: Usage, *, agent: str, model: str | None = None, key: str | None = None) -> None:
        """Take note of what an agent used without having asked, in full, whatever is free.

        Args:
            usage: What the response says.
            agent: Type name of the agent.
            model: The model that was called.
            key: Names the booking, so that a retry does not book it twice.

        Raises:
            InputError: An amount is negative.
            LedgerError: The key is that of another booking.
            StoreError: The ledger cannot be used: say it again later.
        """
        use = use_of(usage, tariff(lookup(model) if model else None))
        with self._lock:
            marker = f"spend:{key}"
            if key is not None and marker in self._keyed:
                return
            if self.options.enabled:
                self._governor.spend(use.amounts, key)
            step = Step(agent, agent, 0, Decision.RUN, model=model)
            if key is not None:
                self._remember(marker, step)
            self._add(use.amounts.tokens, use.usd, 0)
            self._planner.after(Used(agent, -1, use.sent, use.written, use.cost, use.cost, 0, 0))
            self._teller.usage(step, usage, stage=self._stage, usd=use.usd, saved_usd=None)

    def ingest(self, item: ContextItem, *, task: str = "", model: str | None = None, run_id: str | None = None) -> None:
        """Work out the shorter forms of a result as soon as it is there, for example while other tools still run.

        `before` does it otherwise. Safe to call from any thread, and without effect on any plan.

        Args:
            item: The result.
            task: The task of the agent that gets it.
            model: The model that it is for: its tokens are counted, too.
            run_id: The context window that gets it, where that is known: what in it the result repeats is looked for.
        """
        counter = TokenCounter(model)
        size = self._sizes.of(item.content, counter)
        if self._forms is None or not replaceable(item, size.tokens):
            return
        forms = self._forms.of(item.content.encode("utf-8", "surrogatepass"), task=task, name=item.name)
        telling(item.content)
        for form in (forms.structured, forms.selected):
            if form is not None:
                text = form.content.decode("utf-8", "surrogatepass")
                self._sizes.of(text, counter)
                telling(text)
        if run_id is not None:
            self._decide(run_id, item, forms.structured)

    def ingest_soon(
        self, items: Sequence[ContextItem], *, task: str = "", model: str | None = None, run_id: str | None = None
    ) -> None:
        """Let shorter forms be worked out in the background; see `ingest`. Returns at once."""
        for item in items:
            work = partial(self.ingest, item, task=task, model=model, run_id=run_id)
            work() if self._home.ahead is None else self._home.ahead.do(work)

    def finished(self, run_id: str) -> None:
        """Take note that an agent run has ended: what it did not use is free for the others.

        A run that goes on all the same finds its prompt as it was, unless many others have ended since.
        """
        with self._lock:
            self._planner.finished(run_id)
            self._planner.forget(run_id)
            self._loading.finished(run_id)
            self._governor.finished(run_id)
            self._queue.drop(run_id)
            self._sums.finished[run_id] = None
            self._let_go(run_id)
            self._lock.notify_all()

    def forgive(self, run_id: str) -> None:
        """Let a run go on that the watchdog has refused."""
        with self._lock:
            self._watchdog.forgive(run_id)

    def top_up(self, *, tokens: int = 0, usd: float = 0.0, key: str | None = None) -> None:
        """Raise the budget, here and in the ledger; what waits may fit then.

        Args:
            tokens: By how many tokens, at least 0.
            usd: By how many US dollars, at least 0.
            key: Names the top-up, so that a retry does not raise it twice.

        Raises:
            InputError: An amount is negative, or both are 0.
            LedgerError: The account has no such limit.
            StoreError: The ledger cannot be used.
        """
        if tokens < 0 or not 0 <= usd <= 1e6 or not (tokens or usd):
            raise InputError("a top-up needs an amount above 0", hint="Give tokens, usd or both")
        with self._lock:
            marker = f"top up:{key}"
            if key is not None and marker in self._keyed:
                return
            self._governor.top_up(tokens, usd, key, booked=self.options.enabled)
            self.options = self._planner.options
            if key is not None:
                self._remember(marker, Step("", "", 0, Decision.RUN))
            self._lock.notify_all()

    def expand(self, handle: str, text_range: str | None = None) -> str:
        """Return what a handle stands for, for the agent's call of `expand_tool`.

        Args:
            handle: As its marker spells it.
            text_range: What part, as markers name it: `40-97` are lines, `b0-4000` bytes; `None` is all.

        Raises:
            StoreError: The handle was never given out.
            InputError: The range is none, the original has nothing there, or it is no text and no range is given.
        """
        part = expand(self._home.store, handle, text_range)
        try:
            text = part.decode("utf-8", "replace" if text_range else "surrogatepass")
        except UnicodeDecodeError:
            raise InputError(
                f"what stands behind the handle is no text in UTF-8: {len(part):,} bytes",
                hint=f"Give a range, for example b0-{min(len(part), 4000)}: other bytes then come as U+FFFD",
            ) from None
        self._teller.tell("expansion", handle=handle, found=True)
        return text

    def load(self, run_id: str, name: str = "") -> str:
        """Return what a run's prompt left out of what was on offer, for the agent's call of `load_tool`.

        Args:
            run_id: The run.
            name: What to load, as the tool's description names it; empty for a list of all.

        Raises:
            InputError: The run was offered nothing.
            StoreError: Nothing of that name was left out, or its original is gone.
        """
        with self._lock:
            text, missed = self._loading.load(run_id, name)
        status = "miss" if missed else "loaded"
        self._teller.tell("loading", run_id=run_id, status=status, tool=name or None, tokens=count_tokens(text))
        return text

    def hand_over(
        self,
        source: Party,
        target: Party,
        task: str,
        items: Sequence[ContextItem],
        *,
        receiver: Capabilities = NOTHING,
        run_id: str | None = None,
    ) -> HandedOver:
        """Hand a context to another agent: as a delta where it says that it understands one and holds its base.

        Args:
            source: Who hands over.
            target: Who is handed to.
            task: What is to be done, in words; always sent as it is.
            items: The context that the target needs.
            receiver: What the target said that it understands and holds; by default nothing, and it gets the whole.
            run_id: The run of the target in this session, where it is one: only if its prompt holds the base does a
                delta save tokens of a model. Elsewhere it saves transport.
        """
        with self._lock:
            run = None if run_id is None else self._runs.get(run_id)
            shown = () if run is None else zip(run.items, run.sent, strict=True)
            prompt = [item for item, sent in shown if sent.action is Action.KEEP]
            now = self._home.clock()
            handed = self._handing.hand(source, target, task, items, receiver=receiver, prompt=prompt, now=now)
        self._teller.tell(
            "diff",
            agent=target.agent_type,
            run_id=run_id,
            mode="delta" if handed.delta else "whole",
            whole_tokens=handed.whole_tokens,
            sent_tokens=handed.sent_tokens,
            in_prompt=handed.in_prompt,
            reason=handed.reason,
        )
        return handed

    @property
    def expand_tool(self) -> dict[str, object]:
        """The schema of the tool by which an agent has back what was left out."""
        return dict(EXPAND_TOOL)

    # How it stands.

    @property
    def hand_back(self) -> HandBack:
        """What is done so far, and what is left."""
        with self._lock:
            return self._hand_back()

    @property
    def pending(self) -> tuple[Step, ...]:
        """Steps that run and have not been heard of."""
        with self._lock:
            return tuple(opened.step for opened in self._open.values())

    def step(self, number: int) -> Step | None:
        """Return a step by its number, if it runs and has not been heard of."""
        with self._lock:
            opened = self._open.get(number)
            return None if opened is None else opened.step

    @property
    def balance(self) -> tuple[Balance, Balance]:
        """How the session's own budget stands, in tokens and in nano-dollars: `spent + held + free == total`."""
        with self._lock:
            return self._governor.holdings.tokens, self._governor.holdings.cost_nusd

    def checkpoint(self) -> dict[str, Any]:
        """Return the session as JSON can say it, for `Planner.resume`: what is used, pending, and waiting.

        It holds the contents of what waits, and of nothing else.
        """
        with self._lock:
            return self._saved().model_dump()

    def restore(self, saved: Checkpoint) -> None:
        """Take up what a checkpoint says, in a session that has done nothing yet; see `Planner.resume`."""
        with self._lock:
            self._restore(saved)

    def close(self, pending: OnClose = "expire") -> None:
        """End the session; closing again does nothing.

        Args:
            pending: What becomes of calls that have not come back. By default the ledger's leases of them run out, so
                that they can still be settled; `"used"` counts all that they hold as used, because what nobody knows
                is not free; `"released"` gives it back.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for opened in list(self._open.values()) if pending != "expire" else ():
                with suppress(ApportionError):  # the lease runs out then
                    self._end(opened, used=pending == "used")
            self._teller.keep()
            if self._expecting is not None:
                self._expecting.close()
            self._teller.tell("session", status="ended")
            self._lock.notify_all()
