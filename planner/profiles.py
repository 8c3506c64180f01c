"""What shortening a piece of context is expected to save, by its kind: measured once, on results of real agents.

    profile = profile_of(classify(text), Action.STRUCTURE)
    round(tokens * (1.0 - profile.saved))

`benchmarks/strategy_profiles.py` measures the table. A plan goes by it where a piece is not there yet, or is not worth
the time of trying; what has been tried is known exactly (`planner.forms`).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from pydantic import Field

from apportion.content import ContentClass  # noqa: TC001  (pydantic reads the annotation)
from apportion.records import Action, Record


class StrategyProfile(Record):
    """What a way of shortening does to one kind of content; shares are in [0, 1].

    Attributes:
        content: The kind.
        action: The way.
        results: How many results were measured; 0: none, and nothing is expected.
        tokens: Their tokens.
        applies: Share of the results that became shorter.
        saved: Share of all tokens that is saved.
        saved_p25: Lower quartile of the share over single results.
        saved_p50: Median of it.
        saved_p75: Upper quartile of it.
        left_out: Share of the bytes that is behind handles.
        cpu_ms_per_1000_tokens: Median CPU time, in milliseconds.
    """

    content: ContentClass
    action: Action
    results: int = Field(default=0, ge=0)
    tokens: int = Field(default=0, ge=0)
    applies: float = Field(default=0.0, ge=0, le=1)
    saved: float = Field(default=0.0, ge=0, le=1)
    saved_p25: float = Field(default=0.0, ge=0, le=1)
    saved_p50: float = Field(default=0.0, ge=0, le=1)
    saved_p75: float = Field(default=0.0, ge=0, le=1)
    left_out: float = Field(default=0.0, ge=0, le=1)
    cpu_ms_per_1000_tokens: float = Field(default=0.0, ge=0)


def profile_of(content: ContentClass, action: Action) -> StrategyProfile:
    """Return what a way of shortening is expected to do to a kind of content."""
    return _table().get((content, action)) or StrategyProfile(content=content, action=action)


@cache
def _table() -> dict[tuple[ContentClass, Action], StrategyProfile]:
    text = (files("apportion") / "data" / "strategy_profiles.json").read_text(encoding="utf-8")
    rows = (StrategyProfile.model_validate(row) for row in json.loads(text))
    return {(row.content, row.action): row for row in rows}
