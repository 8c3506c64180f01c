"""What sessions tell while they run: decisions with their reasons, and what was used beside what was allocated.

Events are mappings with their kind under `kind` (`session`, `step`, `usage`, `action`, `expansion`, `loading`, `diff`,
`preload`, `degraded`). They hold names, numbers and reasons, and no content: what a piece was and what was sent for it
goes to the store of originals, where the user keeps one, and the event names both by their handles.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from apportion.records import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apportion.compression.store import HandleStore
    from apportion.planner.live import SentItem
    from apportion.planner.steps import Step
    from apportion.records import Usage


class Telemetry(Protocol):
    """Takes events; never blocks."""

    def record(self, event: Mapping[str, object], /) -> object:
        """Take one event."""


class Changed(NamedTuple):
    """A piece that is sent otherwise than whole.

    Attributes:
        original: What it was.
        sent: What is sent.
        before: Visible tokens of what it was.
        after: Visible tokens of what is sent.
        steps: Strategies that made it, in their order; none where it is a stub or a reference.
    """

    original: str
    sent: SentItem
    before: int
    after: int
    steps: tuple[str, ...] = ()


class Teller:
    """Tells events of one session, and lets no failure of telemetry into the way of the work.

    Args:
        telemetry: Takes the events; `None`: nobody does.
        workflow: Name of the session.
        store: Keeps what changed pieces were and what was sent for them, so that it can be looked at again; `None`:
            that is not kept.
    """

    def __init__(self, telemetry: Telemetry | None, workflow: str, store: HandleStore | None = None) -> None:
        self._telemetry = telemetry
        self._workflow = workflow
        self._store = store
        self._waiting: deque[tuple[Step, Changed]] = deque()
        self._keeping = threading.Lock()

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
        if not self.heard:
            return
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

    def action(self, step: Step, changed: Changed) -> None:
        """Tell that a piece is sent otherwise than before: at once, or by the next `keep` where contents are kept."""
        if self._telemetry is None:
            return
        if self._store is None or changed.sent.action is Action.KEEP:
            handle = None if changed.sent.handle is None else str(changed.sent.handle)
            self._tell_action(step, changed, handle, None)
        else:
            self._waiting.append((step, changed))

    @property
    def keeps(self) -> bool:
        """Whether changed pieces wait to be kept and told of."""
        return bool(self._waiting)

    def keep(self) -> None:
        """Keep the changed pieces that wait, and tell of them; it takes a write to the store for each. Never raises."""
        with self._keeping:
            while self._waiting:
                step, changed = self._waiting.popleft()
                handle = None if changed.sent.handle is None else str(changed.sent.handle)
                original, shown = handle, None
                try:
                    assert self._store is not None
                    original = str(self._store.put(changed.original.encode("utf-8", "surrogatepass")))
                    shown = str(self._store.put(changed.sent.content.encode("utf-8", "surrogatepass")))
                except Exception as error:  # noqa: BLE001  (the work is done; what was sent is not looked at again)
                    reason = f"what was sent is not kept: {type(error).__name__}: {error}"
                    self.tell("degraded", agent=step.agent, run_id=step.run_id, component="originals", reason=reason)
                self._tell_action(step, changed, original, shown)

    def _tell_action(self, step: Step, changed: Changed, original: str | None, shown: str | None) -> None:
        self.tell(
            "action",
            agent=step.agent,
            run_id=step.run_id,
            number=step.number,
            action=changed.sent.action.value,
            strategy="+".join(changed.steps) or None,
            tokens_before=changed.before,
            tokens_after=changed.after,
            original=original,
            shown=shown,
        )

    def usage(self, step: Step, usage: Usage, *, stage: int, usd: float | None, saved_usd: float | None) -> None:
        """Tell what an invocation used, beside what it was allocated."""
        if not self.heard:
            return
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
