"""A simplified variant, carried out: another model, less effort, fewer tools, as a step names them.

    PlannerMiddleware(session, variants=Variants(models={"claude-haiku-4-5": haiku}, tools={"simplified": ["search"]}))

A session names models and variants in words of its own; `Variants` says what they stand for in one framework.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")
"""Levels of effort that are lowered, as providers call them; others are left as they are."""


@dataclass(frozen=True, slots=True)
class Variants:
    """What the names in a step stand for.

    Attributes:
        models: What to call for a model that a policy may choose, by its name in the policy. Without an entry the call
            is made with the agent's own model, is booked at its price, and says so in its flags.
        tools: The names of the tools that a variant keeps, by the name of the variant; others keep all.
    """

    models: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, Collection[str]] = field(default_factory=dict)


AS_ASKED: Final = Variants()
"""No variant stands for anything: only efforts and longest outputs change."""


def lowered(effort: Any, share: float) -> Any:
    """Return a level of effort for a share of the usual one: each halving is one level less, and `low` the least.

    No provider says how much thinking a level is, so the levels are taken for doublings. What is no level that we know
    is returned as it is.

    >>> lowered("high", 0.5), lowered("max", 0.25), lowered("low", 0.1), lowered(None, 0.5)
    ('medium', 'high', 'low', None)

    Args:
        effort: What the request asks for.
        share: Share of the usual effort, in (0, 1].
    """
    if not isinstance(effort, str) or effort not in EFFORTS:
        return effort
    return EFFORTS[max(0, EFFORTS.index(effort) - round(-math.log2(share)))]


def tool_name(tool: Any) -> str:
    """Return the name of a tool: an object, a schema, or one that the provider runs, which is called by its type."""
    if not isinstance(tool, dict):
        return str(getattr(tool, "name", ""))
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else tool.get("name")
    return str(name or tool.get("type", ""))
