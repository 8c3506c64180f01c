"""Token budgets for multi-agent LLM workflows, planned with CP-SAT.

    from apportion import replay

    report = replay(["~/.claude/projects"])
    print(report.ledgers.bill_usd.saved_share)

Names are loaded when they are first used, so that `import apportion` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apportion.errors import ApportionError
    from apportion.planner.budgets.plan import BudgetPlan
    from apportion.planner.budgets.problem import AgentNeed, BudgetProblem, StageCap
    from apportion.planner.budgets.solver import solve_budget
    from apportion.planner.explanation import explain
    from apportion.planner.ledger import Ledger
    from apportion.planner.live import ContextItem
    from apportion.planner.plan import Plan
    from apportion.planner.problem import Problem
    from apportion.planner.replan import Replanner
    from apportion.planner.replay.engine import replay
    from apportion.planner.report.schema import ReplayReport
    from apportion.planner.session import Planner, Session
    from apportion.planner.solver import plan_workflow
    from apportion.planner.steps import Decision, Step
    from apportion.records import Budget, Demand, Usage
    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.importers import read_logs
    from apportion.telemetry.reading import SkipLog

    __version__: str

__all__ = [
    "AgentNeed",
    "ApportionError",
    "Budget",
    "BudgetPlan",
    "BudgetProblem",
    "ContextItem",
    "Decision",
    "Demand",
    "Ledger",
    "Plan",
    "Planner",
    "Problem",
    "Replanner",
    "ReplayReport",
    "Session",
    "SkipLog",
    "StageCap",
    "Step",
    "Usage",
    "WorkflowLog",
    "explain",
    "plan_workflow",
    "read_logs",
    "replay",
    "solve_budget",
]

_HOMES = {
    "AgentNeed": "planner.budgets.problem",
    "ApportionError": "errors",
    "Budget": "records",
    "BudgetPlan": "planner.budgets.plan",
    "BudgetProblem": "planner.budgets.problem",
    "ContextItem": "planner.live",
    "Decision": "planner.steps",
    "Demand": "records",
    "Ledger": "planner.ledger",
    "Plan": "planner.plan",
    "Planner": "planner.session",
    "Problem": "planner.problem",
    "Replanner": "planner.replan",
    "ReplayReport": "planner.report.schema",
    "Session": "planner.session",
    "SkipLog": "telemetry.reading",
    "StageCap": "planner.budgets.problem",
    "Step": "planner.steps",
    "Usage": "records",
    "WorkflowLog": "telemetry.events",
    "explain": "planner.explanation",
    "plan_workflow": "planner.solver",
    "read_logs": "telemetry.importers",
    "replay": "planner.replay.engine",
    "solve_budget": "planner.budgets.solver",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    value: Any
    if name == "__version__":
        from importlib.metadata import version

        value = version("apportion")
    elif name in _HOMES:
        value = getattr(import_module(f"apportion.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'apportion' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
