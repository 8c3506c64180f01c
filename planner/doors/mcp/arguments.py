"""What the tools take: records that refuse whatever they do not know, and their schemas as short as they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pydantic import ValidationError

MAX_CONTENT_BYTES = 4 * 2**20
"""Bytes of the longest text that a tool takes."""

MAX_TOKENS = 2**53
"""Largest number of tokens: what a double holds exactly."""

MAX_USD = 1_000_000.0
"""Largest amount of US dollars."""

MAX_DEADLINE_MS = 60_000
"""Longest time that a plan may be improved, in milliseconds."""

Tokens = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
Usd = Annotated[float, Field(ge=0, le=MAX_USD)]


class Arguments(BaseModel):
    """Base of all arguments: of the right type as they come, no others, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class CompressArguments(Arguments):
    """What `compress_content` and `inspect_compression` both take."""

    content: str
    strategies: Annotated[list[str], Field(max_length=16)] = Field(
        default=["lossless"], description="lossless, recoverable, recoverable_95 or strategy names, in order"
    )
    query: str = Field(default="", description="the reader's task")
    target_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    can_expand: bool = Field(default=False, description="reader can call expand_content: parts may be left out")


class InspectArguments(CompressArguments):
    """What `inspect_compression` takes."""

    rows: Annotated[int, Field(ge=0, le=10_000)] = Field(default=20, description="changed lines to show")


class ValidateArguments(Arguments):
    """What `validate_compression` takes."""

    original: str
    compressed: str


class ExpandArguments(Arguments):
    """What `expand_content` takes."""

    handle: str = Field(description="like h:3fa9c2d1")
    range: str = Field(default="", description="lines 40-97 or bytes b0-4000; all if missing")


class PlanArguments(Arguments):
    """What `plan_budget` takes."""

    problem: dict[str, Any] = Field(description="models, stages, agents, items")
    max_tokens: Tokens | None = None
    max_usd: Usd | None = None
    policies: Annotated[list[str], Field(max_length=16)] = Field(default=[], description="defer, simplify")
    deadline_ms: Annotated[int, Field(ge=0, le=MAX_DEADLINE_MS)] | None = None


class ExplainArguments(Arguments):
    """What `explain_plan` takes."""

    plan_id: str
    agent_id: str = Field(default="", description="only this agent")


class UsageArguments(Arguments):
    """What `record_usage` takes."""

    account: str
    input_tokens: Tokens = Field(description="whole prompt, cached or not")
    output_tokens: Tokens
    cost_usd: Usd | None = None
    key: str | None = Field(default=None, description="the same key is booked once")
    limit_tokens: Tokens | None = Field(default=None, description="opens the account with this budget")


class HandoffArguments(Arguments):
    """What `handoff_context` takes."""

    context: str | None = Field(default=None, description="to hand over: text, or JSON messages")
    task: str = ""
    source: str = Field(default="sender:agent", description="ID:TYPE")
    target: str = Field(default="receiver:agent", description="ID:TYPE")
    workflow: str = ""
    accepts_deltas: bool = Field(default=False, description="target understands deltas")
    reply: dict[str, Any] | None = Field(default=None, description="a message of the target, whose tags say it instead")
    message: dict[str, Any] | None = Field(default=None, description="to read, instead of context")


def compact_schema(record: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a record without what tells nobody anything: titles, defaults, bounds, the word null.

    >>> compact_schema(ExplainArguments)["required"]
    ['plan_id']
    """
    schema: dict[str, Any] = _shortened(record.model_json_schema())
    schema.pop("description", None)
    return schema


_DROPPED = frozenset({"title", "default", "minimum", "maximum", "maxLength", "minLength", "maxItems", "minItems"})


def _shortened(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_shortened(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    choices = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(choices) == 1:
        schema = {key: value for key, value in schema.items() if key != "anyOf"} | choices[0]
    short: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            short[key] = {name: _shortened(each) for name, each in value.items()}
        elif key not in _DROPPED and not (key == "additionalProperties" and value is True):
            short[key] = _shortened(value)
    return short


def refusals(error: ValidationError) -> list[str]:
    """Say what is wrong with arguments, without repeating what they hold."""
    found = []
    for each in error.errors(include_url=False, include_context=False, include_input=False)[:4]:
        where = ".".join(str(part)[:40] for part in each["loc"]) or "arguments"
        found.append(f"{where}: {each['msg'][:1].lower()}{each['msg'][1:160]}")
    return found
