from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import apportion

PINNED = [
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
"""Everything that users may import from `apportion`; a change here belongs into the changelog."""


def test_the_public_names_are_the_pinned_ones_in_order() -> None:
    assert apportion.__all__ == PINNED == sorted(PINNED)
    assert dir(apportion) == PINNED


@pytest.mark.parametrize("name", PINNED)
def test_every_public_name_can_be_imported_and_has_a_docstring(name: str) -> None:
    value = getattr(apportion, name)
    assert inspect.getdoc(value), name
    assert getattr(importlib.import_module(value.__module__), name) is value


def test_type_checkers_see_the_same_names_as_users() -> None:
    tree = ast.parse(Path(str(apportion.__file__)).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [
        (alias.name, str(node.module))
        for block in blocks
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    homes = {name: f"apportion.{home}" for name, home in apportion._HOMES.items()}
    assert dict(imports) == homes
    assert sorted(homes) == PINNED


def test_an_unknown_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        apportion.nothing  # noqa: B018


def test_the_version_is_that_of_the_package_and_is_looked_up_when_asked_for() -> None:
    assert apportion.__version__ == version("apportion")
    script = (
        "import apportion; assert '__version__' not in vars(apportion);"
        "print(apportion.__version__, vars(apportion)['__version__'])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == [version("apportion")] * 2


HEAVY = [
    "altair",
    "ortools",
    "pandas",
    "pydantic_settings",
    "sentence_transformers",
    "sklearn",
    "tiktoken",
    "torch",
    "yaml",
]


def loaded_by(code: str) -> list[str]:
    """Which of the heavy packages a fresh process has loaded after running some code."""
    script = f"{code}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=300)
    return done.stdout.split()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import apportion") == []


def test_the_check_for_heavy_packages_would_notice_one() -> None:
    assert loaded_by("import apportion, yaml, pydantic_settings") == ["pydantic_settings", "yaml"]
