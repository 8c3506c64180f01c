"""Two plans side by side: what the second one changes, as a whole, per agent and per piece.

    compare(plan, other)

Plans need not belong to the same problem: agents and pieces are matched by name. Differences are second minus first.
"""

from __future__ import annotations

from html import escape
from typing import Any, Literal

from apportion.planner.plan import AgentPlan, Plan
from apportion.planner.problem import UNITS_PER_POINT
from apportion.planner.tables import html_table, one_line, points, text_table, usd
from apportion.records import Record

HURRIED = 0.01
"""A first plan with a larger gap may differ from the second for want of searching; the second phase gives up less."""

State = Literal["runs", "deferred", "absent"]
"""What an agent does in a plan; it is absent where the plan is not about it."""


class PieceChange(Record):
    """A piece of an agent's prompt that is sent in another form.

    Attributes:
        item_id: The piece.
        before: Its form in the first plan, or `None` where the agent does not get it there.
        after: The same in the second plan.
        tokens: Difference of the tokens that are sent.
    """

    item_id: str
    before: str | None
    after: str | None
    tokens: int


class AgentChange(Record):
    """What becomes of one agent run.

    Attributes:
        agent_id: The agent run.
        before: What it does in the first plan.
        after: What it does in the second.
        variants: The variants that run in the first and in the second plan; `None` where none does.
        work_tokens: Work tokens that it may use in the first and in the second plan.
        hand_backs: How it hands its result back in the first and in the second plan.
        tokens: Difference of its expected tokens, and those of its result.
        cost_nusd: The same for cost.
        pieces: The pieces that are sent in another form, in the order of the prompt.
    """

    agent_id: str
    before: State
    after: State
    variants: tuple[str | None, str | None]
    work_tokens: tuple[int, int]
    hand_backs: tuple[str | None, str | None]
    tokens: int
    cost_nusd: int
    pieces: tuple[PieceChange, ...]

    @property
    def changed(self) -> bool:
        """Whether anything about the agent differs."""
        pairs: tuple[tuple[object, object], ...] = (
            (self.before, self.after),
            self.variants,
            self.work_tokens,
            self.hand_backs,
        )
        moved = any(left != right for left, right in pairs)
        return moved or bool(self.pieces or self.tokens or self.cost_nusd)


class Comparison(Record):
    """What a second plan changes.

    Attributes:
        before: The first plan.
        after: The second plan.
        change: What makes the difference between the two, in words; may be empty.
        aim: What the second plan was to be: worth most, or cheapest at a given value.
        agents: One entry per agent of either plan: those of the first in their order, then the new ones.
    """

    before: Plan
    after: Plan
    change: str = ""
    aim: Literal["value", "cost"] = "value"
    agents: tuple[AgentChange, ...]

    @property
    def points(self) -> float:
        """Difference of value, in points."""
        return (self.after.objective - self.before.objective) / UNITS_PER_POINT

    @property
    def points_range(self) -> tuple[float, float]:
        """Between what the difference of the best possible values lies for certain, by both certificates."""
        least = (self.after.objective - self.before.bound) / UNITS_PER_POINT
        most = (self.after.bound - self.before.objective) / UNITS_PER_POINT
        return least, most

    @property
    def tokens(self) -> int:
        """Difference of expected tokens."""
        return self.after.tokens - self.before.tokens

    @property
    def cost_nusd(self) -> int:
        """Difference of expected cost."""
        return self.after.cost_nusd - self.before.cost_nusd

    @property
    def cost_usd(self) -> float:
        """Difference of expected cost in US dollars."""
        return self.cost_nusd / 1e9

    @property
    def newly_deferred(self) -> tuple[str, ...]:
        """Agents that run in the first plan and are deferred in the second."""
        return self._moved("runs", "deferred")

    @property
    def no_longer_deferred(self) -> tuple[str, ...]:
        """Agents that are deferred in the first plan and run in the second."""
        return self._moved("deferred", "runs")

    @property
    def other_variant(self) -> tuple[str, ...]:
        """Agents that run in both plans, but otherwise."""
        both = [each for each in self.agents if None not in each.variants]
        return tuple(each.agent_id for each in both if each.variants[0] != each.variants[1])

    def agent(self, agent_id: str) -> AgentChange:
        """Return what becomes of one agent.

        Raises:
            KeyError: The agent is in neither plan.
        """
        for each in self.agents:
            if each.agent_id == agent_id:
                return each
        raise KeyError(agent_id)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row per agent, for tables and plots."""
        return [
            {
                "agent": each.agent_id,
                "before": each.before,
                "after": each.after,
                "variant_before": each.variants[0],
                "variant_after": each.variants[1],
                "work_tokens_before": each.work_tokens[0],
                "work_tokens_after": each.work_tokens[1],
                "tokens": each.tokens,
                "cost_usd": each.cost_nusd / 1e9,
                "pieces_changed": len(each.pieces),
            }
            for each in self.agents
        ]

    def __str__(self) -> str:
        lines = [*self._lines(), "", *text_table(_TOTALS_HEAD, self._totals())]
        changed = [each for each in self.agents if each.changed]
        if changed:
            lines += ["", *text_table(_AGENTS_HEAD, [_agent_row(each) for each in changed])]
        lines += [one_line(f"{each.agent_id}: {_piece_text(piece)}") for each in changed for piece in each.pieces]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the comparison for a notebook."""
        changed = [each for each in self.agents if each.changed]
        parts = [*[f"<p>{escape(line)}</p>" for line in self._lines()], html_table(_TOTALS_HEAD, self._totals())]
        if changed:
            parts.append(html_table(_AGENTS_HEAD, [_agent_row(each) for each in changed]))
        pieces = [f"{each.agent_id}: {_piece_text(piece)}" for each in changed for piece in each.pieces]
        if pieces:
            items = "".join(f"<li>{escape(text)}</li>" for text in pieces)
            parts.append(f"<details><summary>{len(pieces)} pieces in another form</summary><ul>{items}</ul></details>")
        return "".join(parts)

    def _moved(self, before: State, after: State) -> tuple[str, ...]:
        return tuple(each.agent_id for each in self.agents if (each.before, each.after) == (before, after))

    def _lines(self) -> list[str]:
        lines = [f"What if: {self.change}."] if self.change else []
        lines.append(f"{points(self.points, sign=True)} points, {self.tokens:+,} tokens, {self._signed_cost()}.")
        lines.append(self._certificate())
        for what, names in (
            ("Deferred now", self.newly_deferred),
            ("No longer deferred", self.no_longer_deferred),
            ("In another variant", self.other_variant),
        ):
            if names:
                lines.append(f"{what}: {', '.join(names)}.")
        if self.before.gap > HURRIED:
            lines.append(
                f"The first plan may be {self.before.gap:.1%} below the best one, and part of the change due to that."
            )
        lines += [f"Degraded: {reason}." for plan in (self.before, self.after) for reason in plan.degraded]
        return [one_line(line) for line in lines]

    def _signed_cost(self) -> str:
        return usd(self.cost_nusd, sign=True)

    def _certificate(self) -> str:
        least, most = self.points_range
        if self.aim == "value":
            return (
                "At the optimum of both, the value changes for certain by between"
                f" {points(least, sign=True)} and {points(most, sign=True)} points."
            )
        bound, worth = self.after.cost_bound_nusd, (self.after.least_value or 0) / UNITS_PER_POINT
        return f"For certain no plan worth {points(worth)} points costs less than {usd(bound or 0)}."

    def _totals(self) -> list[tuple[str, ...]]:
        first, second = self.before, self.after
        return [
            ("value, points", points(first.points), points(second.points), points(self.points, sign=True)),
            ("tokens", f"{first.tokens:,}", f"{second.tokens:,}", f"{self.tokens:+,}"),
            ("cost", usd(first.cost_nusd), usd(second.cost_nusd), self._signed_cost()),
            ("agents deferred", *_pair(len(first.deferred), len(second.deferred))),
            ("certified gap", f"{first.gap:.2%}", f"{second.gap:.2%}", ""),
        ]


_TOTALS_HEAD = ("", "before", "after", "change")
_AGENTS_HEAD = ("agent", "before", "after", "work tokens", "tokens", "cost", "pieces")


def _pair(before: int, after: int) -> tuple[str, str, str]:
    return f"{before:,}", f"{after:,}", f"{after - before:+,}"


def _agent_row(each: AgentChange) -> tuple[str, ...]:
    before, after = each.variants
    work = f"{each.work_tokens[0]:,} → {each.work_tokens[1]:,}"
    return (
        each.agent_id,
        before or each.before,
        after or each.after,
        work if each.work_tokens[0] != each.work_tokens[1] else f"{each.work_tokens[0]:,}",
        f"{each.tokens:+,}",
        usd(each.cost_nusd, sign=True),
        str(len(each.pieces)),
    )


def _piece_text(piece: PieceChange) -> str:
    before, after = piece.before or "not sent", piece.after or "not sent"
    return f"{piece.item_id} {before} → {after} ({piece.tokens:+,} tokens)"


def compare(before: Plan, after: Plan, *, change: str = "", aim: Literal["value", "cost"] = "value") -> Comparison:
    """Compare two plans.

    Args:
        before: The first plan.
        after: The second plan.
        change: What makes the difference between the two, in words.
        aim: What the second plan was to be: worth most, or cheapest at a given value.
    """
    first = {agent.agent_id: agent for agent in before.agents}
    second = {agent.agent_id: agent for agent in after.agents}
    return Comparison(
        before=before,
        after=after,
        change=change,
        aim=aim,
        agents=tuple(_agent_change(name, first.get(name), second.get(name)) for name in {**first, **second}),
    )


def _agent_change(name: str, before: AgentPlan | None, after: AgentPlan | None) -> AgentChange:
    absent = AgentPlan(agent_id=name, stage_id="", variant_id=None)
    left, right = before or absent, after or absent
    return AgentChange(
        agent_id=name,
        before=_state(before),
        after=_state(after),
        variants=(left.variant_id, right.variant_id),
        work_tokens=(left.work_tokens, right.work_tokens),
        hand_backs=(left.hand_back, right.hand_back),
        tokens=right.tokens + right.given_tokens - left.tokens - left.given_tokens,
        cost_nusd=right.cost_nusd + right.given_cost_nusd - left.cost_nusd - left.given_cost_nusd,
        pieces=_piece_changes(left, right) if not left.deferred and not right.deferred else (),
    )


def _state(agent: AgentPlan | None) -> State:
    if agent is None:
        return "absent"
    return "deferred" if agent.deferred else "runs"


def _piece_changes(before: AgentPlan, after: AgentPlan) -> tuple[PieceChange, ...]:
    first = {piece.item_id: piece for piece in before.pieces}
    second = {piece.item_id: piece for piece in after.pieces}
    changes = []
    for name in {**first, **second}:
        left, right = first.get(name), second.get(name)
        forms = None if left is None else left.form, None if right is None else right.form
        tokens = (0 if right is None else right.tokens) - (0 if left is None else left.tokens)
        if forms[0] != forms[1] or tokens:
            changes.append(PieceChange(item_id=name, before=forms[0], after=forms[1], tokens=tokens))
    return tuple(changes)
