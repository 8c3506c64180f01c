from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.errors import InputError, StoreError
from apportion.planner.doors.claude_code import agents as agents_module
from apportion.planner.doors.claude_code.agents import Simplified, SubAgents
from apportion.planner.doors.claude_code.hooks import SELECT, TESTED, HookState, answer
from apportion.planner.doors.claude_code.prompts import parts_of
from apportion.planner.doors.claude_code.results import texts_of, with_texts
from apportion.planner.doors.claude_code.transcripts import spent_by, version_of
from apportion.planner.ledger import Ledger
from apportion.planner.ledger.records import LEASE_S
from apportion.planner.live import ContextItem
from apportion.planner.planner import PlanOptions
from apportion.planner.session import Planner, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    Hook = Callable[..., dict[str, Any]]
    State = Callable[..., HookState]

LOG = "".join(f"2026-01-01 12:00:{i % 60:02} INFO worker {i % 4} finished item {i} in {i % 17} ms\n" for i in range(90))
PROMPT = f"Why did it fail?\n```log\n{LOG}```\nSay it in one line."


def inner(found: dict[str, Any]) -> dict[str, Any]:
    return found["hookSpecificOutput"]  # type: ignore[no-any-return]


def status(state: HookState, like: dict[str, Any]) -> dict[str, Any]:
    return answer({**like, "hook_event_name": "ApportionStatus"}, state)


def transcript(path: Path, *usages: tuple[str, int, int]) -> str:
    lines = [
        {"type": "assistant", "message": {"id": name, "usage": {"input_tokens": given, "output_tokens": written}}}
        for name, given, written in usages
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


# Results of tools.


@pytest.mark.parametrize("tool", ["Read", "Bash", "Grep"])
def test_a_result_becomes_shorter_in_the_shape_that_it_had(tool: str, hook: Hook, state: State) -> None:
    asked = hook(f"PostToolUse_{tool}")
    before = asked["tool_response"]
    after = inner(answer(asked, state()))["updatedToolOutput"]
    (place, text), *_ = texts_of(tool, asked["tool_input"], before).items()
    (_, shorter), *_ = texts_of(tool, asked["tool_input"], after).items()
    assert len(shorter) < len(text) / 2
    assert with_texts(after, {place: text}) == before, "something else changed as well"


def test_what_is_left_out_can_be_had_back_exactly(hook: Hook, state: State) -> None:
    known = state()
    text = LOG + "then something else happened\n" + LOG
    asked = hook("PostToolUse_Bash")
    asked["tool_response"]["stdout"] = text
    found = inner(answer(asked, known))
    shown = found["updatedToolOutput"]["stdout"]
    handle = shown.partition("expand ")[2].split()[0]
    assert known.planner.store.expand(handle).decode() == text
    assert "expand_content" in found["additionalContext"]
    assert "additionalContext" not in inner(answer(asked, known)), "who was told once is told again"


@pytest.mark.parametrize(
    ("path", "more", "shortened"),
    [
        ("/project/big.log", {}, True),
        ("C:\\project\\big.LOG", {}, True),
        ("/project/big.log", {"offset": 10}, False),
        ("/project/big.py", {}, False),
        ("/project/config.json", {}, False),
        ("/project/requirements.txt", {}, False),
        ("/project/Makefile", {}, False),
    ],
)
def test_what_an_agent_may_edit_it_sees_as_it_is(
    *, path: str, more: dict[str, Any], shortened: bool, hook: Hook, state: State
) -> None:
    asked = hook("PostToolUse_Read", tool_input={"file_path": path, **more})
    assert bool(answer(asked, state())) is shortened


def test_a_file_that_was_edited_is_read_as_it_is(hook: Hook, state: State) -> None:
    known = state()
    asked = hook("PostToolUse_Read")
    edit = hook("PostToolUse_Read", tool_name="Edit", tool_response={})
    assert answer(asked, known)
    answer(edit, known)
    assert answer(asked, known) == {}


@pytest.mark.parametrize("command", ["cat src/app.py", "git diff", "sed -n 1,9p conf.toml", "head Makefile"])
def test_a_command_that_shows_code_is_left_alone(command: str, hook: Hook, state: State) -> None:
    assert answer(hook("PostToolUse_Bash"), state())
    assert answer(hook("PostToolUse_Bash", tool_input={"command": command}), state()) == {}


def test_what_our_own_server_gives_back_stays_whole(hook: Hook, state: State) -> None:
    blocks = [{"type": "text", "text": LOG}, {"type": "image", "source": {}}]
    other = hook("PostToolUse_Read", tool_name="mcp__jira__search", tool_input={}, tool_response=blocks)
    ours = {**other, "tool_name": "mcp__plugin_apportion_apportion__expand_content"}
    shorter = inner(answer(other, state()))["updatedToolOutput"]
    assert len(shorter[0]["text"]) < len(LOG) / 2
    assert shorter[1] == blocks[1]
    assert answer(ours, state()) == {}


def test_a_sub_agent_that_may_lack_the_tool_gets_all_of_a_result(hook: Hook, state: State) -> None:
    asked = hook("PostToolUse_Bash", agent_id="a1", agent_type="reviewer")
    asked["tool_response"]["stdout"] = LOG + "then something else happened\n" + LOG
    limited = inner(answer(asked, state()))
    free = inner(answer({**asked, "agent_type": "general-purpose"}, state()))
    assert "expand " not in limited["updatedToolOutput"]["stdout"]
    assert "expand " in free["updatedToolOutput"]["stdout"], "the control: another type has parts left out"


# Sub-agents.


def test_the_prompt_of_a_sub_agent_is_rewritten_and_the_rest_of_its_input_stays(hook: Hook, state: State) -> None:
    asked = hook("PreToolUse_Agent")
    asked["tool_input"]["prompt"] = PROMPT
    found = inner(answer(asked, state(budget_tokens=50_000)))
    changed = found["updatedInput"]
    assert {**changed, "prompt": PROMPT} == asked["tool_input"]
    assert "permissionDecision" not in found, "the user is asked as ever"
    assert changed["prompt"].startswith("Why did it fail?\n```log\n")
    assert "\n```\nSay it in one line.\n\n[apportion: this task has a budget of " in changed["prompt"]
    assert len(changed["prompt"]) < len(PROMPT) / 2


def test_without_a_budget_a_prompt_that_cannot_be_shorter_is_not_touched(hook: Hook, state: State) -> None:
    assert answer(hook("PreToolUse_Agent"), state()) == {}


def test_a_sub_agent_is_refused_when_the_budget_is_used_up_and_deferred_while_another_runs(
    hook: Hook, state: State, tmp_path: Path
) -> None:
    known = state(budget_tokens=20_000)
    first = hook("PreToolUse_Agent", tool_use_id="call-1")
    assert "deny" not in json.dumps(answer(first, known))
    used = transcript(tmp_path / "a1.jsonl", ("m1", 9_000, 100), ("m1", 9_000, 500), ("m2", 9_500, 500))
    (tmp_path / "a1.meta.json").write_text('{"toolUseId": "call-1"}', "utf-8")
    answer(hook("SubagentStop", agent_id="a1", agent_transcript_path=used), known)
    assert status(known, first)["used_tokens"] == 19_500, "the last line of each request counts, once"
    refused = inner(answer(hook("PreToolUse_Agent", tool_use_id="call-2"), known))
    assert refused["permissionDecision"] == "deny"
    assert "500 tokens of the budget for sub-agents are left" in refused["permissionDecisionReason"]
    assert "does not start this sub-agent" in refused["permissionDecisionReason"]

    waiting = state(budget_tokens=600)
    answer(hook("PreToolUse_Agent", tool_use_id="call-1"), waiting)
    second = hook("PreToolUse_Agent", tool_use_id="call-2")
    second["tool_input"]["prompt"] = "word " * 2_000
    reason = inner(answer(second, waiting))["permissionDecisionReason"]
    assert "defers this sub-agent" in reason
    assert "when another sub-agent has ended" in reason


def test_usage_is_booked_once_however_often_it_is_told(hook: Hook, state: State, tmp_path: Path) -> None:
    known = state(budget_tokens=100_000)
    asked = hook("PreToolUse_Agent")
    answer(asked, known)
    session = tmp_path / "session.jsonl"
    path = tmp_path / "session" / "subagents" / "agent-a1.jsonl"
    used = transcript(path, ("m1", 9_000, 100))
    stopped = hook("SubagentStop", agent_id="a1", agent_transcript_path=used)
    returned = hook("PostToolUse_Agent", transcript_path=str(session), tool_use_id=asked["tool_use_id"])
    returned["tool_response"] |= {"agentId": "a1", "usage": {"input_tokens": 9_100, "output_tokens": 60}}
    for each in (stopped, returned, stopped):
        answer(each, known)
    both = 9_000 + 100 + 9_100 + 60
    assert status(known, asked)["used_tokens"] == both, "the last request, which the transcript does not have yet"
    transcript(path, ("m1", 9_000, 100), ("m2", 9_100, 60))
    assert status(known, asked)["used_tokens"] == both, "now it does"
    transcript(path, ("m1", 9_000, 100), ("m2", 9_100, 60), ("m3", 9_200, 50))
    found = status(known, asked)
    assert found["used_tokens"] == both + 9_250, "it was sent another message"
    assert found["sub_agents"] == {"started": 1, "running": 0, "refused": 0, "estimated": 0, "unbooked": 0}


def test_a_background_sub_agent_runs_until_its_transcript_says_otherwise(hook: Hook, state: State) -> None:
    known = state()
    asked = hook("PreToolUse_Agent")
    answer(asked, known)
    answer(hook("PostToolUse_Agent_background", tool_use_id=asked["tool_use_id"]), known)
    assert status(known, asked)["sub_agents"]["running"] == 1


def test_where_no_transcript_can_be_read_the_last_request_counts_and_is_called_an_estimate(
    hook: Hook, state: State
) -> None:
    known = state()
    asked = hook("PreToolUse_Agent")
    answer(asked, known)
    returned = hook("PostToolUse_Agent", tool_use_id=asked["tool_use_id"])
    answer(returned, known)
    found = status(known, asked)
    assert found["used_tokens"] == returned["tool_response"]["totalTokens"]
    assert found["sub_agents"]["estimated"] == 1


def test_a_sub_agent_that_fails_gives_back_what_was_held_for_it(hook: Hook, state: State) -> None:
    known = state(budget_tokens=20_000)
    asked = hook("PreToolUse_Agent")
    answer(asked, known)
    answer({**asked, "hook_event_name": "PostToolUseFailure", "error": "x"}, known)
    found = status(known, asked)
    assert found["left_tokens"] == 20_000
    assert found["sub_agents"]["running"] == 0


def test_with_little_left_sub_agents_run_with_less_effort_unless_one_was_asked_for(
    hook: Hook, state: State, tmp_path: Path
) -> None:
    known = state(budget_tokens=100_000, simplified=Simplified(below=0.9, effort="low", model="haiku"))
    first = inner(answer(hook("PreToolUse_Agent", tool_use_id="call-1"), known))["updatedInput"]
    assert "effort" not in first
    used = transcript(tmp_path / "a1.jsonl", ("m1", 19_000, 1_000))
    answer(hook("SubagentStop", agent_id="a1", agent_transcript_path=used), known)
    second = hook("PreToolUse_Agent", tool_use_id="call-2")
    second["tool_input"]["model"] = "opus"
    changed = inner(answer(second, known))["updatedInput"]
    assert (changed["effort"], changed["model"]) == ("low", "opus")


def test_what_is_held_for_a_sub_agent_that_runs_long_is_not_promised_to_another(hook: Hook, tmp_path: Path) -> None:
    seconds = [0.0]
    with Ledger(tmp_path / "ledger.db", clock=lambda: 1e9 + seconds[0]) as ledger:
        planner = Planner(PlanOptions(select=SELECT), ledger=ledger, timer=lambda: seconds[0], ahead=False)
        known = HookState(planner, budget_tokens=10_000)

        def start(call: str) -> dict[str, Any]:
            asked = hook("PreToolUse_Agent", tool_use_id=call)
            asked["tool_input"]["prompt"] = "word " * 6_000
            return inner(answer(asked, known))

        assert "updatedInput" in start("call-1")
        session = known.conversation(hook("PreToolUse_Agent")["session_id"]).agents.session
        held = session.balance[0].held
        assert held > 6_000
        for call in ("call-2", "call-3"):
            seconds[0] += LEASE_S + 1
            assert start(call)["permissionDecision"] == "deny"
        assert session.balance[0].held == held
        assert ledger.account(session.workflow).tokens.held == held


def test_another_budget_keeps_what_was_used(hook: Hook, state: State, tmp_path: Path) -> None:
    known = state()
    asked = hook("PreToolUse_Agent")
    answer(asked, known)
    used = transcript(tmp_path / "a1.jsonl", ("m1", 19_000, 1_000))
    found = answer({**asked, "hook_event_name": "ApportionBudget", "max_tokens": 50_000}, known)
    assert found["left_tokens"] == 50_000
    answer(hook("SubagentStop", agent_id="a1", agent_transcript_path=used), known)
    assert status(known, asked)["left_tokens"] == 30_000
    assert known.conversation(asked["session_id"]).agents.session.balance[0].free == 30_000, (
        "what starts next gets less"
    )
    notice = inner(answer(hook("UserPromptSubmit"), known))["additionalContext"]
    assert notice == "apportion: 30,000 of 50,000 tokens for sub-agents are left."
    assert answer(hook("UserPromptSubmit"), known) == {}, "said once, until it changes"


def test_another_budget_loses_no_transcript_that_comes_late(hook: Hook, state: State, tmp_path: Path) -> None:
    known = state(budget_tokens=200_000)
    asked = hook("PreToolUse_Agent")
    answer(asked, known)
    conversation = known.conversation(asked["session_id"])
    before = conversation.agents.session
    path = tmp_path / "a1.jsonl"
    answer(hook("SubagentStop", agent_id="a1", agent_transcript_path=str(path)), known)
    answer({**asked, "hook_event_name": "ApportionBudget", "max_tokens": 150_000}, known)
    assert before.pending, "the sub-agent may still be booked there"
    transcript(path, ("m1", 100_000, 500))
    found = status(known, asked)
    assert (found["used_tokens"], found["left_tokens"]) == (100_500, 49_500)
    assert found["sub_agents"]["running"] == 0
    with pytest.raises(InputError, match="closed"):
        before.before("other", [ContextItem("x")])


def test_a_booking_that_fails_stands_in_the_way_of_no_other_and_is_made_up_for(
    hook: Hook, state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = state(budget_tokens=200_000)
    asked = hook("PreToolUse_Agent", tool_use_id="call-1")
    for call in ("call-1", "call-2"):
        answer({**asked, "tool_use_id": call}, known)
    folder = tmp_path / "session" / "subagents"
    real = Session.after

    def full(session: Session, step: Any, usage: Any, **more: Any) -> None:
        if step.run_id == "call-1":
            raise StoreError("the disk is full")
        real(session, step, usage, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "after", full)
        transcript(folder / "agent-a1.jsonl", ("m1", 9_000, 100))
        returned = hook("PostToolUse_Agent", tool_use_id="call-1")
        returned["tool_response"] |= {"agentId": "a1", "usage": {"input_tokens": 9_000, "output_tokens": 100}}
        answer(returned, known)
        used = transcript(folder / "agent-a2.jsonl", ("m1", 19_000, 1_000))
        (folder / "agent-a2.meta.json").write_text('{"toolUseId": "call-2"}', "utf-8")
        answer(hook("SubagentStop", agent_id="a2", agent_transcript_path=used), known)
        found = status(known, asked)
        assert (found["used_tokens"], found["sub_agents"]["unbooked"]) == (20_000, 1)
    found = status(known, asked)
    assert (found["used_tokens"], found["sub_agents"]["unbooked"]) == (29_100, 0)
    assert found["sub_agents"]["running"] == 0


# Compaction.


def test_what_a_summary_does_not_say_is_said_at_the_next_opportunity(hook: Hook, state: State, tmp_path: Path) -> None:
    known = state()
    lines = [
        {"type": "user", "version": "2.1.330", "message": {"content": "Never touch config.yaml. Fix issue ABC-4711."}},
        {"type": "user", "isMeta": True, "message": {"content": "Never mind XYZ-1234."}},
        {"type": "user", "message": {"content": [{"type": "tool_result", "content": "must not QRS-5678"}]}},
    ]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    answer(hook("PostToolUse_Read", tool_name="Write", tool_input={"file_path": "/project/src/new.py"}), known)
    told = hook("PostCompact", transcript_path=str(path), compact_summary="We fix ABC-4711.")
    assert answer(told, known) == {}
    note = inner(answer(hook("UserPromptSubmit"), known))["additionalContext"]
    assert "- Never touch config.yaml." in note
    assert "- /project/src/new.py" in note
    assert not any(word in note for word in ("ABC-4711", "XYZ-1234", "QRS-5678"))
    assert answer(hook("UserPromptSubmit"), known) == {}


def test_a_summary_that_says_all_of_it_is_not_added_to(hook: Hook, state: State, tmp_path: Path) -> None:
    known = state()
    path = tmp_path / "long.jsonl"
    said = "Never touch config.yaml. Fix issue ABC-4711."
    path.write_text(json.dumps({"type": "user", "version": "2.1.330", "message": {"content": said}}) + "\n", "utf-8")
    answer(hook("PostCompact", transcript_path=str(path), compact_summary=said), known)
    assert answer(hook("UserPromptSubmit"), known) == {}
    assert status(known, hook("PostCompact"))["compaction"] == {"checked": 3, "lost": 0}


# Nothing stands in the way.


def test_switched_off_nothing_is_answered(recorded: dict[str, Any], hook: Hook, state: State, tmp_path: Path) -> None:
    (tmp_path / "off").touch()
    for known in (state(enabled=False, budget_tokens=5), state(off_file=tmp_path / "off", budget_tokens=5)):
        assert all(answer(hook(name), known) == {} for name in recorded)
    control = state(budget_tokens=5, off_file=tmp_path / "on")
    assert sum(bool(answer(hook(name), control)) for name in recorded) >= 5


def test_a_client_that_is_not_tested_is_only_counted_and_the_user_is_told_once(
    hook: Hook, state: State, tmp_path: Path
) -> None:
    old = tmp_path / "old.jsonl"
    old.write_text('{"version":"2.1.99"}\n', "utf-8")
    known = state(budget_tokens=20_000)
    asked = hook("PreToolUse_Agent", transcript_path=str(old))
    assert "2.1.99 is older than 2.1.330" in answer(asked, known)["systemMessage"]
    assert answer(asked, known) == {}
    unknown = hook("PostToolUse_Read", transcript_path=str(tmp_path / "none.jsonl"))
    assert answer(unknown, state()) == {}
    assert answer({**unknown, "client_version": "2.2.0"}, state()), "the control: the shim says the version"
    used = transcript(tmp_path / "a1.jsonl", ("m1", 700, 50))
    stopped = hook("SubagentStop", agent_id="a1", agent_transcript_path=used, transcript_path=str(old))
    answer(stopped, known)
    assert status(known, stopped)["used_tokens"] == 750


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=6,
)
STATE = HookState(Planner(PlanOptions(select=SELECT)), budget_tokens=100_000)
HOOKS = {
    name: each
    for name, each in json.loads((Path(__file__).parent / "hooks.json").read_text("utf-8")).items()
    if isinstance(each, dict)
}


@given(st.sampled_from(sorted(HOOKS)), st.data())
def test_a_hook_with_anything_in_its_members_is_answered_with_json(name: str, data: st.DataObject) -> None:
    hook = {**HOOKS[name], "client_version": "2.1.330", "session_id": "fuzz"}
    for member in data.draw(st.lists(st.sampled_from(sorted(HOOKS[name])), max_size=2, unique=True)):
        if member != "hook_event_name":
            hook[member] = data.draw(JSON)
    if isinstance(hook.get("tool_response"), dict) and data.draw(st.booleans()):
        for member in data.draw(st.lists(st.sampled_from(sorted(hook["tool_response"]) or [""]), max_size=2)):
            hook["tool_response"] = {**hook["tool_response"], member: data.draw(JSON)}
    found = answer(hook, STATE)
    assert isinstance(found, dict)
    json.dumps(found)


@given(JSON)
def test_what_is_no_hook_is_answered_with_nothing(value: Any) -> None:
    assert answer(value, STATE) == {}


def test_a_defect_of_ours_is_counted_and_the_work_goes_on(hook: Hook, state: State) -> None:
    known = state()
    known.ingestion = None  # type: ignore[assignment]
    assert answer(hook("PostToolUse_Read"), known) == {}
    assert known.failures == 1


@pytest.mark.parametrize("name", ["before", "parts_of", "refresh"])
def test_whatever_fails_no_sub_agent_starts_without_budget(
    name: str, hook: Hook, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("no luck")

    owner: Any = {"before": Session, "refresh": SubAgents}.get(name, agents_module)
    monkeypatch.setattr(owner, name, broken)
    known = state(budget_tokens=10_000)
    asked = hook("PreToolUse_Agent")
    asked["tool_input"]["prompt"] = "word " * 6_000
    assert answer(asked, known).get("hookSpecificOutput", {}).get("permissionDecision") != "deny"
    agents = known.conversation(asked["session_id"]).agents
    assert agents.session.balance[0].held > 6_000
    refused = inner(answer({**asked, "tool_use_id": "other"}, known))
    assert refused["permissionDecision"] == "deny"
    assert "budget used up" in refused["permissionDecisionReason"]


# Parts.


@given(st.text(alphabet="a`\n logpy", max_size=80))
def test_the_parts_of_a_prompt_are_the_prompt(prompt: str) -> None:
    assert "".join(part.text for part in parts_of(prompt)) == prompt


def test_code_in_a_prompt_is_not_taken_for_pasted() -> None:
    assert [part.pasted for part in parts_of("a\n```python\nx\n```\n```\ny\n```\n")] == [False, True, False]


def test_only_regular_transcripts_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text('{"version":"2.1.330"}', "utf-8")
    link = tmp_path / "link.jsonl"
    link.symlink_to(secret)
    assert [version_of(str(each)) for each in (secret, link, tmp_path, "/dev/zero")] == [None] * 4
    assert spent_by(str(link)) is None
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"version":"2.1.330"}', "utf-8")
    assert version_of(str(plain)) == TESTED
