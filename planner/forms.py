"""The shorter forms in which a piece of context may enter a prompt: all of it by its structure, or parts of it.

    forms = Forms().of(content, task="fix the failing test")
    forms.structured.tokens, forms.selected.tokens

They are worked out before the plan is made, once per content and task, so that the plan goes by what each form really
holds. What nobody can make shorter has no form, and is sent as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apportion.compression.pipeline import Lossless, apply, recoverable
from apportion.compression.strategies.types import Item, Query
from apportion.planner.recent import Recent
from apportion.records import Action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Outcome, Strategy


SELECT_LEVEL = "recoverable_95"
"""The level that profiles of leaving parts out are measured at."""


def ways() -> Mapping[Action, Strategy]:
    """Return the strategy that carries out each way of shortening a new piece of context."""
    return {Action.STRUCTURE: Lossless(), Action.SELECT: recoverable(SELECT_LEVEL)}


@dataclass(frozen=True, slots=True)
class ShorterForms:
    """The shorter forms of one content.

    Attributes:
        structured: All of it, written shorter; `None` where nothing is gained.
        selected: Parts of it, with a handle for the rest; `None` where that gains nothing over `structured`.
    """

    structured: Outcome | None
    selected: Outcome | None


MOST_BYTES = 32_000_000
"""Bytes of contents and forms in each half of what is remembered: some dozens of long prompts."""


class Forms:
    """Works out shorter forms; the same content for the same task once, as long as it is remembered.

    Args:
        structure: Writes a content shorter without losing anything.
        select: Leaves parts out behind handles; `None`: nothing is ever left out.
    """

    def __init__(self, structure: Strategy | None = None, select: Strategy | None = None) -> None:
        self._structure = Lossless() if structure is None else structure
        self._select = select
        self._known: Recent[tuple[bytes, str], ShorterForms] = Recent(MOST_BYTES)

    @classmethod
    def at(cls, level: str | None, store: HandleStore | None = None) -> Forms:
        """Return the forms at a level of `compression.pipeline.LEVELS`; `None`: nothing is left out.

        Raises:
            InputError: There is no such level.
        """
        return cls(select=None if level is None else recoverable(level, store))

    def of(self, content: bytes, *, task: str = "", name: str | None = None) -> ShorterForms:
        """Return the shorter forms of a content; never raises.

        Args:
            content: The original.
            task: The receiver's task.
            name: Tool that produced the content, or `None`.
        """
        key = (content, task if self._select else "")
        forms = self._known.get(key)
        if forms is None:
            forms = self._made(Item(content, name), Query(task=task, can_expand=True))
            made = (each for each in (forms.structured, forms.selected) if each is not None)
            self._known.keep(key, forms, len(content) + sum(len(each.content) for each in made))
        return forms

    def _made(self, item: Item, query: Query) -> ShorterForms:
        structured = apply(self._structure, item, query)
        selected = apply(self._select, item, query) if self._select else None
        if selected is not None and not (selected.changed and selected.gaps and selected.tokens < structured.tokens):
            selected = None
        return ShorterForms(structured if structured.changed else None, selected)
