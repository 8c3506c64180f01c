"""Budget problems for the tests of the planner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st

from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
from apportion.records import Demand

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn, SearchStrategy


@st.composite
def _demands(draw: DrawFn, most_quanta: int) -> Demand:
    levels = st.sampled_from((0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99))
    probabilities = sorted(draw(st.sets(levels, min_size=1, max_size=4)))
    tokens = st.lists(st.integers(0, most_quanta * 64), min_size=len(probabilities), max_size=len(probabilities))
    return Demand(probabilities=tuple(probabilities), tokens=tuple(sorted(draw(tokens))))


@st.composite
def _problems(draw: DrawFn, most_agents: int, most_quanta: int) -> BudgetProblem:
    """Draw a problem whose floors fit; limits are often tight, and quantiles often coincide."""
    stage_ids = [f"s{number}" for number in range(draw(st.integers(1, 3)))]
    agents = []
    for number in range(draw(st.integers(1, most_agents))):
        floor = draw(st.sampled_from((0, 0, 1, 63, 64, 100)))
        spare = draw(st.none() | st.integers(0, most_quanta * 64))
        agents.append(
            AgentNeed(
                id=f"a{number}",
                stage_id=draw(st.sampled_from(stage_ids)),
                demand=draw(_demands(most_quanta)),
                weight=draw(st.integers(1, 5)),
                floor_tokens=floor,
                max_tokens=None if spare is None else floor + spare,
            )
        )
    rooms = st.none() | st.integers(0, most_quanta * 64 * 2)
    stages = []
    for stage_id in stage_ids:
        room = draw(rooms)
        floors = sum(agent.floor_tokens for agent in agents if agent.stage_id == stage_id)
        stages.append(StageCap(id=stage_id, max_tokens=None if room is None else floors + room))
    room, reserve = draw(rooms), draw(st.sampled_from((0, 0, 100)))
    floors = sum(agent.floor_tokens for agent in agents)
    return BudgetProblem(
        agents=tuple(agents),
        stages=tuple(stages),
        max_tokens=None if room is None else floors + reserve + room,
        reserve_tokens=0 if room is None else reserve,
    )


@pytest.fixture(scope="session")
def small_problems() -> SearchStrategy[BudgetProblem]:
    """Problems of at most 3 agents and 6 quanta each: every plan can be tried out."""
    return _problems(3, 6)


@pytest.fixture(scope="session")
def problems() -> SearchStrategy[BudgetProblem]:
    """Problems of at most 8 agents and 300 quanta each."""
    return _problems(8, 300)


@pytest.fixture(scope="session")
def agent() -> Callable[..., AgentNeed]:
    """Make an agent that needs up to 640, 1,280 or 1,920 tokens with probability 50, 75 or 90 %."""

    def make(agent_id: str = "a", stage_id: str = "s", **fields: object) -> AgentNeed:
        demand = Demand(probabilities=(0.5, 0.75, 0.9), tokens=(640, 1280, 1920))
        return AgentNeed.model_validate({"id": agent_id, "stage_id": stage_id, "demand": demand, **fields})

    return make
