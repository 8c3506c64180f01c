"""What sessions load of what is on offer, load ahead, and hand on; with real models and stores."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression.handoff import Capabilities, Party, read_handoff
from apportion.compression.loading import LOAD_TOOL, EntryKind, Registry
from apportion.errors import InputError, StoreError
from apportion.models.next_agent import NextAgentModel
from apportion.models.persistence import save_models
from apportion.models.tool_needs import HANDOFF_TOOL, RunTools, ToolNeeds
from apportion.models.trails import END
from apportion.models.trails import Step as Taken
from apportion.models.training import TrainingData
from apportion.planner.handing import context_of
from apportion.planner.live import ContextItem
from apportion.planner.loading import LoadForm
from apportion.planner.offers import Offered
from apportion.planner.planner import PlanOptions
from apportion.planner.session import Decision, Planner
from apportion.records import Budget, Feature, Kind, Usage
from apportion.tokens import TokenCounter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from apportion.planner.session import Session, Step

MODEL = "claude-sonnet-4-5"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAMES = ("read", "grep", "write", "browse", "deploy", "translate")
COMMON = frozenset({"read", "grep"})
TOOLS = [
    {"name": name, "description": f"Does {name}. " + "It is told at length. " * 60, "input_schema": {"type": "object"}}
    for name in NAMES
]
SKILL = Offered("brew", "# Brew\n" + "Pour hot water. " * 80, EntryKind.SKILL, "Brews coffee.")
AGENT = Offered(
    "writer",
    "---\nname: writer\n---\nYou write.\n"
    + "".join(f"# Part {n}\n{'A story about cats. ' * 40}\n" for n in range(5))
    + "# Rules\nYou must never lie.\n",
    EntryKind.AGENT,
)
HELLO = [ContextItem("Begin with the work.")]


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Events(list[dict[str, Any]]):
    def record(self, event: Mapping[str, object]) -> None:
        self.append(dict(event))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self if event["kind"] == kind]


def saved(folder: Path, **models: Any) -> Path:
    data = TrainingData(fingerprint="0" * 64, workflows=60, without_content=0, sources={"s": 60})
    save_models(folder, models, data, created_at=NOON)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned that runs of `main` read and search, and that one in 60 browses."""
    runs = [
        RunTools(f"w{n}", "s", "main", 20, dict.fromkeys([*COMMON, *(["browse"] * (n == 0))], 1)) for n in range(60)
    ]
    return saved(tmp_path_factory.mktemp("needs") / "models", tool_needs=ToolNeeds().count_runs(runs))


@pytest.fixture(scope="module")
def next_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that learned that `writer` comes after `main`, and `tester` after `writer`."""
    trails = ((("main",), "writer"), (("main", "writer"), "tester"), (("main", "writer", "tester"), END))
    steps = [Taken(f"w{n}", "s", None, trail, None, name) for n in range(30) for trail, name in trails]
    return saved(tmp_path_factory.mktemp("next") / "models", next_agent=NextAgentModel().fit_steps(steps))


def forms_of(step: Step) -> dict[str, LoadForm]:
    assert step.loading is not None
    return dict(step.loading.forms)


def whole_of(step: Step) -> set[str]:
    return {name for name, form in forms_of(step).items() if form is LoadForm.WHOLE}


def after(session: Session, step: Step) -> None:
    loaded = 0 if step.loading is None else step.loading.tokens
    session.after(step, Usage(input_uncached=30 + loaded, output=20), output="next")


def test_without_a_model_tools_are_whole_and_skills_are_a_line_that_leads_to_them() -> None:
    with Planner().session("w") as session:
        step = session.before("main", HELLO, model=MODEL, offered=[*Offered.tools(TOOLS), SKILL])
        assert forms_of(step) == dict.fromkeys(NAMES, LoadForm.WHOLE) | {"brew": LoadForm.LINE}
        assert step.loading is not None
        assert step.loading.tools[:-1] == tuple(json.dumps(tool, separators=(",", ":")) for tool in TOOLS)
        loader = json.loads(step.loading.tools[-1])
        assert loader["name"] == LOAD_TOOL
        assert "- brew: Brews coffee." in loader["description"]
        assert session.load("main", "brew") == SKILL.content
        assert session.load("main") == "- brew: Brews coffee."
        with pytest.raises(StoreError, match="nothing is called"):
            session.load("main", "tea")
        with pytest.raises(InputError, match="nothing to load"):
            session.load("other", "brew")
        assert session.before("plain", HELLO, model=MODEL).loading is None


def test_with_a_model_what_is_hardly_needed_is_left_out_and_a_miss_is_told(models: Path) -> None:
    events = Events()
    planner = Planner(PlanOptions(models=models), source="s", telemetry=events)
    with planner.session("w") as session:
        step = session.before("main", HELLO, model=MODEL, offered=Offered.tools(TOOLS))
        assert whole_of(step) == COMMON
        assert step.loading is not None
        counter = TokenCounter(MODEL)
        sent = sum(round(counter.estimate(text).tokens) for text in step.loading.tools)
        assert step.loading.tokens == sent < 0.5 * step.loading.whole_tokens
        assert json.loads(session.load("main", "browse")) == TOOLS[NAMES.index("browse")]
        assert whole_of(session.before("unseen", HELLO, model=MODEL, offered=Offered.tools(TOOLS))) == set(NAMES)
        task = "please translate this"
        assert "translate" in whole_of(
            session.before("main", HELLO, task=task, run_id="2", offered=Offered.tools(TOOLS))
        )
    settled, miss = events.of("loading")[:2]
    assert (settled["status"], settled["whole"]) == ("settled", 2)
    assert settled["whole_tokens"] - settled["tokens"] == step.loading.saved_tokens
    assert (miss["status"], miss["tool"]) == ("miss", "browse")


def test_the_tool_that_hands_work_on_is_known_under_the_name_that_logs_have_for_it(tmp_path: Path) -> None:
    runs = [RunTools(f"w{n}", "s", "main", 20, {HANDOFF_TOOL: 2}) for n in range(30)]
    folder = saved(tmp_path / "models", tool_needs=ToolNeeds().count_runs(runs))
    task = {"name": "Task", "description": "Hands on. " * 80, "input_schema": {}}
    call = ContextItem("{}", Kind.HANDOFF, "helper", "1")
    with Planner(PlanOptions(models=folder), source="s").session("w") as session:
        offered = Offered.tools([task, *TOOLS])
        assert whole_of(session.before("main", HELLO, model=MODEL, offered=offered)) == {"Task"}
    for history in (HELLO, [*HELLO, call]):
        with Planner().session("w", budget=Budget(max_tokens=9_000)) as session:
            step = session.before("main", history, model=MODEL, offered=offered)
            assert ("Task" in whole_of(step)) == (history is not HELLO)


def test_brief_definitions_are_used_only_where_they_are_asked_for(models: Path) -> None:
    offered = Offered.tools(TOOLS)
    seen = []
    for brief in (False, True):
        with Planner(PlanOptions(models=models), source="s", brief_tools=brief).session("w") as session:
            seen.append(
                LoadForm.BRIEF in forms_of(session.before("main", HELLO, model=MODEL, offered=offered)).values()
            )
    assert seen == [False, True]


def test_switched_off_everything_on_offer_is_sent_as_it_is(models: Path) -> None:
    offered = [*Offered.tools(TOOLS), SKILL, AGENT]
    for options in (PlanOptions(off=frozenset({Feature.LAZY})), PlanOptions(enabled=False)):
        given_ = PlanOptions(options.budget, enabled=options.enabled, off=options.off, models=models)
        with Planner(given_, source="s").session("w", budget=Budget(max_tokens=30_000)) as session:
            step = session.before("main", HELLO, model=MODEL, offered=offered)
            assert step.loading is not None
            assert step.loading.tools == tuple(one.content for one in offered if one.kind is EntryKind.TOOL)
            assert step.loading.files == {"brew": SKILL.content, "writer": AGENT.content}
            assert step.loading.saved_tokens == 0
            assert session.before("main", HELLO, model=MODEL).loading == step.loading


def test_a_tight_budget_loads_fewer_tools_and_a_shorter_agent_file_and_says_why() -> None:
    offered = [*Offered.tools(TOOLS, pinned={"deploy"}), AGENT]
    called = [
        *HELLO,
        ContextItem("{}", Kind.TOOL_CALL, "grep", "1"),
        ContextItem("found", Kind.TOOL_RESULT, "grep", "1"),
    ]
    events = Events()
    loaded = []
    for limit in (60_000, 3_000_000):
        with Planner(telemetry=events).session("w", budget=Budget(max_tokens=limit)) as session:
            step = session.before("main", called, model=MODEL, offered=offered, task="write of cats")
            assert step.loading is not None
            assert {"deploy", "grep"} <= whole_of(step)
            assert "You must never lie." in step.loading.files["writer"]
            loaded.append(step)
            for name, form in forms_of(step).items():
                if form in {LoadForm.LINE, LoadForm.UNLISTED}:
                    assert session.load("main", name) == next(one.content for one in offered if one.name == name)
    tight, plenty = loaded
    assert tight.loading is not None
    assert plenty.loading is not None
    assert plenty.loading.saved_tokens == 0
    assert plenty.degraded == ()
    assert len(tight.loading.files["writer"]) < len(AGENT.content)
    assert len(whole_of(tight)) < len(whole_of(plenty))
    assert "are left for tools, skills and agent files" in tight.degraded[0]
    assert events.of("loading")[0]["reasons"] == tight.loading.reasons == tight.degraded


@pytest.mark.parametrize("limit", [80_000, 28_000])
def test_what_was_sent_of_an_agent_file_stays_where_the_offer_changes_and_less_is_left(limit: int) -> None:
    with Planner(ahead=False).session("w", budget=Budget(max_tokens=limit)) as session:
        first = session.before("main", HELLO, model=MODEL, offered=[AGENT, *Offered.tools(TOOLS[:1])])
        assert first.loading is not None
        assert (first.loading.files["writer"] == AGENT.content) == (limit == 80_000)
        assert "A story about cats." in first.loading.files["writer"]
        session.after(first, Usage(input_uncached=limit * 2 // 5, output=20))
        second = session.before("main", HELLO, model=MODEL, offered=[AGENT, *Offered.tools(TOOLS[1:])])
        assert second.loading is not None
        assert "are left for tools, skills and agent files" in second.degraded[0]
        assert second.loading.files == first.loading.files


def test_what_was_loaded_can_be_loaded_again_after_it_was_taken_off_the_offer() -> None:
    with Planner(ahead=False).session("w", budget=Budget(max_tokens=9_000)) as session:
        first = session.before("main", HELLO, model=MODEL, offered=Offered.tools(TOOLS))
        left_out = next(name for name in NAMES if name not in whole_of(first))
        after(session, first)
        text = session.load("main", left_out)
        for offered in (TOOLS[:1], TOOLS[1:2]):
            rest = [tool for tool in offered if tool["name"] != left_out]
            after(session, session.before("main", HELLO, model=MODEL, offered=[SKILL, *Offered.tools(rest)]))
            assert session.load("main", left_out) == text
            assert left_out not in session.load("main")


def test_what_is_loaded_counts_in_the_budget_of_the_first_call() -> None:
    held = []
    for definitions in ([], TOOLS):
        with Planner().session("w", budget=Budget(max_tokens=5_000_000)) as session:
            step = session.before("main", HELLO, model=MODEL, offered=Offered.tools(definitions))
            assert step.max_output_tokens is not None
            held.append(session.balance[0].held - step.max_output_tokens)
    assert step.loading is not None
    assert held[1] - held[0] == step.loading.tokens


def test_what_a_tight_budget_left_out_comes_back_as_long_as_nothing_was_sent() -> None:
    with Planner().session("w", budget=Budget(max_tokens=6_000)) as session:
        big = [ContextItem("word " * 9_000)]
        step = session.before("main", big, model=MODEL, offered=Offered.tools(TOOLS), mandatory=False)
        assert step.decision is Decision.DEFER
        session.top_up(tokens=5_000_000)
        (step,) = session.ready()
        assert whole_of(step) == set(NAMES)


ACTS = st.lists(st.sampled_from([("load", name) for name in NAMES] + [("call", "write"), ("wait", ""), ("go", "")]))


@settings(max_examples=25, deadline=None)
@given(acts=ACTS)
def test_what_a_run_has_loaded_only_grows_and_only_when_its_cache_has_run_out(
    models: Path, acts: list[tuple[str, str]]
) -> None:
    clock = Clock()
    history = list(HELLO)
    with Planner(PlanOptions(models=models), source="s", clock=clock, ahead=False).session("w") as session:
        step = session.before("main", history, model=MODEL, offered=Offered.tools(TOOLS))
        after(session, step)
        used: set[str] = set()
        for act, name in acts:
            cold = act == "wait"
            if act == "load" and name not in whole_of(step):
                session.load("main", name)
                used.add(name)
            elif act == "call":
                history += [ContextItem("{}", Kind.TOOL_CALL, name, "1"), ContextItem("x", Kind.TOOL_RESULT, name, "1")]
                used.add(name)
            elif cold:
                clock.now += timedelta(hours=3)
            before, step = step, session.before("main", history, model=MODEL)
            after(session, step)
            assert step.loading is not None
            assert before.loading is not None
            assert whole_of(step) == (whole_of(before) | used if cold else whole_of(before))
            assert step.loading.tools[:-1] == before.loading.tools[:-1] or cold


def test_later_runs_of_an_agent_begin_as_the_one_before(models: Path) -> None:
    with Planner(PlanOptions(models=models), source="s").session("w") as session:
        offered = Offered.tools(TOOLS)
        named = session.before("main", HELLO, run_id="1", task="translate", model=MODEL, offered=offered)
        later = session.before("main", HELLO, run_id="2", model=MODEL, offered=offered)
        other = session.before("other", HELLO, run_id="3", model=MODEL, offered=offered)
    assert whole_of(named) == COMMON | {"translate"}
    assert named.loading is not None
    assert later.loading is not None
    assert later.loading.tools == named.loading.tools
    assert whole_of(other) != whole_of(named)


@pytest.mark.parametrize(
    "tools",
    [
        [{"name": LOAD_TOOL, "input_schema": {}}, *TOOLS],
        [*TOOLS, *TOOLS],
        [{"type": "web_search_20250305", "name": "web_search"}, {"no": "name"}],
        [{"name": "odd", "description": 7, "input_schema": {"properties": {"description": {}}}}],
    ],
)
def test_odd_offers_are_sent_whole_or_have_a_way_back(models: Path, tools: list[dict[str, Any]]) -> None:
    offered = Offered.tools(tools)
    with Planner(PlanOptions(models=models), source="s").session("w", budget=Budget(max_tokens=9_000)) as session:
        step = session.before("main", HELLO, model=MODEL, offered=offered)
        assert step.runs
        assert step.loading is not None
        if any(one.name == LOAD_TOOL for one in offered):
            assert set(forms_of(step).values()) == {LoadForm.WHOLE}
        left_out = [name for name, form in forms_of(step).items() if form in {LoadForm.LINE, LoadForm.UNLISTED}]
        there = [*step.loading.tools, *(session.load("main", name) for name in left_out)]
        assert sorted(text for text in there if LOAD_TOOL not in text) == sorted(
            one.content for one in offered if LOAD_TOOL not in one.content
        )
        own = [name for name, form in forms_of(step).items() if "web_search" in name or name.startswith("#")]
        assert set(own) <= whole_of(step)


def test_what_waits_is_saved_with_what_it_was_offered() -> None:
    with Planner().session("w", budget=Budget(max_tokens=6_000)) as session:
        offered = [*Offered.tools(TOOLS[:1]), SKILL]
        session.before("main", [ContextItem("word " * 9_000)], model=MODEL, offered=offered, mandatory=False)
        saved = json.loads(json.dumps(session.checkpoint()))
    with Planner().resume(saved) as session:
        session.top_up(tokens=5_000_000)
        (step,) = session.ready()
        assert forms_of(step) == {"read": LoadForm.WHOLE, "brew": LoadForm.LINE}
        assert session.load("main", "brew") == SKILL.content


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "agents").mkdir()
    for name in ("main", "writer", "tester"):
        text = f"---\nname: {name}\ntools: read, grep\n---\nYou are {name}.\n"
        (tmp_path / "agents" / f"{name}.md").write_text(text)
    (tmp_path / "tools.json").write_text(json.dumps({"tools": TOOLS}))
    found = Registry()
    found.add(tmp_path)
    return found


def test_a_registry_offers_an_agent_its_file_and_the_tools_that_it_names(registry: Registry) -> None:
    with Planner().session("w") as session:
        step = session.before("writer", HELLO, model=MODEL, offered=registry)
        assert set(forms_of(step)) == {"writer", "read", "grep"}
        assert step.loading is not None
        assert "You are writer." in step.loading.files["writer"]
        assert set(forms_of(session.before("nobody", HELLO, model=MODEL, offered=registry))) == set(NAMES)


@pytest.mark.parametrize("off", [frozenset[Feature](), frozenset({Feature.PRELOAD})])
def test_the_next_agent_is_loaded_ahead_and_what_came_of_it_is_told(
    next_models: Path, registry: Registry, off: frozenset[Feature]
) -> None:
    events = Events()
    options = PlanOptions(models=next_models, off=off)
    planner = Planner(options, source="s", telemetry=events, registry=registry, ahead=False)
    with planner.session("w") as session:
        for agent in ("main", "writer"):
            assert set(forms_of(session.before(agent, HELLO, model=MODEL))) == {agent, "read", "grep"}
            if not off:
                assert planner.preloader is not None
                assert planner.preloader.settle(60)
    planner.close()
    told = [(event["agent"], event["status"]) for event in events.of("preload")]
    assert told == ([] if off else [("main", "miss"), ("writer", "hit"), ("tester", "wasted")])
    assert all(event.get("peak_bytes", 1) > 0 for event in events.of("preload"))


def handed(session: Session, texts: list[str], receiver: Capabilities, **more: Any) -> Any:
    items = [ContextItem(text) for text in texts]
    return session.hand_over(Party("a", "writer"), Party("b", "tester"), "Test it.", items, receiver=receiver, **more)


@pytest.mark.parametrize("off", [frozenset[Feature](), frozenset({Feature.DIFF})])
def test_a_receiver_that_holds_the_base_gets_a_delta_and_everybody_else_the_whole(off: frozenset[Feature]) -> None:
    events = Events()
    texts = [f"Paragraph {n}. " * 60 for n in range(6)]
    with Planner(PlanOptions(off=off), telemetry=events).session("w") as session:
        nobody = handed(session, texts[:5], Capabilities())
        base = read_handoff(nobody.message).context
        assert base == context_of([ContextItem(text) for text in texts[:5]])
        holds = Capabilities(deltas=True, holds=(base.digest,))
        session.before("tester", [ContextItem(text) for text in texts[:5]], run_id="b", model=MODEL)
        answer = handed(session, texts, holds, run_id="b")
        received = read_handoff(answer.message, held={base.digest: base}).context
        assert received == context_of([ContextItem(text) for text in texts])
        assert (answer.delta, answer.in_prompt) == ((False, False) if off else (True, True))
        assert answer.reason == ("switched off" if off else None)
        assert off or answer.sent_tokens < 0.5 * answer.whole_tokens
        elsewhere = handed(session, [*texts, "more"], holds)
        assert not elsewhere.in_prompt
        assert handed(session, texts, Capabilities(deltas=True)).reason == ("switched off" if off else "no_base")
        assert handed(session, texts, Capabilities(deltas=True, holds=("0" * 32,))).reason in {
            "base_evicted",
            "switched off",
        }
    modes = [event["mode"] for event in events.of("diff")]
    assert modes == (["whole"] * 5 if off else ["whole", "delta", "delta", "whole", "whole"])


def test_a_failure_of_the_planner_sends_everything_on_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    offered = [*Offered.tools(TOOLS), SKILL]
    monkeypatch.setattr("apportion.planner.session_loading.choose", fails)
    with Planner().session("w") as session:
        step = session.before("main", HELLO, model=MODEL, offered=offered)
    assert step.runs
    assert step.loading is not None
    assert step.loading.saved_tokens == 0
    assert step.loading.files == {"brew": SKILL.content}
    assert any("boom" in reason for reason in step.degraded)
