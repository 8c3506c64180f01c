"""What a joint plan is: who runs how, on which context, with how much to spend, and how good that is proven to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr

from apportion.errors import ProblemError
from apportion.planner.problem import MILLION, UNITS_PER_POINT
from apportion.records import Record, Share, Tokens

if TYPE_CHECKING:
    from apportion.planner.comparison import Comparison
    from apportion.planner.problem import Problem

Nusd = Annotated[int, Field(ge=0)]

Stop = Literal["target", "proof", "deterministic_time", "deadline", "failure"]
"""What ended the search: the certified gap that was asked for, a proof, a limit on work, the deadline, or a defect."""

Source = Literal["columns", "cp-sat", "floor"]
"""What made the choices: columns that CP-SAT combined, CP-SAT on the whole model, or the floor plan."""

OPTIMAL_GAP = 1e-3
"""The largest certified gap with which a plan may call itself optimal: demand forecasts are never as sharp."""


class PieceChoice(Record):
    """What happens to one piece of an agent's prompt.

    Attributes:
        item_id: The piece.
        form: `"keep"`, or the form (`action` or `action:name`).
        tokens: Size of what is sent.
    """

    item_id: str
    form: str
    tokens: Tokens


class AgentPlan(Record):
    """What one agent run does; a deferred one has no variant, no pieces, and uses nothing.

    Attributes:
        agent_id: The agent run.
        stage_id: Its stage.
        variant_id: How it runs, or `None` where it is deferred.
        price_tier: The price tier that its prompt stays within; 0 is the base price.
        work_tokens: Work tokens that it may use: outputs, and what its tools add.
        cut_off_probability: How likely it needs more work tokens than that; `None` where it is deferred.
        sample_size: Observations behind its demand; 0 means a prior.
        pieces: What happens to the pieces of its prompt, in order.
        intact_pieces: How many leading pieces stay a prefix that the provider has cached.
        hand_back: How it hands its result back, or `None`.
        preload: Whether its files are loaded in advance.
        prompt_tokens: Size of its planned prompt, what others hand back to it not included.
        tokens: Tokens that are expected to be sent and written over all its calls, contingency included.
        given_tokens: Tokens that its result takes at the agent that gets it.
        cost_nusd: What it is expected to cost.
        given_cost_nusd: What its result costs at the agent that gets it.
        latency_ms: Time on the way to its first answer that the plan answers for.
    """

    agent_id: str
    stage_id: str
    variant_id: str | None
    price_tier: Annotated[int, Field(ge=0)] = 0
    work_tokens: Tokens = 0
    cut_off_probability: Share | None = None
    sample_size: Annotated[int, Field(ge=0)] = 0
    pieces: tuple[PieceChoice, ...] = ()
    intact_pieces: Annotated[int, Field(ge=0)] = 0
    hand_back: str | None = None
    preload: bool = False
    prompt_tokens: Tokens = 0
    tokens: Tokens = 0
    given_tokens: Tokens = 0
    cost_nusd: Nusd = 0
    given_cost_nusd: Nusd = 0
    latency_ms: Annotated[int, Field(ge=0)] = 0

    @property
    def deferred(self) -> bool:
        """Whether the agent does not run now."""
        return self.variant_id is None


class LimitPrice(Record):
    """A limit that binds, and what one more unit of it would gain.

    Attributes:
        limit: `"tokens"`, `"cost"`, `"memory"`, `"tokens of stage ID"`, `"cost of stage ID"`, or
            `"window of agent ID"`.
        units: Value units gained per token, nano-dollar or byte: a dual price, hence exact only for small changes.
    """

    limit: str
    units: Annotated[float, Field(gt=0.0)]

    @property
    def points_per_1k_tokens(self) -> float | None:
        """Points that 1,000 more tokens would gain; `None` where the limit is not in tokens."""
        return None if self.limit.startswith(("cost", "memory")) else self.units * 1000 / UNITS_PER_POINT

    @property
    def points_per_cent(self) -> float | None:
        """Points that one more US cent would gain; `None` where the limit is not in money."""
        return self.units * 10 * MILLION / UNITS_PER_POINT if self.limit.startswith("cost") else None


class Plan(Record):
    """A plan for a whole workflow, with its certificate; equal problems get equal plans.

    The objective is lexicographic: first value, up to a tolerance; then the bill; then latency; then staying with the
    running plan.

    Attributes:
        agents: One entry per agent, in the order of the problem.
        prepared: Forms that are made once for several agents, as `item:form`.
        tokens: Expected tokens of the whole workflow, contingency included.
        cost_nusd: Expected cost of the whole workflow.
        objective: Value of the plan in value units (`UNITS_PER_POINT` to the point); losses may make it negative.
        bound: Proven upper bound on the value of any plan, by a proof that does not come from CP-SAT.
        bound_source: How the bound was proven.
        gap: `(bound - objective) / |bound|`.
        cost_bound_nusd: Proven lower bound on the cost of any plan whose value is at least `least_value`, or `None`.
        least_value: The value that the second phase had to keep while it lowered the bill.
        status: `"OPTIMAL"` where the gap is at most `OPTIMAL_GAP`, else `"FEASIBLE"`.
        source: What made the choices.
        stopped_by: What ended the search.
        prices: The limits that bind, with their dual prices.
        degraded: Why this is not the plan that was asked for; empty when all went well.
        fingerprint: Hash of the problem.
    """

    agents: tuple[AgentPlan, ...]
    prepared: tuple[str, ...] = ()
    tokens: Tokens
    cost_nusd: Nusd
    objective: int
    bound: int
    bound_source: str
    gap: Annotated[float, Field(ge=0.0)]
    cost_bound_nusd: Nusd | None = None
    least_value: int | None = None
    status: Literal["OPTIMAL", "FEASIBLE"]
    source: Source
    stopped_by: Stop
    prices: tuple[LimitPrice, ...] = ()
    degraded: tuple[str, ...] = ()
    fingerprint: str

    _problem: Problem | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """Say whether two plans say the same, whether or not they remember their problem."""
        return isinstance(other, Plan) and all(
            getattr(self, name) == getattr(other, name) for name in Plan.model_fields
        )

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.agents, self.objective, self.cost_nusd))

    def of(self, problem: Problem) -> Self:
        """Return the same plan, which remembers its problem; the problem is not written to JSON.

        Raises:
            ProblemError: It is the plan of another problem.
        """
        if problem.fingerprint != self.fingerprint:
            raise ProblemError(
                "this is the plan of another problem: the fingerprints differ",
                hint="Name the problem from which the plan was made",
            )
        plan = self.model_copy()
        plan._problem = problem  # noqa: SLF001  (a copy of itself)
        return plan

    @property
    def problem(self) -> Problem:
        """The problem from which the plan was made.

        Raises:
            ProblemError: The plan does not remember it: it was loaded from a file, or put together by hand.
        """
        if self._problem is None:
            raise ProblemError(
                "the plan does not remember its problem: it was loaded, not planned",
                hint="Load the problem as well: plan.of(problem), or what_if(problem=problem)",
            )
        return self._problem

    def what_if(self, **changes: Any) -> Comparison:
        """Plan again under changes, and compare; `whatif.what_if` tells which there are.

        Raises:
            ProblemError: The plan does not remember its problem and none was named, or a change is not possible.
            InfeasiblePlanError: Nothing fits any more.
        """
        from apportion.planner.whatif import what_if

        return what_if(self, **changes)

    @property
    def points(self) -> float:
        """The objective in points."""
        return self.objective / UNITS_PER_POINT

    @property
    def cost_usd(self) -> float:
        """Expected cost in US dollars."""
        return self.cost_nusd / 1e9

    @property
    def deferred(self) -> tuple[str, ...]:
        """The agents that do not run now."""
        return tuple(agent.agent_id for agent in self.agents if agent.deferred)

    def agent(self, agent_id: str) -> AgentPlan:
        """Return what the plan says of one agent.

        Raises:
            KeyError: The agent is not in the plan.
        """
        for plan in self.agents:
            if plan.agent_id == agent_id:
                return plan
        raise KeyError(agent_id)
