"""Replays one agent run: its prompt as logged beside the prompt as planned, call by call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.actions import Rendered, reference, render, restore, result_number
from apportion.compression.expand_tool import expand_schema, reads_files
from apportion.compression.inputs import fold_input
from apportion.compression.store import Handle
from apportion.compression.summary import summarise
from apportion.errors import StoreError
from apportion.planner.held import References, refer, shows_lines, written_by
from apportion.planner.masking import EXPANSION_OUTPUT_TOKENS
from apportion.planner.prompt import (
    FOLDABLE_KINDS,
    MIN_FOLDED_TOKENS,
    MIN_REPLACED_TOKENS,
    REFERENCE_TOKENS,
    REPLACEABLE_KINDS,
    STUB_TOKENS,
    PlannedPrompt,
    path_of,
    plan_of,
    prior_need,
    subject_of,
)
from apportion.planner.replay.billing import CacheClock, CacheSplit, Tariff, split_prompt, tariff
from apportion.planner.replay.evidence import quotable
from apportion.planner.replay.journal import (
    REFERRED_LEFT,
    REPAYS,
    SAME_BYTES,
    SAME_LINES,
    Entry,
    Journal,
    how_shortened,
)
from apportion.planner.replay.results import LOST_ORIGINAL, NO_OUTPUT_USAGE, NO_PROMPT_USAGE, Totals, add_pairs
from apportion.planner.replay.run_evidence import RunEvidence
from apportion.prices import lookup
from apportion.records import Action, Kind
from apportion.tokens import TokenCounter, count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Outcome
    from apportion.planner.forms import Forms
    from apportion.planner.held import Referred
    from apportion.planner.masking import TokenPrices
    from apportion.planner.planner import Birth
    from apportion.planner.replay.context import LoggedCall
    from apportion.planner.replay.regime import CacheRegime
    from apportion.telemetry.events import Event, WorkflowLog
    from apportion.tokens import TokenizerFamily

CALLING_KINDS = frozenset({Kind.TOOL_CALL, Kind.HANDOFF})

MIN_SCHEMAS_SAVED = 3.0
"""The first masks of a run must leave out this many times the tokens of the expand tool's schema, which stays."""

MIN_PARTED_TOKENS = 400
"""Smaller results are fetched whole."""

MAX_TASK = 4_000
"""Characters of a task by which a form is chosen."""

FETCH = -1
"""Stands in the prompt's column `piece` for the agent's own call of the expand tool, which no log holds."""


class _Expansions(NamedTuple):
    """What the extra calls of one logged call cost: expanded items, prompt tokens, and money."""

    items: int = 0
    visible: int = 0
    sent: int = 0
    tokens: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class CallCosts:
    """What one call costs; pairs are (baseline, planned), expansions and their extra calls included.

    Attributes:
        visible: Visible prompt tokens.
        real: Prompt tokens with the invisible overhead, in the provider's tokens.
        expansion_prompt_tokens: What of the planned side's are prompts of extra calls.
        output_tokens: Output of the logged call; both sides write it.
        expansion_output_tokens: Output of the planned side's extra calls.
        cost: Price of the call.
    """

    visible: tuple[int, int]
    real: tuple[float, float]
    expansion_prompt_tokens: float
    output_tokens: float
    expansion_output_tokens: float
    cost: tuple[float, float]


class RunReplay:
    """One agent run: for each call `enter`, then `bear` and `mask` what the plan says, then `send`.

    Args:
        log: The workflow.
        calls: All calls of the run: the future ones are for accounting only.
        store: Keeps the originals of what is replaced.
        clock: Tells which cached prompts of the workflow are alive.
        regime: How the run uses the prompt cache.
        forms: Works out the shorter forms in which results may enter; `None`: they enter whole.
        may_mask: Whether results may be masked. An agent that has called a tool that reads files can have them back by
            it. Any other is offered the expand tool from its first mask on; because the schema precedes all that is
            cached, that mask has to wait for a call of which nothing is cached, unless the context window leaves no
            choice.
        summaries: Whether the stub of a masked result says in one line what it holds.
    """

    def __init__(
        self,
        log: WorkflowLog,
        calls: Sequence[LoggedCall],
        *,
        store: HandleStore,
        clock: CacheClock,
        regime: CacheRegime,
        forms: Forms | None = None,
        may_mask: bool = True,
        summaries: bool = False,
    ) -> None:
        self.agent = calls[0].first.agent
        self.prompt = PlannedPrompt()
        self.totals = Totals()
        self.kinds: dict[str, tuple[int, int]] = {}
        self.degraded: set[str] = set()
        self.journal = Journal()
        self.calls = 0
        self.known_overhead = 0.0
        self.calibration = 1.0
        self.warm = False
        self.may_mask_now = False
        """Whether masks may be made before this call: the expand tool is offered, or can be without a rewrite."""
        self.model: str | None = None
        self.tariff: Tariff = tariff(None)
        self._name = calls[0].first.agent_run
        self._events = log.events
        self._store = store
        self._clock = clock
        self._regime = regime
        self._may_mask = may_mask
        self._summaries = summaries
        self._counter = TokenCounter(None)
        self._schema_tokens = 0.0
        self._offered = False
        self._reads_files = False
        self._rewritten = False
        self._overheads: dict[TokenizerFamily, float] = {}
        self._logged: list[int] = []
        self._logged_tokens = 0.0
        self._kept_tokens = 0.0
        self._previous_tokens = (0.0, 0.0)
        self._by_kind: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._entered = [0, 0]
        self._sizes: dict[int, tuple[int, float]] = {}
        self._tools = {event.link: event.name for event in log.events if event.link and event.name}
        self._inputs = {e.link: position for position, e in enumerate(log.events) if e.link and e.kind in CALLING_KINDS}
        self._copies: dict[str, int] = {}
        self._hidden: dict[int, int] = {}
        self._rows: dict[int, int] = {}
        self._stubs: dict[int, str] = {}
        self._handles: dict[int, Handle] = {}
        self._found: dict[int, bool] = {}
        self._dropped: set[int] = set()
        self._verified: dict[str, bytes] = {}
        self._held: dict[str | None, tuple[int, int]] = {}
        self._refers = forms is not None
        self._refs = References()
        self._parts: dict[int, int] = {}
        self._forms = {} if forms is None else dict(self._shorter_forms(forms, calls))
        self._evidence = RunEvidence(log, calls, self._forms)

    def close(self) -> None:
        """Free what only further calls would need."""
        self.journal.close(self.calls)
        del self._evidence, self._copies, self._refs

    @property
    def prices(self) -> TokenPrices:
        """Prices of the prompt as it would be sent now."""
        return self.tariff.at(self.known_overhead + self._planned_tokens()).prices

    @property
    def cached_items(self) -> int:
        """Leading items of the planned prompt that the cache of the model holds."""
        _, rows = self._held.get(self.model, (0, 0))
        return min(rows, self.prompt.changed_from) if self.warm else 0

    @property
    def logged(self) -> tuple[int, ...]:
        """Pieces of the logged prompt, in their order."""
        return tuple(self._logged)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is sent, item by item; the agent's own calls of the expand tool are in no log, and empty here."""
        pieces = self.prompt.column("piece").tolist()
        whole = ("" if piece == FETCH else self._events[piece].content for piece in pieces)
        return tuple(self._stubs.get(row, text) for row, text in enumerate(whole))

    @property
    def references(self) -> dict[int, Referred]:
        """By row, the forms that refer to lines of earlier rows, and what they refer to."""
        return dict(self._refs.forms)

    @property
    def copies(self) -> dict[int, int]:
        """By row that is sent as one reference to a copy of all of it, the row of that copy."""
        return dict(self._refs.whole)

    def original(self, row: int) -> str:
        """Return the text of an item as logged."""
        return self._events[int(self.prompt.column("piece")[row])].content

    def enter(self, call: LoggedCall) -> None:
        """Let the pieces that are new to this call enter both prompts."""
        self._use_model(call.first)
        self.warm = self._may_cache and self._clock.warm(
            (self._name, self.model), call.first.started_at, self.tariff.ttl_s
        )
        self._entered = [0, 0]
        self._drop(call.kept)
        self._held = {model: (min(pieces, call.kept), rows) for model, (pieces, rows) in self._held.items()}
        self._kept_tokens = self._logged_tokens
        for position in call.added:
            self._append(position)
        self.may_mask_now = self._may_mask and (self._offered or self._reads_files or self._may_offer(call))

    def bear(self, births: Iterable[Birth]) -> None:
        """Let new items enter as planned: as references to what stands literally before them, or in a shorter form."""
        for birth in births:
            if birth.action is Action.REFERENCE:
                self._refer(birth.row, birth.copy)
            else:
                self._shorten(birth.row, birth.action)

    def mask(self, rows: Iterable[int], reason: str = "") -> None:
        """Replace items by stubs, on the real text; the first ones only where they are worth the tool's schema."""
        chosen = [int(row) for row in rows]
        if not (self._offered or self._reads_files or self._worth_a_tool(chosen)):
            return
        for row in chosen:
            self._leave_out(row, reason)
        gone = [row for row in chosen if row not in self._refs.literal]
        while gone := self.prompt.relying_on(gone):
            for row in gone:
                self._unfold(row)

    def drop(self, rows: Iterable[int]) -> None:
        """Leave items out without a handle: what they hold cannot come back."""
        for row in rows:
            position = int(self.prompt.column("piece")[row])
            self._by_kind[1][self._events[position].kind] -= int(self.prompt.column("visible")[row])
            self._evidence.leave_planned(position, self.prompt.action(row))
            self.prompt.replace(row, Action.MASK, visible=0, tokens=0.0)
            self._evidence.lose(position)
            self._found[row] = False
            self._dropped.add(row)

    def send(self, call: LoggedCall) -> CallCosts:
        """Send both prompts, charge what the output needs expanded, and add everything up."""
        overhead = self._learn_overhead(call)
        visible = self._visible()
        self._count_context()
        scale = self._scale(call, overhead)
        heads = (overhead, overhead + self._tool_tokens)
        kept = (self._kept_tokens, 0.0 if self._rewritten else self._planned_tokens(self.prompt.changed_from))
        splits = self._splits(call, heads, scale)
        self._count_prefix(kept, splits[0], call)
        output = self._output_tokens(call)
        self.prompt.sent()
        self._hold_new()
        extra = self._expand_quoted(call, heads[1], scale)
        self._note_uses(call)
        self._previous_tokens = (self._logged_tokens, self._planned_tokens())
        self._held[self.model] = (len(self._logged), len(self.prompt))
        for key in ((self._name, self.model), *self._head_keys):
            self._clock.touch(key, call.first.started_at)
        self._learn(call, overhead)
        self._reads_files |= any(reads_files(self._events[position].name) for position in call.outputs)
        self.calls += 1
        costs = CallCosts(
            visible=(visible[0], visible[1] + extra.visible),
            real=(splits[0].total, splits[1].total + extra.tokens),
            expansion_prompt_tokens=extra.tokens,
            output_tokens=output,
            expansion_output_tokens=float(extra.items * EXPANSION_OUTPUT_TOKENS),
            cost=(self.tariff.cost(splits[0], output), self.tariff.cost(splits[1], output) + extra.cost),
        )
        self._count_logged_bill(call, costs.cost[0], output)
        self.totals.visible = add_pairs(self.totals.visible, costs.visible)
        self.totals.real = add_pairs(self.totals.real, costs.real)
        self.totals.transmitted = add_pairs(self.totals.transmitted, (self._entered[0], self._entered[1] + extra.sent))
        return costs

    # What enters, changes and leaves the prompts.

    @property
    def _may_cache(self) -> bool:
        return self._name not in self._regime.uncached

    @property
    def _tool_tokens(self) -> float:
        """Tokens of the expand tool's schema in the planned prompt."""
        return self._schema_tokens if self._offered else 0.0

    @property
    def _head_keys(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        """Under which keys the clock keeps system prompt and tool schemas: as logged, and as planned."""
        return (self.agent, self.model), (self.agent, self.model, self._offered)

    def _may_offer(self, call: LoggedCall) -> bool:
        """Say whether the expand tool can be offered from this call on without rewriting what is cached."""
        counted = self.known_overhead + self._planned_tokens()
        window = self.tariff.context_window
        if window is not None and counted > window / min(1.0, self.calibration):
            return True
        held = self.known_overhead + self._planned_tokens(self.cached_items)
        if self.warm and held >= self.tariff.min_cached_tokens:
            return False
        now, ttl = call.first.started_at, self.tariff.ttl_s
        bare, offering = ((self.agent, self.model, offered) for offered in (False, True))
        head_cached = self._may_cache and self.known_overhead >= self.tariff.min_cached_tokens
        return not (head_cached and self._clock.warm(bare, now, ttl)) or self._clock.warm(offering, now, ttl)

    def _worth_a_tool(self, rows: Sequence[int]) -> bool:
        """Begin to offer the expand tool where the first masks leave out enough; say whether it is offered."""
        leaves = float(self.prompt.column("tokens")[list(rows)].sum()) - STUB_TOKENS * len(rows)
        if not rows or leaves < MIN_SCHEMAS_SAVED * self._schema_tokens:
            return False
        self._offered = True
        schema = count_tokens(expand_schema())
        self._by_kind[1][Kind.TOOL_DEFINITIONS] += schema
        self._entered[1] += schema
        self._rewritten = True
        return True

    def _use_model(self, event: Event) -> None:
        """Take over the model of a call, and with it prices and the way of counting."""
        model = event.model or self.model
        if self.calls and model == self.model:
            return
        self.model = model
        hour = self._name in self._regime.one_hour
        self.tariff = tariff(lookup(model) if model else None, one_hour=hour, cached=self._may_cache)
        before, self._counter = self._counter, TokenCounter(model)
        if self._may_mask:
            self._schema_tokens = float(self._counter.estimate(expand_schema()).tokens)
        if self.calls and before.family is not self._counter.family:
            self._count_anew()

    def _count_anew(self) -> None:
        """Count both prompts in the tokens of the model that reads them from now on."""
        self._sizes.clear()
        self._logged_tokens = sum(self._size(position)[1] for position in self._logged)
        tokens, full = self.prompt.column("tokens"), self.prompt.column("full_tokens")
        for row, piece in enumerate(self.prompt.column("piece").tolist()):
            if piece != FETCH:
                full[row] = self._size(piece)[1]
                tokens[row] = self._counter.estimate(self._stubs[row]).tokens if row in self._stubs else full[row]
        self._previous_tokens = (self._logged_tokens, self._planned_tokens())

    def _drop(self, kept: int) -> None:
        """Let everything behind the first `kept` logged pieces leave both prompts."""
        if kept == len(self._logged):
            return
        for position in self._logged[kept:]:
            visible, tokens = self._size(position)
            self._by_kind[0][self._events[position].kind] -= visible
            self._logged_tokens -= tokens
            self._evidence.leave_baseline(position)
        del self._logged[kept:]
        dropped = self.prompt.truncate(kept)
        self.journal.truncate(len(self.prompt), self.calls)
        for row, item in enumerate(dropped, start=len(self.prompt)):
            kind = Kind.TOOL_CALL if item.piece == FETCH else self._events[item.piece].kind
            self._by_kind[1][kind] -= item.visible
            if item.piece == FETCH:
                continue
            if row in self._parts:
                self._evidence.leave_part(self._parts.pop(row))
                if item.action is Action.SELECT:
                    continue
            if item.action is not Action.MASK:
                self._evidence.leave_planned(item.piece, item.action)
            if self._found.get(row, True):
                self._evidence.lose(item.piece)
        self._refs.truncate(len(self.prompt))
        self._forget_dropped()

    def _forget_dropped(self) -> None:
        """Forget rows that have left the prompt; a stub whose expanded copy went with them hides its original again."""
        pieces = self.prompt.column("piece").tolist()
        self._copies = {text: row for text, row in self._copies.items() if row < len(pieces)}
        self._dropped = {row for row in self._dropped if row < len(pieces)}
        self._stubs = {row: stub for row, stub in self._stubs.items() if row < len(pieces)}
        self._handles = {row: handle for row, handle in self._handles.items() if row < len(pieces)}
        self._found = {row: found for row, found in self._found.items() if row < len(pieces)}
        self._rows, self._hidden = {}, {}
        for row, piece in enumerate(pieces):
            if piece == FETCH:
                continue
            self._rows[piece] = row
            if row in self._parts and self.prompt.action(row) is Action.SELECT:
                continue
            if self.prompt.shown(row) or self.prompt.action(row) is Action.REFERENCE:
                self._hidden.pop(piece, None)
            elif row not in self._dropped:
                self._hidden[piece] = row

    def _append(self, position: int) -> None:
        event = self._events[position]
        visible, tokens = self._size(position)
        self._logged.append(position)
        self._logged_tokens += tokens
        for side in self._by_kind:
            side[event.kind] += visible
        self._evidence.enter(position)
        replaceable = event.kind in REPLACEABLE_KINDS and visible >= MIN_REPLACED_TOKENS
        folded = self._folded(position) if self._refers and event.kind in FOLDABLE_KINDS else None
        copy = self._whole_copy(event.content) if replaceable else -1
        row = self._append_planned(
            position, logged=len(self._logged) - 1, replaceable=replaceable, copy=copy, folded=folded
        )
        if replaceable and copy < 0:
            self._copies[event.content] = row
        self._note_subject(row, event)
        if not event.kind.written_by_model:
            self._entered = [tokens + visible for tokens in self._entered]

    def _note_subject(self, row: int, event: Event) -> None:
        """Note what a result shows, or which plan a call writes: what an earlier one showed of it is superseded."""
        call = self._inputs.get(event.link or "")
        if event.kind is Kind.TOOL_RESULT and call is not None:
            given = self._events[call]
            subject = subject_of(given.name, given.content)
        else:
            subject = plan_of(event.name) if event.kind is Kind.TOOL_CALL else None
        if subject is not None:
            self.prompt.show_file(row, subject)

    def _whole_copy(self, content: str) -> int:
        """Return an earlier row that shows the same bytes, or -1."""
        row = self._copies.get(content, -1)
        return row if row >= 0 and self.prompt.shown(row) else -1

    def _append_planned(
        self, position: int, *, logged: int, replaceable: bool, copy: int = -1, folded: bytes | None = None
    ) -> int:
        event = self._events[position]
        visible, tokens = self._size(position)
        need = 0.0
        if replaceable or folded is not None:
            tool = self._tools.get(event.link or "", event.name)
            handed_back = event.kind is Kind.HANDOFF_RESULT
            sub_agent = event.parent_agent is not None
            written = folded is not None
            need = prior_need(tokens, tool=tool, handed_back=handed_back, sub_agent=sub_agent, written=written)
        row = self._rows[position] = len(self.prompt)
        new = logged >= 0
        may_refer = new and copy < 0 and (replaceable or event.kind in FOLDABLE_KINDS)
        referred = self._find_references(row, position) if may_refer else None
        owed = {copy: float(STUB_TOKENS - REFERENCE_TOKENS)} if copy >= 0 else referred.owed if referred else None
        return self.prompt.append(
            piece=position,
            logged=logged,
            visible=visible,
            tokens=tokens,
            born=self.calls,
            need=need,
            maskable=replaceable or folded is not None,
            copy=copy,
            structured=self._tokens_of_form(position, Action.STRUCTURE) if new else None,
            selected=self._tokens_of_form(position, Action.SELECT) if new and self._may_select else None,
            selected_need=need * self._share_left_out(position),
            referred=None if referred is None else self._tokens_of(referred.form),
            owed=owed,
            stub=STUB_TOKENS if folded is None else self._counter.estimate(folded.decode("utf-8", "replace")).tokens,
        )

    def _mask(self, row: int, reason: str, *, visible: int | None = None) -> None:
        """Replace an item by a stub where that is shorter than what is sent for it, or than a given size."""
        position = int(self.prompt.column("piece")[row])
        event = self._events[position]
        original = event.content.encode("utf-8", "surrogatepass")
        before, sent = self.prompt.action(row), int(self.prompt.column("visible")[row])
        rendered = render(
            original,
            Action.MASK,
            store=self._store,
            tokens=sent if visible is None else visible,
            count=_count_bytes,
            name=self._tools.get(event.link or "", event.name),
            as_file=self._reads_files and not self._offered,
            summary=self._summary(position, original) if self._summaries else "",
        )
        if rendered.handle is not None and not self._comes_back(rendered, original):
            self.degraded.add(LOST_ORIGINAL)
            rendered = Rendered(Action.KEEP, original)
        if rendered.handle is None:
            self.prompt.pin(row)
            return
        stub = rendered.content.decode()
        stub_visible = count_tokens(stub)
        self._note(row, Action.MASK, reason, stub_visible)
        self.prompt.replace(row, Action.MASK, visible=stub_visible, tokens=float(self._counter.estimate(stub).tokens))
        self._by_kind[1][event.kind] += stub_visible - sent
        self._entered[1] += stub_visible
        if row in self._parts:
            self._evidence.leave_part(self._parts.pop(row))
            self._evidence.regain(position)
        else:
            self._evidence.leave_planned(position, before)
        if self._summaries:
            self._parts[row] = self._evidence.enter_part(position, stub)
        self._refs.forget(row)
        self._hidden[position] = row
        self._stubs[row] = stub
        self._handles[row] = rendered.handle
        self._found[row] = True

    def _summary(self, position: int, original: bytes) -> str:
        """Return what a result holds, in one line."""
        event = self._events[position]
        call = self._inputs.get(event.link or "")
        path = path_of(self._events[call].content) if call is not None else None
        return summarise(original, name=self._tools.get(event.link or "", event.name), path=path)

    def _leave_out(self, row: int, reason: str) -> None:
        """Mask a result, or what is long in an input."""
        position = int(self.prompt.column("piece")[row])
        is_input = self._events[position].kind in FOLDABLE_KINDS and int(self.prompt.column("logged")[row]) >= 0
        (self._fold if is_input else self._mask)(row, reason)

    def _folded(self, position: int) -> bytes | None:
        """Return an input without its long texts, where that is clearly shorter."""
        event, (visible, _) = self._events[position], self._size(position)
        if visible < MIN_FOLDED_TOKENS:
            return None
        original = event.content.encode("utf-8", "surrogatepass")
        as_file = self._reads_files and not self._offered
        folded = fold_input(original, handle=Handle.of(original), count=count_tokens, as_file=as_file)
        shorter = folded is not None and _count_bytes(folded) + MIN_REPLACED_TOKENS <= visible
        return folded if shorter else None

    def _fold(self, row: int, reason: str) -> None:
        """Leave the long texts of an input out; the call stays."""
        position = int(self.prompt.column("piece")[row])
        event, folded = self._events[position], self._folded(position)
        original = event.content.encode("utf-8", "surrogatepass")
        handle = self._store.put(original) if folded is not None else None
        if folded is None or handle is None or not self._comes_back(Rendered(Action.SELECT, folded, handle), original):
            self.prompt.pin(row)
            return
        text, sent = folded.decode("utf-8", "surrogatepass"), int(self.prompt.column("visible")[row])
        visible, before = count_tokens(text), self.prompt.action(row)
        if visible >= sent:
            self.prompt.pin(row)
            return
        self._note(row, Action.SELECT, reason, visible)
        self.prompt.replace(row, Action.SELECT, visible=visible, tokens=float(self._counter.estimate(text).tokens))
        self._by_kind[1][event.kind] += visible - sent
        self._entered[1] += visible
        self._evidence.fold(position, before, text)
        self._refs.forget(row)
        self._hidden[position] = row
        self._stubs[row] = text
        self._handles[row] = handle
        self._found[row] = True

    def _refer(self, row: int, copy: int) -> None:
        """Send references instead of a new item: one to an earlier copy, or some to blocks of lines."""
        position = int(self.prompt.column("piece")[row])
        stands = (
            self.prompt.shown(copy) if copy >= 0 else all(map(self._refs.literal.holds, self._refs.offered[row].held))
        )
        if not stands:
            return
        if copy >= 0:
            original = self._events[position].content.encode("utf-8", "surrogatepass")
            before = (self._events[int(piece)] for piece in self.prompt.column("piece")[: copy + 1])
            number = result_number((event.kind, event.link) for event in before)
            text = reference(original, number=number).decode()
            self._refs.whole[row] = copy
        else:
            self._refs.forms[row] = self._refs.offered[row]
            text = self._refs.offered[row].form.content.decode("utf-8", "surrogatepass")
        visible, sent = count_tokens(text), int(self.prompt.column("visible")[row])
        if visible >= sent:
            self._refs.forget(row)
            return
        self._note(row, Action.REFERENCE, SAME_BYTES if copy >= 0 else SAME_LINES, visible)
        self.prompt.refer(row, visible=visible, tokens=float(self._counter.estimate(text).tokens))
        self._by_kind[1][self._events[position].kind] += visible - sent
        self._entered[1] += visible - sent
        self._evidence.refer(position, text)
        self._stubs[row] = text
        self._count_reference(row, copy)

    def _count_reference(self, row: int, copy: int) -> None:
        diffs = self.totals.diffs
        if copy >= 0:
            diffs.copies += 1
            return
        diffs.used += 1
        diffs.saved_tokens += self._refs.forms[row].saved_tokens
        diffs.rereads += any(self.prompt.same_subject(row, source) for source in self._refs.forms[row].owed)

    def _unfold(self, row: int) -> None:
        """Let an item stand by itself again, because what it refers to goes: nothing ever refers to what is not there.

        It follows what goes, so all of it is written anew in any case. Of a copy of all that goes, a stub is left.
        """
        if row in self._refs.whole:
            whole = int(self._size(int(self.prompt.column("piece")[row]))[0])
            self._mask(row, REFERRED_LEFT, visible=whole)
            if self.prompt.action(row) is Action.MASK:
                return
        position = int(self.prompt.column("piece")[row])
        sent = int(self.prompt.column("visible")[row])
        visible, tokens = self._size(position)
        self.totals.diffs.unfolded += 1
        self.journal.restored(row, self.calls)
        self._evidence.unfold(position)
        self.prompt.unfold(row, visible=visible, tokens=tokens)
        self._by_kind[1][self._events[position].kind] += visible - sent
        self._entered[1] += visible
        self._refs.forget(row)
        self._stubs.pop(row)
        if (position, Action.STRUCTURE) in self._forms:
            self._shorten(row, Action.STRUCTURE)
        self._hold(row)

    def _find_references(self, row: int, position: int) -> Referred | None:
        """Return the form of a new item that refers to what stands literally in the prompt, if it is shorter."""
        if not self._refers:
            return None
        event, plain = self._events[position], self._forms.get((position, Action.STRUCTURE))
        is_input = event.kind in FOLDABLE_KINDS
        texts = [quotable(event.kind, event.content)]
        if plain is not None:
            texts.append(plain.content.decode("utf-8", "surrogatepass"))
        held = self._refs.literal.sources(*texts)
        if not held:
            return None
        found = refer(
            event.content.encode("utf-8", "surrogatepass"),
            held,
            name=self._tools.get(event.link or "", event.name),
            plain=plain,
            is_input=is_input,
        )
        diffs = self.totals.diffs
        diffs.attempts += 1
        if isinstance(found, str):
            diffs.fallbacks[found] += 1
            return None
        diffs.checks += 1
        self._refs.offered[row] = found
        return found

    def _hold_new(self) -> None:
        """Take note of what has been sent literally for the first time."""
        for row in range(self._refs.held_rows, len(self.prompt)):
            self._hold(row)
        self._refs.held_rows = len(self.prompt)
        self._refs.offered.clear()

    def _hold(self, row: int) -> None:
        position = int(self.prompt.column("piece")[row])
        if not self._refers or position == FETCH:
            return
        action, event = self.prompt.action(row), self._events[position]
        if action is Action.KEEP:
            text, form = event.content, None
        elif action is Action.STRUCTURE:
            text, form = self._stubs[row], self._forms[position, action]
        elif action is Action.REFERENCE and row in self._refs.forms:
            text, form = self._stubs[row], self._refs.forms[row].form
        else:
            return
        if event.kind in FOLDABLE_KINDS:
            self._refs.literal.hold(row, written_by(text), form=form is not None)
        elif form is None or shows_lines(form):
            self._refs.literal.hold(row, text, form=form is not None)

    def _shorten(self, row: int, action: Action) -> None:
        """Send a shorter form of a new item."""
        position = int(self.prompt.column("piece")[row])
        form = self._forms[position, action]
        text = form.content.decode("utf-8", "surrogatepass")
        visible = count_tokens(text)
        shorter = visible - int(self.prompt.column("visible")[row])
        reason = REPAYS if action is Action.SELECT else how_shortened(form.steps)
        self._note(row, action, reason, visible)
        self.prompt.shorten(row, action, visible=visible, tokens=float(self._counter.estimate(text).tokens))
        self._by_kind[1][self._events[position].kind] += shorter
        self._entered[1] += shorter
        self._evidence.shorten(position, action)
        self._stubs[row] = text
        if action is Action.SELECT:
            self._hidden[position] = row
            self._handles[row] = self._store.put(form.original)
            self._found[row] = True

    def _note(self, row: int, action: Action, reason: str, sent_tokens: int) -> None:
        position = int(self.prompt.column("piece")[row])
        tokens, _ = self._size(position)
        self.journal.note(row, Entry(position, action, reason, self.calls, tokens, sent_tokens))

    def left_out(self, entry: Entry) -> tuple[str, str | None, str]:
        """Return the kind and the tool of what an entry left out, and the text of that."""
        event = self._events[entry.position]
        form = self._forms.get((entry.position, Action.SELECT)) if entry.action is Action.SELECT else None
        text = event.content
        if form is not None:
            text = "\n...\n".join(
                form.original[gap.span.start : gap.span.end].decode("utf-8", "replace") for gap in form.gaps
            )
        return str(event.kind), self._tools.get(event.link or "", event.name), text

    def _comes_back(self, rendered: Rendered, original: bytes) -> bool:
        """Say whether the store gives an original back byte for byte."""
        try:
            return restore(rendered, self._store) == original
        except StoreError:
            return False

    def _fetch_hidden(self) -> None:
        """Fetch what every stub stands for, as an agent could now, and take note of what does not come back."""
        for row, handle in self._handles.items():
            found = self._fetched(handle)
            if found is not self._found[row]:
                self._found[row] = found
                position = int(self.prompt.column("piece")[row])
                (self._evidence.regain if found else self._evidence.lose)(position)
                self.degraded.add(LOST_ORIGINAL)

    def _fetched(self, handle: Handle) -> bool:
        """Say whether the store has the bytes that a handle promises; the same bytes are hashed once."""
        try:
            content = self._store.expand(handle)
        except StoreError:
            return False
        if self._verified.get(handle.digest) is content:
            return True
        if Handle.of(content).digest != handle.digest:
            return False
        self._verified[handle.digest] = content
        return True

    def _expand_quoted(self, call: LoggedCall, head: float, scale: float) -> _Expansions:
        """Send again what the output quotes from masked items, with one extra call for all of them.

        The agent's calls of the expand tool and their results stay in the history. Where an original does not come
        back, the call is paid in vain.
        """
        support = self._evidence.support(call.number)
        before = (head + self._planned_tokens()) * scale
        items = sent = 0
        while quoted := self._evidence.quoted(call.number, self._hidden):
            position = quoted[0]
            hidden = self._hidden[position]
            self.prompt.settle(hidden)
            self._append_fetch()
            if self._found.get(hidden, True):
                sent += self._append_expanded(position, hidden, call)
            else:
                del self._hidden[position]
            self.journal.fetched(hidden, self.calls, whole=position not in self._hidden)
            items += 1
        after = self._evidence.support(call.number)
        counts = (support.baseline, support.planned, after.planned, support.recoverable)
        self.totals.support = add_pairs(self.totals.support, counts)
        self.totals.expansions += items
        if not items:
            return _Expansions()
        self.totals.extra_calls += 1
        split = split_prompt((head + self._planned_tokens()) * scale, before, self.tariff.min_cached_tokens)
        self.prompt.sent()
        cost = self.tariff.cost(split, items * EXPANSION_OUTPUT_TOKENS)
        return _Expansions(items, self._visible()[1], sent, split.total, cost)

    def _append_fetch(self) -> None:
        """Let the agent's call of the expand tool enter the planned prompt."""
        self.prompt.append(
            piece=FETCH,
            logged=-1,
            visible=EXPANSION_OUTPUT_TOKENS,
            tokens=float(EXPANSION_OUTPUT_TOKENS),
            born=self.calls,
            need=0.0,
            maskable=False,
        )
        self._by_kind[1][Kind.TOOL_CALL] += EXPANSION_OUTPUT_TOKENS

    def _append_expanded(self, position: int, hidden: int, call: LoggedCall) -> int:
        """Let a masked item enter the planned prompt again, in part where that suffices; return its visible tokens."""
        event = self._events[position]
        whole = self._size(position)[0]
        text = event.content
        if event.kind in REPLACEABLE_KINDS and whole >= MIN_PARTED_TOKENS and not self._shown_in_part(position):
            text = self._evidence.part(call.number, text)
        row = self._append_planned(position, logged=-1, replaceable=True)
        self.prompt.inherit(row, hidden)
        if text == event.content:
            del self._hidden[position]
            self._evidence.enter_planned(position)
            visible = whole
        else:
            visible = count_tokens(text)
            self.prompt.shorten(row, Action.SELECT, visible=visible, tokens=float(self._counter.estimate(text).tokens))
            self._parts[row] = self._evidence.enter_part(position, text)
            self._stubs[row] = text
        self._by_kind[1][event.kind] += visible
        return visible

    def _shown_in_part(self, position: int) -> bool:
        """Say whether a part of an item has been fetched already: then all of it is fetched the next time."""
        pieces, action = self.prompt.column("piece"), self.prompt.action
        return any(pieces[row] == position and action(row) is Action.SELECT for row in self._parts)

    def _note_uses(self, call: LoggedCall) -> None:
        for position in self._evidence.used(call.number):
            if position in self._rows:
                self.prompt.touch(self._rows[position], self.calls)

    # What the prompts hold and cost.

    def _size(self, position: int) -> tuple[int, float]:
        """Return the tokens of a piece: visible ones, and the provider's."""
        known = self._sizes.get(position)
        if known is None:
            text = self._events[position].content
            visible = count_tokens(text)
            known = self._sizes[position] = (visible, visible * self._counter.factor(text) if visible else 0.0)
        return known

    def _planned_tokens(self, rows: int | None = None) -> float:
        return float(self.prompt.column("tokens")[:rows].sum())

    def _visible(self) -> tuple[int, int]:
        return self._by_kind[0].total(), self._by_kind[1].total()

    def _learn_overhead(self, call: LoggedCall) -> float:
        """Return the invisible tokens of the prompt, learned from the first call whose real prompt is logged.

        Another tokenizer counts them differently, so they are learned anew for it.
        """
        usage = call.first.usage
        family = self._counter.family
        if family not in self._overheads and usage is not None and usage.prompt_tokens:
            self._overheads[family] = max(0.0, usage.prompt_tokens - self._logged_tokens)
        if not self._overheads:
            self.degraded.add(NO_PROMPT_USAGE)
            return 0.0
        return self._overheads.get(family, next(reversed(self._overheads.values())))

    def _scale(self, call: LoggedCall, overhead: float) -> float:
        """Return the real tokens per counted one: with it, the baseline's prompt is as long as the log says."""
        usage = call.first.usage
        logged = usage.prompt_tokens if usage is not None else None
        counted = overhead + self._logged_tokens
        return 1.0 if logged is None or not counted else logged / counted

    def _learn(self, call: LoggedCall, overhead: float) -> None:
        """Take note of what the response tells about the tokens that were counted."""
        self.known_overhead = overhead + self._tool_tokens
        usage = call.first.usage
        counted = overhead + self._logged_tokens
        if usage is not None and usage.prompt_tokens and counted:
            self.calibration = usage.prompt_tokens / counted

    def _splits(self, call: LoggedCall, heads: tuple[float, float], scale: float) -> tuple[CacheSplit, CacheSplit]:
        """Split both prompts into what the cache of the model holds and what it does not."""
        now, ttl = call.first.started_at, self.tariff.ttl_s
        heads_warm = [self._may_cache and self._clock.warm(key, now, ttl) for key in self._head_keys]
        warm = (self.warm, self.warm and not self._rewritten)
        self._rewritten = False
        pieces, _ = self._held.get(self.model, (0, 0))
        prefixes = (
            self._kept_tokens
            if pieces == call.kept
            else sum(self._size(position)[1] for position in self._logged[:pieces]),
            self._planned_tokens(self.cached_items),
        )
        bodies = (self._logged_tokens, self._planned_tokens())
        splits = []
        for side, (head, body, prefix) in enumerate(zip(heads, bodies, prefixes, strict=True)):
            cached = head + prefix if warm[side] else head if heads_warm[side] else 0.0
            splits.append(split_prompt((head + body) * scale, cached * scale, self.tariff.min_cached_tokens))
        self._held = {model: (held, min(rows, self.prompt.changed_from)) for model, (held, rows) in self._held.items()}
        return splits[0], splits[1]

    def _output_tokens(self, call: LoggedCall) -> float:
        """Return the output as logged, or as counted where the log has only a placeholder."""
        usage = call.first.usage
        if usage is not None and usage.output is not None and "output" not in usage.estimated:
            return float(usage.output)
        if usage is None or usage.output is None:
            self.degraded.add(NO_OUTPUT_USAGE)
        counted = sum(self._size(position)[1] for position in call.outputs)
        return max(counted, float(usage.output or 0) if usage is not None else 0.0)

    # Shorter forms.

    @property
    def _may_select(self) -> bool:
        """Whether parts of what enters now may be left out: the agent can have them back."""
        return self._may_mask and (self._offered or self._reads_files)

    def _shorter_forms(self, forms: Forms, calls: Sequence[LoggedCall]) -> Iterator[tuple[tuple[int, Action], Outcome]]:
        """Yield the shorter forms of all results of the run, each for the task that is known when it enters."""
        task = ""
        for call in calls:
            for position in call.added:
                event = self._events[position]
                if event.kind is Kind.USER:
                    task = event.content[:MAX_TASK]
                if event.kind not in REPLACEABLE_KINDS or count_tokens(event.content) < MIN_REPLACED_TOKENS:
                    continue
                content = event.content.encode("utf-8", "surrogatepass")
                found = forms.of(content, task=task, name=self._tools.get(event.link or "", event.name))
                for action, form in ((Action.STRUCTURE, found.structured), (Action.SELECT, found.selected)):
                    if form is not None:
                        yield (position, action), form

    def _tokens_of_form(self, position: int, action: Action) -> float | None:
        form = self._forms.get((position, action))
        return None if form is None else self._tokens_of(form)

    def _tokens_of(self, form: Outcome) -> float:
        return float(self._counter.estimate(form.content.decode()).tokens)

    def _share_left_out(self, position: int) -> float:
        form = self._forms.get((position, Action.SELECT))
        return 0.0 if form is None else form.left_out_share

    # What is measured.

    def _count_context(self) -> None:
        self._fetch_hidden()
        facts = self._evidence.facts
        self.totals.facts = add_pairs(self.totals.facts, facts)
        for kind in self._by_kind[0] | self._by_kind[1]:
            now = (self._by_kind[0][kind], self._by_kind[1][kind])
            self.kinds[kind] = add_pairs(self.kinds.get(kind, (0, 0)), now)

    def _count_prefix(self, kept: tuple[float, float], split: CacheSplit, call: LoggedCall) -> None:
        self.totals.kept_prefix = add_pairs(self.totals.kept_prefix, kept)
        self.totals.previous_prompt = add_pairs(self.totals.previous_prompt, self._previous_tokens)
        usage = call.first.usage
        if usage is not None and usage.cache_read is not None and usage.prompt_tokens:
            simulated = (split.read, split.total)
            self.totals.read_simulated = add_pairs(self.totals.read_simulated, simulated)
            self.totals.read_logged = add_pairs(
                self.totals.read_logged, (float(usage.cache_read), float(usage.prompt_tokens))
            )

    def _count_logged_bill(self, call: LoggedCall, simulated: float, output: float) -> None:
        """Set the price of the logged usage beside the simulated one; a placeholder of an output costs as counted."""
        profile = lookup(self.model) if self.tariff.priced and self.model else None
        usage = call.first.usage
        if usage is not None and "output" in usage.estimated:
            usage = usage.model_copy(update={"output": round(output)})
        logged = profile.cost_usd(usage) if profile is not None and usage is not None else None
        if logged is not None:
            self.totals.bill_of_logged = add_pairs(self.totals.bill_of_logged, (simulated, logged))


def _count_bytes(content: bytes) -> int:
    return count_tokens(content.decode())
