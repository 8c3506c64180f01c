"""Tampered plans are caught, field by field; honest ones pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from apportion.planner.plan import AgentPlan, LimitPrice, PieceChoice, Plan
from apportion.planner.problem import MILLION, Problem
from apportion.planner.validate import validate_plan
from apportion.records import Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hypothesis.strategies import DataObject

    from apportion.planner.problem import Agent

    Planned = Callable[[int], tuple[Problem, Plan]]

SEEDS = 200

UNPROVABLE = {"bound_source", "source", "stopped_by", "degraded"}
"""Where a plan came from: nothing in it could tell otherwise. (That a bound is proven, only solving could tell; but one
that is changed alone no longer fits the gap.)"""

ONLY_LIMIT_OF_PRICE = {"units"}
"""A dual price is a proof together with the columns that the solver had; alone it could be any."""

SAME_PLAN = {"prepared", "prices"}
"""Their order says nothing, and a price that is left out says only less; hence they have tests of their own."""


@pytest.mark.parametrize("seed", range(0, SEEDS, 20))
def test_honest_plans_are_valid(seed: int, planned: Planned) -> None:
    for each in range(seed, seed + 20):
        assert validate_plan(*planned(each)) == ()


def test_the_plans_of_these_tests_show_everything(planned: Planned) -> None:
    plans = [planned(seed)[1] for seed in range(SEEDS)]
    agents = [agent for plan in plans for agent in plan.agents]
    running = [agent for agent in agents if not agent.deferred]
    for field in AgentPlan.model_fields:
        assert len({getattr(agent, field) for agent in running}) > 1, field
    assert any(agent.deferred for agent in agents)
    assert any(plan.prepared for plan in plans)
    assert any(agent.preload for agent in agents)
    assert len({piece.form for agent in agents for piece in agent.pieces}) > 10
    assert {plan.status for plan in plans} == {"OPTIMAL", "FEASIBLE"}


# One field at a time.


def _other(value: Any, names: Sequence[str | None], data: DataObject) -> Any:
    """Return another value of the same type, valid for a record wherever that is possible."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        near = st.integers(-3, 3) | st.sampled_from([64, -64]) | st.integers(-(10**6), 10**6)
        return value + data.draw(near.filter(bool))
    if isinstance(value, float):
        return data.draw(st.floats(0, 1).filter(lambda other: abs(other - value) > 1e-6))
    if isinstance(value, str) or value is None:
        return data.draw(st.sampled_from([name for name in names if name != value]))
    assert isinstance(value, tuple)
    changed = list(value)
    if not changed:
        return (data.draw(st.sampled_from(names)),)
    where = data.draw(st.integers(0, len(changed) - 1))
    change = data.draw(st.sampled_from(["drop", "repeat", "reverse"]))
    if change == "drop":
        del changed[where]
    elif change == "repeat":
        changed.insert(where, changed[where])
    else:
        changed.reverse()
    assume(tuple(changed) != value)
    return tuple(changed)


def _with_agent(plan: Plan, number: int, changes: dict[str, Any]) -> Plan:
    agents = list(plan.agents)
    agents[number] = agents[number].model_copy(update=changes)
    return plan.model_copy(update={"agents": tuple(agents)})


@pytest.mark.parametrize("field", sorted(set(Plan.model_fields) - UNPROVABLE - SAME_PLAN))
@settings(max_examples=30)
@given(data=st.data())
def test_a_plan_with_another_value_in_one_field_is_caught(field: str, planned: Planned, data: DataObject) -> None:
    problem, plan = planned(data.draw(st.integers(0, SEEDS - 1)))
    value = getattr(plan, field)
    changed = _other(value, ["OPTIMAL", "FEASIBLE"], data)
    if field in {"cost_bound_nusd", "least_value"}:  # a weaker claim is still true
        assume(changed > value)
    assert validate_plan(problem, plan.model_copy(update={field: changed}))


@pytest.mark.parametrize("field", sorted(AgentPlan.model_fields))
@settings(max_examples=40)
@given(data=st.data())
def test_an_agent_with_another_value_in_one_field_is_caught(field: str, planned: Planned, data: DataObject) -> None:
    problem, plan = planned(data.draw(st.integers(0, SEEDS - 1)))
    number = data.draw(st.integers(0, len(plan.agents) - 1))
    agent, before = problem.agents[number], plan.agents[number]
    names: list[str | None] = [None] if field in {"variant_id", "hand_back"} else []
    names += ["no such", *(each.id for each in problem.agents), *(each.id for each in problem.stages)]
    names += [*(each.id for each in agent.variants), *(each.id for each in agent.hand_backs)]
    value = getattr(before, field)
    if value == () and field == "pieces":
        assume(not before.deferred or agent.uses)
        changed: Any = (PieceChoice(item_id=problem.items[0].id, form="keep", tokens=problem.items[0].tokens),)
        assume(not agent.uses or before.deferred)
    elif field == "cut_off_probability" and value is None:
        changed = 0.5
    else:
        changed = _other(value, names, data)
    if _says_the_same(agent, before, field, changed):
        return
    assert validate_plan(problem, _with_agent(plan, number, {field: changed}))


def _says_the_same(agent: Any, before: AgentPlan, field: str, changed: Any) -> bool:
    """Say whether a choice may truly be replaced by another one, all figures being equal."""
    if field == "price_tier":
        return before.cost_nusd == 0 and changed == 1
    if field == "hand_back":
        ways = {way.id: (way.tokens, way.loss_points) for way in agent.hand_backs}
        return changed in ways and ways[changed] == ways.get(before.hand_back)
    if field == "preload" and agent.preload is not None and not before.deferred:
        saved = agent.preload.latency_ms * agent.preload.probability_ppm // MILLION
        return bool(saved < 120 or not before.latency_ms)  # may be less than a tick, or more than the latency
    return False


@pytest.mark.parametrize("field", sorted(PieceChoice.model_fields))
@settings(max_examples=80)
@given(data=st.data())
def test_a_piece_with_another_value_in_one_field_is_caught(field: str, planned: Planned, data: DataObject) -> None:
    problem, plan = planned(data.draw(st.integers(0, SEEDS - 1)))
    places = [(number, slot) for number, agent in enumerate(plan.agents) for slot in range(len(agent.pieces))]
    assume(places)
    number, slot = data.draw(st.sampled_from(places))
    pieces = list(plan.agents[number].pieces)
    before = pieces[slot]
    item = problem.item_of[before.item_id]
    names = ["no such", "mask:", "keep", *(form.id for form in item.forms), *(each.id for each in problem.items)]
    changed = _other(getattr(before, field), names, data)
    pieces[slot] = before.model_copy(update={field: changed})
    if field == "form" and (before.tokens, item.tokens) == (0, 0):
        return
    assert validate_plan(problem, _with_agent(plan, number, {"pieces": tuple(pieces)}))


@settings(max_examples=50)
@given(data=st.data())
def test_forms_that_are_prepared_are_the_chosen_ones(planned: Planned, data: DataObject) -> None:
    problem, plan = planned(data.draw(st.integers(0, SEEDS - 1)))
    changed = _other(plan.prepared, ["i0:mask", "nothing"], data)
    tampered = plan.model_copy(update={"prepared": changed})
    assert bool(validate_plan(problem, tampered)) == (sorted(changed) != sorted(plan.prepared))


@pytest.mark.parametrize("limit", ["moon", "tokens of stage x", "window of agent x", "cost of stage "])
def test_a_price_of_a_limit_that_does_not_exist_is_caught(limit: str, planned: Planned) -> None:
    problem, plan = planned(0)
    tampered = plan.model_copy(update={"prices": (LimitPrice(limit=limit, units=1.0),)})
    assert validate_plan(problem, tampered) == (f"the price of {limit!r} belongs to no limit",)


def test_a_limit_with_two_prices_is_caught(planned: Planned) -> None:
    problem, plan = planned(0)
    price = LimitPrice(limit="memory", units=1.0)
    tampered = plan.model_copy(update={"prices": (price, price)})
    assert validate_plan(problem, tampered) == ("'memory' has two prices",)


def test_every_field_of_a_plan_is_tampered_with_or_named_as_unprovable() -> None:
    assert set(Plan.model_fields) >= UNPROVABLE | SAME_PLAN
    assert set(LimitPrice.model_fields) == {"limit"} | ONLY_LIMIT_OF_PRICE


# One limit of the problem at a time: the plan stays as it is, the world gets narrower.


def _narrower(problem: Problem, plan: Plan, field: str) -> tuple[Problem, str] | None:
    """Return the problem with a limit just below what the plan needs, and what must be said of it."""
    if field == "max_tokens":
        reserve = problem.reserve_tokens
        return problem.model_copy(update={"max_tokens": plan.tokens + reserve - 1}), "the workflow uses"
    if field == "reserve_tokens":
        changes = {"max_tokens": plan.tokens + 9, "reserve_tokens": 10}
        return problem.model_copy(update=changes), "the workflow uses"
    if field == "max_cost_nusd":
        return problem.model_copy(update={"max_cost_nusd": plan.cost_nusd - 1}), "the workflow costs"
    if field == "max_preload_bytes":
        pairs = zip(problem.agents, plan.agents, strict=True)
        used = sum(agent.preload.memory_bytes for agent, each in pairs if each.preload and agent.preload is not None)
        return (problem.model_copy(update={"max_preload_bytes": used - 1}), f"{used:,} bytes") if used else None
    raise AssertionError(field)


@pytest.mark.parametrize("field", ["max_tokens", "reserve_tokens", "max_cost_nusd", "max_preload_bytes"])
@settings(max_examples=30)
@given(data=st.data())
def test_a_plan_that_exceeds_a_limit_of_the_workflow_is_caught(field: str, planned: Planned, data: DataObject) -> None:
    problem, plan = planned(data.draw(st.integers(0, SEEDS - 1)))
    found = _narrower(problem, plan, field)
    assume(found is not None and plan.tokens and plan.cost_nusd)
    assert found is not None
    narrower, said = found
    moved = plan.model_copy(update={"fingerprint": narrower.fingerprint, "prices": ()})
    (violation,) = validate_plan(narrower, moved)
    assert violation.startswith(said)


def _change(problem: Problem, kind: str, name: str, **changes: Any) -> Problem:
    """Return the problem with one record changed."""
    records = tuple(
        record.model_copy(update=changes) if record.id == name else record for record in getattr(problem, kind)
    )
    return problem.model_copy(update={kind: records})


def _deferral_forbidden(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if planned.deferred:
        yield _change(problem, "agents", agent.id, mandatory=True)


def _result_needed(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if planned.deferred:
        for other in problem.agents:
            if other.id != agent.id:
                yield _change(problem, "agents", other.id, after=(agent.id,))


def _pinned(problem: Problem, _: Agent, planned: AgentPlan) -> Iterator[Problem]:
    for piece in planned.pieces:
        if piece.form.startswith(("mask", "lazy", "select")):
            yield _change(problem, "items", piece.item_id, pinned=True)


def _not_expanding(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if any(piece.form.startswith(("mask", "lazy", "select")) for piece in planned.pieces):
        yield _change(problem, "agents", agent.id, can_expand=False)


def _holding_nothing(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if any(piece.form.startswith(("diff", "reference")) for piece in planned.pieces):
        uses = tuple(use.model_copy(update={"held": "nothing", "held_if_kept_by": None}) for use in agent.uses)
        yield _change(problem, "agents", agent.id, uses=uses)


def _holding_what_is_not_kept(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    for position, piece in enumerate(planned.pieces):
        if piece.form.startswith(("diff", "reference")):
            changes = {"held": "nothing", "held_if_kept_by": agent.id}  # which itself gets no whole one
            uses = list(agent.uses)
            uses[position] = uses[position].model_copy(update=changes)
            yield _change(problem, "agents", agent.id, uses=tuple(uses))


def _small_window(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if planned.prompt_tokens + planned.work_tokens > 1:
        for variant in agent.variants:
            if variant.id == planned.variant_id:
                window = planned.prompt_tokens + planned.work_tokens - 1
                yield _change(problem, "models", variant.model_id, context_window=window)


def _low_tier(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    for variant in agent.variants:
        tiers = problem.model_of[variant.model_id].tiers
        if variant.id == planned.variant_id and tiers and not planned.price_tier and planned.prompt_tokens:
            lower = (tiers[0].model_copy(update={"above_tokens": planned.prompt_tokens - 1}),)
            yield _change(problem, "models", variant.model_id, tiers=lower)


def _short_of_time(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if planned.latency_ms > 20:
        yield _change(problem, "stages", agent.stage_id, max_latency_ms=planned.latency_ms - 20)


def _higher_floor(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if not planned.deferred:
        higher = tuple(v.model_copy(update={"floor_tokens": planned.work_tokens + 1}) for v in agent.variants)
        yield _change(problem, "agents", agent.id, variants=higher)


def _lower_cap(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if planned.work_tokens:
        lower = tuple(v.model_copy(update={"max_tokens": planned.work_tokens - 1}) for v in agent.variants)
        yield _change(problem, "agents", agent.id, variants=lower)


def _lower_demand(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    for variant in agent.variants:
        if variant.id == planned.variant_id and planned.work_tokens > max(variant.floor_tokens, 64):
            demand = Demand(probabilities=(0.5,), tokens=(planned.work_tokens - 64,))
            lower = tuple(v.model_copy(update={"demand": demand}) for v in agent.variants)
            yield _change(problem, "agents", agent.id, variants=lower)


def _poor_stage(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if planned.tokens:
        yield _change(problem, "stages", agent.stage_id, max_tokens=planned.tokens - 1)


def _cheap_stage(problem: Problem, agent: Agent, planned: AgentPlan) -> Iterator[Problem]:
    if planned.cost_nusd:
        yield _change(problem, "stages", agent.stage_id, max_cost_nusd=planned.cost_nusd - 1)


def _short_items(problem: Problem, _: Agent, planned: AgentPlan) -> Iterator[Problem]:
    for piece in planned.pieces:
        if piece.form != "keep":
            yield _change(problem, "items", piece.item_id, tokens=piece.tokens)


@pytest.mark.parametrize(
    ("narrow", "said"),
    [
        (_deferral_forbidden, "is mandatory, but deferred"),
        (_result_needed, "which is deferred"),
        (_pinned, "the item is pinned"),
        (_not_expanding, "it cannot expand handles"),
        (_holding_nothing, "it holds no"),
        (_holding_what_is_not_kept, "does not get it whole"),
        (_small_window, "more than the window of"),
        (_low_tier, "too many for price tier 0"),
        (_short_of_time, "ms of its stage"),
        (_higher_floor, "less than its floor of"),
        (_lower_cap, "more than its cap of"),
        (_lower_demand, "more than it can need"),
        (_poor_stage, "more than its cap of"),
        (_cheap_stage, "more than its cap of $"),
        (_short_items, "it is not shorter"),
    ],
)
def test_a_broken_rule_is_named(
    narrow: Callable[[Problem, Agent, AgentPlan], Iterator[Problem]], said: str, planned: Planned
) -> None:
    tried = 0
    for seed in range(SEEDS // 4):
        problem, plan = planned(seed)
        for agent, agent_plan in zip(problem.agents, plan.agents, strict=True):
            for narrower in narrow(problem, agent, agent_plan):
                if narrow is _result_needed and not any(
                    set(other.after) - set(before.after) and not other_plan.deferred
                    for other, before, other_plan in zip(narrower.agents, problem.agents, plan.agents, strict=True)
                ):
                    continue
                moved = plan.model_copy(update={"fingerprint": narrower.fingerprint})
                assert any(said in violation for violation in validate_plan(narrower, moved))
                tried += 1
    assert tried >= 10


def test_results_of_others_must_fit_the_window(planned: Planned) -> None:
    tried = 0
    for seed in range(SEEDS):
        problem, plan = planned(seed)
        running = {agent.agent_id: agent for agent in plan.agents if not agent.deferred}
        for agent in problem.agents:
            if agent.id in running and running[agent.id].given_tokens and agent.reports_to in running:
                receiver = running[agent.reports_to]
                alone = receiver.prompt_tokens + receiver.work_tokens
                model = next(
                    variant.model_id
                    for other in problem.agents
                    for variant in other.variants
                    if other.id == receiver.agent_id and variant.id == receiver.variant_id
                )
                narrower = _change(problem, "models", model, context_window=max(1, alone), tiers=())
                moved = plan.model_copy(update={"fingerprint": narrower.fingerprint})
                if not any(each.price_tier for each in plan.agents):
                    said = f"agent {receiver.agent_id!r} needs a context"
                    violations = validate_plan(narrower, moved)
                    assert any(each.startswith(said) for each in violations)
                    tried += 1
    assert tried > 10


@pytest.mark.parametrize("status", ["OPTIMAL", "FEASIBLE"])
def test_a_status_that_the_gap_does_not_allow_is_caught(status: str, planned: Planned) -> None:
    problem, plan = next((problem, plan) for problem, plan in map(planned, range(SEEDS)) if plan.status != status)
    (violation,) = validate_plan(problem, plan.model_copy(update={"status": status}))
    assert violation.endswith(f"is not {status}")


def test_the_same_plan_gets_the_same_answer_each_time(planned: Planned) -> None:
    problem, plan = planned(3)
    tampered = _with_agent(plan.model_copy(update={"tokens": 0, "cost_nusd": 0}), 0, {"latency_ms": 7})
    assert validate_plan(problem, tampered) == validate_plan(problem, tampered) != ()
