from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InfeasiblePlanError, ProblemError
from apportion.planner.explanation import Shortfall
from apportion.planner.policies import (
    GROUP,
    Abort,
    Defer,
    Offer,
    Policy,
    Simplify,
    load_policies,
    plan_under,
    with_policies,
)
from apportion.planner.policies.types import BasePolicy
from apportion.planner.problem import Agent, Model, Problem
from apportion.testing import check_policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.plan import Plan

ROOT = Path(__file__).parents[3]
DECLARED = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"][GROUP]

SMALL = Model(id="smaller", input=1, output=5, cache_read=1, cache_write_5m=1, cache_write_1h=2)


@pytest.fixture
def problem() -> Problem:
    return Problem.load(ROOT / "fixtures" / "problems" / "research.toml")


@pytest.fixture
def entry_points(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declare entry points as an installed package would."""

    def declare(**points: str) -> None:
        found = [EntryPoint(name, value, GROUP) for name, value in points.items()]
        monkeypatch.setattr("apportion.plugins.entry_points", lambda **_: found)

    return declare


def test_our_policies_join_through_the_entry_point(entry_points: Callable[..., None]) -> None:
    entry_points(**DECLARED)
    policies, broken = load_policies()
    assert {name: type(policy) for name, policy in policies.items()} == {
        "abort": Abort,
        "defer": Defer,
        "simplify": Simplify,
    }
    assert all(policy.name == name for name, policy in policies.items())
    assert broken == ()


def test_broken_policies_are_reported_and_the_others_work(entry_points: Callable[..., None]) -> None:
    entry_points(gone="no.such.module:Policy", odd="json:dumps", **DECLARED)
    policies, broken = load_policies()
    assert list(policies) == ["abort", "defer", "simplify"]
    assert broken == (
        "unknown:gone: policy does not load: ModuleNotFoundError: No module named 'no'",
        "unknown:odd: policy does not load: function does not follow the policy protocol",
    )


@pytest.mark.parametrize(
    "policy",
    [
        Abort(),
        Defer(),
        Defer(["first"]),
        Simplify(),
        Simplify(model=SMALL, effort_share=0.1, calls_share=0.01, value_share=0.0),
    ],
)
def test_ours_conform(policy: Policy) -> None:
    check_policy(policy)


class Forgetful(BasePolicy):
    name = "forgetful"

    def __init__(self) -> None:
        self.asked = 0

    def offer(self, agent: Agent, problem: Problem) -> Offer:  # noqa: ARG002  (the protocol's)
        self.asked += 1
        return Offer(may_defer=self.asked % 2 == 0)


class Repeating(BasePolicy):
    name = "repeating"

    def offer(self, agent: Agent, problem: Problem) -> Offer:  # noqa: ARG002  (the protocol's)
        return Offer(variants=(agent.variants[0].model_copy(update={"id": f"{len(agent.variants)} more"}),))


class Twice(BasePolicy):
    name = "twice"

    def offer(self, agent: Agent, problem: Problem) -> Offer:  # noqa: ARG002  (the protocol's)
        return Offer(variants=(agent.variants[0],))


class Stranger(BasePolicy):
    name = "stranger"

    def offer(self, agent: Agent, problem: Problem) -> Offer:  # noqa: ARG002  (the protocol's)
        return Offer(variants=(agent.variants[0].model_copy(update={"id": "x", "model_id": "unheard of"}),))


class Nothing(BasePolicy):
    name = "nothing"

    def offer(self, agent: Agent, problem: Problem) -> Any:  # noqa: ARG002  (the protocol's)
        return None


class Crashing(BasePolicy):
    name = "crashing"

    def conclude(self, error: InfeasiblePlanError) -> None:
        raise KeyError(error)


class Nameless(BasePolicy):
    name = ""


@pytest.mark.parametrize(
    ("policy", "law"),
    [
        (Forgetful(), "it offers the same for the same problem"),
        (Repeating(), "it offers nothing that an agent has already"),
        (Twice(), "its offers fit the problem"),
        (Stranger(), "its offers fit the problem"),
        (Nothing(), "returns an Offer, not NoneType"),
        (Crashing(), "raises errors of ours"),
        (Nameless(), "its name is a word"),
        (object(), "it has name"),
    ],
)
def test_the_check_names_the_law_that_is_broken(policy: Any, law: str) -> None:
    with pytest.raises(AssertionError, match="a policy must keep this law: ") as broken:
        check_policy(policy)
    assert law in str(broken.value)


def test_defer_makes_agents_deferrable(problem: Problem) -> None:
    assert [agent.mandatory for agent in with_policies(problem, [Defer()]).agents] == [False] * 4
    assert [agent.mandatory for agent in with_policies(problem, [Defer(["writer"])]).agents] == [
        True,
        True,
        False,
        False,
    ]


def test_simplify_adds_a_variant_where_there_is_none(problem: Problem) -> None:
    policy = Simplify(model=SMALL, effort_share=0.5, value_share=0.25, calls_share=0.4)
    simplified = with_policies(problem, [policy])
    assert [len(agent.variants) for agent in simplified.agents] == [2, 2, 2, 2]  # the searcher has one already
    full, other = simplified.agents[0].variants
    assert (other.id, other.model_id, other.calls) == ("simplified", "smaller", 1)
    assert other.demand.tokens == tuple(tokens // 2 for tokens in full.demand.tokens)
    assert (other.value_points, other.floor_tokens) == (full.value_points // 4, full.floor_tokens // 2)
    assert [model.id for model in simplified.models] == ["large", "small", "smaller"]
    assert simplified.fingerprint != problem.fingerprint


def test_policies_that_offer_nothing_leave_the_problem_as_it_is(problem: Problem) -> None:
    assert with_policies(problem, [Abort(), Defer([])]) is problem


def test_a_model_of_another_price_under_a_known_name_is_refused(problem: Problem) -> None:
    with pytest.raises(ProblemError, match="offers another model 'large' than the problem has"):
        with_policies(problem, [Simplify(model=SMALL.model_copy(update={"id": "large"}))])


def _refuse(*_: Any, **__: Any) -> Plan:
    error = InfeasiblePlanError("what must run does not fit", missing_tokens=70)
    error.__dict__ |= {"conflict": ("tokens", "agent a"), "missing": {"tokens": 70}}
    raise error


def test_exhaustion_is_a_value_that_names_the_conflict(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apportion.planner.solver.plan_workflow", _refuse)
    outcome = plan_under(problem, [Defer(), Simplify()])
    assert isinstance(outcome, Shortfall)
    assert (outcome.conflict, outcome.missing) == (("tokens", "agent a"), {"tokens": 70})


def test_exhaustion_is_an_error_under_abort(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apportion.planner.solver.plan_workflow", _refuse)
    with pytest.raises(InfeasiblePlanError, match="what must run does not fit"):
        plan_under(problem, [Defer(), Abort()])
