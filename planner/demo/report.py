"""What came of the demo: the workflow with planning off and on, side by side, and what was lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.compression.loading import PreloadCounts

if TYPE_CHECKING:
    from apportion.planner.demo.provider import Charge

SCHEMA = "apportion.demo/1"
"""Name and version of the JSON."""


@dataclass(slots=True)
class TurnCount:
    """What one turn used.

    Attributes:
        calls: Model calls.
        prompt_tokens: Tokens of all prompts, as the provider counts them.
        cached_tokens: Those of them that were read from the provider's cache.
        output_tokens: Tokens of all outputs.
        usd: The price of all calls.
        loaded_tokens: Tokens of the agents' files and tool definitions that were loaded in this turn.
        transmitted_tokens: Tokens of the handoffs from agent to agent.
        actions: How often a piece was sent otherwise than whole, by action; each call counts.
        facts: Facts of what the prompts would have held, call by call.
        visible_facts: How many of them stood in what was sent.
    """

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0
    loaded_tokens: int = 0
    transmitted_tokens: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    facts: int = 0
    visible_facts: int = 0

    def add(self, charge: Charge) -> None:
        """Add one call."""
        self.calls += 1
        self.prompt_tokens += charge.usage.prompt_tokens or 0
        self.cached_tokens += charge.usage.cache_read or 0
        self.output_tokens += charge.usage.output or 0
        self.usd += charge.usd

    def __add__(self, other: TurnCount) -> TurnCount:
        """Add the counts of two turns."""
        return TurnCount(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})


class Proof(NamedTuple):
    """Whether what was not sent whole can be had back.

    Attributes:
        pieces: Distinct pieces that were sent otherwise than whole.
        exact: Those whose original was had back: byte for byte by its handle, line for line from what a reference
            names in the prompt as it was sent, or because the form says all of it.
    """

    pieces: int
    exact: int


NOTHING_CHANGED = Proof(0, 0)
"""Everything was sent whole."""

NOTHING_PRELOADED = PreloadCounts()
"""Nothing was loaded ahead."""


@dataclass(slots=True)
class Played:
    """The workflow, played once.

    Attributes:
        turns: What each turn used.
        allocated: What each agent could use at most, prompts and outputs, by the last plan of each turn; empty without
            a budget.
        used: What each agent used.
        findings: What each agent reported.
        tests: The file of tests that came of it.
        refused: Calls that were deferred or aborted, with the reasons.
        proof: Whether what was not sent whole can be had back.
        preload: What came of loading agents ahead.
        similarity: Mean similarity in meaning of what was sent with the originals, in [0, 1]; see `Similarity`. `None`
            where it was not measured, for want of the extra `semantic`.
    """

    turns: list[TurnCount] = field(default_factory=list)
    allocated: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    findings: dict[str, list[str]] = field(default_factory=dict)
    tests: str = ""
    refused: list[str] = field(default_factory=list)
    proof: Proof = NOTHING_CHANGED
    preload: PreloadCounts = NOTHING_PRELOADED
    similarity: float | None = None

    @property
    def total(self) -> TurnCount:
        """All turns together."""
        return sum(self.turns, TurnCount())


@dataclass(frozen=True, slots=True)
class DemoReport:
    """The workflow with planning off and on.

    Attributes:
        model: Whose tokens and prices were counted.
        off: Everything sent whole.
        on: As planned.
    """

    model: str
    off: Played
    on: Played

    @property
    def tokens_saved(self) -> float:
        """Share of prompt tokens that was not sent."""
        return _saved(self.off.total.prompt_tokens, self.on.total.prompt_tokens)

    @property
    def bill_saved(self) -> float:
        """Share of the bill that was not paid; negative if it rose."""
        return _saved(self.off.total.usd, self.on.total.usd)

    @property
    def findings_lost(self) -> dict[str, list[str]]:
        """What each agent found with planning off and not with planning on."""
        lost = {
            agent: [one for one in found if one not in self.on.findings.get(agent, [])]
            for agent, found in self.off.findings.items()
        }
        return {agent: some for agent, some in lost.items() if some}

    def as_json(self) -> dict[str, Any]:
        """Return the report as a value for JSON; shares in [0, 1]."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "tokens_saved": self.tokens_saved,
            "bill_saved": self.bill_saved,
            "turns_tokens_saved": [
                _saved(off.prompt_tokens, on.prompt_tokens)
                for off, on in zip(self.off.turns, self.on.turns, strict=True)
            ],
            "findings_lost": self.findings_lost,
            "off": _played(self.off),
            "on": _played(self.on),
        }


def _played(played: Played) -> dict[str, Any]:
    turns = [_count(turn) for turn in played.turns]
    whole = {name: getattr(played, name) for name in ("findings", "tests", "refused", "similarity")}
    counts: dict[str, Any] = {"preload": asdict(played.preload)}
    counts |= {"allocated": dict(played.allocated), "used": dict(played.used), "proof": played.proof._asdict()}
    return {"turns": turns, "total": _count(played.total), **counts, **whole}


def _count(count: TurnCount) -> dict[str, Any]:
    return {**asdict(replace(count, actions=Counter())), "actions": dict(count.actions)}


def _saved(before: float, after: float) -> float:
    return 1 - after / before if before else 0.0
