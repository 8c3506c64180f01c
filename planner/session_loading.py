"""What runs of a session load of what they are offered: settled before the first call of a run, and kept.

Tools and agent files stand at the very beginning of a prompt: where they change, the provider writes all of it to its
cache again. What is loaded therefore stays for a run. It grows by the tools that the run has used, and only when the
cache has run out and the prompt is written anew anyhow. Later runs of an agent begin as the one before did, as far as
the budget allows, so that they share its cache.

- With a trained model of needs (`models.tool_needs`), the forms with the least expected cost are chosen.
- Without one nobody knows which tools a run needs, so all of them are sent whole.
- Where a budget of tokens does not hold that, the forms that fit are chosen, and sections of agent files may go.
  Without a model, tools are then taken to be needed by every other run (`UNSURE_NEED`), and those that the task names
  for sure.
- Skills stand as a line until they are used: that is how they are meant.
- Brief definitions are used where they are asked for only, because nobody has measured how well models work with them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from apportion.compression.loading import (
    LOAD_TOOL,
    EntryKind,
    Loader,
    brief_form,
    line_form,
    load_schema,
    outline,
    parts_of,
)
from apportion.errors import ApportionError, InfeasiblePlanError, InputError
from apportion.models.tool_needs import HANDOFF_TOOL, hands_over, names_tool
from apportion.planner.loading import (
    MAX_MISS_RATE,
    UNSURE_NEED,
    LoadForm,
    Option,
    RunShape,
    cautious,
    choose,
    section_need,
)
from apportion.planner.offers import Loading, Offered
from apportion.records import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from apportion.compression.loading import Part
    from apportion.compression.store import HandleStore
    from apportion.models.tool_needs import ToolNeeds
    from apportion.planner.live import ContextItem

FAILED = "what is loaded could not be chosen, so everything on offer is sent whole"
"""Why nothing is left out."""

NO_LOADER = f"a tool on offer is called '{LOAD_TOOL}' itself, so everything is sent whole"
"""Why nothing is left out."""


@dataclass(frozen=True, slots=True)
class LoadingFor:
    """For whom what is loaded is chosen.

    Attributes:
        agent: Type name of the agent.
        run_id: Its run.
        task: Its task.
        source: Project, as its logs call it.
        shape: What is expected of the run.
        budget_tokens: Most tokens of all that is loaded; `None` for no limit.
        size: Counts the tokens of a text as the model does.
        number: Number of the step.
        brief: Whether brief definitions may be used.
    """

    agent: str
    run_id: str
    task: str
    source: str
    shape: RunShape
    budget_tokens: int | None
    size: Callable[[str], int]
    number: int
    brief: bool = False


@dataclass(slots=True)
class _Run:
    """What one run has loaded.

    Attributes:
        offered: What is on offer, by the name under which it is loaded.
        loading: What is sent of it.
        loader: Has the rest.
        cut: Which parts of agent files are left out.
        used: Names of tools that it has called, and of what it has loaded.
        seen: Pieces of its history that were looked through for calls.
    """

    offered: Mapping[str, Offered]
    loading: Loading
    loader: Loader
    cut: Mapping[str, Collection[str]] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    seen: int = 0


class SessionLoading:
    """What the runs of one session have loaded; not safe to share between threads.

    Args:
        needs: Forecasts which tools a run needs, or `None`.
        store: Keeps what is left out.
        lazy: Whether anything may be left out.
    """

    def __init__(self, needs: ToolNeeds | None, store: HandleStore, *, lazy: bool) -> None:
        self._needs = needs
        self._store = store
        self._lazy = lazy
        self._runs: dict[str, _Run] = {}
        self._heads: dict[tuple[str, tuple[Offered, ...]], frozenset[str]] = {}
        self._earlier: set[str] = set()
        self._begun = False

    def of(self, run_id: str) -> Loading | None:
        """Return what a run loads, or `None` where nothing was settled."""
        run = self._runs.get(run_id)
        return None if run is None else run.loading

    def offered(self, run_id: str) -> tuple[Offered, ...]:
        """Return what a run was offered."""
        run = self._runs.get(run_id)
        return () if run is None else tuple(run.offered.values())

    def calls(self, agent: str, *, source: str, otherwise: float) -> float:
        """Return how many calls a run of an agent has, as learned, or otherwise as given."""
        return otherwise if self._needs is None else self._needs.calls(agent, source=source)

    def settle(
        self,
        run_id: str,
        offered: Sequence[Offered],
        items: Sequence[ContextItem],
        who: Callable[[], LoadingFor],
        *,
        warm: bool,
        sent: bool,
    ) -> Loading | None:
        """Return what a run loads with its next call; `None` where it was never offered anything.

        Args:
            run_id: The run.
            offered: What is on offer; nothing: the same as before.
            items: The history of the run: tools that it has called are whole where the prompt is written anew.
            who: Returns for whom; asked where something has to be chosen.
            warm: Whether the provider still caches the beginning of the prompt.
            sent: Whether the run has made a call: until then, what a tight budget left out may come back.
        """
        run = self._runs.get(run_id)
        if run is None and not offered:
            return None
        known = _by_key(offered) if offered else run.offered if run is not None else {}
        if run is not None and run.loading.reasons and not sent:
            run = None
        if run is None or known != run.offered:
            return self._settled(who(), known, items, run)
        self._note_used(run, items)
        late = {key for key in run.used & known.keys() if run.loading.forms[key] is not LoadForm.WHOLE}
        if late and not warm:
            forms = dict(run.loading.forms) | dict.fromkeys(late, LoadForm.WHOLE)
            before = run.loader
            run.loading, run.loader = self._made(who(), known, forms, run.cut, run.loading.reasons)
            run.loader.take_over(before)
        return run.loading

    def note(self, run_id: str, offered: Sequence[Offered], loading: Loading) -> None:
        """Take note of what a run loads that was not chosen here: all of it, because planning is switched off."""
        self._runs[run_id] = _Run(_by_key(offered), loading, Loader(self._store))

    def load(self, run_id: str, name: str) -> tuple[str, bool]:
        """Return what was left out of a run's prompt, or without a name the list, and whether a call needed it.

        That is so of a tool that the run could not call; skills and sections of files are there to be loaded.

        Raises:
            InputError: The run was offered nothing.
            StoreError: Nothing of that name was left out, or its original is gone.
        """
        run = self._runs.get(run_id)
        if run is None:
            raise InputError("the run has nothing to load", hint="Say before(..., offered=...) of it first.")
        content = run.loader.answer(name)
        if name:
            run.used.add(name)
        one = run.offered.get(name)
        is_tool = one is not None and one.kind is EntryKind.TOOL
        missed = is_tool and run.loading.forms[name] in {LoadForm.LINE, LoadForm.UNLISTED}
        return content.decode("utf-8", "surrogatepass"), missed

    def finished(self, run_id: str) -> None:
        """Forget a run; what it used tells of later ones."""
        run = self._runs.pop(run_id, None)
        if run is not None:
            self._earlier |= run.used | ({HANDOFF_TOOL} if any(map(hands_over, run.used)) else set())
            self._begun = True

    def _settled(
        self, who: LoadingFor, known: Mapping[str, Offered], items: Sequence[ContextItem], old: _Run | None
    ) -> Loading:
        """Settle what a run loads. Where it had begun with another offer, nothing of that becomes less."""
        run = _Run(known, Loading(who.number), Loader(self._store), used=set() if old is None else old.used)
        self._note_used(run, items)
        kept = {key for key, form in old.loading.forms.items() if form is LoadForm.WHOLE} if old is not None else set()
        head = (who.agent, tuple(known.values()))
        whole = {key for key, one in known.items() if one.pinned} | run.used | kept
        try:
            stays = kept if old is None else kept | _parts_sent(old, known)
            run.loading, run.loader, run.cut = self._chosen(who, known, whole, stays, head)
        except ApportionError as error:
            forms = dict.fromkeys(known, LoadForm.WHOLE)
            run.loading, run.loader = self._made(who, known, forms, {}, (f"{FAILED}: {error.message}",))
        if old is not None:
            run.loader.take_over(old.loader)
        self._runs[who.run_id] = run
        return run.loading

    def _chosen(
        self,
        who: LoadingFor,
        known: Mapping[str, Offered],
        whole: set[str],
        stays: set[str],
        head: tuple[str, tuple[Offered, ...]],
    ) -> tuple[Loading, Loader, Mapping[str, Collection[str]]]:
        if not self._lazy or LOAD_TOOL in known:
            reasons = (NO_LOADER,) if self._lazy else ()
            return *self._made(who, known, dict.fromkeys(known, LoadForm.WHOLE), {}, reasons), {}
        whole = whole | {key for key, one in known.items() if names_tool(who.task, one.name)}
        needs, misses = self._forecast(who, known), None if self._needs is None else MAX_MISS_RATE
        options = {key: _option(who, key, one, needs.get(one.name), pinned=key in whole) for key, one in known.items()}
        fixed = who.size(json.dumps(load_schema([], unlisted=True), separators=(",", ":")))
        before = self._heads.get(head, frozenset())
        sure = [
            replace(one, pinned=one.pinned or key in before or (known[key].kind is EntryKind.TOOL and misses is None))
            for key, one in options.items()
        ]
        plan = choose(sure, who.shape, max_miss_rate=misses, brief=who.brief, loader=fixed)
        if who.budget_tokens is None or plan.tokens <= who.budget_tokens:
            self._heads[head] = frozenset(key for key, form in plan.forms.items() if form is LoadForm.WHOLE)
            return *self._made(who, known, plan.forms, {}, plan.degraded), {}
        return self._tight(who, known, options, fixed, stays)

    def _tight(
        self,
        who: LoadingFor,
        known: Mapping[str, Offered],
        options: Mapping[str, Option],
        loader: int,
        stays: set[str],
    ) -> tuple[Loading, Loader, Mapping[str, Collection[str]]]:
        """Return what fits a budget that does not hold all that is worth loading.

        Agent files and parts of them that the run was sent already stay.
        """
        budget = who.budget_tokens or 0
        files = {
            key: parts_of(key, _bytes(one))
            for key, one in known.items()
            if one.kind is EntryKind.AGENT and not one.pinned and key not in stays
        }
        found = [option for key, option in options.items() if key not in files]
        found += [_part_option(part, who, stays=part.name in stays) for parts in files.values() for part in parts]
        reasons: tuple[str, ...] = (
            f"only {budget:,} tokens are left for tools, skills and agent files, so fewer are loaded",
        )
        try:
            plan = choose(found, who.shape, budget_tokens=budget, brief=who.brief, loader=loader)
            forms = plan.forms
        except InfeasiblePlanError as error:
            forms = {each.name: LoadForm.WHOLE if each.pinned else _least(each) for each in found}
            reasons += (error.message,)
        cut = {
            key: {part.name for part in parts if forms[part.name] is not LoadForm.WHOLE} for key, parts in files.items()
        }
        stand = {key: LoadForm.BRIEF if cut.get(key) else forms.get(key, LoadForm.WHOLE) for key in known}
        return *self._made(who, known, stand, cut, reasons), cut

    def _forecast(self, who: LoadingFor, known: Mapping[str, Offered]) -> Mapping[str, float]:
        """Return how likely the run needs each tool, as far as anything was learned of it."""
        if self._needs is None:
            return {}
        learned = set(self._needs.known_tools(who.source))
        asked = {
            one.name: HANDOFF_TOOL if hands_over(one.name) and one.name not in learned else one.name
            for one in known.values()
            if one.kind is EntryKind.TOOL
        }
        earlier = self._earlier if self._begun else None
        found = self._needs.predict(who.agent, asked.values(), source=who.source, text=who.task, earlier=earlier)
        return {name: cautious(found[learned_as]) for name, learned_as in asked.items()}

    def _made(
        self,
        who: LoadingFor,
        known: Mapping[str, Offered],
        forms: Mapping[str, LoadForm],
        cut: Mapping[str, Collection[str]],
        reasons: tuple[str, ...],
    ) -> tuple[Loading, Loader]:
        """Return what is sent, given the forms and which parts of agent files are left out."""
        loader = Loader(self._store)
        tools: list[str] = []
        files: dict[str, str] = {}
        for key, one in known.items():
            text: str | None = one.content
            form = forms[key]
            if one.kind is EntryKind.AGENT and form is LoadForm.BRIEF:
                text = outline(parts_of(key, _bytes(one)), cut[key], loader).decode("utf-8", "surrogatepass")
            elif form is not LoadForm.WHOLE:
                loader.leave_out(key, _bytes(one), one.description, listed=form is LoadForm.LINE)
                text = _brief(one) if form is LoadForm.BRIEF else None
            if text is None:
                continue
            if one.kind is EntryKind.TOOL:
                tools.append(text)
            else:
                files[key] = text
        if len(loader):
            tools.append(json.dumps(loader.schema(), ensure_ascii=False, separators=(",", ":")))
        tokens = sum(map(who.size, (*tools, *files.values())))
        whole = sum(who.size(one.content) for one in known.values())
        return Loading(who.number, tuple(tools), files, dict(forms), tokens, whole, reasons), loader

    def _note_used(self, run: _Run, items: Sequence[ContextItem]) -> None:
        """Take note of the tools that a run has called since it was last looked at."""
        start, run.seen = min(run.seen, len(items)), len(items)
        new = items[start:]
        run.used |= {item.name for item in new if item.kind is Kind.TOOL_CALL and item.name}
        if any(item.kind is Kind.HANDOFF for item in new):
            run.used |= set(filter(hands_over, run.offered))


def whole_loading(offered: Sequence[Offered], *, number: int, size: Callable[[str], int], reason: str = "") -> Loading:
    """Return everything on offer, sent as it is."""
    known = _by_key(offered)
    tokens = sum(size(one.content) for one in known.values())
    return Loading(
        number,
        tuple(one.content for one in known.values() if one.kind is EntryKind.TOOL),
        {key: one.content for key, one in known.items() if one.kind is not EntryKind.TOOL},
        dict.fromkeys(known, LoadForm.WHOLE),
        tokens,
        tokens,
        (reason,) if reason else (),
    )


def counted(loading: Loading) -> dict[str, int]:
    """Return how many things are loaded in each form."""
    forms = list(loading.forms.values())
    return {form.value: forms.count(form) for form in LoadForm if form in forms}


def _by_key(offered: Iterable[Offered]) -> dict[str, Offered]:
    """Return what is on offer by the names under which it is loaded: their own, or one that tells it apart."""
    found: dict[str, Offered] = {}
    for one in offered:
        key = one.name if one.name not in found else f"{one.kind}:{one.name}"
        number = 2
        while key in found:
            key, number = f"{one.kind}:{one.name}:{number}", number + 1
        found[key] = one
    return found


def _option(who: LoadingFor, key: str, one: Offered, need: float | None, *, pinned: bool) -> Option:
    tokens, line = who.size(one.content), who.size(line_form(key, one.description) + "\n")
    if one.kind is EntryKind.SKILL:  # it is there to be loaded when it is wanted: that is no miss
        return Option(key, 0.0, tokens, line, pinned=pinned or line >= tokens, hides=False)
    if one.kind is EntryKind.AGENT:
        return Option(key, 1.0, tokens, line, pinned=True)
    brief = _brief(one) if who.brief else None
    return Option(
        key,
        UNSURE_NEED if need is None else need,
        tokens,
        line,
        None if brief is None else who.size(brief),
        pinned=pinned,
        hides=need is not None,
    )


def _parts_sent(run: _Run, known: Mapping[str, Offered]) -> set[str]:
    """Return the parts of agent files that a run was sent, of those files that are on offer still."""
    return {
        part.name
        for key, cut in run.cut.items()
        if cut and run.offered[key] == known.get(key)
        for part in parts_of(key, _bytes(run.offered[key]))
        if part.name not in cut
    }


def _part_option(part: Part, who: LoadingFor, *, stays: bool) -> Option:
    words = {word for word in who.task.lower().split() if len(word) > 3}
    return Option(
        part.name,
        section_need(part.content, words),
        who.size(part.content.decode("utf-8", "replace")),
        who.size(part.stub.decode("utf-8", "replace")),
        pinned=part.pinned or stays,
        hides=False,
    )


def _least(option: Option) -> LoadForm:
    sizes = {form: option.tokens(form) for form in (LoadForm.UNLISTED, LoadForm.LINE, LoadForm.WHOLE)}
    return min((form for form, tokens in sizes.items() if tokens is not None), key=lambda form: sizes[form] or 0)


def _brief(one: Offered) -> str | None:
    try:
        short = brief_form(_bytes(one))
    except InputError:
        return None
    return None if short is None else short.decode("utf-8", "surrogatepass")


def _bytes(one: Offered) -> bytes:
    return one.content.encode("utf-8", "surrogatepass")
