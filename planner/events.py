"""What sessions tell while they run: decisions with their reasons, and what was used beside what was allocated.

Events are mappings with their kind under `kind` (`session`, `step`, `usage`, `action`, `expansion`, `degraded`). They
hold names, numbers and reasons, and no content.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apportion.planner.live import SentItem
    from apportion.planner.steps import Step
    from apportion.records import Usage


class Telemetry(Protocol):
    """Takes events; never blocks."""

    def record(self, event: Mapping[str, object], /) -> object:
        """Take one event."""


class Teller:
    """Tells events of one session, and lets no failure of telemetry into the way of the work.

    Args:
        telemetry: Takes the events; `None`: nobody does.
        workflow: Name of the session.
    """

    def __init__(self, telemetry: Telemetry | None, workflow: str) -> None:
        self._telemetry = telemetry
        self._workflow = workflow

    @property
    def heard(self) -> bool:
        """Whether anybody takes the events."""
        return self._telemetry is not None

    def tell(self, kind: str, **fields: object) -> None:
        """Tell one event; what is `None` is left out."""
        if self._telemetry is None:
            return
        known = {name: value for name, value in fields.items() if value is not None}
        with suppress(Exception):
            self._telemetry.record({"kind": kind, "workflow": self._workflow, **known})

    def step(self, step: Step, *, stage: int, prompt_tokens: int | None) -> None:
        """Tell what was decided about an invocation."""
        self.tell(
            "step",
            agent=step.agent,
            run_id=step.run_id,
            stage=stage,
            number=step.number,
            decision=step.decision.value,
            reasons=step.reasons,
            variant=step.variant if step.variant != "full" else None,
            model=step.model,
            allocated_tokens=step.allocated_tokens,
            max_output_tokens=step.max_output_tokens,
            prompt_tokens=prompt_tokens,
            saved_tokens=step.saved_tokens,
            final=step.final or None,
            low=step.notice is not None or None,
        )
        for reason in step.degraded:
            self.tell("degraded", agent=step.agent, run_id=step.run_id, component="planner", reason=reason)

    def action(self, step: Step, sent: SentItem, before: int, after: int) -> None:
        """Tell that a piece is sent otherwise than before."""
        handle = None if sent.handle is None else str(sent.handle)
        self.tell(
            "action",
            agent=step.agent,
            run_id=step.run_id,
            number=step.number,
            action=sent.action.value,
            tokens_before=before,
            tokens_after=after,
            original=handle,
        )

    def usage(self, step: Step, usage: Usage, *, stage: int, usd: float | None, saved_usd: float | None) -> None:
        """Tell what an invocation used, beside what it was allocated."""
        writes = [tokens for tokens in (usage.cache_write_5m, usage.cache_write_1h) if tokens is not None]
        self.tell(
            "usage",
            agent=step.agent,
            run_id=step.run_id,
            stage=stage,
            number=step.number,
            model=step.model,
            allocated_tokens=step.allocated_tokens,
            input_tokens=usage.prompt_tokens,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=sum(writes) if writes else None,
            output_tokens=usage.output,
            reasoning_tokens=usage.reasoning,
            saved_tokens=step.saved_tokens,
            cost_usd=usd,
            saved_usd=saved_usd,
        )
