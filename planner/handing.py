"""Hands contexts on within a session: as a delta where the receiver says that it understands one and holds its base.

Model tokens are saved only where the base stands in the prompt of the receiving run at this moment; elsewhere a delta
saves transport, because whoever receives it rebuilds the whole before the call. Telemetry keeps the two apart.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apportion.compression.diff.types import MAX_NAME, Context, Section
from apportion.compression.handoff import Handoff, write_handoff
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from apportion.compression.handoff import Capabilities, Party
    from apportion.planner.live import ContextItem

MAX_BASES = 64
"""Contexts that a session keeps to build deltas on; `MAX_BASE_BYTES` may end it earlier."""

MAX_BASE_BYTES = 32 * 2**20
"""Bytes of them all."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What was handed on.

    Attributes:
        message: The handoff message, as JSON values; `compression.handoff.read_handoff` reads it.
        delta: Whether it carries a delta.
        reason: Why it carries the whole context; `None` for a delta.
        whole_tokens: Tokens of the message with the whole context.
        sent_tokens: Tokens of the message.
        in_prompt: Whether the base stands in the receiving run's prompt. Only then does a delta save tokens of a model.
    """

    message: dict[str, Any]
    delta: bool
    reason: str | None
    whole_tokens: int
    sent_tokens: int
    in_prompt: bool


class Handing:
    """Contexts that a session has handed on; not safe to share between threads.

    Args:
        deltas: Whether deltas may be used at all.
    """

    def __init__(self, *, deltas: bool) -> None:
        self._deltas = deltas
        self._bases: OrderedDict[str, Context] = OrderedDict()

    def hand(
        self,
        source: Party,
        target: Party,
        task: str,
        items: Iterable[ContextItem],
        *,
        receiver: Capabilities,
        prompt: Iterable[ContextItem],
        now: datetime,
    ) -> HandedOver:
        """Return the message that hands a context on; see `Session.hand_over`.

        Args:
            source: Who hands over.
            target: Who is handed to.
            task: What is to be done.
            items: The context.
            receiver: What the target understands and holds.
            prompt: What stands in the prompt of the receiving run now.
            now: The time.
        """
        context = context_of(items)
        handoff = Handoff(source, target, task, context, now)
        whole = write_handoff(handoff)
        message = whole
        if self._deltas and receiver.deltas:
            message = write_handoff(handoff, receiver=receiver, bases=self._bases)
        delta = message["context"].get("delta")
        reason = None if delta is not None else self._reason(receiver)
        base = None if delta is None else self._bases.get(delta["base"])
        there = {section.content for section in context_of(prompt).sections}
        in_prompt = base is not None and all(section.content in there for section in base.sections)
        self._keep(context)
        return HandedOver(message, delta is not None, reason, _tokens(whole), _tokens(message), in_prompt)

    def _reason(self, receiver: Capabilities) -> str:
        if not self._deltas:
            return "switched off"
        reason = receiver.shared(self._bases)[1]
        return "not_worth_it" if reason is None else reason.value

    def _keep(self, context: Context) -> None:
        self._bases[context.digest] = context
        self._bases.move_to_end(context.digest)
        while len(self._bases) > MAX_BASES or sum(each.size for each in self._bases.values()) > MAX_BASE_BYTES:
            self._bases.popitem(last=False)


def context_of(items: Iterable[ContextItem]) -> Context:
    """Return pieces of a prompt as a context, one section each."""
    return Context.of(
        Section(
            item.kind.value,
            (item.name or "")[:MAX_NAME],
            item.content.encode("utf-8", "surrogatepass"),
        )
        for item in items
    )


def _tokens(message: Mapping[str, Any]) -> int:
    return count_tokens(json.dumps(message, ensure_ascii=False))
