"""The hooks that the real client sent once, and states to answer them with."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.doors.claude_code.hooks import SELECT, HookState
from apportion.planner.planner import PlanOptions
from apportion.planner.session import Planner

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent

State = "Callable[..., HookState]"


@pytest.fixture(scope="session")
def recorded() -> dict[str, dict[str, Any]]:
    """Hooks of Claude Code 2.1.330 by name; `hooks.json` says how they were recorded."""
    found: dict[str, Any] = json.loads((FOLDER / "hooks.json").read_text("utf-8"))
    return {name: hook for name, hook in found.items() if isinstance(hook, dict)}


@pytest.fixture
def hook(recorded: dict[str, dict[str, Any]], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a recorded hook with other members, whose transcript says which version wrote it."""
    transcript = tmp_path / "session.jsonl"
    transcript.write_text('{"type":"user","version":"2.1.330","message":{"role":"user","content":"go"}}\n', "utf-8")

    def changed(name: str, **members: Any) -> dict[str, Any]:
        return {**deepcopy(recorded[name]), "transcript_path": str(transcript), **members}

    return changed


@pytest.fixture
def state() -> Callable[..., HookState]:
    """Return a state with a planner of its own; nothing is shared and nothing is kept."""

    def made(*, enabled: bool = True, **options: Any) -> HookState:
        return HookState(Planner(PlanOptions(select=SELECT, enabled=enabled)), **options)

    return made
