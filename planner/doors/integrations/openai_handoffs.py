"""Handoffs of the OpenAI Agents SDK: by a delta where both sides agree on one, else the whole context as always.

    deltas = DeltaHandoffs()
    handoff(tester, input_filter=deltas.filter("writer", "tester", receiver=bridge.capabilities))

Models keep no state: a delta is of use where what reads the input of the next agent is a bridge to somebody who holds
the earlier context, for example a `Model` of yours that speaks to a remote agent. Needs the extra `openai-agents`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agents.items import ItemHelpers

from apportion.compression.diff.types import Context, Section, is_word
from apportion.compression.handoff import NOTHING, Handoff, Party, write_handoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agents.handoffs import HandoffInputData

    from apportion.compression.handoff import Capabilities

MAX_BASES = 16
"""Handed over contexts that are kept to build deltas on."""


class DeltaHandoffs:
    """Remembers what was handed over, and makes filters that build on it."""

    def __init__(self) -> None:
        self._bases: dict[str, Context] = {}

    def filter(
        self, source: str, target: str, *, receiver: Callable[[], Capabilities] = lambda: NOTHING
    ) -> Callable[[HandoffInputData], HandoffInputData]:
        """Return an `input_filter`. The session and the result of the run keep all new items.

        Where a delta is agreed, the input of the target is one message of the user, a handoff message as JSON, for
        `read_handoff`. Where it is not, nothing changes.

        Args:
            source: Agent that hands over.
            target: Agent that is handed to.
            receiver: Returns what the target understands and holds at this moment, as contexts of `context_of`.
        """

        def apply(data: HandoffInputData) -> HandoffInputData:
            items: list[Any] = [*ItemHelpers.input_to_new_input_list(data.input_history)]
            items += [item.to_input_item() for item in (*data.pre_handoff_items, *data.new_items)]
            context = context_of(items)
            task = next((str(item["content"]) for item in items if item.get("role") == "user"), "")
            handed = Handoff(Party(source, source), Party(target, target), task, context, datetime.now(UTC))
            message = write_handoff(handed, receiver=receiver(), bases=self._bases)
            self._bases[context.digest] = context
            for digest in list(self._bases)[:-MAX_BASES]:
                del self._bases[digest]
            if "delta" not in message["context"]:
                return data
            only: Any = {"role": "user", "content": json.dumps(message)}
            return data.clone(input_history=(only,), pre_handoff_items=(), input_items=())

        return apply


def context_of(items: Iterable[Any]) -> Context:
    """Return input items as a context of one section each; `json.loads` of its content is the item again."""
    kinds = ((str(item.get("type") or item.get("role")), item) for item in items)
    return Context.of(
        Section(kind if is_word(kind) else "item", content=json.dumps(item, sort_keys=True).encode())
        for kind, item in kinds
    )
