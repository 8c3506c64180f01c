"""What goes in and comes out over HTTP: records that refuse whatever they do not know.

Texts may hold lone surrogates, which JSON can carry: answers are ASCII, so that they come through.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MOST_TOKENS = 2**53
"""Largest number of tokens: what a double holds exactly."""

Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
Usd = Annotated[float, Field(ge=0, le=1e6)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Key = Annotated[str, Field(min_length=1, max_length=200)]


class Message(BaseModel):
    """Base of all messages: of the right type as they come, no others, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Health(Message):
    """Whether the planner works.

    Attributes:
        status: `"ok"`, or `"warming"` until solver, tables and models are loaded.
        version: Of apportion.
        sessions: How many are open.
        degraded: What is not as it should be, in words.
        warm: State of what is loaded in the background: of the `planner` (solver, tables, trained models) and of the
            `embeddings`, by which meaning is compared: `"ready"`, `"loading"`, `"failed"`, `"not installed"`, `"off"`.
    """

    status: str
    version: str
    sessions: int
    degraded: list[str]
    warm: dict[str, str]


class OpenSession(Message):
    """Opens the session of a workflow, or takes one up that was saved.

    Attributes:
        workflow: Its name; its account in the ledger has it too.
        max_tokens: Its budget in tokens; without it, no limit.
        max_usd: Its budget in US dollars.
        parent: Account in the ledger on whose remainder it draws.
        policies: What may be done where the budget does not hold a call: names of installed policies.
        enabled: False sends, and counts, every prompt as it is.
        checkpoint: A session that was saved; the other members except `policies` do not count then.
        key: The same key opens one session.
    """

    workflow: Name
    max_tokens: Annotated[int, Field(gt=0, le=MOST_TOKENS)] | None = None
    max_usd: Annotated[float, Field(gt=0, le=1e6)] | None = None
    parent: Name | None = None
    policies: Annotated[list[str], Field(max_length=16)] = []
    enabled: bool = True
    checkpoint: dict[str, Any] | None = None
    key: Key | None = None


class SessionOpened(Message):
    """The id by which a session is asked."""

    session_id: str


class Piece(Message):
    """One piece of a prompt; `kind` is that of `ContextItem`, such as `user`, `tool_call` or `tool_result`."""

    content: str
    kind: str = "user"
    name: str | None = None
    link: str | None = None
    pinned: bool = False


class OfferedThing(Message):
    """A tool, a skill or an agent file that an agent may be given; see `Offered`.

    Attributes:
        content: The text, verbatim; of a tool, its definition as JSON.
        kind: `tool`, `skill` or `agent`.
    """

    name: Name
    content: str
    kind: Annotated[str, Field(pattern="^(tool|skill|agent)$")] = "tool"
    description: str = ""
    pinned: bool = False


class Before(Message):
    """Asks what to send.

    Attributes:
        agent: Type name of the agent.
        items: The pieces of its prompt, in order.
        unchanged: How many leading pieces are those of the run's question before: they need not be sent again.
        model: The model that is called.
        task: The agent's task.
        run_id: Its context window; the agent's name where it has only one.
        sub_agent: Whether another agent has started it.
        expands: Whether the agent can have back what is left out.
        folds: Whether long texts in old inputs of tools may be left out, too; only where the caller puts what is sent
            for a call back into the call.
        mandatory: Whether the workflow makes no sense without it.
        parent: The run that started it.
        priority: Of those that wait, higher ones are offered first.
        key: The same key gets the same step.
        offered: Tools, skills and agent files that the agent may be given; without them, those of the run's first
            question.
        loaded: Number of the loading that the caller has: its texts are not sent again.
    """

    agent: Name
    items: Annotated[list[Piece], Field(max_length=100_000)]
    unchanged: Annotated[int, Field(ge=0)] = 0
    model: str | None = None
    task: str = ""
    run_id: Name | None = None
    sub_agent: bool = False
    expands: bool = False
    folds: bool = False
    mandatory: bool = True
    parent: Name | None = None
    priority: Annotated[int, Field(ge=-(2**31), le=2**31)] = 0
    key: Key | None = None
    offered: Annotated[list[OfferedThing], Field(max_length=2_000)] | None = None
    loaded: Annotated[int, Field(ge=0)] | None = None


class SentPiece(Message):
    """What is sent for one piece.

    Attributes:
        position: Which piece, from 0.
        content: The text to send instead.
        action: What was done.
        handle: Under which the original can be had back.
    """

    position: int
    content: str
    action: str
    handle: str | None


class LoadingAnswer(Message):
    """What to load of what is on offer; see `Loading`.

    Attributes:
        number: An equal number means that nothing changed since.
        tools: Definitions for the request, as JSON; null where the caller has them.
        files: Texts of agent files and skills, by name; null where the caller has them.
        forms: How each thing on offer stands: `whole`, `brief`, `line` or `unlisted`.
    """

    number: int
    tools: list[str] | None
    files: dict[str, str] | None
    forms: dict[str, str]
    tokens: int
    whole_tokens: int
    reasons: list[str]


class StepAnswer(Message):
    """What to send, and how much the agent may use; see `Step`.

    Attributes:
        changed: Pieces that are sent otherwise than given; all others are sent as they are.
        loading: What to load of what is on offer; null where nothing is.
    """

    number: int
    agent: str
    run_id: str
    decision: str
    changed: list[SentPiece]
    max_output_tokens: int | None
    allocated_tokens: int | None
    loading_budget_tokens: int | None
    saved_tokens: int
    model: str | None
    variant: str
    effort_share: float
    final: bool
    notice: str | None
    reasons: list[str]
    degraded: list[str]
    offers_expand: bool
    loading: LoadingAnswer | None = None


class StepsAnswer(Message):
    """Steps that fit now."""

    steps: list[StepAnswer]


class UsageGiven(Message):
    """What a response says of its tokens; the prompt is the sum of the first four."""

    input_uncached: Tokens | None = None
    cache_read: Tokens | None = None
    cache_write_5m: Tokens | None = None
    cache_write_1h: Tokens | None = None
    output: Tokens | None = None
    reasoning: Tokens | None = None


class After(Message):
    """Tells what a step used; `usage` is null where the call failed. Saying it again changes nothing."""

    number: Annotated[int, Field(ge=1)]
    usage: UsageGiven | None
    output: str = ""


class Spend(Message):
    """Tells what an agent used without having asked."""

    usage: UsageGiven
    agent: Name
    model: str | None = None
    key: Key | None = None


class Ingest(Message):
    """Hands over results as soon as they are there; their shorter forms are worked out in the background."""

    items: Annotated[list[Piece], Field(max_length=10_000)]
    task: str = ""
    model: str | None = None
    run_id: str | None = None


class Wait(Message):
    """Asks for what was deferred and fits now, and waits for it so many seconds at most."""

    timeout_s: Annotated[float, Field(ge=0, le=30)] = 0.0


class Run(Message):
    """Names an agent run."""

    run_id: Name


class TopUp(Message):
    """Raises the budget of a session."""

    tokens: Tokens = 0
    usd: Usd = 0.0
    key: Key | None = None


class Expand(Message):
    """Asks for what stands behind a handle; `range` is as markers name it."""

    handle: Annotated[str, Field(max_length=100)]
    range: Annotated[str, Field(max_length=100)] | None = None


class Load(Message):
    """Asks for what a run's prompt left out of what was on offer; an empty name asks for a list."""

    run_id: Name
    name: Annotated[str, Field(max_length=300)] = ""


class Expanded(Message):
    """What stands behind a handle, or was left out."""

    content: str


class Close(Message):
    """Ends a session: calls that have not come back `expire`, or count as `used` or `released`."""

    pending: Annotated[str, Field(pattern="^(expire|used|released)$")] = "expire"


class BalanceAnswer(Message):
    """How a budget stands in one unit: `spent + held + free == total`; null means no limit."""

    total: int | None
    spent: int
    held: int
    free: int | None


class StateAnswer(Message):
    """What is done and what is left; see `HandBack`."""

    used_tokens: int
    used_usd: float | None
    saved_tokens: int
    steps: int
    deferred: list[str]
    aborted: list[str]
    finished: list[str]
    pending: list[str]
    tokens: BalanceAnswer
    cost_nusd: BalanceAnswer


class Done(Message):
    """Says that it was done."""

    done: bool = True
