from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.parametrize("script", ["prior_need.py", "prior_demand.py"])
def test_a_path_that_does_not_exist_ends_a_benchmark_with_an_error(script: str, tmp_path: Path) -> None:
    done = run(script, tmp_path, tmp_path / "missing")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f"error: no such file or directory: {tmp_path / 'missing'}\n")


def test_a_benchmark_prints_the_machine_and_writes_its_result(tmp_path: Path) -> None:
    log = ROOT / "fixtures" / "logs" / "normalised"
    done = run("prior_need.py", log, "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("prior_need: processor ")
    assert "--quick: only the first 5 workflows of each source" in done.stdout
    assert json.loads((tmp_path / "result.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("script", "columns"),
    [("joint_plan.py", {"cold cpu ms", "gap %", "true gap %"}), ("versus_greedy.py", {"rival", "gain % median"})],
)
def test_a_benchmark_of_the_joint_plan_runs_quickly_and_reports_its_marks(
    script: str, columns: set[str], tmp_path: Path
) -> None:
    done = run(script, "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert columns <= result["rows"][0].keys()
    assert result["marks"]
    assert all(f"{mark['name']}: " in done.stdout for mark in result["marks"])


def test_forecasts_of_demand_are_judged_at_every_level(tmp_path: Path) -> None:
    logs = [ROOT / "fixtures" / "logs" / name for name in ("claude_code", "openai_messages", "normalised")]
    done = run("demand.py", *logs, "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    levels = {row["level"] for row in result["rows"]}
    assert {"output", "growth", "calls", "run", "stage", "workflow", "workflow_pool", "workflow_sum"} <= levels
    assert any(mark["name"].startswith("pooled workflow narrower") for mark in result["marks"])
    assert "trained on all of them in " in done.stdout


def test_forecasts_of_the_next_step_are_measured_beside_markov_chains(tmp_path: Path) -> None:
    done = run("next_agent.py", ROOT / "fixtures" / "logs" / "ag2", "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert {row["forecaster"] for row in rows} == {"model", "Markov 1", "Markov 2", "Markov 3"}
    for source in {row["source"] for row in rows}:
        assert len({row["forecasts"] for row in rows if (row["next"], row["source"]) == ("agent", source)}) == 1


def test_the_benchmark_of_compression_shows_each_family_and_that_all_came_back(tmp_path: Path) -> None:
    done = run("compression.py", ROOT / "fixtures" / "content", "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    lossless = {row["family"]: row for row in result["rows"] if row["strategy"] == "lossless"}
    assert set(lossless) == {"json", "logs", "grep", "diffs", "code", "docs", "total"}
    assert all(row["exact"] == row["inputs"] and not row["grown"] for row in lossless.values())
    assert lossless["total"]["recoverable %"] == 100
    assert {"lossless, grep", "lossless, total"} < {mark["name"] for mark in result["marks"]}


def test_the_benchmarks_of_deltas_find_them_exact(tmp_path: Path) -> None:
    for script, paths in (("diff.py", [ROOT / "fixtures" / "logs" / "pi"]), ("diff_trust.py", [])):
        done = run(script, *paths, "--quick", "--json", tmp_path / "result.json")
        assert done.returncode == 0, done.stderr
        marks = json.loads((tmp_path / "result.json").read_text())["marks"]
        exact = [mark for mark in marks if mark["name"].startswith(("exact", "round trips", "chains", "damaged"))]
        assert exact
        assert all(mark["holds"] for mark in exact)


def test_problems_from_logs_are_skipped_with_a_message_where_there_are_none(harness: Any, tmp_path: Path) -> None:
    assert harness is not None  # puts the benchmarks on the path
    problems = importlib.import_module("_joint_problems")
    log = ROOT / "fixtures" / "logs" / "normalised"
    assert problems.corpus_problems(log, 1, least_agents=10**6) == []
    made = problems.corpus_problems(log, 1, least_agents=1)
    assert all(problem.max_tokens and problem.agents for problem in made)


def test_equal_seeds_draw_equal_joint_problems_and_separable_ones_hold_budgets_only(harness: Any) -> None:
    assert harness is not None  # puts the benchmarks on the path
    problems = importlib.import_module("_joint_problems")
    first, again, other = (problems.joint_problem(seed, agents=4, items=5) for seed in (3, 3, 4))
    assert first == again != other
    assert {len(agent.uses) for agent in first.agents} == {5}
    budgets = problems.joint_problem(3, agents=4, separable=True)
    assert not any(agent.uses or agent.hand_backs or len(agent.variants) > 1 for agent in budgets.agents)
    assert budgets.max_cost_nusd is None


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("_harness")


def test_json_on_standard_output_stands_alone(harness: Any, capsys: pytest.CaptureFixture[str]) -> None:
    marks = [harness.Mark("speed", 1.0, "ms", "<= 2", holds=True)]
    harness.report("some", [{"row": 1}], marks, file=Path("-"), notes=("explained",))
    printed = json.loads(capsys.readouterr().out)
    assert (printed["benchmark"], printed["rows"], printed["marks"][0]["holds"]) == ("some", [{"row": 1}], True)


def test_a_missed_mark_is_explained_once(harness: Any, capsys: pytest.CaptureFixture[str]) -> None:
    marks = [harness.Mark("speed", 3.0, "ms", "<= 2", holds=holds) for holds in (False, False, True)]
    harness.report("some", [], marks, notes=("explained", None))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["MISSED  speed: 3.000 ms (<= 2)"] * 2 + [
        "holds   speed: 3.000 ms (<= 2)",
        "explained",
        harness.MISSED,
    ]
    harness.report("some", [], marks[2:])
    assert harness.MISSED not in capsys.readouterr().out
