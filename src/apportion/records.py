"""The nouns of apportion: frozen records that check themselves once, on construction.

Units stand in the names (`*_tokens`, `*_usd`, `*_ms`); an unknown quantity is `None`, never 0.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Tokens = Annotated[int, Field(ge=0, le=2**53)]
"""A token count: a whole number that a double holds exactly."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share in [0, 1]."""


class Record(BaseModel):
    """Base of all records: immutable, closed to unknown fields, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def fields_with(self, **changes: Any) -> dict[str, Any]:
        """Return the fields with changes, from which a record can be made anew and checked.

        `dict(record)` would hold cached properties as well, and `model_copy` would not check.
        """
        return {name: getattr(self, name) for name in type(self).model_fields} | changes


def content_hash(content: str | bytes) -> str:
    """Return the SHA-256 of a content, as 64 hexadecimal digits.

    Text is hashed as UTF-8; lone surrogates, which JSON can carry, are kept as they are.
    """
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


class Usage(Record):
    """Token usage of one or more model calls, in the six canonical columns.

    The prompt is `input_uncached + cache_read + cache_write_5m + cache_write_1h`; providers disagree on whether
    "input" includes cached tokens, so importers convert to these disjoint columns. `output` includes `reasoning`.
    A column is `None` where the log does not say. Columns named in `estimated` hold a placeholder or an estimate.
    """

    input_uncached: Tokens | None = None
    cache_read: Tokens | None = None
    cache_write_5m: Tokens | None = None
    cache_write_1h: Tokens | None = None
    output: Tokens | None = None
    reasoning: Tokens | None = None
    estimated: frozenset[str] = frozenset()

    @model_validator(mode="after")
    def _estimated_names_exist(self) -> Self:
        unknown = self.estimated - set(USAGE_COLUMNS)
        if unknown:
            raise ValueError(f"estimated names unknown columns: {sorted(unknown)}")
        return self

    @property
    def prompt_tokens(self) -> int | None:
        """Tokens of the prompt, cached or not; `None` where the log gives no prompt column at all."""
        columns = (self.input_uncached, self.cache_read, self.cache_write_5m, self.cache_write_1h)
        known = [tokens for tokens in columns if tokens is not None]
        return sum(known) if known else None

    def __add__(self, other: Usage) -> Usage:
        """Add column by column; an unknown plus a known is the known, and the estimates are united."""
        values = {name: _add(getattr(self, name), getattr(other, name)) for name in USAGE_COLUMNS}
        return Usage(**values, estimated=self.estimated | other.estimated)


USAGE_COLUMNS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning")
"""The canonical usage columns, in the order in which they are reported."""


def _add(left: int | None, right: int | None) -> int | None:
    if left is None:
        return right
    return left if right is None else left + right


class Kind(StrEnum):
    """What a piece of context is."""

    SYSTEM = "system"
    TOOL_DEFINITIONS = "tool_definitions"
    USER = "user"
    ASSISTANT = "assistant"
    THINKING = "thinking"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"
    HANDOFF = "handoff"
    HANDOFF_RESULT = "handoff_result"

    @property
    def written_by_model(self) -> bool:
        """Whether a model writes it; anything else enters a context from outside."""
        return self in _WRITTEN_BY_MODEL


_WRITTEN_BY_MODEL = frozenset({Kind.ASSISTANT, Kind.THINKING, Kind.TOOL_CALL, Kind.HANDOFF})


class Action(StrEnum):
    """What a plan does with a piece of context."""

    KEEP = "keep"
    """Send it whole."""
    STRUCTURE = "structure"
    """Write the same content shorter; nothing is lost."""
    SELECT = "select"
    """Send the relevant parts, and a handle for the rest."""
    MASK = "mask"
    """Send a stub with a handle that restores it."""
    DIFF = "diff"
    """Send what changed since a version that the receiver holds."""
    REFERENCE = "reference"
    """Name the copy that the receiver already has."""
    LAZY = "lazy"
    """Send nothing but its name; the receiver loads it when it needs it."""


class Feature(StrEnum):
    """A kind of action that can be switched off by itself."""

    STRUCTURE = "structure"
    """Write new results shorter without losing anything."""
    ELIDE = "elide"
    """Send a stub with a handle for an old result (`Action.MASK`)."""
    SELECT = "select"
    """Leave parts of new results out behind handles."""
    DIFF = "diff"
    """Send what changed since a version that the receiver holds."""
    REFERENCE = "reference"
    """Name the copy that the receiver already has."""
    LAZY = "lazy"
    """Load tools, skills and agent files when they are needed."""
    PRELOAD = "preload"
    """Load what is likely to be needed before anybody asks."""


class Demand(Record):
    """How many tokens are needed, as quantiles.

    `probabilities` are strictly increasing in (0, 1); `tokens` are non-decreasing and of the same length.
    `sample_size` is the number of observations of the same framework behind them; 0 means a prior: a documented one, or
    what was learned of other frameworks.
    """

    probabilities: tuple[float, ...] = Field(min_length=1)
    tokens: tuple[Tokens, ...] = Field(min_length=1)
    sample_size: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _quantiles_are_monotone(self) -> Self:
        if len(self.probabilities) != len(self.tokens):
            raise ValueError("probabilities and tokens differ in length")
        bounded = (0.0, *self.probabilities, 1.0)
        if any(low >= high for low, high in pairwise(bounded)):
            raise ValueError("probabilities must increase strictly within (0, 1)")
        if any(low > high for low, high in pairwise(self.tokens)):
            raise ValueError("tokens must not decrease")
        return self


class Budget(Record):
    """What a workflow may use: tokens, US dollars, or both; `None` means no limit.

    Tokens are total tokens: prompt plus output, added up over all calls, as `total_tokens` counts them.
    `reserve_share` is held back for handing results back when the rest is used up.
    """

    max_tokens: Annotated[int, Field(gt=0, le=2**53)] | None = None
    max_usd: Annotated[float, Field(gt=0, le=1e6)] | None = None
    reserve_share: Share = 0.05
