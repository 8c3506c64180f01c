"""End to end: the real Claude Code, before a Messages API on loopback that keeps what it was sent, byte for byte."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

ROOT = Path(__file__).resolve().parents[4]
sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    pytest.importorskip("uvicorn", reason="needs the extra mcp")
    from _claude_code import World, client, say, use
finally:
    sys.path.pop(0)

from apportion.planner.doors.claude_code.agents import Simplified  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _claude_code import Run
    from _fake_api import Request

pytestmark = [
    pytest.mark.needs_claude_code,
    pytest.mark.skipif(client() is None, reason="the package claude-agent-sdk is not installed"),
]

ROWS = "".join(
    f"2026-01-01 12:00:{i % 60:02} INFO worker {i % 4} finished item {i} in {i % 17} ms\n" for i in range(90)
)
LOG = ROWS + "then something else happened\n" + ROWS
PASTED = f"SUB-TASK: why did it fail?\n```log\n{LOG}```\nSay it in one line."
EXPAND = "mcp__plugin_apportion_apportion__expand_content"
BUDGET = 60_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world") / "w", budget_tokens=BUDGET) as opened:
        (opened.project / "big.log").write_text(LOG, "utf-8")
        yield opened


def agent(call: str, prompt: str = PASTED, **more: Any) -> dict[str, Any]:
    given = {"description": "look", "prompt": prompt, "subagent_type": "general-purpose", "run_in_background": False}
    return use(call, "Agent", **(given | more))


def of_main(request: Request) -> bool:
    return any("MAIN-TASK" in text for text in request.texts())


def script(request: Request) -> list[dict[str, Any]]:
    if not of_main(request):
        return [[use("toolu_sub", "Bash", command="wc -l big.log", description="count")], [say("181 lines")]][
            min(1, request.answered)
        ]
    steps = [
        [use("toolu_read", "Read", file_path="big.log")],
        [use("toolu_bash", "Bash", command="cat big.log", description="show")],
        [agent("toolu_agent")],
        [say("all done")],
    ]
    return steps[min(request.answered, len(steps) - 1)]


def comparable(requests: list[Request]) -> list[bytes]:
    """Return bodies without what differs from run to run: ids of sub-agents, and how long they took."""
    bodies = [re.sub(rb"\ba[0-9a-f]{16}\b", b"AGENT", request.body) for request in requests]
    return [re.sub(rb"duration_ms: \d+|<duration_ms>\d+|(?<=_ms\\\":)\d+", b"MS", body) for body in bodies]


@pytest.fixture(scope="module")
def planned(world: World) -> Run:
    return world.run("MAIN-TASK go", script, hooks="http", session="10000000-1111-4111-8111-111111111111")


@pytest.fixture(scope="module")
def bare(world: World) -> Run:
    return world.run("MAIN-TASK go", script, hooks=None)


def first_of_sub_agent(run: Run) -> Request:
    return next(request for request in run.requests if not of_main(request))


def test_a_sub_agent_gets_the_rewritten_prompt_and_never_the_original(planned: Run, bare: Run) -> None:
    sent, original = first_of_sub_agent(planned), first_of_sub_agent(bare)
    assert PASTED in original.texts(), "the control"
    prompt = next(text for text in sent.texts() if "SUB-TASK" in text)
    assert prompt.startswith("SUB-TASK: why did it fail?\n```log\n")
    assert "Say it in one line.\n\n[apportion: this task has a budget of" in prompt
    assert len(prompt) < len(PASTED) / 2
    assert LOG.splitlines()[50].encode() not in sent.body
    assert any("tokens are left for all sub-agents" in text for text in sent.texts()), "told at SubagentStart"


def test_results_enter_the_history_shorter_and_stay_byte_for_byte(planned: Run, bare: Run) -> None:
    main = [request for request in planned.requests if of_main(request)]
    assert len(main) == 4
    for call in ("toolu_read", "toolu_bash"):
        found = [request.results()[call] for request in main if call in request.results()]
        assert len(found) >= 2
        assert len(set(found)) == 1
        assert len(found[0]) < len(bare.requests[-1].results()[call]) / 2
    for before, after in pairwise(main):
        kept = [unmarked(message) for message in before.messages]
        assert [unmarked(message) for message in after.messages][: len(kept)] == kept, "the prefix was edited"


def without_count(result: str) -> str:
    """Return a result without what the client adds: how many tokens are left to the model."""
    return result.partition("\n<system-reminder>")[0]


def unmarked(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message without its mark for the cache, which wanders to the end from request to request."""
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    return {**message, "content": [{k: v for k, v in block.items() if k != "cache_control"} for block in content]}


def test_what_the_sub_agent_used_is_what_the_api_was_asked_for(world: World, bare: Run) -> None:
    seen: list[dict[str, Any]] = []

    def asking(request: Request) -> list[dict[str, Any]]:
        if of_main(request) and "toolu_agent" in request.results():
            seen.append(world.ask({"hook_event_name": "ApportionStatus", "session_id": ident}))
        return script(request)

    ident = "20000000-1111-4111-8111-111111111111"
    run = world.run("MAIN-TASK go", asking, hooks="http", session=ident)
    sizes = [len(request.body) // 4 for request in run.requests if not of_main(request)]
    assert len(sizes) == 2
    assert sum(sizes) < seen[0]["used_tokens"] < sum(sizes) + 200, "the prompts, and what little was written"
    assert seen[0]["sub_agents"] == {"started": 1, "running": 0, "refused": 0, "estimated": 0, "unbooked": 0}


@pytest.mark.parametrize("hooks", ["http", "command"])
def test_with_the_planner_down_requests_are_those_of_a_run_without_the_plugin(
    hooks: Any, world: World, bare: Run
) -> None:
    down = world.run("MAIN-TASK go", script, hooks=hooks, url="http://127.0.0.1:9")
    assert comparable(down.requests) == comparable(bare.requests)


def test_switched_off_requests_are_those_of_a_run_without_the_plugin(world: World, bare: Run, planned: Run) -> None:
    world.off_file.touch()
    try:
        off = world.run("MAIN-TASK go", script, hooks="http")
    finally:
        world.off_file.unlink()
    assert comparable(off.requests) == comparable(bare.requests)
    assert comparable(planned.requests) != comparable(bare.requests), "the control"


def test_the_shim_does_what_the_hooks_over_http_do_and_expands_by_the_servers_tool(world: World, planned: Run) -> None:
    def expanding(request: Request) -> list[dict[str, Any]]:
        if not of_main(request):
            return script(request)
        results = request.results()
        if "toolu_read" not in results:
            return [use("toolu_read", "Read", file_path="big.log")]
        tries = [name for name in results if name.startswith("toolu_expand")]
        if (tries and "then something else happened" in results[tries[-1]]) or len(tries) > 5:
            return [say("all done")]
        handle = results["toolu_read"].partition("expand ")[2].split()[0]
        wait = [use(f"toolu_wait{len(tries)}", "Bash", command="sleep 1", description="wait")]
        return [*wait, use(f"toolu_expand{len(tries)}", EXPAND, handle=handle)]

    run = world.run(
        "MAIN-TASK go", expanding, hooks="command", mcp=True, session="30000000-1111-4111-8111-111111111111"
    )
    results = run.requests[-1].results()
    assert without_count(results["toolu_read"]) == without_count(planned.requests[-1].results()["toolu_read"])
    expanded = [text for name, text in results.items() if name.startswith("toolu_expand")][-1]
    assert json.loads(without_count(expanded))["content"] == LOG
    notes = [text for text in run.requests[-1].texts() if "call expand_content" in text]
    assert len(notes) == 1


def test_the_reason_of_a_refusal_reaches_the_model_and_little_budget_means_less_effort(tmp_path: Path) -> None:
    def two(request: Request) -> list[dict[str, Any]]:
        if not of_main(request):
            return script(request)
        calls = [name for name in request.results() if name.startswith("toolu_agent")]
        if len(calls) < 2:
            return [agent(f"toolu_agent{len(calls)}", "SUB-TASK: count")]
        return [say("all done")]

    with World(tmp_path / "w", budget_tokens=25_000, simplified=Simplified(below=2, model="haiku")) as world:
        (world.project / "big.log").write_text(LOG, "utf-8")
        run = world.run("MAIN-TASK go", two)
    refused = run.requests[-1].results()["toolu_agent1"]
    assert "apportion does not start this sub-agent" in refused
    assert re.search(r"[\d,]+ tokens of the budget for sub-agents are left", refused)
    models = {of_main(request): request.json["model"] for request in run.requests}
    assert "haiku" in models[False]
    assert "haiku" not in models[True]
    assert run.result["subagent_stats"]["spawned"] == 1


def test_what_compaction_lost_is_said_with_the_next_prompt(world: World) -> None:
    def summing(request: Request) -> list[dict[str, Any]]:
        asked = request.texts()[-1]
        return [say("<summary>We fix it.</summary>" if "Your entire" in asked or "summary" in asked else "fine")]

    ident = "40000000-1111-4111-8111-111111111111"
    prompts = ("MAIN-TASK: Never touch config.yaml. Fix issue ABC-4711.", "/compact", "go on")
    last = [world.run(prompt, summing, session=ident, resume=number > 0) for number, prompt in enumerate(prompts)][-1]
    told = "\n".join(last.requests[-1].texts())
    assert "apportion: the summary of the conversation does not say the following." in told
    assert "Never touch config.yaml." in told
    assert "ABC-4711" in told
