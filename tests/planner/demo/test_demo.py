from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from apportion.compression.loading import EntryKind
from apportion.planner.demo import DemoOptions, DemoReport, play
from apportion.planner.demo.material import agents, registry, source_files
from apportion.planner.demo.provider import PretendedProvider
from apportion.planner.demo.team import TURNS, Agent, Finding, Seen
from apportion.planner.demo.workspace import Workspace
from apportion.planner.doors.cli import app
from apportion.records import Kind

MODEL = "claude-sonnet-4-5"
START = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def report() -> DemoReport:
    return play()


@pytest.fixture
def provider() -> PretendedProvider:
    return PretendedProvider(MODEL)


def test_planning_saves_tokens_and_money_in_every_turn_and_loses_no_finding(report: DemoReport) -> None:
    for off, on in zip(report.off.turns, report.on.turns, strict=True):
        assert on.calls == off.calls
        assert on.prompt_tokens < off.prompt_tokens
        assert on.usd < off.usd
    assert report.tokens_saved > 0.25
    assert sum(map(len, report.off.findings.values())) > 100
    assert not report.findings_lost
    assert report.on.tests == report.off.tests != ""


def test_what_is_not_sent_whole_can_be_had_back(report: DemoReport) -> None:
    assert report.on.proof.pieces > 10
    assert report.on.proof.exact == report.on.proof.pieces
    assert report.on.total.visible_facts / report.on.total.facts > 0.95


def test_without_planning_everything_is_sent_whole(report: DemoReport) -> None:
    total = report.off.total
    assert not total.actions
    assert total.visible_facts == total.facts > 0
    assert report.off.proof.pieces == 0


def test_the_tests_that_were_written_are_python(report: DemoReport) -> None:
    compile(report.on.tests, "test_injection.py", "exec")
    assert report.on.tests.count("def test_") >= 5


def test_a_budget_that_is_too_small_is_kept_and_said() -> None:
    played = play(DemoOptions(max_tokens=120_000)).on
    assert sum(played.used.values()) <= 120_000
    assert played.refused
    assert all("budget" in reason for reason in played.refused)


def test_the_command_prints_the_comparison_as_json(monkeypatch: pytest.MonkeyPatch, report: DemoReport) -> None:
    monkeypatch.setattr("apportion.planner.demo.play", lambda *_, **__: report)
    result = CliRunner().invoke(app, ["demo", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["tokens_saved"] == report.tokens_saved
    shown = CliRunner().invoke(app, ["demo"]).stdout
    assert f"{report.off.total.calls} calls" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_command_refuses_a_model_without_prices() -> None:
    result = CliRunner().invoke(app, ["demo", "--model", "no-such-model"])
    assert result.exit_code != 0
    assert "no such model" in str(result.exception)


def test_every_step_uses_what_its_agent_is_given() -> None:
    known = {entry.name for entry in registry().entries(EntryKind.TOOL)}
    for turn in TURNS:
        for assignment in turn.assignments:
            used = {call.tool for step in assignment.steps for call in step}
            assert used <= set(agents()[assignment.agent].tools) < known, assignment.agent


def test_agents_are_loaded_ahead_with_planning_alone(report: DemoReport) -> None:
    assert report.off.preload.hits == 0
    assert (report.on.preload.hits, report.on.preload.misses, report.on.preload.wasted) == (4, 0, 0)
    assert report.on.total.loaded_tokens < report.off.total.loaded_tokens


def test_an_agent_finds_only_what_stands_in_its_prompt() -> None:
    code = "     7\tdb.execute(statement)"
    agent = Agent("security-expert")
    assert agent.look([Seen(Kind.TOOL_RESULT, "dataset/table.py", "[left out]")]) == []
    found = agent.look([Seen(Kind.TOOL_RESULT, "dataset/table.py", code)])
    assert found == [Finding("dataset/table.py", 7, "statement-to-database", "db.execute(statement)")]
    assert agent.look([Seen(Kind.TOOL_RESULT, "dataset/table.py", code)]) == []


def test_the_provider_charges_a_repeated_prompt_as_read_until_its_cache_forgets(provider: PretendedProvider) -> None:
    prompt = ["system " * 2000, "question"]
    first = provider.charge(prompt, "answer", START)
    again = provider.charge([*prompt, "more"], "answer", START + timedelta(seconds=60))
    late = provider.charge([*prompt, "more"], "answer", START + timedelta(seconds=60 + provider.tariff.ttl_s + 1))
    assert first.usage.cache_read == 0
    assert again.usage.cache_read == first.usage.prompt_tokens
    assert late.usage.cache_read == 0
    assert again.usd < first.usd < late.usd


def test_the_provider_reads_nothing_behind_a_change(provider: PretendedProvider) -> None:
    provider.charge(["system " * 2000, "b " * 2000], "answer", START)
    usage = provider.charge(["System " * 2000, "b " * 2000], "answer", START).usage
    assert usage.cache_read == 0


def test_the_tools_tell_what_the_files_hold() -> None:
    workspace = Workspace(source_files())
    rows = json.loads(workspace.call("outline", {}))
    text = workspace.files["dataset/table.py"]
    for row in rows:
        if row["path"] == "dataset/table.py":
            assert row["name"] in text.splitlines()[row["line"] - 1]
    assert workspace.call("search", {"pattern": "def upsert_many"}).startswith("dataset/table.py:")
    assert workspace.call("edit_file", {"path": "dataset/table.py", "old": "no such text", "new": ""}).startswith(
        "error"
    )
    assert workspace.files["dataset/table.py"] == text
