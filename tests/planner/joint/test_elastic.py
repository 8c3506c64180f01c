from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

from apportion.errors import InfeasiblePlanError, PlanError
from apportion.planner import elastic
from apportion.planner.choice import Choice, violations
from apportion.planner.compiled import compile_problem
from apportion.planner.elastic import ElasticModel, Infeasible, find_floor, floor_or_conflict, least_shortfall, unit_of
from apportion.planner.farkas import Weights, least_excess, prove_infeasible, required_agents
from apportion.planner.problem import Agent, Form, Item, ItemUse, Model, Preload, PriceTier, Problem, Stage, Variant
from apportion.records import Action, Demand

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = min(80, settings().max_examples // 4)
"""Small problems in each of five parts that are compared with all their plans; more in `make thorough`."""

FREE = dict.fromkeys(("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"), 0)
NO_DEMAND = Demand(probabilities=(0.5,), tokens=(0,))


def raised(problem: Problem, missing: dict[str, int]) -> Problem:
    """Raise the limits of a problem; windows by all that is missing in any."""

    def more(amount: int | None, name: str) -> int | None:
        return None if amount is None else amount + missing.get(name, 0)

    windows = sum(amount for name, amount in missing.items() if name.startswith("window"))
    return problem.model_copy(
        update={
            "max_tokens": more(problem.max_tokens, "tokens"),
            "max_cost_nusd": more(problem.max_cost_nusd, "cost"),
            "max_preload_bytes": more(problem.max_preload_bytes, "memory"),
            "stages": tuple(
                stage.model_copy(
                    update={
                        "max_tokens": more(stage.max_tokens, f"tokens of stage {stage.id}"),
                        "max_cost_nusd": more(stage.max_cost_nusd, f"cost of stage {stage.id}"),
                        "max_latency_ms": more(stage.max_latency_ms, f"latency of stage {stage.id}"),
                    }
                )
                for stage in problem.stages
            ),
            "models": tuple(
                model.model_copy(update={"context_window": model.context_window and model.context_window + windows})
                for model in problem.models
            ),
        }
    )


@pytest.mark.parametrize("block", range(5))
def test_floors_and_conflicts_are_what_trying_out_all_plans_says(
    block: int, joint_problem: Callable[[int], Problem], try_all_plans: Callable[[Problem], Any]
) -> None:
    for seed in range(SMALL * block, SMALL * (block + 1)):
        problem = joint_problem(seed)
        plans, compiled = try_all_plans(problem), compile_problem(problem)
        found = floor_or_conflict(compiled)
        if isinstance(found, Choice):
            assert plans.fits.any(), seed
            assert violations(compiled, found) == ()
            continue
        assert not plans.fits.any(), seed
        assert found.degraded == ()
        kept_out = tuple(name for name in plans.limits if name not in found.conflict)
        assert not plans.fits_without(kept_out).any(), (seed, "no conflict", found.conflict)
        for name in found.conflict:
            assert plans.fits_without((*kept_out, name)).any(), (seed, "not minimal", found.conflict, name)
        assert try_all_plans(raised(problem, found.missing)).fits.any(), (seed, "not enough", found.missing)
        if len(found.missing) == 1 and unit_of(*found.missing) == "tokens":
            less = {name: amount - 1 for name, amount in found.missing.items()}
            assert not try_all_plans(raised(problem, less)).fits.any(), (seed, "too much", found.missing)


def test_prices_prove_nearly_every_infeasible_problem_and_no_other(
    joint_problem: Callable[[int], Problem], try_all_plans: Callable[[Problem], Any]
) -> None:
    proven = infeasible = 0
    for seed in range(60):
        problem = joint_problem(seed)
        plans, compiled = try_all_plans(problem), compile_problem(problem)
        weights = prove_infeasible(compiled, steps=60)
        if plans.fits.any():
            assert weights is None, seed
            continue
        infeasible += 1
        if weights is not None:
            proven += 1
            assert least_excess(compiled, weights)[0] > 0
            assert not plans.fits_without(tuple(set(plans.limits) - set(weights.names(compiled)))).any()
    assert proven >= 0.9 * infeasible > 15


def test_any_weights_bound_the_weighted_excess_of_every_choice_from_below(
    joint_problem: Callable[[int], Problem],
) -> None:
    rng = np.random.default_rng(1)
    for seed in range(30):
        compiled = compile_problem(joint_problem(seed))
        found = floor_or_conflict(compiled)
        if not isinstance(found, Choice):
            continue
        sizes = (len(compiled.limits), len(compiled.problem.agents), len(compiled.links))
        weights = Weights(*(np.array([int(w) for w in rng.integers(0, 1000, size)], dtype=object) for size in sizes))
        assert least_excess(compiled, weights)[0] <= 0


def test_a_false_claim_that_nothing_fits_is_refuted_by_the_elastic_model(
    joint_problem: Callable[[int], Problem],
) -> None:
    """Without any floor to begin with, the elastic model finds a plan by itself wherever there is one."""
    refuted = 0
    for seed in range(40):
        compiled = compile_problem(joint_problem(seed))
        if isinstance(floor_or_conflict(compiled), Choice):
            found = least_shortfall(compiled, [], deterministic_time=1.0)
            assert isinstance(found, Choice)
            assert violations(compiled, found) == ()
            refuted += 1
    assert refuted > 15


def problem_of(*agents: Agent, items: tuple[Item, ...] = (), **fields: Any) -> Problem:
    return Problem.model_validate(
        {
            "models": (Model(id="m", **FREE), Model(id="small", context_window=100, **FREE)),
            "stages": (Stage(id="s"),),
            "agents": agents,
            "items": items,
            **fields,
        }
    )


def agent_of(agent_id: str, **fields: Any) -> Agent:
    variant = {"model_id": "m", "demand": NO_DEMAND, "floor_tokens": 100, **fields.pop("variant", {})}
    return Agent.model_validate({"id": agent_id, "stage_id": "s", "variants": (Variant(**variant),), **fields})


def test_an_error_names_what_is_missing_and_the_conflict() -> None:
    problem = problem_of(agent_of("a"), agent_of("b"), agent_of("c", mandatory=False), max_tokens=150)
    with pytest.raises(InfeasiblePlanError, match="tokens lacks 50 tokens") as raised_error:
        find_floor(compile_problem(problem))
    error = raised_error.value
    assert (error.missing_tokens, error.missing, error.conflict) == (50, {"tokens": 50}, ("tokens",))


def test_an_optional_agent_whose_result_is_needed_has_to_run() -> None:
    problem = problem_of(agent_of("a", mandatory=False), agent_of("b", after=("a",)), max_tokens=199)
    compiled = compile_problem(problem)
    assert required_agents(compiled) == [True, True]
    found = floor_or_conflict(compiled)
    assert isinstance(found, Infeasible)
    assert (found.missing, found.conflict, found.proof) == ({"tokens": 1}, ("tokens",), "lagrangian")


def test_two_limits_that_only_together_are_too_tight_are_both_named() -> None:
    """Sent whole, the piece takes too many tokens; masked, it takes too long."""
    item = Item(id="i", tokens=500, forms=(Form(action=Action.MASK, tokens=10, latency_ms=100),))
    problem = problem_of(
        agent_of("a", uses=(ItemUse(item_id="i"),), can_expand=True),
        items=(item,),
        stages=(Stage(id="s", max_latency_ms=40),),
        max_tokens=150,
    )
    found = floor_or_conflict(compile_problem(problem))
    assert isinstance(found, Infeasible)
    assert set(found.conflict) == {"tokens", "latency of stage s"}
    assert found.missing == {"latency of stage s": 60}


def test_missing_latency_is_enough_where_a_longer_limit_has_longer_ticks() -> None:
    forms = (Form(action=Action.MASK, tokens=0, latency_ms=101),)
    items = tuple(Item(id=f"i{number}", tokens=50, forms=forms) for number in range(20))
    agent = agent_of("a", uses=tuple(ItemUse(item_id=item.id) for item in items), can_expand=True)
    problem = problem_of(agent, items=items, stages=(Stage(id="s", max_latency_ms=1490),), max_tokens=100)
    found = floor_or_conflict(compile_problem(problem))
    assert isinstance(found, Infeasible)
    assert list(found.missing) == ["latency of stage s"]
    assert found.missing["latency of stage s"] >= 20 * 101 - 1490
    enough = compile_problem(raised(problem, found.missing))
    assert violations(enough, found.nearest) == ()


def test_a_latency_limit_that_is_long_enough_is_found_for_many_pieces() -> None:
    forms = (Form(action=Action.MASK, tokens=0, latency_ms=1_000),)
    items = tuple(Item(id=f"i{number}", tokens=50, forms=forms) for number in range(80))
    agent = agent_of("a", uses=tuple(ItemUse(item_id=item.id) for item in items), can_expand=True)
    problem = problem_of(agent, items=items, stages=(Stage(id="s", max_latency_ms=60_000),), max_tokens=100)
    found = floor_or_conflict(compile_problem(problem))
    assert isinstance(found, Infeasible)
    assert 18_000 <= found.missing["latency of stage s"] <= 40_000
    enough = compile_problem(raised(problem, found.missing))
    assert violations(enough, found.nearest) == ()


def test_the_end_of_a_price_tier_is_not_a_limit_that_could_be_raised() -> None:
    tiers = (PriceTier(above_tokens=50, **dict.fromkeys(FREE, 10_000)),)
    model = Model(id="m", tiers=tiers, **FREE)
    problem = problem_of(agent_of("a"), models=(model,), max_cost_nusd=999)
    found = floor_or_conflict(compile_problem(problem))
    assert isinstance(found, Infeasible)
    assert (found.missing, found.conflict) == ({"cost": 1}, ("cost",))


def test_a_window_that_is_too_small_says_by_how_much() -> None:
    problem = problem_of(agent_of("a", variant={"model_id": "small", "floor_tokens": 130}))
    found = floor_or_conflict(compile_problem(problem))
    assert isinstance(found, Infeasible)
    assert (found.missing, found.conflict) == ({"window of agent a": 30}, ("window of agent a",))


def test_an_agent_that_would_be_late_is_loaded_in_advance() -> None:
    preload = Preload(memory_bytes=10, probability_ppm=1_000_000, latency_ms=60)
    problem = problem_of(
        agent_of("a", variant={"latency_ms": 100}, preload=preload), stages=(Stage(id="s", max_latency_ms=40),)
    )
    assert find_floor(compile_problem(problem)).preloads == (True,)
    tight = problem.model_copy(update={"max_preload_bytes": 9})
    found = floor_or_conflict(compile_problem(tight))
    assert isinstance(found, Infeasible)
    assert set(found.conflict) == {"memory", "latency of stage s"}


def test_a_search_that_is_cut_short_says_what_it_could_not_establish(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(agent_of("a"), agent_of("b"), max_tokens=150)
    compiled = compile_problem(problem)
    monkeypatch.setattr(elastic, "prove_infeasible", lambda _compiled: None)
    found = floor_or_conflict(compiled, deterministic_time=0.0)
    assert isinstance(found, Infeasible)
    assert (found.proof, len(found.degraded), found.missing) == ("none", 2, {"tokens": 50})
    with pytest.raises(PlanError, match="neither a plan nor a proof") as error:
        find_floor(compiled, deterministic_time=0.0)
    assert not isinstance(error.value, InfeasiblePlanError)
    with pytest.raises(PlanError, match="always has one"):
        least_shortfall(compiled, [], deterministic_time=0.0)


def test_limits_are_named_as_in_the_arrays(joint_problem: Callable[[int], Problem]) -> None:
    for seed in range(30):
        compiled = compile_problem(joint_problem(seed))
        names = ElasticModel(compiled).names
        assert {limit.name for limit in compiled.limits} <= set(names)
        assert len(names) == len(set(names))


def test_a_latency_without_limit_is_no_part_of_a_proof(joint_problem: Callable[[int], Problem]) -> None:
    """The proof once named latencies that are not limited, which the elastic model does not know."""
    checked = 0
    for seed in range(20):
        problem = joint_problem(seed)
        stages = tuple(stage.model_copy(update={"max_latency_ms": None}) for stage in problem.stages)
        compiled = compile_problem(problem.model_copy(update={"stages": stages}))
        weights = prove_infeasible(compiled)
        if weights is not None:
            assert not any(name.startswith("latency") for name in weights.names(compiled))
            checked += 1
    assert checked > 2
