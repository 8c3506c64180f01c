"""Results of tools, written shorter before they enter the conversation: so the provider's cache never notices.

What enters shorter stays as it entered. Parts are left out only where the agent can have them back, by the tool
`expand_content` or the command `apportion expand`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apportion.planner.doors.claude_code.results import texts_of, with_texts
from apportion.planner.forms import Forms
from apportion.planner.prompt import MIN_REPLACED_TOKENS, prior_need
from apportion.records import Feature
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Outcome

MAX_TEXT_BYTES = 2**20
"""Bytes of the longest text that is written shorter while the client waits."""

CALL_TOKENS = 150
"""Tokens of a call that has something back, beside what it brings: the call, and the frame of its result."""

MOST_KNOWN = 256
"""Texts whose shorter forms are remembered; then all are forgotten."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """A response as it enters the conversation.

    Attributes:
        response: In the shape in which it came.
        tokens: Tokens of its texts now.
        original_tokens: Tokens of its texts before.
        left_out: Whether parts of it are behind handles.
    """

    response: Any
    tokens: int
    original_tokens: int
    left_out: bool


@dataclass(slots=True)
class Ingestion:
    """Writes responses shorter.

    Args:
        select: Level at which parts may be left out; `None`: never.
        store: Keeps what is left out.
        off: Kinds of action that are switched off.
    """

    select: str | None
    store: HandleStore
    off: frozenset[Feature] = frozenset()
    _forms: Forms | None = field(default=None, init=False)
    _made: int = field(default=0, init=False)

    def shorter(
        self, tool: str, given: dict[str, Any], response: Any, *, task: str, expands: bool, sub_agent: bool
    ) -> Ingested | None:
        """Return a response with shorter texts, or `None` where it is to stay as it is.

        Args:
            tool: Name of the tool.
            given: What it was called with.
            response: What it gave back.
            task: The agent's task.
            expands: Whether the agent can have back what is left out.
            sub_agent: Whether a sub-agent called it.
        """
        changed: dict[Any, str] = {}
        before = after = 0
        left_out = False
        for place, text in texts_of(tool, given, response).items():
            content = text.encode("utf-8", "surrogatepass")
            if len(content) > MAX_TEXT_BYTES or (tokens := count_tokens(text)) < MIN_REPLACED_TOKENS:
                continue
            form = self._form(content, tool, tokens, task=task, expands=expands, sub_agent=sub_agent)
            if form is None:
                continue
            changed[place] = form.content.decode("utf-8", "surrogatepass")
            before, after = before + form.original_tokens, after + form.tokens
            left_out = left_out or bool(form.gaps)
        return Ingested(with_texts(response, changed), after, before, left_out) if changed else None

    def _form(
        self, content: bytes, tool: str, tokens: int, *, task: str, expands: bool, sub_agent: bool
    ) -> Outcome | None:
        forms = self._known().of(content, task=task, name=tool)
        whole = None if Feature.STRUCTURE in self.off else forms.structured
        parts = None if Feature.SELECT in self.off or not expands else forms.selected
        if parts is not None:
            gain = (tokens if whole is None else whole.tokens) - parts.tokens
            need = prior_need(float(tokens), tool=tool, handed_back=False, sub_agent=sub_agent)
            if gain > need * parts.left_out_share * (gain + CALL_TOKENS):
                return parts
        return whole

    def _known(self) -> Forms:
        self._made += 1
        if self._forms is None or self._made % MOST_KNOWN == 0:
            self._forms = Forms.at(self.select, self.store)
        return self._forms
