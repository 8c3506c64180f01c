"""The prompt of one agent run in live use: what the orchestrator would send, and what is sent instead.

The orchestrator keeps the whole history and gives it before each call; a leading part that has not changed is
recognised, the rest is new. What was sent for a piece stays as it is until a plan changes it, so that the provider's
cache holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.compression.actions import mask, reference, result_number
from apportion.compression.inputs import fold_input, is_folded
from apportion.compression.store import Handle
from apportion.planner.held import References, Referred, refer, shows_lines, telling, without_notation, written_by
from apportion.planner.prompt import (
    FOLDABLE_KINDS,
    MIN_FOLDED_TOKENS,
    MIN_REPLACED_TOKENS,
    REFERENCE_TOKENS,
    REPLACEABLE_KINDS,
    STUB_TOKENS,
    PlannedPrompt,
    plan_of,
    prior_need,
    subject_of,
)
from apportion.planner.replay.billing import CacheClock, Tariff, tariff
from apportion.planner.sizes import Size, Sizes
from apportion.prices import lookup
from apportion.records import Action, Kind
from apportion.tokens import TokenCounter, count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Held, Outcome
    from apportion.planner.forms import Forms
    from apportion.planner.planner import Invocation, InvocationPlan


@dataclass(frozen=True, slots=True)
class ContextItem:
    """One piece of the context that an orchestrator would send.

    Attributes:
        content: The text, verbatim.
        kind: What it is.
        name: Tool that produced it, or that is called; `None` otherwise.
        link: Ties a tool call to its result, or `None`.
        pinned: Whether it must be sent whole. Where it is pinned after it was sent otherwise, it and what follows
            are taken for new.
    """

    content: str
    kind: Kind = Kind.USER
    name: str | None = None
    link: str | None = None
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class SentItem:
    """What is sent for one piece.

    Attributes:
        content: The text to send.
        action: What was done.
        handle: Where the original is, if not all of it is sent.
    """

    content: str
    action: Action = Action.KEEP
    handle: Handle | None = None


class Standing(NamedTuple):
    """A piece as it stands in a prompt: the piece, what is sent for it, and the form that that is, if it is one."""

    item: ContextItem
    sent: SentItem
    form: Outcome | None

    @property
    def text(self) -> str | None:
        """What of it later pieces can refer to, or `None`."""
        action = self.sent.action
        if action is Action.KEEP:
            return written_by(self.item.content) if self.item.kind in FOLDABLE_KINDS else self.item.content
        if action in {Action.STRUCTURE, Action.REFERENCE} and self.form is not None and shows_lines(self.form):
            return without_notation(self.sent.content)
        return None


class Decided(NamedTuple):
    """How a piece can refer to what is held, or why it does not; the same for everybody who asks.

    Attributes:
        item: The piece.
        plain: Its shortest form without references; `None`: the original.
        held: What was held.
        found: The form with references, or why there is none.
    """

    item: ContextItem
    plain: Outcome | None
    held: tuple[Held, ...]
    found: Referred | str

    @classmethod
    def of(cls, item: ContextItem, plain: Outcome | None, held: tuple[Held, ...]) -> Decided:
        """Decide; that takes as long as some thousand lines are looked at."""
        return cls(item, plain, held, refer(_bytes(item.content), held, name=item.name, plain=plain))

    def fits(self, item: ContextItem, plain: Outcome | None, held: tuple[Held, ...]) -> bool:
        """Say whether it was decided of the same, as it is now."""
        return (item.content, item.name, plain, held) == (self.item.content, self.item.name, self.plain, self.held)


class LiveRun:
    """The prompt of one agent run, from call to call.

    Args:
        run_id: The run.
        role: `"main"` or `"sub"`.
        store: Keeps the originals of what is not sent whole.
        forms: Works out shorter forms.
        clock: Tells which prompts the provider still caches; shared by the runs of a workflow.
        sizes: Remembers how many tokens texts have.
    """

    def __init__(
        self,
        run_id: str,
        role: str,
        *,
        store: HandleStore,
        forms: Forms | None,
        clock: CacheClock,
        sizes: Sizes | None = None,
    ) -> None:
        self.run_id = run_id
        self.role = role
        self.prompt = PlannedPrompt()
        self.calls = 0
        self.expands = False
        """Whether the agent can have back what is behind a handle, as its last call said."""
        self.overhead_tokens = 0.0
        self.tariff: Tariff = tariff(None)
        self.model: str | None = None
        self._store = store
        self._forms = forms
        self._clock = clock
        self._counter = TokenCounter(None)
        self._sizes = Sizes() if sizes is None else sizes
        self._items: list[ContextItem] = []
        self._sent: list[SentItem] = []
        self._shorter: dict[tuple[int, Action], Outcome] = {}
        self._copies: dict[str, int] = {}
        self.references = References()
        """What refers to what."""
        self._decided: dict[str, Decided] = {}
        self._held = 0
        self._tokens: float | None = None

    @property
    def sent(self) -> tuple[SentItem, ...]:
        """What is sent, piece by piece."""
        return tuple(self._sent)

    def enter(
        self,
        items: Sequence[ContextItem],
        *,
        model: str | None,
        task: str,
        now: datetime,
        expands: bool,
        folds: bool = False,
    ) -> int:
        """Take over the history before a call; return how many leading pieces the cache holds.

        Args:
            items: All pieces, in the order of the prompt.
            model: The model that is called.
            task: The agent's task: shorter forms keep what has to do with it.
            now: The time of the call.
            expands: Whether the agent can have back what is behind a handle. Where it no longer can, nothing more goes
                behind one; what is there stays.
            folds: Whether long texts in inputs of tools may be left out, too.
        """
        if model != self.model or not self.calls:
            self._use_model(model)
        self.hold_sent()
        kept = self.known(items)
        self.expands = expands
        self._tokens = None
        self._truncate(kept)
        self._pin(items[:kept], expands=expands)
        for item in items[kept:]:
            self._append(item, task, expands=expands, folds=folds and expands)
        warm = self._clock.warm((self.run_id, self.model), now, self.tariff.ttl_s)
        return min(self._held, self.prompt.changed_from) if warm else 0

    def known(self, items: Sequence[ContextItem]) -> int:
        """Return how many leading pieces are those of the call before."""
        least = min(len(self._items), len(items))
        if all(map(is_, self._items, items)):
            return least
        pairs = zip(self._items, items, strict=False)
        return next((i for i, (old, new) in enumerate(pairs) if not self._goes_on(i, old, new)), least)

    def _goes_on(self, row: int, old: ContextItem, new: ContextItem) -> bool:
        """Say whether a piece is that of the call before, and can stay as it was sent."""
        if old is new:
            return True
        if (old.kind, old.name, old.link) != (new.kind, new.name, new.link) or old.content != new.content:
            return False
        return old.pinned or not new.pinned or (row < self._held and self._sent[row].action is Action.KEEP)

    def _pin(self, items: Sequence[ContextItem], *, expands: bool) -> None:
        """Take note of which pieces that were sent before are pinned now, and which no longer are."""
        for row, (old, new) in enumerate(zip(self._items, items, strict=False)):
            if old is new or old.pinned == new.pinned:
                continue
            self._items[row] = new
            tokens = self.size_of(row).tokens
            if new.pinned:
                self.prompt.pin(row)
            elif expands and replaceable(new, tokens):
                self.prompt.unpin(row, self._need(new, tokens))

    def _need(self, item: ContextItem, tokens: float) -> float:
        handed_back = item.kind is Kind.HANDOFF_RESULT
        return prior_need(tokens, tool=item.name, handed_back=handed_back, sub_agent=self.role == "sub")

    def carry_out(self, plan: InvocationPlan) -> None:
        """Change what is sent as a plan says."""
        self._tokens = None
        for birth in plan.births:
            if birth.action is Action.REFERENCE:
                self._refer(birth.row, birth.copy)
            else:
                self._shorten(birth.row, birth.action)
        gone: list[int] = []
        for row in plan.masks.items.tolist():
            self._mask(row)
            if row not in self.references.literal:
                gone.append(row)
        while gone := self.prompt.relying_on(gone):
            for row in gone:
                self._unfold(row)

    def settle(self, prompt_tokens: float | None, now: datetime) -> None:
        """Take note that the prompt was sent, and of its size as billed."""
        if prompt_tokens is not None:
            self.overhead_tokens = max(0.0, prompt_tokens - self.tokens)
        self._held = len(self.prompt)
        self.prompt.sent()
        self.references.offered.clear()
        self._decided.clear()
        self._clock.touch((self.run_id, self.model), now)
        self.calls += 1

    def saved_cost(self, ask: Invocation) -> float:
        """Return what the prompt costs less than with every piece whole, as the cache stood when the plan was made.

        Negative where a change to what was cached costs more than it saves in this call. In the currency of the prices.
        """
        whole, sent, prices = self.prompt.column("full_tokens"), self.prompt.column("tokens"), ask.prices
        kept = min(ask.cached_items, self.prompt.changed_from)
        unplanned = whole[: ask.cached_items].sum() * prices.read + whole[ask.cached_items :].sum() * prices.write
        return float(unplanned - sent[:kept].sum() * prices.read - sent[kept:].sum() * prices.write)

    @property
    def tokens(self) -> float:
        """Tokens of the prompt as it is sent, without what is invisible."""
        if self._tokens is None:
            self._tokens = float(self.prompt.column("tokens").sum())
        return self._tokens

    @property
    def full_tokens(self) -> float:
        """Tokens of the prompt if everything were sent whole."""
        return float(self.prompt.column("full_tokens").sum())

    def _use_model(self, model: str | None) -> None:
        self.model = model
        self.tariff = tariff(lookup(model) if model else None)
        self._counter = TokenCounter(model)

    def _truncate(self, kept: int) -> None:
        if kept == len(self._items):
            return
        self.prompt.truncate(kept)
        del self._sent[kept:], self._items[kept:]
        self._shorter = {key: form for key, form in self._shorter.items() if key[0] < kept}
        self._copies = {key: row for key, row in self._copies.items() if row < kept}
        self.references.truncate(kept)
        self._held = min(self._held, kept)

    def _append(self, item: ContextItem, task: str, *, expands: bool, folds: bool) -> None:
        row = len(self._items)
        visible, tokens = self._sizes.of(item.content, self._counter)
        may_change = replaceable(item, tokens)
        columns: dict[str, Any] = {}
        copy, need = -1, 0.0
        if may_change:
            copy = self._copies.get(item.content, -1)
            copy = copy if copy >= 0 and self.prompt.shown(copy) else -1
            need = self._need(item, tokens)
            columns = self._columns(row, item, task, need, expands=expands)
            columns |= self._referring(row, item, copy)
            if copy < 0:
                self._copies[item.content] = row
        folded = self._folded(item, visible) if folds and item.kind in FOLDABLE_KINDS else None
        if folded is not None:
            need = prior_need(tokens, tool=item.name, handed_back=False, sub_agent=self.role == "sub", written=True)
            columns["stub"] = self._size(folded).tokens
        self._items.append(item)
        self._sent.append(SentItem(item.content))
        self.prompt.append(
            piece=row,
            logged=row,
            visible=visible,
            tokens=tokens,
            born=self.calls,
            need=need,
            maskable=(may_change and expands) or folded is not None,
            copy=copy,
            **columns,
        )
        self._note_subject(row, item)

    def _referring(self, row: int, item: ContextItem, copy: int) -> dict[str, Any]:
        """Work out how a piece can refer to what stands literally before it, and return the columns of that."""
        if copy >= 0:
            return {"owed": {copy: float(STUB_TOKENS - REFERENCE_TOKENS)}}
        plain = self._shorter.get((row, Action.STRUCTURE))
        held = self.sources(item, plain)
        if not held:
            return {}
        decided = self._decided.get(item.content)
        if decided is None or not decided.fits(item, plain, held):
            decided = Decided.of(item, plain, held)
        found = decided.found
        if not isinstance(found, Referred):
            return {}
        self.references.offered[row] = found
        return {"referred": self._size(found.form.content).tokens, "owed": found.owed}

    def sources(self, item: ContextItem, plain: Outcome | None) -> tuple[Held, ...]:
        """Return what stands literally in the prompt that a new piece can refer to.

        Args:
            item: The piece.
            plain: Its shortest form without references; `None`: the original.
        """
        if plain is None:
            return self.references.literal.sources(item.content)
        return self.references.literal.sources(item.content, plain.content.decode("utf-8", "surrogatepass"))

    def note_decided(self, decided: Decided) -> None:
        """Take note of how a piece can refer to what is held, so that nobody has to ask when it enters."""
        self._decided[decided.item.content] = decided

    def _columns(self, row: int, item: ContextItem, task: str, need: float, *, expands: bool) -> dict[str, Any]:
        """Work out the shorter forms of a piece, and return their columns in the prompt."""
        columns: dict[str, Any] = {}
        if self._forms is None:
            return columns
        forms = self._forms.of(_bytes(item.content), task=task, name=item.name)
        if forms.structured is not None:
            self._shorter[row, Action.STRUCTURE] = forms.structured
            columns["structured"] = self._size(forms.structured.content).tokens
        if forms.selected is not None and expands:
            self._shorter[row, Action.SELECT] = forms.selected
            columns["selected"] = self._size(forms.selected.content).tokens
            columns["selected_need"] = need * forms.selected.left_out_share
        return columns

    def _note_subject(self, row: int, item: ContextItem) -> None:
        """Note what a result shows, or which plan a call writes: an earlier sight of it is superseded."""
        subject = plan_of(item.name) if item.kind is Kind.TOOL_CALL else None
        if item.kind is Kind.TOOL_RESULT and item.link is not None:
            calls = (old for old in reversed(self._items) if old.kind is Kind.TOOL_CALL and old.link == item.link)
            subject = next((subject_of(call.name, call.content) for call in calls), None)
        if subject is not None:
            self.prompt.show_file(row, subject)

    def _shorten(self, row: int, action: Action) -> None:
        form = self._shorter[row, action]
        handle = self._store.put(form.original) if action is Action.SELECT else None
        text = form.content.decode("utf-8", "surrogatepass")
        size = self._sizes.of(text, self._counter)
        self.prompt.shorten(row, action, visible=size.visible, tokens=size.tokens)
        self._sent[row] = SentItem(text, action, handle)

    def _refer(self, row: int, copy: int) -> None:
        """Send references instead of a new piece: one to an earlier copy, or some to blocks of lines."""
        found = self.references.offered.get(row)
        if copy >= 0 and self.prompt.shown(copy):
            number = result_number((item.kind, item.link) for item in self._items[: copy + 1])
            content = reference(_bytes(self._items[row].content), number=number)
        elif copy < 0 and found is not None and all(map(self.references.literal.holds, found.held)):
            content = found.form.content
        else:
            return
        size, text = self._size(content), content.decode("utf-8", "surrogatepass")
        if size.tokens >= self.prompt.column("tokens")[row]:
            return
        if copy >= 0:
            self.references.whole[row] = copy
        elif found is not None:
            self.references.forms[row] = found
        self.prompt.refer(row, visible=size.visible, tokens=size.tokens)
        self._sent[row] = SentItem(text, Action.REFERENCE)

    def _mask(self, row: int, *, tokens: float | None = None) -> None:
        """Send a stub instead of a piece where that is shorter than what is sent for it, or than so many tokens."""
        item = self._items[row]
        if item.kind in FOLDABLE_KINDS:
            self._fold(row)
            return
        original = _bytes(item.content)
        handle = self._store.put(original)
        stub = mask(original, handle=handle, name=item.name, tokens=self.size_of(row).visible)
        text, size = stub.decode(), self._size(stub)
        if size.tokens >= (self.prompt.column("tokens")[row] if tokens is None else tokens):
            return
        self.prompt.replace(row, Action.MASK, visible=size.visible, tokens=size.tokens)
        self._sent[row] = SentItem(text, Action.MASK, handle)
        self.references.forget(row)

    def _folded(self, item: ContextItem, visible: int) -> bytes | None:
        """Return an input without its long texts, where that is clearly shorter and shows all the rest of it."""
        if visible < MIN_FOLDED_TOKENS or item.pinned or item.link is None:
            return None
        original = _bytes(item.content)
        folded = fold_input(original, handle=Handle.of(original), count=count_tokens)
        if folded is None or not is_folded(original, folded):
            return None
        return folded if self._size(folded).visible + MIN_REPLACED_TOKENS <= visible else None

    def _fold(self, row: int) -> None:
        """Leave the long texts of an input out, once its result is there; the call stays where it is."""
        item = self._items[row]
        original, folded = _bytes(item.content), self._folded(item, self.size_of(row).visible)
        results = (each for each in self._items[row + 1 :] if each.kind in REPLACEABLE_KINDS)
        if folded is None or not any(each.link == item.link for each in results):
            return
        handle = self._store.put(original)
        if handle != Handle.of(original) or self._store.expand(handle) != original:
            return
        size = self._size(folded)
        self.prompt.replace(row, Action.SELECT, visible=size.visible, tokens=size.tokens)
        self._sent[row] = SentItem(folded.decode("utf-8", "surrogatepass"), Action.SELECT, handle)
        self.references.forget(row)

    def _unfold(self, row: int) -> None:
        """Let a piece stand by itself again, because what it refers to goes; of a copy of all that, a stub is left."""
        item, whole = self._items[row], self.size_of(row)
        if row in self.references.whole:
            self._mask(row, tokens=whole.tokens)
            if self.prompt.action(row) is Action.MASK:
                return
        self.prompt.unfold(row, visible=whole.visible, tokens=whole.tokens)
        self.references.forget(row)
        self._sent[row] = SentItem(item.content)
        if (row, Action.STRUCTURE) in self._shorter:
            self._shorten(row, Action.STRUCTURE)
        self._hold(row)

    def hold_sent(self) -> None:
        """Take note of what has been sent since: later pieces can refer to it. Done before they enter, or sooner."""
        for row in range(self.references.held_rows, self._held):
            self._hold(row)
        self.references.held_rows = max(self.references.held_rows, self._held)

    @property
    def not_held(self) -> tuple[Standing, ...]:
        """What has been sent and is not taken note of yet."""
        return tuple(map(self._standing, range(self.references.held_rows, self._held)))

    def _standing(self, row: int) -> Standing:
        found = self.references.forms.get(row)
        form = found.form if found is not None else self._shorter.get((row, self._sent[row].action))
        return Standing(self._items[row], self._sent[row], form)

    def _hold(self, row: int) -> None:
        """Take note of a piece that stands literally, so that later ones can refer to it."""
        text = self._standing(row).text
        if text is not None:
            self.references.literal.hold(row, text)

    def note_quotes(self, rows: Sequence[int], items: Sequence[ContextItem], call: int) -> None:
        """Take note of what the output of a call has quoted, as far as these are still the pieces of the prompt."""
        for row in rows:
            if row < len(self._items) and self._items[row] is items[row]:
                self.prompt.touch(row, call)

    @property
    def items(self) -> tuple[ContextItem, ...]:
        """The pieces, as the orchestrator gave them."""
        return tuple(self._items)

    @property
    def maskable(self) -> bool:
        """Whether any piece may go behind a handle."""
        return self.expands and bool(self.prompt.column("maskable").any())

    def visible(self, row: int) -> int:
        """Return the visible tokens of a piece as it is sent."""
        return int(self.prompt.column("visible")[row])

    def steps(self, row: int) -> tuple[str, ...]:
        """Return the names of the strategies that made what is sent for a piece, where strategies made it."""
        form = self._shorter.get((row, self._sent[row].action))
        return () if form is None else form.steps

    def size_of(self, row: int) -> Size:
        """Return the size of a piece as it was given."""
        return self._sizes.of(self._items[row].content, self._counter)

    def _size(self, content: bytes) -> Size:
        return self._sizes.of(content.decode("utf-8", "surrogatepass"), self._counter)


def look_at(standing: Iterable[Standing]) -> None:
    """Work out of what stands in a prompt by which lines it is found, so that taking note of it is quick."""
    for each in standing:
        text = each.text
        if text is not None:
            telling(text)


def quoted(items: Sequence[ContextItem], output: str) -> list[int]:
    """Return the pieces from which an output quotes, by windows of its text."""
    windows = {output[start : start + WINDOW] for start in range(0, len(output) - WINDOW + 1, WINDOW // 2)}
    some = sorted(windows)[:MOST_WINDOWS]
    rows = (row for row, item in enumerate(items) if item.kind in REPLACEABLE_KINDS | FOLDABLE_KINDS)
    return [row for row in rows if any(window in items[row].content for window in some)]


def replaceable(item: ContextItem, tokens: float) -> bool:
    """Say whether a piece may be sent otherwise than whole."""
    return item.kind in REPLACEABLE_KINDS and not item.pinned and tokens >= MIN_REPLACED_TOKENS


WINDOW = 30
"""Characters of a quote."""

MOST_WINDOWS = 200
"""Windows of an output that are looked for."""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
