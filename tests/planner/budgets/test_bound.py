from __future__ import annotations

import doctest
import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.planner.budgets import bound
from apportion.planner.budgets.bound import lagrangian, limit_prices, plan_greedily, share_out
from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.planner.budgets.segments import quantize

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy

    from apportion.planner.budgets.segments import Curve, QuantizedProblem


def _worth(curve: Curve, quanta: int) -> int:
    return sum(
        sorted(itertools.chain(*([s] * q for s, q in zip(curve.slopes, curve.quanta, strict=True))))[::-1][:quanta]
    )


def _best_by_trying(problem: QuantizedProblem) -> int:
    """Return the value of the best plan by trying out all of them."""
    best = -1
    for quanta in itertools.product(*[range(sum(curve.quanta) + 1) for curve in problem.curves]):
        used = [0] * len(problem.stage_rooms)
        for stage, given_quanta in zip(problem.stage_of, quanta, strict=True):
            used[stage] += given_quanta
        rooms = [*problem.stage_rooms, problem.workflow_room]
        if all(room is None or total <= room for total, room in zip([*used, sum(used)], rooms, strict=True)):
            best = max(best, sum(_worth(curve, q) for curve, q in zip(problem.curves, quanta, strict=True)))
    return best


def _linear_optimum(problem: QuantizedProblem) -> float:
    """Return the optimum of the linear relaxation, by another algorithm: the simplex or interior points of HiGHS."""
    import numpy as np
    from scipy.optimize import linprog

    flat = [
        (agent, stage, slope, quanta)
        for agent, (curve, stage) in enumerate(zip(problem.curves, problem.stage_of, strict=True))
        for slope, quanta in zip(curve.slopes, curve.quanta, strict=True)
    ]
    if not flat:
        return 0.0
    rows = [[1.0] * len(flat)] if problem.workflow_room is not None else []
    rooms = [problem.workflow_room] if problem.workflow_room is not None else []
    for number, room in enumerate(problem.stage_rooms):
        if room is not None:
            rows.append([float(stage == number) for _, stage, _, _ in flat])
            rooms.append(room)
    result = linprog(
        -np.array([slope for _, _, slope, _ in flat], dtype=float),
        A_ub=np.array(rows) if rows else None,
        b_ub=np.array(rooms, dtype=float) if rooms else None,
        bounds=[(0, quanta) for _, _, _, quanta in flat],
    )
    assert result.status == 0
    return float(-result.fun)


@settings(max_examples=60)
@given(data=st.data())
def test_greedy_is_as_good_as_trying_out_all_plans(
    small_problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    quantized = quantize(data.draw(small_problems))
    greedy = plan_greedily(quantized)
    assert greedy.value == _best_by_trying(quantized) == greedy.bound


@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_the_bound_is_the_linear_optimum_and_greedy_reaches_it(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    quantized = quantize(data.draw(problems))
    greedy = plan_greedily(quantized)
    assert greedy.bound == greedy.value == pytest.approx(_linear_optimum(quantized), rel=1e-9)


@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_any_prices_prove_an_upper_bound(problems: SearchStrategy[BudgetProblem], data: st.DataObject) -> None:
    quantized = quantize(data.draw(problems))
    price = st.integers(0, 100_000)
    stage_prices = [data.draw(price) for _ in quantized.stage_rooms]
    assert lagrangian(quantized, data.draw(price), stage_prices) >= plan_greedily(quantized).value


@given(data=st.data())
def test_greedy_keeps_all_limits_and_fills_segments_in_order(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    quantized = quantize(data.draw(problems))
    greedy = plan_greedily(quantized)
    used = [0] * len(quantized.stage_rooms)
    for curve, stage, quanta in zip(quantized.curves, quantized.stage_of, greedy.quanta, strict=True):
        used[stage] += sum(quanta)
        partly = [number for number, taken in enumerate(quanta) if taken < curve.quanta[number]]
        assert not any(itertools.chain(*[quanta[number + 1 :] for number in partly[:1]]))
    for total, room in zip((*used, sum(used)), (*quantized.stage_rooms, quantized.workflow_room), strict=True):
        assert room is None or total <= room


@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_the_workflow_price_is_what_one_more_quantum_gains(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    quantized = quantize(data.draw(problems))
    greedy = plan_greedily(quantized)
    if quantized.workflow_room is not None:
        wider = quantized._replace(workflow_room=quantized.workflow_room + 1)
        assert plan_greedily(wider).value - greedy.value == greedy.workflow_price


@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_a_stage_price_is_never_below_what_one_more_quantum_gains_and_exact_if_the_workflow_has_room(
    problems: SearchStrategy[BudgetProblem], data: st.DataObject
) -> None:
    quantized = quantize(data.draw(problems))
    greedy = plan_greedily(quantized)
    rooms = quantized.stage_rooms
    for number, room in enumerate(rooms):
        if room is not None:
            wider = quantized._replace(stage_rooms=(*rooms[:number], room + 1, *rooms[number + 1 :]))
            gain = plan_greedily(wider).value - greedy.value
            assert gain <= greedy.stage_prices[number]
            if quantized.workflow_room is None:
                assert gain == greedy.stage_prices[number]


def test_equals_share_alike(agent: Callable[..., AgentNeed]) -> None:
    problem = BudgetProblem(
        agents=tuple(agent(f"a{number}") for number in range(5)), stages=(StageCap(id="s"),), max_tokens=64 * 22
    )
    assert [sum(quanta) for quanta in plan_greedily(quantize(problem)).quanta] == [5, 5, 4, 4, 4]


def test_equals_in_a_capped_stage_leave_the_rest_to_the_others(agent: Callable[..., AgentNeed]) -> None:
    problem = BudgetProblem(
        agents=(agent("a", "s"), agent("b", "s"), agent("c", "t")),
        stages=(StageCap(id="s", max_tokens=64 * 4), StageCap(id="t")),
        max_tokens=64 * 13,
    )
    quantized = quantize(problem)
    greedy = plan_greedily(quantized)
    assert [sum(quanta) for quanta in greedy.quanta] == [2, 2, 9]
    assert [price.limit for price in limit_prices(problem, quantized, greedy)] == ["workflow"]


def test_the_limits_that_bind_are_named_with_their_prices(agent: Callable[..., AgentNeed]) -> None:
    problem = BudgetProblem(
        agents=(agent("a", "s"), agent("b", "t"), agent("c", "t", max_tokens=640)),
        stages=(StageCap(id="s", max_tokens=64 * 4), StageCap(id="t")),
        max_tokens=64 * 36,
    )
    quantized = quantize(problem)
    prices = limit_prices(problem, quantized, plan_greedily(quantized))
    assert {price.limit: price.price for price in prices} == {
        "workflow": 3_500,
        "stage:s": 15_000 - 3_500,
        "agent:c": 7_500 - 3_500,
    }
    assert prices[0].per_1k_tokens == pytest.approx(175)


@given(wanted=st.lists(st.integers(1, 50), min_size=1, max_size=6), share=st.floats(0, 1))
def test_a_total_is_shared_out_whole_and_nobody_gets_more_than_wanted(wanted: list[int], share: float) -> None:
    total = round(share * sum(wanted))
    shares = share_out(total, wanted)
    assert sum(shares) == total
    assert all(0 <= got <= want for got, want in zip(shares, wanted, strict=True))
    assert all(abs(got - total * want / sum(wanted)) < 1 for got, want in zip(shares, wanted, strict=True))


def test_the_examples_run() -> None:
    results = doctest.testmod(bound)
    assert results.attempted > 0
    assert results.failed == 0
