"""Policies: what a plan may do where the budget does not suffice for everything.

A policy changes a problem before it is planned: it allows an agent to be deferred, or adds a simplified variant. What
is then deferred or simplified, the plan decides, where that is worth most; `planner.explanation` says why.

    problem = with_policies(problem, [Defer(), Simplify(value_share=0.6)])

Others join through the entry point `apportion.policies`, exactly as ours do; `apportion.testing.check_policy` is all
that an author needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.errors import InfeasiblePlanError, InputError, ProblemError
from apportion.planner.policies.abort import Abort
from apportion.planner.policies.defer import Defer
from apportion.planner.policies.simplify import Simplify
from apportion.planner.policies.types import BasePolicy, Offer, Policy
from apportion.plugins import load_plugins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from apportion.planner.explanation import Shortfall
    from apportion.planner.plan import Plan
    from apportion.planner.problem import Agent, Model, Problem

__all__ = [
    "GROUP",
    "Abort",
    "BasePolicy",
    "Defer",
    "Offer",
    "Policy",
    "Simplify",
    "load_policies",
    "named_policies",
    "plan_under",
    "with_policies",
]

GROUP = "apportion.policies"
"""Entry-point group under which policies join."""


def load_policies() -> tuple[dict[str, Policy], tuple[str, ...]]:
    """Return all installed policies by name, and what is wrong with those that cannot be used."""
    policies: dict[str, Policy] = {}
    broken: list[str] = []
    for plugin in load_plugins(GROUP):
        error = plugin.error
        if error is None and not isinstance(plugin.value, Policy):
            error = f"{type(plugin.value).__name__} does not follow the policy protocol"
        if error is None and plugin.name in policies:
            error = "another policy has this name"
        if error is None:
            policies[plugin.name] = plugin.value
        else:
            broken.append(f"{plugin.distribution}:{plugin.name}: policy does not load: {error}")
    return policies, tuple(broken)


def named_policies(known: Mapping[str, Policy], names: Sequence[str]) -> list[Policy]:
    """Return policies by their names, in the order of these.

    Args:
        known: What `load_policies` found.
        names: Those that are asked for.

    Raises:
        InputError: There is no such policy.
    """
    for name in names:
        if name not in known:
            raise InputError(f"there is no policy {name[:40]!r}", hint=f"Installed: {', '.join(known) or 'none'}")
    return [known[name] for name in names]


def with_policies(problem: Problem, policies: Sequence[Policy]) -> Problem:
    """Return the problem with the choices that policies add, checked anew; later policies see those of earlier ones.

    Raises:
        ProblemError: A policy offers what contradicts the problem.
    """
    for policy in policies:
        offers = [policy.offer(agent, problem) for agent in problem.agents]
        problem = _with_offers(problem, policy.name, offers)
    return problem


def plan_under(
    problem: Problem, policies: Sequence[Policy] = (), *, deadline_ms: float | None = None
) -> Plan | Shortfall:
    """Plan a workflow under policies; a budget that does not suffice is a value, and an error only under `abort`.

    Args:
        problem: What is to be planned.
        policies: What the plan may do; each in turn.
        deadline_ms: When to stop improving the plan, or `None`.

    Raises:
        InfeasiblePlanError: The mandatory part does not fit, and a policy says to abort.
    """
    from apportion.planner.explanation import explain_infeasible
    from apportion.planner.solver import plan_workflow

    try:
        return plan_workflow(with_policies(problem, policies), deadline_ms=deadline_ms)
    except InfeasiblePlanError as error:
        for policy in policies:
            policy.conclude(error)
        return explain_infeasible(error)


def _with_offers(problem: Problem, name: str, offers: Sequence[Offer]) -> Problem:
    agents = tuple(_with_offer(agent, name, offer) for agent, offer in zip(problem.agents, offers, strict=True))
    models: dict[str, Model] = dict(problem.model_of)
    for offer in offers:
        for model in offer.models:
            if models.setdefault(model.id, model) != model:
                raise ProblemError(
                    f"policy {name!r} offers another model {model.id!r} than the problem has",
                    hint="Give it an id of its own",
                )
    if agents == problem.agents and len(models) == len(problem.models):
        return problem
    return type(problem)(**problem.fields_with(agents=agents, models=tuple(models.values())))


def _with_offer(agent: Agent, name: str, offer: Offer) -> Agent:
    taken = {variant.id for variant in agent.variants}
    for variant in offer.variants:
        if variant.id in taken:
            raise ProblemError(
                f"policy {name!r} offers agent {agent.id!r} the variant {variant.id!r}, which it has already",
                hint="Offer nothing where the variant exists",
            )
    mandatory = agent.mandatory and not offer.may_defer
    if mandatory == agent.mandatory and not offer.variants:
        return agent
    variants = (*agent.variants, *offer.variants)
    return type(agent)(**agent.fields_with(mandatory=mandatory, variants=variants))
