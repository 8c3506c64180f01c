"""What the tools do, without the protocol: arguments in, results out, and every mistake an error of ours.

    with Service() as service:
        service.compress(CompressArguments(content="..."))

What is opened is opened when it is first needed. Contents are never followed: what a text says changes no strategy, no
budget and no handle. Safe to call from several threads.
"""

from __future__ import annotations

import threading
from base64 import b64encode
from collections import OrderedDict
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from apportion.errors import InfeasiblePlanError, InputError, LedgerError
from apportion.planner.doors import _contents as contents
from apportion.planner.doors.mcp import results
from apportion.planner.doors.mcp.arguments import MAX_CONTENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from apportion.compression.handoff import Party
    from apportion.compression.shared import SharedContexts
    from apportion.compression.similarity.gate import Gate
    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Outcome
    from apportion.planner.doors.mcp import arguments
    from apportion.planner.ledger import Balance, Ledger
    from apportion.planner.plan import AgentPlan, Plan
    from apportion.planner.problem import Problem

MAX_LISTED = 20
"""Entries of a list of findings; how many there are is always said."""

MAX_ENTRY = 300
"""Characters of a reason, or of a line that is shown."""

MAX_PLANS = 64
"""Plans that are kept to be explained."""

MAX_WORKFLOWS = 64
"""Workflows of which it is known who holds which context."""

HELD_S = 3_600
"""Seconds after which an agent that was sent nothing is taken to hold nothing."""

SIMILARITY_S = 5.0
"""Seconds that a call compares meaning at most: about 30 chunks of which a part is left. Vectors are kept, so what was
not done in that time is done when the same is asked again."""

NUSD = 10**9
"""Nano-dollars in a US dollar."""

SMALLEST_PROBLEM = (
    'The smallest: {"max_tokens":20000,"models":[{"id":"m","input":3000000,"output":15000000,"cache_read":300000,'
    '"cache_write_5m":3750000,"cache_write_1h":6000000}],"stages":[{"id":"s"}],"agents":[{"id":"a","stage_id":"s",'
    '"variants":[{"model_id":"m","demand":{"probabilities":[0.5,0.9],"tokens":[2000,5000]}}]}]}; '
    "prices are nano-dollars per 1,000 tokens. More: apportion plan --example"
)
"""What a problem must have, for hints."""


class Service:
    """The eight tools.

    Args:
        originals: File of the store of originals; `None`: beside the telemetry store.
        ledger: File or address of the ledger; `None`: `ledger.db` beside the telemetry store.
        gate: Compares meaning; `None`: the default model, which no call waits for.
    """

    def __init__(
        self, *, originals: Path | None = None, ledger: str | Path | None = None, gate: Gate | None = None
    ) -> None:
        self._originals_path = originals
        self._ledger_address = ledger
        self._originals: HandleStore | None = None
        self._ledger: Ledger | None = None
        self._plans: OrderedDict[str, tuple[Problem, Plan]] = OrderedDict()
        self._workflows: OrderedDict[str, SharedContexts] = OrderedDict()
        self._gate = gate
        self._opened = ExitStack()
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened; closing twice is fine."""
        with self._lock:
            self._opened.close()
            self._originals = self._ledger = None

    # Contents.

    def compress(self, given: arguments.CompressArguments) -> results.CompressResult:
        """Make a content shorter.

        Raises:
            InputError: The content is too long, or there is no such strategy.
            StoreError: Originals cannot be kept.
        """
        from apportion.planner.report.inspection import facts_of

        outcome = self._outcome(given, self._store(create=True) if given.can_expand else None)
        return results.CompressResult(
            content=outcome.content.decode("utf-8", "replace"),
            **_common(outcome),
            handles=[str(handle) for handle in outcome.handles],
            facts=_facts(facts_of(outcome)),
        )

    def inspect(self, given: arguments.InspectArguments) -> results.InspectResult:
        """Say what a compression would do to a content; nothing is kept.

        Raises:
            InputError: The content is too long, or there is no such strategy.
        """
        from apportion.planner.report.inspection import inspect_outcome

        outcome = self._outcome(given, None)
        found = inspect_outcome(outcome, name="")
        rows = [row for row in found.rows if not row.same]
        return results.InspectResult(
            **_common(outcome),
            facts=_facts(found.facts),
            left_out=[
                results.LeftOutResult(first=gap.first, last=gap.last, bytes=gap.bytes, reason=gap.reason[:MAX_ENTRY])
                for gap in found.left_out[:MAX_LISTED]
            ],
            left_out_count=len(found.left_out),
            rows=[
                results.RowResult(
                    before_line=row.before[0] if row.before else None,
                    before=row.before[1][:MAX_ENTRY] if row.before else None,
                    after_line=row.after[0] if row.after else None,
                    after=row.after[1][:MAX_ENTRY] if row.after else None,
                )
                for row in rows[: given.rows]
            ],
            changed_rows=len(rows),
        )

    def validate(self, given: arguments.ValidateArguments) -> results.ValidateResult:
        """Compare a compressed text with its original; meaning as far as a model for that is there by now.

        Raises:
            InputError: A text is too long.
        """
        from apportion.compression.similarity.stated import state
        from apportion.compression.validation.check import check

        original, compressed = _bytes("original", given.original), _bytes("compressed", given.compressed)
        found = check(original, compressed)
        measured = state(original, compressed, self.gate)
        lists = {
            "lost": found.lost,
            "new": found.new,
            "lost_constraints": found.lost_constraints,
            "lost_passages": found.lost_passages,
            "new_passages": found.new_passages,
            "negations": found.negations,
        }
        return results.ValidateResult(
            accepted=found.accepted,
            reasons=_short(found.reasons),
            facts=found.facts,
            visible_facts=found.visible_facts,
            similarity=measured.similarity,
            least_similarity=measured.least,
            similarity_reason=measured.reason[:MAX_ENTRY] or None,
            counts={name: len(entries) for name, entries in lists.items()},
            **{name: _short(entries) for name, entries in lists.items()},
        )

    def expand(self, given: arguments.ExpandArguments) -> results.ExpandResult:
        """Give back what was left out behind a handle.

        Raises:
            StoreError: There is no such original, or it is damaged.
            InputError: There is no store, or nothing in that range.
        """
        from apportion.compression.expand_tool import expand

        content = expand(self._store(create=False), given.handle, given.range or None)
        try:
            return results.ExpandResult(content=content.decode(), content_base64=None, bytes=len(content))
        except UnicodeDecodeError:
            encoded = b64encode(content).decode()
            return results.ExpandResult(content=None, content_base64=encoded, bytes=len(content))

    # Budgets.

    def plan(self, given: arguments.PlanArguments) -> results.PlanResult:
        """Plan a workflow, or say why there is no plan.

        Raises:
            InputError: The problem cannot be used, or there is no such policy.
        """
        from apportion.planner.explanation import explain, explain_infeasible
        from apportion.planner.solver import DEADLINE_MS, plan_workflow

        problem = _problem(given)
        try:
            plan = plan_workflow(problem, deadline_ms=DEADLINE_MS if given.deadline_ms is None else given.deadline_ms)
        except InfeasiblePlanError as error:
            why = explain_infeasible(error)
            return results.PlanResult(
                feasible=False, plan_id=None, tokens=None, cost_usd=None, gap=None, status=None, agents=[],
                conflict=list(why.conflict), missing=why.missing, summary=why.text,
            )  # fmt: skip
        plan_id = f"plan-{plan.fingerprint[:12]}"
        with self._lock:
            self._plans[plan_id] = problem, plan
            self._plans.move_to_end(plan_id)
            while len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        return results.PlanResult(
            feasible=True,
            plan_id=plan_id,
            tokens=plan.tokens,
            cost_usd=plan.cost_nusd / NUSD,
            gap=plan.gap,
            status=plan.status,
            agents=[_agent(agent) for agent in plan.agents],
            conflict=[],
            missing={},
            summary=explain(problem, plan).summary,
        )

    def explain(self, given: arguments.ExplainArguments) -> results.ExplainResult:
        """Say why a plan is as it is.

        Raises:
            InputError: There is no such plan, or no such agent in it.
        """
        from apportion.planner.explanation import explain

        with self._lock:
            kept = self._plans.get(given.plan_id)
        if kept is None:
            raise InputError(
                f"there is no plan {given.plan_id[:40]!r}",
                hint=f"Call plan_budget and take its plan_id; the last {MAX_PLANS} are kept while the server runs.",
            )
        why = explain(*kept)
        agents = [agent for agent in why.agents if given.agent_id in {"", agent.agent_id}]
        if given.agent_id and not agents:
            known = ", ".join(agent.agent_id for agent in why.agents[:MAX_LISTED])
            raise InputError(f"there is no agent {given.agent_id[:40]!r} in this plan", hint=f"It has {known}.")
        return results.ExplainResult(
            plan_id=given.plan_id,
            summary=why.summary,
            limits=[limit.text for limit in why.limits],
            policies=[decision.text for decision in why.policies],
            agents=[
                results.AgentReasonResult(
                    agent_id=agent.agent_id,
                    decision=agent.decision,
                    text=agent.text,
                    pieces=[piece.text for piece in agent.pieces],
                )
                for agent in agents
            ],
            degraded=list(why.degraded),
        )

    def record_usage(self, given: arguments.UsageArguments) -> results.UsageResult:
        """Book what a call used, in full, whatever is free.

        Raises:
            InputError: An amount is out of range.
            LedgerError: There is no such account, or the key is that of another booking.
            StoreError: The ledger cannot be used.
        """
        ledger = self._books()
        if given.limit_tokens is not None:
            ledger.open_account(given.account, tokens=given.limit_tokens)
        tokens = given.input_tokens + given.output_tokens
        nusd = 0 if given.cost_usd is None else round(given.cost_usd * NUSD)
        try:
            booked = ledger.spend(given.account, tokens=tokens, cost_nusd=nusd, key=given.key)
        except LedgerError as error:
            if error.hint != "Open it first":
                raise
            raise LedgerError(error.message, hint="Give limit_tokens as well: that opens it.") from error
        account = ledger.account(given.account)
        return results.UsageResult(
            account=account.id,
            booking=booked.id,
            booked_tokens=tokens,
            tokens=_balance(account.tokens),
            cost_nusd=_balance(account.cost_nusd),
        )

    # Handoffs.

    def handoff(self, given: arguments.HandoffArguments) -> results.HandoffResult:
        """Write a message that hands a context over, or read one.

        Raises:
            InputError: Both or neither are given, or the message is none.
        """
        if (given.context is None) == (given.message is None):
            raise InputError(
                "handoff_context takes a context to write or a message to read", hint="Give exactly one of them."
            )
        held = self._contexts_of(given.workflow)
        return _read(given.message, held) if given.message is not None else _write(given, held)

    # What is opened.

    @property
    def gate(self) -> Gate:
        """What compares meaning: one for all calls, whose model is loaded in the background when it is first needed."""
        from apportion.compression.similarity.gate import Gate

        with self._lock:
            if self._gate is None:
                self._gate = Gate(seconds=SIMILARITY_S)
            return self._gate

    def _outcome(self, given: arguments.CompressArguments, store: HandleStore | None) -> Outcome:
        from apportion.compression.pipeline import apply
        from apportion.compression.store import HandleStore
        from apportion.compression.strategies.types import Item, Query

        content = _bytes("content", given.content)
        strategy = contents.chosen(given.strategies, None, HandleStore() if store is None else store, gate=self.gate)
        query = Query(task=given.query, can_expand=given.can_expand)
        return apply(strategy, Item(content), query, target_tokens=given.target_tokens)

    def _store(self, *, create: bool) -> HandleStore:
        with self._lock:
            if self._originals is None:
                path = contents.originals_path(self._originals_path)
                if not create and not path.exists():
                    raise InputError(
                        "nothing was left out yet: there is no store of originals",
                        hint="Handles are given out by compress_content with can_expand.",
                    )
                self._originals = self._opened.enter_context(contents.opened_originals(path, create=True))
            return self._originals

    def _books(self) -> Ledger:
        from apportion.planner.ledger import Ledger
        from apportion.settings import load_settings

        with self._lock:
            if self._ledger is None:
                default = load_settings().settings.telemetry.database.with_name("ledger.db")
                self._ledger = self._opened.enter_context(Ledger(self._ledger_address or default))
            return self._ledger

    def _contexts_of(self, workflow: str) -> SharedContexts:
        from apportion.compression.shared import MAX_BYTES, SharedContexts

        with self._lock:
            if workflow not in self._workflows:
                self._workflows[workflow] = SharedContexts(ttl_s=HELD_S, max_bytes=MAX_BYTES // 8)
            self._workflows.move_to_end(workflow)
            while len(self._workflows) > MAX_WORKFLOWS:
                self._workflows.popitem(last=False)
            return self._workflows[workflow]


def _bytes(name: str, text: str) -> bytes:
    """Return a text as UTF-8.

    Raises:
        InputError: It is too long.
    """
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > MAX_CONTENT_BYTES:
        raise InputError(
            f"{name} has {len(content):,} bytes; at most {MAX_CONTENT_BYTES:,} are taken",
            hint="Give it in parts, or use the command line: apportion compress FILE.",
        )
    return content


def _short(entries: Sequence[str]) -> list[str]:
    return [entry[:MAX_ENTRY] for entry in entries[:MAX_LISTED]]


def _common(outcome: Outcome) -> dict[str, Any]:
    from apportion.planner.report.inspection import grouped_reasons

    return {
        "tokens": outcome.tokens,
        "original_tokens": outcome.original_tokens,
        "saved_share": outcome.saved_share,
        "steps": list(outcome.steps),
        "reasons": _short(grouped_reasons(outcome.reasons, outcome.steps)),
    }


def _facts(facts: Any) -> results.FactsResult:
    return results.FactsResult(
        total=facts.total,
        visible=facts.visible,
        missing=_short(facts.missing),
        back=facts.back if facts.missing else None,
    )


def _problem(given: arguments.PlanArguments) -> Problem:
    from apportion.planner.policies import load_policies, named_policies, with_policies
    from apportion.planner.problem import Problem

    limits: dict[str, int] = {}
    if given.max_tokens is not None:
        limits["max_tokens"] = given.max_tokens
    if given.max_usd is not None:
        limits["max_cost_nusd"] = round(given.max_usd * NUSD)
    try:
        problem = Problem.parse(given.problem | limits)
    except InputError as error:
        raise InputError(error.message[:MAX_ENTRY], hint=error.hint or SMALLEST_PROBLEM) from error
    if not given.policies:
        return problem
    known, _broken = load_policies()
    return with_policies(problem, named_policies(known, given.policies))


def _agent(agent: AgentPlan) -> results.AgentResult:
    likely = None if agent.cut_off_probability is None else 1 - agent.cut_off_probability
    return results.AgentResult(
        agent_id=agent.agent_id,
        runs_as=agent.variant_id,
        work_tokens=agent.work_tokens,
        enough_probability=likely,
        tokens=agent.tokens + agent.given_tokens,
        cost_usd=(agent.cost_nusd + agent.given_cost_nusd) / NUSD,
        pieces=[results.PieceResult(item_id=one.item_id, form=one.form, tokens=one.tokens) for one in agent.pieces],
    )


def _balance(balance: Balance) -> results.BalanceResult:
    return results.BalanceResult(total=balance.total, spent=balance.spent, held=balance.held, free=balance.free)


def _party(text: str) -> Party:
    from apportion.compression.handoff import Party

    agent_id, _, agent_type = text.partition(":")
    if not agent_id or not agent_type:
        raise InputError(f"{text[:40]!r} does not name an agent", hint="Write ID:TYPE, for example tester-2:tester.")
    return Party(agent_id, agent_type)


def _write(given: arguments.HandoffArguments, held: SharedContexts) -> results.HandoffResult:
    """Write a message, with a delta where the target holds a context that we still know, else with the whole."""
    from datetime import UTC, datetime
    from uuid import uuid4

    from apportion.compression.diff.reading import read_context
    from apportion.compression.handoff import NOTHING, Capabilities, Handoff, write_handoff

    assert given.context is not None
    source, target = _party(given.source), _party(given.target)
    context = read_context(_bytes("context", given.context))
    holdings = [held.holding(run) for run in (target.agent_id, source.agent_id)]
    bases = {holding.context.digest: holding.context for holding in holdings if holding is not None}
    receiver = NOTHING
    reason = None
    if given.reply is not None:
        receiver = Capabilities.of(given.reply)
    elif given.accepts_deltas:
        offer = held.offer(target.agent_id, context)
        receiver = Capabilities(deltas=True, holds=() if offer.base is None else (offer.base.digest,))
        reason = offer.reason
    handoff = Handoff(source, target, given.task, context, datetime.now(UTC), handoff_id=str(uuid4()))
    message = write_handoff(handoff, receiver=receiver, bases=bases)
    held.note_sent(target.agent_id, context)
    delta = message["context"].get("delta")
    if delta is None:
        reason = reason or receiver.shared(bases)[1]
    return results.HandoffResult(
        message=message,
        context=None,
        form="full" if delta is None else "delta",
        reason=None if delta is not None else "not_worth_it" if reason is None else reason.value,
        exact=True,
        context_bytes=context.size,
        message_bytes=_size(message),
        digest=context.digest,
        degraded=[],
    )


def _read(message: dict[str, Any], held: SharedContexts) -> results.HandoffResult:
    """Read a message; where its context cannot be had, the sender is to be asked for the whole."""
    from apportion.compression.diff.reading import join_context
    from apportion.compression.handoff import read_handoff

    parties = [message.get(side) for side in ("target", "source")]
    runs = [
        party["agent_id"] for party in parties if isinstance(party, dict) and isinstance(party.get("agent_id"), str)
    ]
    holdings = [held.holding(run) for run in runs]
    bases = {holding.context.digest: holding.context for holding in holdings if holding is not None}
    received = read_handoff(message, held=bases)
    context = received.context
    if context is not None:
        for run in runs:
            held.note_sent(run, context)
    return results.HandoffResult(
        message=None,
        context=None if context is None else join_context(context).decode("utf-8", "replace"),
        form=received.form.value,
        reason=None if received.reason is None else str(getattr(received.reason, "value", received.reason)),
        exact=received.exact,
        context_bytes=0 if context is None else context.size,
        message_bytes=_size(message),
        digest="" if context is None else context.digest,
        degraded=[text[:MAX_ENTRY] for text in received.degraded],
    )


def _size(message: Any) -> int:
    import json

    return len(json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass"))
