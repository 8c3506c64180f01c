"""Plays the demo's workflow, and says what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from apportion.compression.diff import Context, Section
from apportion.compression.handoff import NOTHING, Capabilities, Handoff, Party, read_handoff, write_handoff
from apportion.compression.loading import EntryKind, Loader, Preloader
from apportion.compression.pipeline import Lossless
from apportion.compression.strategies.types import Item, Query
from apportion.compression.validation.facts import extract_facts, missing_facts
from apportion.embeddings import is_installed
from apportion.planner.demo.material import agents, registry, source_files
from apportion.planner.demo.provider import PretendedProvider
from apportion.planner.demo.report import DemoReport, Played, Proof, TurnCount
from apportion.planner.demo.similarity import Similarity
from apportion.planner.demo.team import LEAD, TESTS, TURNS, Agent, Call, Seen, as_text
from apportion.planner.demo.workspace import Workspace
from apportion.planner.live import ContextItem, SentItem
from apportion.planner.loading import RunShape, choose, load_as_planned, option_of
from apportion.planner.planner import PlanOptions
from apportion.planner.session import Planner
from apportion.records import Action, Budget, Kind
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apportion.planner.demo.team import Assignment, Turn
    from apportion.planner.session import Session, Step

DEFAULT_MODEL = "claude-sonnet-4-5"
"""The model whose tokens and prices are counted where the user names none."""

LEAD_PROMPT = """You lead a team of agents. Share out what the user asks for, hand each agent what it needs to know, and
report what comes back unchanged. You must not leave out a finding."""
"""System prompt of the agent that the user talks to."""

LEAD_TOOLS = ("agent",)
"""What the lead is given."""

UNNAMED_NEED = 0.01
"""How likely an agent needs a tool that its file does not name; an assumption."""

EXPECTED_CALLS, EXPECTED_PROMPT = 8, 15_000
"""Calls and mean prompt of a run, for deciding which tools stand in it."""

LOSSLESS = frozenset({Action.STRUCTURE, Action.REFERENCE})
"""What a model reads as if the original stood there: all of it does, in another notation or elsewhere in the prompt."""

SECONDS_PER_CALL = 8
"""How long a pretended call takes by the demo's clock."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the user may change.

    Attributes:
        model: Whose tokens and prices are counted.
        max_tokens: Budget of the workflow with planning on, prompts and outputs; `None` is no limit.
        pause_s: Seconds between the turns, while the user reads. After five minutes most caches have forgotten.
    """

    model: str = DEFAULT_MODEL
    max_tokens: int | None = None
    pause_s: float = 600.0


def play(options: DemoOptions | None = None, *, progress: Callable[[str], None] = lambda _: None) -> DemoReport:
    """Play the workflow with planning off, then with planning on, and compare.

    Args:
        options: What the user wants changed.
        progress: Told what is being done, in words.
    """
    options = options or DemoOptions()
    played = []
    for enabled in (False, True):
        progress(f"playing the workflow with planning {'on' if enabled else 'off'}")
        played.append(_Play(options, enabled=enabled).run())
    return DemoReport(options.model, *played)


class _Play:
    """One pass through the workflow."""

    def __init__(self, options: DemoOptions, *, enabled: bool) -> None:
        budget = Budget(max_tokens=options.max_tokens if enabled else None)
        self._options = options
        self._enabled = enabled
        self._now = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
        planned = PlanOptions(budget=budget, enabled=enabled)
        self._planner = Planner(planned, clock=lambda: self._now)
        self._session: Session = self._planner.session("demo")
        self._provider = PretendedProvider(options.model)
        self._workspace = Workspace(source_files())
        self._registry = registry()
        self._preloader = Preloader(self._registry)
        self._team: dict[str, Agent] = {}
        self._histories: dict[str, list[ContextItem]] = {}
        self._context: list[Section] = []
        self._handed: dict[str, Context] = {}
        self._played = Played()
        self._count = TurnCount()
        self._allocated: dict[str, int] = {}
        self._facts = cache(extract_facts)
        self._changed: dict[tuple[str, str], SentItem] = {}
        self._dangling: set[tuple[str, str]] = set()
        self._similarity = Similarity() if enabled and is_installed() else None

    def run(self) -> Played:
        """Play all turns."""
        with self._session, self._preloader:
            for turn in TURNS:
                self._count, self._allocated = TurnCount(), {}
                self._turn(turn)
                self._played.turns.append(self._count)
                self._played.allocated.update(self._allocated)
                self._now += timedelta(seconds=self._options.pause_s)
                self._session.next_stage()
            self._played.proof = self._proof()
        self._played.preload = self._preloader.counts()
        self._played.similarity = None if self._similarity is None else self._similarity.mean
        self._played.findings = {name: [*map(str, agent.found)] for name, agent in self._team.items()}
        self._played.tests = self._workspace.files.get(TESTS, "")
        return self._played

    def _turn(self, turn: Turn) -> None:
        """Let the lead share out a request and gather what comes back."""
        history = self._history(LEAD)
        history.append(ContextItem(turn.request, Kind.USER, pinned=True))
        self._context.append(Section("user", "", turn.request.encode()))
        calls = [Call("agent", {"agent": one.agent, "task": one.task}) for one in turn.assignments]
        if self._ask(LEAD, turn.request, calls=calls) is None:
            return
        if self._enabled:
            for assignment in turn.assignments:
                if assignment.agent not in self._histories:
                    self._preloader.expect(assignment.agent, 1.0)  # the lead has named it
            self._preloader.settle()  # while the lead's words still arrive, as they would from a real model
        for assignment in turn.assignments:
            report = self._assignment(assignment)
            self._context.append(Section("handoff_result", assignment.agent, report.encode()))
            history.append(ContextItem(report, Kind.HANDOFF_RESULT, assignment.agent, assignment.agent))
        self._ask(LEAD, turn.request, answer=f"{len(turn.assignments)} reports are in; they follow unchanged.")

    def _assignment(self, assignment: Assignment) -> str:
        """Let one agent do its part; return its report."""
        name = assignment.agent
        agent = self._team.setdefault(name, Agent(name))
        history = self._history(name)
        for section in self._hand_over(assignment):
            kind = Kind.HANDOFF_RESULT if section.kind == "handoff_result" else Kind.USER
            history.append(ContextItem(section.content.decode(), kind, section.name or None))
        history.append(ContextItem(assignment.task, Kind.USER, pinned=True))
        for step in assignment.steps:
            calls = [self._filled(call, agent) for call in step]
            links = self._ask(name, assignment.task, calls=calls)
            if links is None:
                return f"{name} did not finish: {self._played.refused[-1]}"
            history += [self._result(call, link, assignment.task) for call, link in zip(calls, links, strict=True)]
        report = "\n".join(map(str, agent.found)) or "nothing found"
        self._ask(name, assignment.task, answer=report)
        return report

    def _ask(self, name: str, task: str, *, calls: Sequence[Call] = (), answer: str = "") -> list[str] | None:
        """Make one model call in which the agent calls tools or answers; return the links of its calls.

        `None` where planning refuses it.
        """
        history, sub_agent, model = self._histories[name], name != LEAD, self._options.model
        step = self._session.before(
            name, history, model=model, task=task, sub_agent=sub_agent, expands=True, mandatory=not sub_agent
        )
        if not step.runs:
            self._played.refused.append(f"{name}, {step.decision}: {'; '.join(step.reasons)}")
            return None
        said = self._provider.cut(self._thoughts(name, history, step, answer), step.max_output_tokens)
        written = self._provider.cut("\n".join([said, *map(as_text, calls)]), step.max_output_tokens)
        charge = self._provider.charge(step.contents, written, self._now)
        self._session.after(step, charge.usage, output=said)
        self._now += timedelta(seconds=SECONDS_PER_CALL)
        self._count.add(charge)
        self._played.used[name] += (charge.usage.prompt_tokens or 0) + (charge.usage.output or 0)
        if step.max_output_tokens is not None:
            self._allocated[name] = step.allocated_tokens or 0
        self._account(history, step)
        history.append(ContextItem(said, Kind.ASSISTANT))
        links = [call.arguments.get("agent") or f"{name}-{len(history)}-{place}" for place, call in enumerate(calls)]
        history += [
            ContextItem(as_text(call), Kind.TOOL_CALL, call.tool, link) for call, link in zip(calls, links, strict=True)
        ]
        return links

    def _thoughts(self, name: str, history: list[ContextItem], step: Step, answer: str) -> str:
        """Return what the agent writes beside its calls: what it has found in the prompt, or its answer."""
        agent = self._team.get(name)
        new = [] if agent is None else agent.look(self._seen(history, step))
        if answer:
            return answer
        return "\n".join(map(str, new)) or "Nothing new so far."

    def _seen(self, history: list[ContextItem], step: Step) -> list[Seen]:
        """Return the prompt as the agent sees it: lossless forms and references say what their originals say."""
        paths = {item.link: json.loads(item.content).get("path") for item in history if item.kind is Kind.TOOL_CALL}
        return [
            Seen(
                item.kind,
                paths.get(item.link) if item.name == "read_file" and item.kind is Kind.TOOL_RESULT else None,
                item.content if sent.action in LOSSLESS else sent.content,
            )
            for item, sent in zip(history, step.items, strict=True)
        ]

    def _history(self, name: str) -> list[ContextItem]:
        """Return the history of an agent; it begins with its system prompt and the tools that it is given."""
        if name not in self._histories:
            prompt = LEAD_PROMPT if name == LEAD else agents()[name].prompt
            if name != LEAD:
                self._preloader.take(name)
            definitions = json.dumps(self._tools(name))
            self._count.loaded_tokens += count_tokens(prompt) + count_tokens(definitions)
            self._histories[name] = [
                ContextItem(prompt, Kind.SYSTEM, pinned=True),
                ContextItem(definitions, Kind.TOOL_DEFINITIONS, pinned=True),
            ]
        return self._histories[name]

    def _tools(self, name: str) -> list[object]:
        """Return the definitions of tools that stand in an agent's prompt: all, or those that are worth their room."""
        contents = [(entry, self._registry.load(entry)) for entry in self._registry.entries(EntryKind.TOOL)]
        if not self._enabled:
            return [json.loads(content) for _, content in contents]
        named = LEAD_TOOLS if name == LEAD else agents()[name].tools
        options = [option_of(entry, text, 1.0 if entry.name in named else UNNAMED_NEED) for entry, text in contents]
        plan = choose(
            options, RunShape(EXPECTED_CALLS, EXPECTED_PROMPT, self._provider.tariff.rates.prices), brief=False
        )
        sent, loader = load_as_planned(plan, contents, Loader(self._planner.store))
        return [*map(json.loads, sent.values()), *([loader] if loader else []), self._session.expand_tool]

    def _hand_over(self, assignment: Assignment) -> tuple[Section, ...]:
        """Hand the context of the workflow to an agent: all of it, or what it does not hold yet."""
        name, target = assignment.agent, Context(tuple(self._context))
        held = self._handed.get(name)
        receiver, bases = NOTHING, {}
        if self._enabled and held is not None:
            receiver, bases = Capabilities(deltas=True, holds=(held.digest,)), {held.digest: held}
        message = write_handoff(
            Handoff(Party("lead-1", LEAD), Party(f"{name}-1", name), assignment.task, target, self._now),
            receiver=receiver,
            bases=bases,
        )
        self._count.transmitted_tokens += count_tokens(json.dumps(message))
        received = read_handoff(message, held=bases).context
        if received is None or received.digest != target.digest:
            raise AssertionError("a handoff did not give its context back")
        self._handed[name] = target
        return received.sections

    def _filled(self, call: Call, agent: Agent) -> Call:
        return Call(call.tool, {**call.arguments, "content": agent.tests()}) if call.tool == "write_file" else call

    def _result(self, call: Call, link: str, task: str) -> ContextItem:
        item = ContextItem(self._workspace.call(call.tool, call.arguments), Kind.TOOL_RESULT, call.tool, link)
        if self._enabled:
            self._session.ingest(item, task=task)
        return item

    def _account(self, history: list[ContextItem], step: Step) -> None:
        """Compare what was sent with what would have been: actions, facts, and whether all of it can be had back."""
        for item, sent in zip(history, step.items, strict=True):
            if sent.action is not Action.KEEP:
                self._count.actions[sent.action] += 1
                self._changed[item.content, sent.content] = sent
            if self._similarity is not None:
                self._similarity.add(item.content, sent)
        if any(sent.action is Action.REFERENCE for sent in step.items):
            self._look_up(history, step)
        whole = frozenset[str]().union(*(self._facts(item.content) for item in history))
        shown = frozenset[str]().union(*(self._facts(sent.content) for sent in step.items))
        lacking = missing_facts(whole - shown, "\n".join(step.contents))
        self._count.facts += len(whole)
        self._count.visible_facts += len(whole) - len(lacking)

    def _proof(self) -> Proof:
        """Have everything back that was not sent whole, and compare."""
        return Proof(len(self._changed), sum(self._is_exact(*key, sent) for key, sent in self._changed.items()))

    def _look_up(self, history: list[ContextItem], step: Step) -> None:
        """Look whether every line of a piece that is sent as a reference stands in the prompt, whatever its number."""
        pairs = list(zip(history, step.items, strict=True))
        whole = {Action.KEEP, Action.STRUCTURE}
        texts = [item.content if sent.action in whole else sent.content for item, sent in pairs]
        calls = [item for item, sent in pairs if item.kind is Kind.TOOL_CALL and sent.action in whole]
        texts += [str(value) for call in calls for value in json.loads(call.content).values()]  # what the agent wrote
        there = frozenset[str]().union(*map(_bare_lines, texts))
        for item, sent in pairs:
            if sent.action is Action.REFERENCE and not _bare_lines(item.content) <= there:
                self._dangling.add((item.content, sent.content))

    def _is_exact(self, original: str, shown: str, sent: SentItem) -> bool:
        if sent.handle is not None:
            return self._session.expand(str(sent.handle)) == original
        if sent.action is Action.REFERENCE:
            return (original, shown) not in self._dangling
        item = Item(original.encode("utf-8", "surrogatepass"))
        return Lossless().execute(item, None, Query()).content.decode("utf-8", "surrogatepass") == shown


@cache
def _bare_lines(text: str) -> frozenset[str]:
    """Return the lines of a text without the numbers and blanks that stand before them."""
    return frozenset(line.lstrip(" \t0123456789") for line in text.splitlines())
