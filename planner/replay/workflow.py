"""Replays one logged workflow twice at once: as it was, and as the plan would have sent it.

The planner is asked before each call and sees nothing later. Accounting knows the whole log: it charges an expansion
where a later output quotes what was masked, and measures which facts were still there.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING, Any

from apportion.compression.store import HandleStore
from apportion.errors import ApportionError
from apportion.models.features import Watch
from apportion.models.trails import END
from apportion.planner.budgets.solver import solve_budget
from apportion.planner.forms import Forms
from apportion.planner.planner import (
    REMAINING_CALLS,
    Invocation,
    InvocationPlan,
    PlannerMaker,
    PlanOptions,
    Used,
    WorkflowPlanner,
)
from apportion.planner.prompt import REPLACEABLE_KINDS
from apportion.planner.replay.baselines import BASELINES
from apportion.planner.replay.billing import CacheClock
from apportion.planner.replay.context import LoggedCall, logged_calls
from apportion.planner.replay.journal import Entry, figures_of, why_masked
from apportion.planner.replay.loading import run_loadings
from apportion.planner.replay.regime import cache_regime, with_lifetimes
from apportion.planner.replay.results import (
    ActionFigures,
    CallFigures,
    LeftOutFigures,
    NextFigures,
    PlanFigures,
    StageFigures,
    Totals,
    WorkflowResult,
    add_pairs,
)
from apportion.planner.replay.run import CallCosts, RunReplay
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from apportion.telemetry.events import WorkflowLog

MAIN = "main"
SUB = "sub"

LEFT_OUT_KEPT = 20
"""Pieces of a workflow that were left out of which more is kept than their sums."""


def replay_workflow(
    log: WorkflowLog,
    options: PlanOptions,
    *,
    planner: PlannerMaker = WorkflowPlanner,
    against: Sequence[str] = (),
) -> WorkflowResult:
    """Replay one workflow.

    Args:
        log: The workflow.
        options: What the user wants of the plans.
        planner: Makes the planner; another one lets policies be compared on the same logs.
        against: Names of baselines; each costs one more replay of the workflow.
    """
    main = planner(options, solve=solve_budget)
    result = _WorkflowReplay(log, options, main).run()
    result.next_agents = _next_agents(log, main)
    result.loadings = run_loadings(log)
    for name in against:
        other = _WorkflowReplay(log, options, BASELINES[name].planner(options, solve=solve_budget)).run()
        result.against[name] = other.sums()
    return result


def _next_agents(log: WorkflowLog, planner: WorkflowPlanner) -> list[NextFigures]:
    """Forecast each agent that took the floor, where a model was trained to."""
    model = planner.forecasts.next_agent
    if model is None:
        return []
    found = []
    for step in model.steps_of(log):
        said = model.forecast(step, step.source)
        hit, sure = said.likeliest == step.name, said.expected is not None
        after = step.history[-1] if step.history else ""
        named, came = said.likeliest != END, step.name != END
        found.append(NextFigures(said.confidence, hit, sure, named, came, after, said.likeliest))
    return found


class _WorkflowReplay:
    def __init__(self, log: WorkflowLog, options: PlanOptions, planner: WorkflowPlanner) -> None:
        self.log = log
        self.options = options
        self.planner = planner
        self.store = HandleStore()
        self.clock = CacheClock()
        self.forms = Forms.at(options.level) if options.enabled and planner.shortens else None
        self._watch: Watch | None = None
        self._seen = 0
        self.result = WorkflowResult(log.id, log.source, log.framework, log.origin or log.id, Totals(workflows=1))
        self.priced = True
        self._callers: set[tuple[str, str]] = set()
        self._costs = [0.0, 0.0]

    def run(self) -> WorkflowResult:
        calls_of: defaultdict[str, list[LoggedCall]] = defaultdict(list)
        regime = cache_regime(list(logged_calls(self.log)))
        self.result.degraded.update(regime.reasons)
        self.log = with_lifetimes(self.log, regime)
        calls = list(logged_calls(self.log))
        fetching = _agents_with_results(self.log) if self.options.enabled and self.planner.masks else frozenset()
        for call in calls:
            calls_of[call.first.agent_run].append(call)
        runs: dict[str, RunReplay] = {}
        hand_backs = HandBacks(self.log)
        for call in calls:
            name = call.first.agent_run
            if name not in runs:
                runs[name] = RunReplay(
                    self.log,
                    calls_of[name],
                    store=self.store,
                    clock=self.clock,
                    regime=regime,
                    forms=self.forms,
                    may_mask=call.first.agent in fetching,
                )
            for finished in hand_backs.seen_by(call):
                self.planner.finished(finished)
            self._call(runs[name], call)
            if call is calls_of[name][-1]:
                runs[name].close()
                hand_backs.over(name)
        return self._finish(runs, len(calls))

    def _call(self, run: RunReplay, call: LoggedCall) -> None:
        run.enter(call)
        began = time.perf_counter()
        plan = self.planner.before(self._invocation(run, call))
        milliseconds = (time.perf_counter() - began) * 1e3
        run.bear(plan.births)
        short = self._tokens_short(run, call)
        if run.may_mask_now or plan.masks.forced or short:
            forced = plan.degraded[0] if plan.masks.forced and plan.degraded else None
            items = plan.masks.items.tolist()
            run.mask(items, why_masked(items, run.cached_items, forced=forced, short=short))
        run.drop(plan.dropped)
        costs = run.send(call)
        self._note_plan(plan, milliseconds)
        self._account(run, call, costs)
        self.planner.after(
            Used(
                run_id=call.first.agent_run,
                stage=call.first.stage,
                prompt_tokens=costs.real[1] - costs.expansion_prompt_tokens,
                output_tokens=costs.output_tokens,
                extra_tokens=costs.expansion_prompt_tokens + costs.expansion_output_tokens,
                cost=costs.cost[1],
                cost_unplanned=costs.cost[0],
                visible_tokens=costs.visible[1],
                visible_unplanned=costs.visible[0],
            )
        )

    def _invocation(self, run: RunReplay, call: LoggedCall) -> Invocation:
        return Invocation(
            run_id=call.first.agent_run,
            role=_role(call),
            stage=call.first.stage,
            call=run.calls,
            prompt=run.prompt,
            overhead_tokens=run.known_overhead,
            cached_items=run.cached_items,
            prices=run.prices,
            priced=run.tariff.priced,
            context_window=run.tariff.context_window,
            calibration=run.calibration,
            **self._known(call),
        )

    def _known(self, call: LoggedCall) -> dict[str, Any]:
        """Return who calls and what is known before the call, where a trained model asks for it."""
        if not self.planner.forecasts.learned:
            return {}
        if self._watch is None:
            self._watch = Watch(framework=self.log.framework, source=self.log.source)
        while self.log.events[self._seen].step < call.first.step:
            self._watch.see(self.log.events[self._seen])
            self._seen += 1
        return {"caller": self._watch.caller(call.first), "features": self._watch.features(call.first)}

    def _tokens_short(self, run: RunReplay, call: LoggedCall) -> bool:
        """Say whether a token limit is likely to bind: then the tokens of a mask count for more than a rewrite."""
        limit = self.options.budget.max_tokens
        if limit is None:
            return False
        prompt_tokens = run.known_overhead + float(run.prompt.column("tokens").sum())
        return self.result.tokens_used[1] + prompt_tokens * (1.0 + REMAINING_CALLS[_role(call)]) > limit

    def _note_plan(self, plan: InvocationPlan, milliseconds: float) -> None:
        self.result.plans.append(PlanFigures(milliseconds, plan.status, plan.gap, plan.degraded))
        self.result.degraded.update(plan.degraded)

    def _account(self, run: RunReplay, call: LoggedCall, costs: CallCosts) -> None:
        self._callers.add((call.first.agent_run, call.first.agent))
        self.priced = self.priced and run.tariff.priced
        if not run.tariff.priced:
            self.result.unpriced_models.add(run.model)
        self._count_budget(costs)
        self.result.calls.append(
            CallFigures(
                call.first.agent,
                run.calls - 1,
                costs.visible,
                costs.cost if run.tariff.priced else None,
                call.first.stage,
            )
        )

    def _count_budget(self, costs: CallCosts) -> None:
        budget = self.options.budget
        used, beyond = list(self.result.tokens_used), list(self.result.calls_beyond)
        outputs = (costs.output_tokens, costs.output_tokens + costs.expansion_output_tokens)
        for side, tokens in enumerate(costs.real):
            used[side] += tokens + outputs[side]
            self._costs[side] += costs.cost[side]
            over_tokens = budget.max_tokens is not None and used[side] > budget.max_tokens
            over_usd = budget.max_usd is not None and self.priced and self._costs[side] > budget.max_usd
            beyond[side] += over_tokens or over_usd
        self.result.tokens_used = (used[0], used[1])
        self.result.calls_beyond = (beyond[0], beyond[1])

    def _finish(self, runs: dict[str, RunReplay], calls: int) -> WorkflowResult:
        result = self.result
        for run in runs.values():
            result.totals += run.totals
            result.degraded.update(run.degraded)
            for kind, (baseline, planned) in run.kinds.items():
                before = result.kinds.get(kind, (0, 0))
                result.kinds[kind] = (before[0] + baseline, before[1] + planned)
        result.totals.calls = calls
        result.totals.agents = len(runs)
        result.totals.usage = self.log.usage
        result.totals.bill = (self._costs[0], self._costs[1]) if self.priced else (0.0, 0.0)
        result.totals.priced_workflows = int(self.priced and calls > 0)
        result.runs_by_agent = dict(Counter(agent for _, agent in self._callers))
        for (run_id, stage), record in self.planner.stages.items():
            figures = (record.likely_tokens, record.allocated_tokens, record.used_tokens, stage)
            result.stages.append(StageFigures(runs[run_id].agent, *figures))
        self._note_actions(runs.values())
        return result

    def _note_actions(self, runs: Iterable[RunReplay]) -> None:
        """Take over what was done to pieces of context, and keep those that leaving out saved most for."""
        left_out: list[tuple[RunReplay, Entry]] = []
        for run in runs:
            for (action, reason), figures in figures_of(run.journal.entries).items():
                key = (run.agent, action, reason)
                known = self.result.actions.get(key)
                self.result.actions[key] = figures if known is None else ActionFigures(*add_pairs(known, figures))
            left_out += [(run, entry) for entry in run.journal.left_out()]
        self.result.left_out_pieces = len(left_out)
        left_out.sort(key=lambda pair: (-pair[1].saved_tokens, pair[1].position))
        kept = left_out[:LEFT_OUT_KEPT]
        handles = self._kept_originals(kept)
        for (run, entry), handle in zip(kept, handles, strict=True):
            kind, tool, text = run.left_out(entry)
            self.result.left_out.append(
                LeftOutFigures(
                    agent=run.agent,
                    call=entry.call,
                    kind=kind,
                    tool=tool,
                    action=str(entry.action),
                    reason=entry.reason,
                    tokens=entry.tokens,
                    sent_tokens=entry.sent_tokens,
                    saved_tokens=entry.saved_tokens,
                    fetched=entry.fetched,
                    handle=handle,
                    head=text[: self.options.head_chars] or None,
                )
            )

    def _kept_originals(self, kept: Sequence[tuple[RunReplay, Entry]]) -> list[str | None]:
        """Put the originals into the store that was named, and return their handles there; none without a store."""
        path = self.options.originals
        if path is None or not kept:
            return [None] * len(kept)
        from apportion.compression.sqlite_store import SqliteHandleStore

        try:
            with SqliteHandleStore(path) as store:
                contents = (self.log.events[entry.position].content for _, entry in kept)
                return [str(store.put(content.encode("utf-8", "surrogatepass"))) for content in contents]
        except ApportionError as error:
            self.result.degraded.add(f"originals were not kept: {error}")
            return [None] * len(kept)


def _agents_with_results(log: WorkflowLog) -> frozenset[str]:
    """Return the agent types that are offered the expand tool: those to which something that may be masked comes back.

    Whoever configures an agent knows whether it has tools or sub-agents of its own; a log shows it by their results.
    """
    return frozenset(event.agent for event in log.events if event.kind in REPLACEABLE_KINDS)


class HandBacks:
    """Which sub-agents have handed their results back: what an orchestrator knows when it makes the next call.

    Logs do not name the run that a hand-off started. It is the first one of that agent under the same parent that
    begins after the hand-off.

    Args:
        log: The workflow.
    """

    def __init__(self, log: WorkflowLog) -> None:
        self._events = log.events
        self._run_of_link = _runs_by_link(log)
        self._over: set[str] = set()
        self._seen: set[str] = set()
        self._told: set[str] = set()

    def over(self, run: str) -> None:
        """Note that a run has made its last call."""
        self._over.add(run)

    def seen_by(self, call: LoggedCall) -> list[str]:
        """Return the runs that are over and whose result the parent has when it makes this call."""
        for position in call.added:
            event = self._events[position]
            if event.kind is Kind.HANDOFF_RESULT and event.link in self._run_of_link:
                self._seen.add(self._run_of_link[event.link])
        new = sorted((self._seen & self._over) - self._told)
        self._told.update(new)
        return new


def _runs_by_link(log: WorkflowLog) -> dict[str, str]:
    """Return which run each hand-off started."""
    waiting: defaultdict[tuple[str | None, str], deque[str]] = defaultdict(deque)
    started: set[str] = set()
    found: dict[str, str] = {}
    for event in log.events:
        if event.kind is Kind.HANDOFF and event.link is not None and event.name is not None:
            waiting[event.agent_run, event.name].append(event.link)
        if event.parent_agent is not None and event.agent_run not in started:
            started.add(event.agent_run)
            links = waiting[event.parent_agent, event.agent]
            if links:
                found[links.popleft()] = event.agent_run
    return found


def _role(call: LoggedCall) -> str:
    return MAIN if call.first.parent_agent is None else SUB
