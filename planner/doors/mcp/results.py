"""What the tools give back: records, so that hosts can rely on members and types."""

from __future__ import annotations

from typing import Any

from apportion.records import Record


class FactsResult(Record):
    """What became of the facts of a content.

    Attributes:
        total: Distinct facts of the original.
        visible: Those that the result shows word for word.
        missing: Some of the others.
        back: How the others can be had back: `"restored"` from the text, `"expanded"` by handle; `None`: not at all.
    """

    total: int
    visible: int
    missing: list[str]
    back: str | None


class CompressResult(Record):
    """A content made shorter.

    Attributes:
        content: What to send; the original where nothing was done.
        tokens: Its tokens.
        original_tokens: Tokens of the original.
        saved_share: Share that is saved, in [0, 1].
        steps: Strategies that changed it, in their order.
        reasons: Why others did not.
        handles: Under which left-out parts can be had back.
        facts: What became of the facts.
    """

    content: str
    tokens: int
    original_tokens: int
    saved_share: float
    steps: list[str]
    reasons: list[str]
    handles: list[str]
    facts: FactsResult


class LeftOutResult(Record):
    """A part of an original that is not visible: lines from 1, and why."""

    first: int
    last: int
    bytes: int
    reason: str


class RowResult(Record):
    """A line that differs: its number and text before and after; `None` where there is none."""

    before_line: int | None
    before: str | None
    after_line: int | None
    after: str | None


class InspectResult(Record):
    """What a compression would do to a content.

    Attributes:
        tokens: Tokens of the result.
        original_tokens: Tokens of the original.
        saved_share: Share that would be saved, in [0, 1].
        steps: Strategies that would change it, in their order.
        reasons: Why others would not.
        facts: What would become of the facts.
        left_out: Parts that would not be visible, at most so many.
        left_out_count: How many there are.
        rows: Lines that differ, at most as many as were asked for.
        changed_rows: How many there are.
    """

    tokens: int
    original_tokens: int
    saved_share: float
    steps: list[str]
    reasons: list[str]
    facts: FactsResult
    left_out: list[LeftOutResult]
    left_out_count: int
    rows: list[RowResult]
    changed_rows: int


class ValidateResult(Record):
    """What a comparison found; of each list some entries, in `counts` how many there are.

    Attributes:
        accepted: Whether the compressed text says the same.
        reasons: Why not.
        facts: Distinct facts of the original.
        visible_facts: Those that the compressed text shows.
        similarity: How much of the meaning of the original is covered, chunk by chunk, in [0, 1]; `None` where it was
            not measured.
        least_similarity: Of the chunk that is covered least; `None` in the same case.
        similarity_reason: Why it was not measured; `None` where it was.
        lost: Facts that are lost.
        new: Facts that the original does not have.
        lost_constraints: Sentences with must, never, only and the like that are lost.
        lost_passages: Other words that are lost.
        new_passages: Other words that are new.
        negations: Words that negate and were taken away or put in.
        counts: Length of each list.
    """

    accepted: bool
    reasons: list[str]
    facts: int
    visible_facts: int
    similarity: float | None
    least_similarity: float | None
    similarity_reason: str | None
    lost: list[str]
    new: list[str]
    lost_constraints: list[str]
    lost_passages: list[str]
    new_passages: list[str]
    negations: list[str]
    counts: dict[str, int]


class ExpandResult(Record):
    """What stands behind a handle: text, or base64 where it is none."""

    content: str | None
    content_base64: str | None
    bytes: int


class PieceResult(Record):
    """How a piece of context is sent: `"keep"` or the form, and its tokens."""

    item_id: str
    form: str
    tokens: int


class AgentResult(Record):
    """How an agent runs.

    Attributes:
        agent_id: The agent run.
        runs_as: Its variant; `None` where it is deferred.
        work_tokens: Work tokens that it may use: outputs, and what its tools add.
        enough_probability: How likely these suffice; `None` where it is deferred.
        tokens: Tokens that it is expected to take in all.
        cost_usd: What it is expected to cost.
        pieces: How the pieces of its prompt are sent.
    """

    agent_id: str
    runs_as: str | None
    work_tokens: int
    enough_probability: float | None
    tokens: int
    cost_usd: float
    pieces: list[PieceResult]


class PlanResult(Record):
    """A plan, or why there is none.

    Attributes:
        feasible: Whether there is a plan.
        plan_id: Names it for `explain_plan`; `None` without a plan.
        tokens: Expected tokens of the workflow.
        cost_usd: What it is expected to cost.
        gap: How far from the best plan it can be at most, as a share.
        status: `"OPTIMAL"` or `"FEASIBLE"`; `None` without a plan.
        agents: How each agent runs.
        conflict: Limits that cannot all be kept, where there is no plan.
        missing: What they lack, in the units of each.
        summary: All of it in words.
    """

    feasible: bool
    plan_id: str | None
    tokens: int | None
    cost_usd: float | None
    gap: float | None
    status: str | None
    agents: list[AgentResult]
    conflict: list[str]
    missing: dict[str, int]
    summary: str


class AgentReasonResult(Record):
    """Why an agent runs as it does, and why its pieces are sent as they are."""

    agent_id: str
    decision: str
    text: str
    pieces: list[str]


class ExplainResult(Record):
    """Why a plan is as it is: as a whole, per binding limit, per policy decision, per agent."""

    plan_id: str
    summary: str
    limits: list[str]
    policies: list[str]
    agents: list[AgentReasonResult]
    degraded: list[str]


class BalanceResult(Record):
    """How an account stands in one unit; `None` means no limit of its own."""

    total: int | None
    spent: int
    held: int
    free: int | None


class UsageResult(Record):
    """What was booked, and how the account stands now; costs are in nano-dollars."""

    account: str
    booking: str
    booked_tokens: int
    tokens: BalanceResult
    cost_nusd: BalanceResult


class HandoffResult(Record):
    """A message that hands a context over, or what was read of one.

    Attributes:
        message: The message to send; `None` where one was read.
        context: The context that was read; `None` where one was written, or the whole has to be asked for.
        form: `"full"`, or how it is encoded against a context that the target holds.
        reason: Why the whole is sent, or has to be asked for; `None` where all is well.
        exact: Whether the context was compared with its digest.
        context_bytes: Size of the context.
        message_bytes: Size of the message, as JSON.
        digest: Names the context.
        degraded: What is not as it should be, in words.
    """

    message: dict[str, Any] | None
    context: str | None
    form: str
    reason: str | None
    exact: bool
    context_bytes: int
    message_bytes: int
    digest: str
    degraded: list[str]
