"""Contents that repeat and contents that are long: what frameworks send again and again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apportion import Budget, Planner
from apportion.planner.planner import PlanOptions, WorkflowPlanner
from apportion.planner.policies import Simplify
from apportion.planner.problem import Model
from apportion.prices import lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apportion import Session

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="session")
def contents() -> dict[str, str]:
    """What the tool `lookup` finds: a table that is sent shorter as a whole, and a text of which parts are left out."""
    table = json.dumps([{"id": number, "state": "open", "value": number * 7919} for number in range(200)])
    text = (ROOT / "fixtures" / "scenarios" / "code" / "py-password-hash.txt").read_text(encoding="utf-8")
    return {"table": table, "text": text}


@pytest.fixture
def planner() -> Planner:
    """A planner that leaves parts out where an agent can have them back."""
    return Planner(PlanOptions(select="recoverable_85"))


@pytest.fixture
def off() -> Planner:
    """A planner that is switched off."""
    return Planner(PlanOptions(enabled=False, select="recoverable_85"))


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every plan fail."""

    def fail(*_: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(WorkflowPlanner, "before", fail)


@pytest.fixture
def tight() -> Iterator[Session]:
    """A session whose budget holds a call of Sonnet only as a policy simplifies it: Haiku, with half the effort."""
    cheap = Model.of(lookup("claude-haiku-4-5") or pytest.fail("the table has it"))
    with Planner(ahead=False).session(
        "tight", budget=Budget(max_usd=0.003), policies=[Simplify(model=cheap, effort_share=0.5)]
    ) as session:
        yield session
