"""How a session answers and books: everything here is done under the session's lock, unless it says otherwise."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from apportion.errors import BudgetExhaustedError, InfeasiblePlanError, InputError, LedgerError, StoreError
from apportion.planner.booking import Open, use_of
from apportion.planner.budgets.solver import solve_budget
from apportion.planner.checkpoint import Checkpoint, SavedSettled, SavedStep, read_request, saved_request
from apportion.planner.events import Changed, Teller
from apportion.planner.exhaustion import Queue
from apportion.planner.expecting import Expecting
from apportion.planner.forms import Forms
from apportion.planner.governor import NUSD, Governor, Grant, Lack
from apportion.planner.handing import Handing
from apportion.planner.ledger.records import Amounts
from apportion.planner.live import Decided, LiveRun, SentItem, look_at, quoted, replaceable
from apportion.planner.loading import RunShape
from apportion.planner.planner import REMAINING_CALLS, Invocation, InvocationPlan, Used
from apportion.planner.replay.billing import CacheClock, tariff
from apportion.planner.session_loading import LoadingFor, SessionLoading, counted, whole_loading
from apportion.planner.sizes import Sizes
from apportion.planner.standing import StandingPlanner
from apportion.planner.steps import Decision, HandBack, Request, Step, Sums
from apportion.planner.watchdog import Watchdog
from apportion.prices import lookup
from apportion.records import Action, Feature
from apportion.tokens import TokenCounter, count_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.strategies.types import Outcome
    from apportion.planner.booking import Use
    from apportion.planner.exhaustion import Waiting
    from apportion.planner.live import ContextItem
    from apportion.planner.offers import Loading
    from apportion.planner.planner import PlanOptions
    from apportion.planner.policies import Policy
    from apportion.planner.session import Planner
    from apportion.records import Usage

PLANNER_FAILED = "the planner failed, so every piece is sent whole"
"""Why a step is not as it should be, although it runs."""

MOST_REMEMBERED = 10_000
"""Steps and keys that a session remembers, so that saying something twice has no effect."""

MOST_SAVED = 1_000
"""Settled steps that a checkpoint holds, the latest; of older ones nobody is likely to say anything again."""

BEFORE = "before:"
"""What the keys of questions begin with, as they are remembered; their answers hold contents."""


MOST_ENDED = 16
"""Runs that have ended and whose prompts a session still knows, in case they go on."""


class SessionCore:
    """The state of a session, and what is done with it."""

    def __init__(
        self,
        planner: Planner,
        workflow: str,
        options: PlanOptions,
        *,
        parent: str | None = None,
        policies: Sequence[Policy] = (),
        again: bool = False,
    ) -> None:
        self.workflow = workflow
        self.options = options
        self._home = planner
        self._parent = parent
        self._policies = tuple(policies)
        self._planner = StandingPlanner(options, solve=solve_budget, ahead=planner.ahead is not None)
        self._governor = Governor(workflow, self._planner, ledger=planner.ledger, timer=planner.timer)
        self._watchdog = Watchdog(planner.watchdog, planner.timer)
        self._teller = Teller(planner.telemetry, workflow, planner.kept)
        self._clock = CacheClock()
        self._sizes = Sizes()
        shortens = options.allows(Feature.STRUCTURE) or options.level is not None
        self._forms = Forms.at(options.level, planner.store) if shortens else None
        self._runs: dict[str, LiveRun] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._open: dict[int, Open] = {}
        self._settled: OrderedDict[int, Usage | None] = OrderedDict()
        self._keyed: OrderedDict[str, Step] = OrderedDict()
        self._queue = Queue()
        self._sums = Sums()
        self._number = 0
        self._stage = 0
        self._closed = False
        found = self._planner.forecasts
        self._loading = SessionLoading(found.tool_needs, planner.store, lazy=options.allows(Feature.LAZY))
        self._handing = Handing(deltas=options.allows(Feature.DIFF))
        self._expecting: Expecting | None = None
        preloader = planner.preloader if options.allows(Feature.PRELOAD) and found.next_agent is not None else None
        if preloader is not None and found.next_agent is not None:
            self._expecting = Expecting(preloader, found.next_agent, planner.source, self._teller)
        self._lock = threading.Condition(threading.RLock())  # told when budget comes free
        if options.enabled:
            self._governor.open_account(parent, again=again)
        budget = options.budget
        self._teller.tell("session", status="started", max_tokens=budget.max_tokens, max_usd=budget.max_usd)

    # Answers.

    def _work_out(self, request: Request) -> None:
        """Work out the shorter forms of new pieces before the lock is taken: that takes longest. Never raises."""
        if self._forms is None:
            return
        try:
            with self._lock:
                run = self._runs.get(request.run_id)
                known = 0 if run is None else run.known(request.items)
            counter = TokenCounter(request.model)
            for item in request.items[known:]:
                if replaceable(item, self._sizes.of(item.content, counter).tokens):
                    content = item.content.encode("utf-8", "surrogatepass")
                    self._forms.of(content, task=request.task, name=item.name)
        except Exception:  # noqa: BLE001  (the answer meets the same error, and says so)
            return

    def _answer(self, request: Request) -> Step:
        """Return the step of an invocation; one that does not fit waits, or is aborted."""
        step = self._tried(request)
        if isinstance(step, Step):
            return step
        return self._exhausted(request, step)

    def _tried(self, request: Request) -> Step | Lack:
        """Return the step of an invocation, or what it lacks."""
        self._number += 1
        number = self._number
        if not self.options.enabled:
            step = Step(
                request.agent,
                request.run_id,
                number,
                Decision.RUN,
                whole(request.items),
                model=request.model,
                loading=self._whole_loading(request),
            )
            return self._begun(step, Open(step, self._stage))
        try:
            reason = self._watchdog.refusal(request.agent, request.run_id, request.parent, request.items)
            if reason is not None:
                step = Step(
                    request.agent, request.run_id, number, Decision.REFUSE, reasons=(reason,), model=request.model
                )
                self._teller.step(step, stage=self._stage, prompt_tokens=None)
                return step
            run, ask, plan, loading = self._planned(request)
        except Exception as error:  # noqa: BLE001  (planning must never stand in the way of the work)
            return self._unplanned(request, _planner_failed(error))
        try:
            granted = self._governor.grant(request, number, run, ask, plan)
        except (StoreError, LedgerError):  # the ledger itself: its policy decides, and has decided
            raise
        except Exception as error:  # noqa: BLE001  (as above: what is forecast, or a policy of others)
            return self._unplanned(request, _planner_failed(error))
        if isinstance(granted, Lack):
            return granted
        step = Step(
            request.agent,
            request.run_id,
            number,
            Decision.RUN,
            run.sent,
            allocated_tokens=plan.allocated_tokens,
            saved_tokens=round(run.full_tokens - run.tokens),
            loading=loading,
            **self._fields(granted, loading),
        )
        with suppress(Exception):  # the call is held already; what is told of it is not worth its failure
            self._tell_changes(step, run, plan)
        return self._begun(step, Open(step, self._stage, granted.tariff, run, ask))

    def _tell_changes(self, step: Step, run: LiveRun, plan: InvocationPlan) -> None:
        if not self._teller.heard:
            return
        items = run.items
        for row in {*(birth.row for birth in plan.births), *plan.masks.items.tolist()}:
            original, before, after = items[row].content, run.size_of(row).visible, run.visible(row)
            self._teller.action(step, Changed(original, run.sent[row], before, after, run.steps(row)))
        if self._teller.keeps:
            self._teller.keep() if self._home.ahead is None else self._home.ahead.do(self._teller.keep)

    def _planned(self, request: Request) -> tuple[LiveRun, Invocation, InvocationPlan, Loading | None]:
        """Plan an invocation, and change what is sent as the plan says."""
        run = self._runs.get(request.run_id)
        if run is None:
            run = self._runs[request.run_id] = LiveRun(
                request.run_id,
                "sub" if request.sub_agent else "main",
                store=self._home.store,
                forms=self._forms,
                clock=self._clock,
                sizes=self._sizes,
            )
        cached = run.enter(
            request.items,
            model=request.model,
            task=request.task,
            now=self._home.clock(),
            expands=request.expands,
            folds=request.folds,
        )
        loading = self._loaded(request, run)
        ask = self._invocation(run, request.agent, cached)
        plan = self._planner.before(ask)
        run.carry_out(plan)
        failure = getattr(self._home.store, "failure", None) if request.expands else None
        if failure is not None:
            plan = replace(plan, degraded=(*plan.degraded, f"parts may stay that were to be left out: {failure}"))
        return run, ask, plan, loading

    def _loaded(self, request: Request, run: LiveRun) -> Loading | None:
        """Return what a run loads with its next call; the prompt counts it as what comes before its pieces."""
        before = self._loading.of(request.run_id)
        if before is None and not request.offered:
            return None
        warm = self._clock.warm((run.run_id, run.model), self._home.clock(), run.tariff.ttl_s)
        if not run.calls:
            run.overhead_tokens = 0.0
        loading = self._loading.settle(
            request.run_id,
            request.offered,
            request.items,
            partial(self._loading_for, request, run),
            warm=warm and run.calls > 0,
            sent=run.calls > 0,
        )
        if loading is None:
            return None
        if not run.calls:
            run.overhead_tokens = float(loading.tokens)
        elif before is not None:
            run.overhead_tokens = max(0.0, run.overhead_tokens + loading.tokens - before.tokens)
        return loading

    def _loading_for(self, request: Request, run: LiveRun) -> LoadingFor:
        """Return for whom it is to be chosen what is loaded."""
        source, counter = self._home.source, TokenCounter(request.model)
        ask = self._invocation(run, request.agent, 0)
        growth, _ = self._planner.expected_call(ask)
        calls = self._loading.calls(request.agent, source=source, otherwise=REMAINING_CALLS[run.role])
        prompt = run.overhead_tokens + run.tokens
        shape = RunShape(calls, prompt + growth * (calls - 1) / 2, ask.prices)
        return LoadingFor(
            agent=request.agent,
            run_id=request.run_id,
            task=request.task,
            source=source,
            shape=shape,
            budget_tokens=self._governor.loading_budget(ask, round(prompt)),
            size=lambda text: round(self._sizes.of(text, counter).tokens),
            number=self._number,
            brief=self._home.brief_tools,
        )

    def _whole_loading(self, request: Request, reason: str = "") -> Loading | None:
        """Return everything on offer as it was given; `None` where nothing is."""
        before, offered = self._loading.of(request.run_id), request.offered or self._loading.offered(request.run_id)
        if not offered or (before is not None and not request.offered and not reason):
            return before
        counter = TokenCounter(request.model)
        loading = whole_loading(
            offered, number=self._number, size=lambda text: round(counter.estimate(text).tokens), reason=reason
        )
        if not reason:
            self._loading.note(request.run_id, offered, loading)
        return loading

    def _unplanned(self, request: Request, reason: str) -> Step | Lack:
        """Return the step of an invocation whose planning failed: whole, but within the budget all the same."""
        self._runs.pop(request.run_id, None)
        with suppress(Exception):  # it has failed already
            self._planner.forget(request.run_id)
        try:
            prompt = sum(count_tokens(item.content) for item in request.items)
        except Exception:  # noqa: BLE001  (whatever it is that cannot be counted)
            prompt = sum(len(item.content) for item in request.items)
        loading = None
        with suppress(Exception):
            loading = self._whole_loading(request, PLANNER_FAILED)
        prompt += 0 if loading is None else loading.tokens
        granted = self._governor.unplanned(request, self._number, prompt)
        if isinstance(granted, Lack):
            return granted._replace(reasons=(*granted.reasons, reason))
        fields = self._fields(granted._replace(reasons=(reason, *granted.reasons)))
        step = Step(
            request.agent, request.run_id, self._number, Decision.RUN, whole(request.items), loading=loading, **fields
        )
        return self._begun(step, Open(step, self._stage, granted.tariff))

    def _begun(self, step: Step, opened: Open) -> Step:
        self._open[step.number] = opened
        self._watchdog.ran(step.run_id)
        self._queue.drop(step.run_id)
        self._sums.aborted.pop(step.run_id, None)
        self._sums.finished.pop(step.run_id, None)
        self._ended.pop(step.run_id, None)
        run = opened.run
        prompt = None if run is None else round(run.overhead_tokens + run.tokens)
        self._teller.step(step, stage=opened.stage, prompt_tokens=prompt)
        if step.loading is not None and step.loading.number == step.number:
            self._tell_loading(step, step.loading)
        return step

    def _tell_loading(self, step: Step, loading: Loading) -> None:
        self._teller.tell(
            "loading",
            agent=step.agent,
            run_id=step.run_id,
            number=step.number,
            status="settled",
            tokens=loading.tokens,
            whole_tokens=loading.whole_tokens,
            reasons=loading.reasons,
            **counted(loading),
        )

    def _fields(self, granted: Grant, loading: Loading | None = None) -> dict[str, Any]:
        fields = granted._asdict()
        del fields["tariff"]
        if loading is not None and loading.number == self._number:
            fields["reasons"] = (*granted.reasons, *loading.reasons)
        return fields

    def _exhausted(self, request: Request, lack: Lack) -> Step:
        """Let an invocation wait, or end it.

        Raises:
            BudgetExhaustedError: A policy says to abort.
        """
        number = self._number
        if lack.may_defer or not request.mandatory:
            self._queue.put(request, number, lack.needs_tokens)
            step = Step(request.agent, request.run_id, number, Decision.DEFER, reasons=lack.reasons)
            self._teller.step(step, stage=self._stage, prompt_tokens=lack.needs_tokens)
            return step
        self._sums.aborted[request.run_id] = None
        step = Step(request.agent, request.run_id, number, Decision.ABORT, reasons=lack.reasons)
        self._teller.step(step, stage=self._stage, prompt_tokens=lack.needs_tokens)
        message = "; ".join(lack.reasons) or "the budget is used up"
        try:
            for policy in request.policies:
                policy.conclude(InfeasiblePlanError(message))
        except InfeasiblePlanError as error:
            raise BudgetExhaustedError(message, reasons=lack.reasons, hand_back=self._hand_back()) from error
        except Exception as error:  # noqa: BLE001  (a policy of others that fails changes nothing: it does not fit)
            reason = f"a policy failed: {type(error).__name__}: {error}"
            self._teller.tell("degraded", agent=step.agent, run_id=step.run_id, component="policy", reason=reason)
        return step

    def _offered(self, waiting: Waiting) -> Step | None:
        """Offer an invocation that waits; return its step, or `None` where it does not fit yet."""
        free = self._governor.holdings.free(0)
        if free is not None and free < waiting.needs_tokens:
            return None
        step = self._tried(waiting.request)
        if isinstance(step, Lack):
            waiting.needs_tokens = max(waiting.needs_tokens, step.needs_tokens)
            return None
        return step

    @property
    def _limited(self) -> bool:
        """Whether anything limits the calls: a budget of the session's own, or a ledger."""
        budget = self.options.budget
        return self._home.ledger is not None or budget.max_tokens is not None or budget.max_usd is not None

    def _stuck(self) -> bool:
        """Say whether nobody who waits could run even when all that is under way has come back with nothing used."""
        tokens, cost = self._governor.holdings.tokens, self._governor.holdings.cost_nusd
        if self._home.ledger is None and not (tokens.held or cost.held):
            return True
        left = None if tokens.total is None else tokens.total - tokens.spent
        return left is not None and all(left < waiting.needs_tokens for waiting in self._queue)

    def _invocation(self, run: LiveRun, agent: str, cached: int) -> Invocation:
        prices = run.tariff.at(run.overhead_tokens + run.tokens).prices
        return Invocation(
            run_id=run.run_id,
            role=run.role,
            stage=self._stage,
            call=run.calls,
            prompt=run.prompt if run.expands else run.prompt.without_handles(),
            overhead_tokens=run.overhead_tokens,
            cached_items=cached,
            prices=prices,
            priced=run.tariff.priced,
            context_window=run.tariff.context_window,
            caller=self._home.caller(agent, run) if self._planner.forecasts.learned else None,
        )

    def _let_go(self, run_id: str) -> None:
        """Forget the prompts of runs that have ended, but for the last ones; calls under way know theirs."""
        self._ended[run_id] = None
        self._ended.move_to_end(run_id)
        while len(self._ended) > MOST_ENDED:
            self._runs.pop(self._ended.popitem(last=False)[0], None)

    # Bookings.

    def _opened(self, step: Step, usage: Usage | None) -> Open | None:
        """Return what is known of a step that is told of, or `None` where it was told of before.

        Raises:
            InputError: It is not of this session, was not to be run, or an amount is negative.
            LedgerError: Something else was said of it before.
        """
        if step.number in self._settled:
            if self._settled[step.number] == usage:
                return None
            raise LedgerError(
                f"step {step.number} was settled already, with other amounts", hint="Book the difference with spend()"
            )
        opened = self._open.get(step.number)
        if opened is None or opened.step.run_id != step.run_id:
            if not step.runs:
                raise InputError(f"step {step.number} was not to be run ({step.decision})", hint="Ask before() again")
            raise InputError(
                f"session '{self.workflow}' has no open step {step.number} of '{step.run_id[:60]}'",
                hint="Book what was used without asking with spend()",
            )
        return opened

    def _book(self, opened: Open, usage: Usage, output: str) -> None:
        """Book what a step used: budgets first, so that nothing has happened where the ledger fails."""
        step, run = opened.step, opened.run
        sent = 0 if run is None else round(run.overhead_tokens + run.tokens)
        written = count_tokens(output) if usage.output is None else 0
        use = use_of(usage, opened.tariff, sent=sent, written=written)
        if self.options.enabled:
            priced, held = use.usd is not None, step.reservation
            self._governor.settle(step.number, held, use.amounts, priced=priced, run_id=step.run_id)
        self._add(use.amounts.tokens, use.usd, step.saved_tokens)
        self._watchdog.answered(step.run_id, empty=use.written == 0 and not output.strip())
        saved_usd = None
        try:
            saved_usd = self._learned(opened, usage, use)
        except Exception as error:  # noqa: BLE001  (it is booked; a plan that knows less is no reason to say it is not)
            reason = f"the plan does not know of it: {type(error).__name__}: {error}"
            self._teller.tell("degraded", agent=step.agent, run_id=step.run_id, component="planner", reason=reason)
        self._teller.usage(step, usage, stage=opened.stage, usd=use.usd, saved_usd=saved_usd)

    def _learned(self, opened: Open, usage: Usage, use: Use) -> float | None:
        """Let the plan know what a step used; return what it saved in US dollars, where that is known."""
        step, run, ask = opened.step, opened.run, opened.ask
        saved_usd = None
        if run is not None and ask is not None:
            saved = run.saved_cost(ask)
            saved_usd = None if use.usd is None else saved
            visible = int(run.prompt.column("visible").sum())
            run.settle(usage.prompt_tokens, self._home.clock())
            self._planner.after(
                Used(
                    run_id=step.run_id,
                    stage=ask.stage,
                    prompt_tokens=float(use.sent),
                    output_tokens=float(use.written),
                    cost=use.cost,
                    cost_unplanned=use.cost + saved,
                    visible_tokens=visible,
                    visible_unplanned=visible + step.saved_tokens,
                )
            )
        return saved_usd

    def _note_settled(self, step: Step, usage: Usage | None) -> None:
        """Remember what was said of a step, and tell those who wait for budget."""
        del self._open[step.number]
        self._settled[step.number] = usage
        while len(self._settled) > MOST_REMEMBERED:
            self._settled.popitem(last=False)
        self._lock.notify_all()

    def _add(self, tokens: int, usd: float | None, saved: int) -> None:
        sums = self._sums
        sums.tokens += tokens
        sums.saved += saved
        sums.steps += 1
        if usd is None:
            sums.priced = False
        else:
            sums.usd += usd

    def _end(self, opened: Open, *, used: bool) -> None:
        """End a step of which nobody will hear: all that it holds counts as used, or as not."""
        step = opened.step
        if used:
            held = self._governor.holdings.held(step.number)
            priced = opened.tariff is not None and opened.tariff.priced
            self._governor.settle(step.number, step.reservation, held, priced=priced, run_id=step.run_id)
            self._add(held.tokens, held.cost_nusd / NUSD if priced else None, step.saved_tokens)
            self._teller.tell("degraded", agent=step.agent, component="session", reason="ended with a call under way")
        else:
            self._governor.release(step.number, step.reservation)
        del self._open[step.number]

    def _remember(self, marker: str, step: Step) -> None:
        """Remember what was answered under a key."""
        self._keyed[marker] = step
        while len(self._keyed) > MOST_REMEMBERED:
            self._keyed.popitem(last=False)

    def _hand_back(self) -> HandBack:
        sums = self._sums
        return HandBack(
            used_tokens=sums.tokens,
            used_usd=sums.usd if sums.priced else None,
            saved_tokens=sums.saved,
            steps=sums.steps,
            deferred=self._queue.run_ids,
            aborted=tuple(sums.aborted),
            finished=tuple(sums.finished),
            pending=tuple(opened.step.run_id for opened in self._open.values()),
        )

    # Plans for the next call, made when the lock is not held.

    def _think(self, run: LiveRun, step: Step, output: str) -> None:
        """Look for what the output quotes, and plan what leaves the next prompt; in the background if there is one."""
        if not self.options.enabled:
            return
        work = partial(self._prepare, run, step.agent, output, run.calls)
        if self._home.ahead is not None:
            self._home.ahead.do(work)
        else:
            work()

    def _prepare(self, run: LiveRun, agent: str, output: str, calls: int) -> None:
        with self._lock:
            items, standing = run.items, run.not_held
        look_at(standing)
        rows = quoted(items, output)
        with self._lock:
            if self._runs.get(run.run_id) is not run:
                return
            run.note_quotes(rows, items, calls - 1)
            if run.calls == calls:
                run.hold_sent()
            if self._home.ahead is None or run.calls != calls or not run.maskable:
                return
            ask = self._invocation(run, agent, len(run.prompt))
            ask = replace(ask, prompt=run.prompt.snapshot())
            shadow = self._planner.shadow()
        masks = shadow.masks_for(ask)
        with self._lock:
            if self._runs.get(run.run_id) is run and run.calls == calls:
                self._planner.prepare(ask, masks)

    def _decide(self, run_id: str, item: ContextItem, plain: Outcome | None) -> None:
        """Work out how a result can refer to what a run's prompt holds, before the run asks; not under the lock."""
        with self._lock:
            run = self._runs.get(run_id)
            if run is None:
                return
            run.hold_sent()
            held = run.sources(item, plain)
        if held:
            decided = Decided.of(item, plain, held)
            with self._lock:
                run.note_decided(decided)

    # Checkpoints.

    def _saved(self) -> Checkpoint:
        spent, settled = self._governor.holdings, list(self._settled.items())
        return Checkpoint(
            workflow=self.workflow,
            parent=self._parent,
            budget=self.options.budget,
            number=self._number,
            stage=self._stage,
            used_tokens=self._sums.tokens,
            used_usd=self._sums.usd,
            priced=self._sums.priced,
            used_nusd=spent.cost_nusd.spent,
            saved_tokens=self._sums.saved,
            steps=self._sums.steps,
            plan=self._planner.state(),
            pending=tuple(self._saved_step(opened) for opened in self._open.values()),
            deferred=tuple(saved_request(waiting) for waiting in self._queue),
            aborted=tuple(self._sums.aborted),
            finished=tuple(self._sums.finished),
            settled=tuple(SavedSettled(number=number, usage=usage) for number, usage in settled[-MOST_SAVED:]),
            keys=tuple(marker for marker in self._keyed if not marker.startswith(BEFORE)),
            begun=tuple(sorted(self._governor.begun)),
            final=tuple(sorted(self._governor.final)),
        )

    def _saved_step(self, opened: Open) -> SavedStep:
        step, held = opened.step, self._governor.holdings.held(opened.step.number)
        return SavedStep(
            number=step.number,
            agent=step.agent,
            run_id=step.run_id,
            model=step.model,
            held_tokens=held.tokens,
            held_nusd=held.cost_nusd,
            allocated_tokens=step.allocated_tokens,
            saved_tokens=step.saved_tokens,
            reservation=None if step.reservation is None else step.reservation.id,
        )

    def _restore(self, saved: Checkpoint) -> None:
        self._number, self._stage = saved.number, saved.stage
        self._sums = Sums(
            tokens=saved.used_tokens,
            usd=saved.used_usd,
            priced=saved.priced,
            saved=saved.saved_tokens,
            steps=saved.steps,
            aborted=dict.fromkeys(saved.aborted),
            finished=dict.fromkeys(saved.finished),
        )
        self._planner.restore(saved.plan)
        self._governor.holdings.settle(None, Amounts(saved.used_tokens, saved.used_nusd))
        for request in saved.deferred:
            self._queue.restore(read_request(request, self._policies))
        for one in saved.pending:
            self._restore_step(one)
        self._settled.update((one.number, one.usage) for one in saved.settled)
        for marker in saved.keys:
            self._remember(marker, Step("", "", 0, Decision.RUN))
        self._governor.begun.update(saved.begun)
        self._governor.final.update(saved.final)

    def _restore_step(self, saved: SavedStep) -> None:
        reservation = None
        if saved.reservation is not None and self._home.ledger is not None:
            try:
                reservation = self._home.ledger.reservation(saved.reservation)
            except LedgerError:  # pruned, or of another ledger
                reservation = None
        step = Step(
            saved.agent,
            saved.run_id,
            saved.number,
            Decision.RUN,
            allocated_tokens=saved.allocated_tokens,
            saved_tokens=saved.saved_tokens,
            reservation=reservation,
            model=saved.model,
        )
        rates = tariff(lookup(saved.model) if saved.model else None)
        self._open[saved.number] = Open(step, self._stage, rates)
        self._governor.holdings.hold(saved.number, Amounts(saved.held_tokens, saved.held_nusd))


def _planner_failed(error: Exception) -> str:
    return f"{PLANNER_FAILED}: {type(error).__name__}: {error}"


def whole(items: Sequence[ContextItem]) -> tuple[SentItem, ...]:
    """Return what is sent where everything is sent as it is."""
    return tuple(SentItem(item.content, Action.KEEP) for item in items)
