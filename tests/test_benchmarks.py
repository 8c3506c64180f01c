from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from apportion.records import content_hash

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
    content = ROOT / "fixtures" / "content" / "logs-cipherbox.txt"
    text = content.read_bytes()
    answers = [text.split()[0].decode(), "this answer stands nowhere"]
    gold = [{"content_digest": content_hash(text), "question": "what?", "answer": answer} for answer in answers]
    (tmp_path / "gold.jsonl").write_text("\n".join(map(json.dumps, gold)))
    only = ("--only", "lossless", "recoverable", "recoverable_85+code")
    options = ("--quick", "--json", tmp_path / "result.json", "--gold", tmp_path / "gold.jsonl", *only)
    done = run("compression.py", content.parent, *options)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    rows = {(row["strategy"], row["family"]): row for row in result["rows"]}
    families = {"json", "logs", "grep", "diffs", "code", "docs", "total"}
    assert {family for strategy, family in rows if strategy == "lossless"} == families
    assert all(row["exact"] == row["inputs"] and not row["grown"] for row in rows.values())
    assert {row["recoverable %"] for row in rows.values()} == {100}
    saved = [rows[name, "total"]["saved %"] for name in only[1:]]
    assert saved == sorted(saved)
    assert rows["recoverable", "total"]["visible %"] > 99
    marks = {mark["name"]: mark["value"] for mark in result["marks"]}
    assert {"lossless, grep", "lossless, total", "recoverable", "contents that grew, all strategies"} < marks.keys()
    assert marks["lossless, answers kept"] == 50


def test_the_second_reading_and_the_bill_are_what_they_say(harness: Any) -> None:
    assert harness is not None  # puts the benchmarks on the path
    judge = importlib.import_module("_judge")
    spec = importlib.util.spec_from_file_location("compression_benchmark", ROOT / "benchmarks" / "compression.py")
    assert spec is not None
    assert spec.loader is not None
    compression = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(compression)
    said = judge.judged_facts("Then Alice ran src/app.py: 404 of 512 ok, see maxTokens.")
    assert said == {"src/app.py", "404", "512", "maxTokens"}
    assert judge.judged_missing(said, "alice ran /src/app.py, 404 times") == {"512", "maxTokens"}
    prompt, first, result, second = 100, 10, 50, 20
    calls = [None, 1, None, 2]
    expected = 1.25 * prompt + 5 * first + 0.1 * prompt + 1.25 * (first + result) + 5 * second
    assert compression.bill([prompt, first, result, second], calls) == expected


def test_the_benchmark_of_damages_says_where_it_finds_no_text(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short to be used")
    done = run("damage.py", tmp_path, "--quick")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"contents in {tmp_path} is a text of 400 to 12,000 characters" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_benchmark_of_damages_shows_each_kind(tmp_path: Path) -> None:
    done = run("damage.py", ROOT / "fixtures" / "content", "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    kinds = {row["what"]: row for row in result["rows"]}
    assert kinds["check"]["rejected %"] > kinds["facts only"]["rejected %"]
    assert kinds["damage: swapped values"]["damages"] == 4
    assert {mark["name"] for mark in result["marks"]} > {"damages rejected", "rewrites rejected"}


def test_the_benchmark_of_human_agreement_sets_the_verdict_beside_baselines(tmp_path: Path) -> None:
    judgements = ROOT / "fixtures" / "human" / "realsumm-20.jsonl"
    done = run("human_agreement.py", judgements, "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["rows"][0]["pairs"], result["rows"][0]["accuracy"]) == (20, 0.9)
    assert any(row["verdict"].startswith("ROUGE-1 recall") for row in result["rows"])


def test_the_benchmark_of_overhead_times_sessions_in_process_and_over_http(tmp_path: Path) -> None:
    done = run("overhead.py", "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    rows = {row["session"]: row for row in json.loads((tmp_path / "result.json").read_text())["rows"]}
    in_process = {"off", "ingested", "tight", "rereads", "back to back", "cold", "ledger"}
    assert set(rows) == in_process | {"HTTP off", "HTTP ingested"}
    assert rows["off"]["cpu ms p50 p95 p99"][0] < rows["cold"]["cpu ms p50 p95 p99"][0]


def test_the_benchmark_of_the_cache_finds_nothing_wrong_and_shows_both_replays(tmp_path: Path) -> None:
    done = run("cache.py", ROOT / "fixtures" / "logs" / "normalised", "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert [row["what"].split(",")[0] for row in result["rows"]] == ["threads"] * 2 + [
        "first replay",
        "repeated replay",
    ]
    assert all(mark["holds"] for mark in result["marks"])


def test_the_benchmarks_of_deltas_find_them_exact(tmp_path: Path) -> None:
    for script, paths in (("diff.py", [ROOT / "fixtures" / "logs" / "pi"]), ("diff_trust.py", [])):
        done = run(script, *paths, "--quick", "--json", tmp_path / "result.json")
        assert done.returncode == 0, done.stderr
        marks = json.loads((tmp_path / "result.json").read_text())["marks"]
        exact = [mark for mark in marks if mark["name"].startswith(("exact", "round trips", "chains", "damaged"))]
        assert exact
        assert all(mark["holds"] for mark in exact)


def test_the_benchmarks_of_loading_report_misses_beside_savings(tmp_path: Path) -> None:
    for script, logs, columns in (
        ("overhead_share.py", "normalised", {"of_head", "miss"}),
        ("session_loading.py", "normalised", {"saved", "miss"}),
        ("preload.py", "crewai", {"hit", "cover", "hidden"}),
    ):
        done = run(script, ROOT / "fixtures" / "logs" / logs, "--quick", "--json", tmp_path / "result.json")
        assert done.returncode == 0, done.stderr
        assert columns <= json.loads((tmp_path / "result.json").read_text())["rows"][0].keys()


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


def test_telemetry_loses_no_event_uncounted_and_the_doctor_finds_every_flip(tmp_path: Path) -> None:
    done = run("telemetry.py", "--quick", "--count", "20", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    marks = {mark["name"]: mark for mark in json.loads((tmp_path / "result.json").read_text())["marks"]}
    assert marks["events neither written nor counted"]["value"] == 0
    assert marks["flipped bits that the doctor finds"]["value"] == 100


def test_each_fault_is_answered_and_none_by_an_error_that_is_not_ours(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    done = run("faults.py", "--quick", "--json", tmp_path / "result.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert [mark["value"] for mark in result["marks"] if mark["name"].startswith("answers that are neither")] == [0]
    answers = {(row["where"], row["fault"]): row["answer"] for row in result["rows"]}
    assert answers["session", "none"] == answers["serve", "none"] == "valid"
    assert answers["session", "planner raises"] == answers["session", "originals locked"] == "degraded"
    assert answers["session", "planner raises, budget used up"] == "refused"
    assert answers["serve", "ledger locked, default wait"] == "503 StoreError"
