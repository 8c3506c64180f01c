"""What goes in and comes out over HTTP: records that refuse whatever they do not know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


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
    """

    status: str
    version: str
    sessions: int
    degraded: list[str]
