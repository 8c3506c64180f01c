"""Grants budget to the calls of one session: holds it in memory and in the ledger, and says what is left.

    granted = governor.grant(request, number, run, ask, plan)

What does not fit is simplified, or is the last call of its run, or is lacking; see `exhaustion`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import ApportionError
from apportion.planner.exhaustion import LOW_CALLS, final_notice, low_notice, reserve_tokens, ways_out
from apportion.planner.holdings import Holdings
from apportion.planner.ledger import Refusal
from apportion.planner.ledger.records import Amounts
from apportion.planner.planner import REMAINING_CALLS, kind_of
from apportion.planner.replay.billing import tariff
from apportion.prices import lookup

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.exhaustion import Chosen, Ways
    from apportion.planner.ledger import Ledger, Reservation
    from apportion.planner.live import LiveRun
    from apportion.planner.planner import Invocation, InvocationPlan
    from apportion.planner.replay.billing import Tariff
    from apportion.planner.standing import StandingPlanner
    from apportion.planner.steps import Request

NUSD = 10**9
"""Nano-dollars in a US dollar: what the ledger counts in."""

MIN_OUTPUT_TOKENS = 256
"""Less is not worth a call: the budget counts as used up."""

DEFAULT_OUTPUT_TOKENS = 4_096
"""Output that is held where no budget says how much there may be."""

MOST_OUTPUT_TOKENS = 128_000
"""No model in use writes more in one answer, so no call holds more."""


class Grant(NamedTuple):
    """What a call may use; the fields are those of `Step`, and the tariff of the model that runs it."""

    tariff: Tariff
    max_output_tokens: int | None
    reservation: Reservation | None = None
    reasons: tuple[str, ...] = ()
    model: str | None = None
    variant: str = "full"
    effort_share: float = 1.0
    final: bool = False
    notice: str | None = None
    loading_budget_tokens: int | None = None


class Lack(NamedTuple):
    """Why a call cannot be made.

    Attributes:
        reasons: In words.
        needs_tokens: Tokens that it would need at least.
        may_defer: Whether a policy lets it wait.
    """

    reasons: tuple[str, ...]
    needs_tokens: int
    may_defer: bool = False


class Governor:
    """Grants budget to the calls of one session.

    Args:
        workflow: Name of its account in the ledger.
        plans: Its planner.
        ledger: Holds budgets across sessions, or `None`.
        timer: Tells seconds that never go back.
    """

    def __init__(
        self, workflow: str, plans: StandingPlanner, *, ledger: Ledger | None, timer: Callable[[], float]
    ) -> None:
        budget = plans.options.budget
        nusd = None if budget.max_usd is None else round(budget.max_usd * NUSD)
        self.holdings = Holdings((budget.max_tokens, nusd), timer)
        self.begun: set[str] = set()
        """Runs that have made a call and have not ended: something is kept for each to hand back."""
        self._workflow = workflow
        self._plans = plans
        self._ledger = ledger
        self.final: set[str] = set()
        """Runs that have had their last call."""
        self._told: dict[str, int] = {}
        self._expected: dict[str, tuple[int, int]] = {}

    def open_account(self, parent: str | None, *, again: bool = False) -> None:
        """Open the account of the session in the ledger.

        Args:
            parent: The account on whose remainder it draws, or `None`.
            again: Whether it may exist already, with whatever limits.

        Raises:
            LedgerError: It exists with other limits.
            StoreError: The ledger cannot be used.
        """
        if self._ledger is None:
            return
        if again:
            try:
                self._ledger.account(self._workflow)
            except ApportionError:
                pass
            else:
                return
        tokens, cost = self.holdings.tokens.total, self.holdings.cost_nusd.total
        self._ledger.open_account(self._workflow, parent=parent, tokens=tokens, cost_nusd=cost)

    def grant(self, request: Request, number: int, run: LiveRun, ask: Invocation, plan: InvocationPlan) -> Grant | Lack:
        """Return what a planned call may use, or what it lacks.

        Raises:
            StoreError: The ledger cannot be used.
        """
        prompt = round(run.overhead_tokens + run.tokens)
        growth, output = self._expected_call(ask)
        most: int | Lack | None = Lack(plan.degraded, prompt + MIN_OUTPUT_TOKENS)
        if plan.status != "INFEASIBLE":
            most = self._most(request.run_id, run.tariff, prompt, plan=plan, ask=ask)
        lack = most if isinstance(most, Lack) else Lack((), 0)
        if request.policies and (isinstance(most, Lack) or (most is not None and most < output)):
            ways = self._ways(request, run, prompt, output)
            lack = lack._replace(may_defer=ways.may_defer)
            if ways.chosen is not None:
                held = self._simplified(request, number, run, prompt, ways.chosen)
                if held is not None:
                    return held
        if not isinstance(most, Lack):
            granted = self._held(number, run.tariff, prompt, most, model=request.model, reasons=plan.degraded)
            if isinstance(granted, Grant):
                try:
                    notice, loading = self._outlook(request.run_id, number, ask, plan, prompt, growth, output)
                except Exception:  # noqa: BLE001  (it is advice, and the call is held already)
                    notice = loading = None
                return granted._replace(model=request.model, notice=notice, loading_budget_tokens=loading)
            lack = granted._replace(may_defer=lack.may_defer)
        return self._last(request, number, run, prompt) or lack

    def unplanned(self, request: Request, number: int, prompt: int) -> Grant | Lack:
        """Return what a call may use that could not be planned, or what it lacks.

        Raises:
            StoreError: The ledger cannot be used.
        """
        rates = tariff(lookup(request.model) if request.model else None)
        most = self._most(request.run_id, rates, prompt)
        if isinstance(most, Lack):
            return most
        held = self._held(number, rates, prompt, most, model=request.model)
        return held._replace(model=request.model) if isinstance(held, Grant) else held

    def settle(
        self, number: int | None, reservation: Reservation | None, used: Amounts, *, priced: bool, run_id: str
    ) -> None:
        """Book what a call used: in the ledger first, so that a failure there leaves all as it was.

        Raises:
            LedgerError: The reservation was settled with other amounts.
            StoreError: The ledger cannot be used; say it again later.
        """
        if self._ledger is not None and reservation is not None:
            self._ledger.settle(reservation, tokens=used.tokens, cost_nusd=used.cost_nusd if priced else None)
        self.holdings.settle(number, used)
        self.begun.add(run_id)

    def spend(self, used: Amounts, key: str | None) -> None:
        """Book what was used without anybody having asked.

        Raises:
            LedgerError: The key is that of another booking.
            StoreError: The ledger cannot be used; say it again later.
        """
        if self._ledger is not None:
            self._ledger.spend(self._workflow, tokens=used.tokens, cost_nusd=used.cost_nusd, key=key)
        self.holdings.settle(None, used)

    def release(self, number: int, reservation: Reservation | None) -> None:
        """Give back what was held for a call that was not made.

        Raises:
            LedgerError: The reservation was settled.
            StoreError: The ledger cannot be used.
        """
        if self._ledger is not None and reservation is not None:
            self._ledger.release(reservation)
        self.holdings.release(number)

    def renew(self, number: int, reservation: Reservation | None) -> None:
        """Let the lease of a call that still runs begin anew, here and in the ledger.

        Raises:
            LedgerError: The reservation does not hold any more.
            StoreError: The ledger cannot be used.
        """
        self.holdings.renew(number)
        if self._ledger is not None and reservation is not None:
            self._ledger.renew(reservation)

    def top_up(self, tokens: int, usd: float, key: str | None, *, booked: bool = True) -> None:
        """Raise the limits of the session, and of its account where that is to be booked.

        Raises:
            LedgerError: The account has no such limit, or the key is that of another top-up.
            StoreError: The ledger cannot be used.
        """
        more = Amounts(tokens, round(usd * NUSD))
        if self._ledger is not None and booked:
            self._ledger.top_up(self._workflow, tokens=more.tokens, cost_nusd=more.cost_nusd, key=key)
        self.holdings.top_up(more)
        self._plans.top_up(tokens, usd)
        self.final.clear()
        self._told.clear()

    def finished(self, run_id: str) -> None:
        """Take note that a run has ended: nothing is kept for it any more."""
        self.begun.discard(run_id)
        self.final.discard(run_id)
        self._expected.clear()

    # How much there is.

    def _room(self, run_id: str, *, final: bool = False) -> tuple[int | None, int | None]:
        """Return what a run may take of what is free, in tokens and nano-dollars; `None`: no limit."""
        free, free_nusd = self.holdings.free(0), self.holdings.free(1)
        if free is None:
            return None, free_nusd
        runs = len(self.begun) + (run_id not in self.begun)
        kept = self._kept(runs)
        if final:
            kept = kept * (runs - 1) // runs
        return free - kept, free_nusd

    def _kept(self, runs: int) -> int:
        budget = self._plans.options.budget
        return reserve_tokens(runs, budget.max_tokens, budget.reserve_share)

    def _most(
        self,
        run_id: str,
        rates: Tariff,
        prompt: int,
        *,
        plan: InvocationPlan | None = None,
        ask: Invocation | None = None,
        final: bool = False,
    ) -> int | Lack | None:
        """Return the longest output that budget and plan allow, `None` for no limit, or what is lacking."""
        room, room_nusd = self._room(run_id, final=final)
        limits: list[int] = []
        if room is not None:
            limits += [MOST_OUTPUT_TOKENS, room - prompt]
        if room is not None and plan is not None and ask is not None and plan.allocated_tokens is not None:
            used = self._plans.stages[run_id, ask.stage].used_tokens
            limits.append(max(MIN_OUTPUT_TOKENS, plan.allocated_tokens - round(used) - prompt))
        if room_nusd is not None and rates.priced:
            output_nusd = rates.at(prompt).prices.output * NUSD
            left = room_nusd - _prompt_usd(rates, prompt) * NUSD
            limits += [MOST_OUTPUT_TOKENS, int(left / output_nusd) if output_nusd > 0 else MOST_OUTPUT_TOKENS]
        if not limits:
            return None
        if min(limits) >= MIN_OUTPUT_TOKENS:
            return min(limits)
        free = "" if room is None else f" in {max(0, room):,} tokens"
        return Lack((f"budget used up: a prompt of {prompt:,} tokens does not fit{free}",), prompt + MIN_OUTPUT_TOKENS)

    def _held(
        self,
        number: int,
        rates: Tariff,
        prompt: int,
        most: int | None,
        *,
        model: str | None,
        reasons: tuple[str, ...] = (),
    ) -> Grant | Lack:
        """Hold what a call may use, here and in the ledger; where dollars cannot hold it, the grant says so."""
        if not rates.priced and self.holdings.cost_nusd.total is not None:
            reasons = (*reasons, f"no price of {_called(model)} is known: the dollar limit does not hold this call")
        output = DEFAULT_OUTPUT_TOKENS if most is None else most
        usd = _prompt_usd(rates, prompt) + output * rates.at(prompt).prices.output
        asked = Amounts(prompt + output, round(usd * NUSD) if rates.priced else 0)
        needs = prompt + MIN_OUTPUT_TOKENS
        if not self.holdings.hold(number, asked):
            return Lack((f"budget used up: {asked.tokens:,} tokens are not free",), needs)
        if self._ledger is None:
            return Grant(rates, most, reasons=reasons)
        try:
            held = self._ledger.reserve(
                self._workflow, tokens=asked.tokens, cost_nusd=asked.cost_nusd if rates.priced else None
            )
        except BaseException:
            self.holdings.release(number)
            raise
        if isinstance(held, Refusal):
            self.holdings.release(number)
            return Lack((held.reason,), needs)
        degraded = () if held.degraded is None else (f"not booked in the ledger: {held.degraded}",)
        return Grant(rates, most, held, (*reasons, *degraded))

    # What is done where it does not fit.

    def _ways(self, request: Request, run: LiveRun, prompt: int, output: int) -> Ways:
        room, room_nusd = self._room(request.run_id)
        return ways_out(
            request.policies,
            request.agent,
            prompt_tokens=prompt,
            output_tokens=max(MIN_OUTPUT_TOKENS, output),
            rates=run.tariff.at(prompt),
            max_tokens=None if room is None else max(0, room),
            max_cost_nusd=None if room_nusd is None or not run.tariff.priced else max(0, room_nusd),
        )

    def _simplified(self, request: Request, number: int, run: LiveRun, prompt: int, chosen: Chosen) -> Grant | None:
        """Return the variant that the plan chose as a grant, or `None` where even that cannot be held."""
        rates = run.tariff if chosen.model is None else tariff(lookup(chosen.model))
        most = self._most(request.run_id, rates, prompt)
        if isinstance(most, Lack):
            return None
        work = chosen.work_tokens if most is None else min(most, chosen.work_tokens)
        reason = f"simplified: runs as '{chosen.name}' because the budget does not hold it in full"
        model = chosen.model or request.model
        held = self._held(number, rates, prompt, max(MIN_OUTPUT_TOKENS, work), model=model, reasons=(reason,))
        if isinstance(held, Lack):
            return None
        return held._replace(model=model, variant=chosen.name, effort_share=chosen.effort_share)

    def _last(self, request: Request, number: int, run: LiveRun, prompt: int) -> Grant | None:
        """Return the last call of a run that has begun, out of what is kept for it, or `None`."""
        if request.run_id not in self.begun or request.run_id in self.final:
            return None
        most = self._most(request.run_id, run.tariff, prompt, final=True)
        if isinstance(most, Lack):
            return None
        reasons = ("the last call that the budget holds",)
        held = self._held(number, run.tariff, prompt, most, model=request.model, reasons=reasons)
        if isinstance(held, Lack):
            return None
        self.final.add(request.run_id)
        return held._replace(model=request.model, final=True, notice=final_notice(most), loading_budget_tokens=0)

    # What comes next.

    def _expected_call(self, ask: Invocation) -> tuple[int, int]:
        kind = kind_of(ask)
        if kind not in self._expected:
            self._expected[kind] = self._plans.expected_call(ask)
        return self._expected[kind]

    def loading_budget(self, ask: Invocation, prompt: int) -> int | None:
        """Return by how many tokens what a run loads may lengthen all its prompts, or `None` for no limit.

        Args:
            ask: Its first call.
            prompt: Tokens of its prompt without anything loaded.
        """
        free = self.holdings.free(0)
        if free is None:
            return None
        _, output = self._expected_call(ask)
        kept = self._kept(len(self.begun) + (ask.run_id not in self.begun))
        return int(max(0, free - kept - prompt - output) // (1 + REMAINING_CALLS[ask.role]))

    def _outlook(
        self, run_id: str, number: int, ask: Invocation, plan: InvocationPlan, prompt: int, growth: int, output: int
    ) -> tuple[str | None, int | None]:
        """Return what the agent is told of its budget, and by how much files may lengthen its prompt."""
        free = self.holdings.free(0)
        if free is None:
            return None, None
        kept = self._kept(len(self.begun) + (run_id not in self.begun))
        left = free + self.holdings.held(number).tokens - kept - prompt - output
        calls = max(0, left) // max(1, prompt + growth + output)
        room = left
        if plan.allocated_tokens is not None:
            used = self._plans.stages[run_id, ask.stage].used_tokens
            room = min(left, plan.allocated_tokens - round(used) - prompt - output)
        loading = int(max(0, room) // (1 + REMAINING_CALLS[ask.role]))
        notice = None
        if calls < LOW_CALLS and self._told.get(run_id) != calls:
            self._told[run_id] = calls
            notice = low_notice(left, calls)
        return notice, loading


def _called(model: str | None) -> str:
    return "a model that was not named" if model is None else f"'{model[:60]}'"


def _prompt_usd(rates: Tariff, prompt: int) -> float:
    found = rates.at(prompt)
    return prompt * max(found.input, found.prices.write)
