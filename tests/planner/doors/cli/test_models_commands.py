"""`apportion train` and `apportion models`, run as users run them."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from apportion.models import training
from apportion.planner.doors.cli._workflows import Workflows
from apportion.telemetry.events import WorkflowLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.planner.doors.cli.conftest import Answer


def write_log(path: Path, first: int, last: int) -> Path:
    """Write workflows in which plan, code and review follow each other, each reading and editing."""
    lines = []
    for number in range(first, last):
        about = {"workflow_id": f"w{number}", "source": "tests", "framework": "handmade", "model": "m"}
        for nth, agent in enumerate(["plan", "code", "review"]):
            run = {"agent": agent, "agent_run": f"r{nth}"}
            for call, tool in enumerate(["Read", "Edit"]):
                what = {"kind": "tool_call", "name": tool, "content": "{}", "call": 2 * nth + call}
                lines.append(json.dumps({**about, **run, **what, "step": 2 * nth + call}))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_training_from_the_store_saves_a_version_that_can_be_listed_and_shown(
    run: Callable[..., Answer], place: Path
) -> None:
    run("import", write_log(place / "log.jsonl", 0, 24))
    answer = run("train", "--report")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("trained version 0001-")
    assert "24 workflows" in answer.out
    assert "24 of them without texts" in answer.out
    assert "calibration" in answer.out
    folder = place / "data" / "apportion" / "apportion.db.models"
    (version,) = (path.name for path in folder.glob("0001-*"))
    listed = run("models", "list", "--json").json()
    assert (listed["folder"], listed["current"], listed["problem"]) == (str(folder), version, None)
    assert [each["version"] for each in listed["versions"]] == [version]
    assert f"in use: {version}" in run("models", "list").out
    shown = run("models", "show", "--json").json()
    assert shown["data"]["sources"] == {"tests": 24}
    assert [row["source"] for row in shown["metrics"]["next_agent"]] == ["all sources", "tests"]
    assert "100 %" in run("models", "show", version).out


def test_training_again_keeps_the_version_until_something_is_new(run: Callable[..., Answer], place: Path) -> None:
    run("import", write_log(place / "one.jsonl", 0, 20))
    first = run("train", "--json", "-").json()
    assert first["new"] is True
    again = run("train", "--json", "-").json()
    assert (again["new"], again["version"]) == (False, first["version"])
    assert run("train").out.startswith(f"nothing new: kept version {first['version']}")
    run("import", write_log(place / "two.jsonl", 20, 30))
    grown = run("train", "--json", "-").json()
    assert (grown["new"], grown["version"][:5], grown["data"]["workflows"]) == (True, "0002-", 30)
    forced = run("train", "--force", "--json", "-").json()
    assert (forced["new"], forced["version"][:5]) == (True, "0003-")


def test_a_version_can_be_named_by_the_beginning_of_its_name(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", 0, 12)
    for number in (1, 2):
        run("train", "--from", log, "--models", place / "m", "--force")
        assert run("models", "show", f"000{number}", "--models", place / "m").out.startswith(f"version 000{number}-")
    several = run("models", "show", "000", "--models", place / "m")
    names = sorted(path.name for path in (place / "m").glob("000*"))
    assert several.code == 2
    assert "2 versions of the models begin with '000'" in several.err
    assert " ".join(several.err.split()).endswith(f"hint: Give one of: {', '.join(names)}")
    assert "no version '7'" in run("models", "evaluate", "7", "--from", log, "--models", place / "m").err


def test_figures_of_demand_are_a_table_with_a_legend(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", 0, 12)
    run("train", "--from", log, "--models", place / "m")
    shown = run("models", "show", "--models", place / "m").out
    header = next(line for line in shown.splitlines() if line.startswith("Forecast"))
    assert header.split() == ["Forecast", "flows", "ples", "Loss", "Boosted"]
    (workflow,) = (line for line in shown.splitlines() if line.startswith("workflow "))
    assert workflow.split()[1:3] == ["12", "12"]
    assert workflow.split()[-1] == "no"
    assert "Loss: mean pinball loss" in shown
    judged = run("models", "evaluate", "--from", log, "--models", place / "m").out
    assert "Within 90 %: share within the 90 % interval" in judged
    assert "Boosted" not in judged
    told = [line for text in (shown, judged) for line in text.partition("\ndemand\n")[2].splitlines()]
    assert [line for line in told if len(line) > 80] == []


def test_whoever_gives_paths_to_train_is_told_how(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "a log.jsonl", 0, 1)
    given = run("train", log)
    assert given.code == 2
    assert f"apportion train --from '{log}'" in " ".join(given.err.split())
    assert "apportion train --from PATH" in run("train", "nowhere").err
    assert "Usage: apportion train [OPTIONS]\n" in run("train", "-h").out


def test_a_damaged_version_is_refused_and_trained_anew(run: Callable[..., Answer], place: Path) -> None:
    log = write_log(place / "log.jsonl", 0, 20)
    run("train", "--from", log, "--models", place / "m")
    (file,) = (place / "m").glob("*/next_agent.skops")
    file.write_bytes(file.read_bytes()[:-9])
    answer = run("models", "show", "--models", place / "m")
    assert answer.code == 2
    assert "is not the file that was saved" in answer.err
    assert "hint: Train again: apportion train" in answer.err
    assert run("train", "--from", log, "--models", place / "m").out.startswith("trained version 0002-")
    (place / "m" / "current").write_text("nonsense")
    assert "names no version" in run("models", "list", "--models", place / "m").out
    manifest = next((place / "m").glob("0001-*/manifest.json"))
    manifest.write_text("{}")
    listed = run("models", "list", "--models", place / "m")
    assert listed.code == 0
    assert "cannot be used: is no manifest of models" in listed.out
    assert "problem" in run("models", "list", "--models", place / "m", "--json").json()["versions"][0]


def test_an_evaluation_says_whether_the_workflows_are_the_learned_ones(run: Callable[..., Answer], place: Path) -> None:
    log, other = write_log(place / "log.jsonl", 0, 20), write_log(place / "other.jsonl", 50, 60)
    run("train", "--from", log, "--models", place / "m")
    same = run("models", "evaluate", "--from", log, "--models", place / "m")
    assert "It has learned from these very workflows" in same.out
    new = run("models", "evaluate", "--from", other, "--models", place / "m", "--json").json()
    assert (new["same_as_trained_on"], new["data"]["workflows"]) == (False, 10)
    assert new["metrics"]["next_agent"][1]["top_1"] == 1.0
    assert "learned from these very" not in run("models", "evaluate", "--from", other, "--models", place / "m").out


def test_a_store_can_be_named_as_a_path(run: Callable[..., Answer], place: Path) -> None:
    run("import", write_log(place / "log.jsonl", 0, 12), "--store", place / "s.db", "--capture-content")
    trained = run("train", "--from", place / "s.db", "--models", place / "m", "--json", place / "out.json")
    assert trained.code == 0, trained.err
    result = json.loads((place / "out.json").read_text())
    assert (result["data"]["workflows"], result["data"]["without_content"]) == (12, 0)
    mixed = run("train", "--from", place / "s.db", "--from", place / "log.jsonl")
    assert (mixed.code, "cannot be mixed" in mixed.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train",), "the telemetry store does not exist yet"),
        (("train", "--from", "-"), "standard input can be read only once"),
        (("train", "--from", "empty.jsonl"), "there is no workflow to learn from"),
        (("train", "--from", "nowhere.jsonl"), "no workflow to learn from (nowhere.jsonl: "),
        (("train", "--from", "log.jsonl", "--models", "empty.jsonl"), "models cannot be saved there: is no folder"),
        (("train", "--from", "log.jsonl", "--json", "log.jsonl"), "--json would overwrite what is read"),
        (("train", "--from", "log.jsonl", "--json", "none/x.json"), "the directory does not exist"),
        (("models", "show"), "no models were trained yet"),
        (("models", "show", "0001-00000000"), "there is no version '0001-00000000'"),
        (("models", "evaluate", "--from", "log.jsonl"), "no models were trained yet"),
    ],
)
def test_mistakes_are_told_with_a_hint_and_nothing_is_written(
    run: Callable[..., Answer], place: Path, arguments: tuple[str, ...], message: str
) -> None:
    write_log(place / "log.jsonl", 0, 2)
    (place / "empty.jsonl").write_text("\n")
    answer = run(*arguments)
    assert answer.code == 2
    assert message in answer.err
    assert "hint: " in answer.err
    assert not (place / "data").exists()


def test_a_version_in_use_that_is_missing_is_told(run: Callable[..., Answer], place: Path) -> None:
    (place / "m").mkdir()
    (place / "m" / "current").write_text("0009-deadbeef\n")
    assert "the version in use, 0009-deadbeef, is missing" in run("models", "list", "--models", place / "m").out
    listed = run("models", "list", "--models", place / "m", "--json").json()
    assert (listed["current"], listed["problem"]) == ("0009-deadbeef", "the version in use, 0009-deadbeef, is missing")


def test_what_is_skipped_is_told(run: Callable[..., Answer], place: Path) -> None:
    log, bad = write_log(place / "log.jsonl", 0, 12), place / "bad.jsonl"
    bad.write_text("not json\n")
    sources = ("--from", log, "--from", bad, "--models", place / "m")
    trained = run("train", *sources, "--json", place / "out.json")
    assert trained.code == 0, trained.err
    assert "skipped: 1 file, 0 lines; for example\n" in trained.out
    assert "bad.jsonl" in trained.out
    assert json.loads((place / "out.json").read_text())["skipped"]["files"] == 1
    assert run("models", "evaluate", *sources, "--json").json()["skipped"]["files"] == 1
    nothing = run("models", "evaluate", "--from", bad, "--models", place / "m")
    assert (nothing.code, "no workflow to forecast (bad.jsonl" in nothing.err.replace(f"{place}/", "")) == (2, True)


def test_an_interrupted_training_leaves_the_models_as_they_were(
    run: Callable[..., Answer], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_log(place / "log.jsonl", 0, 12)
    first = run("train", "--from", log, "--json", "-").json()

    def stopped(*_args: Any, **_options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", stopped)
    answer = run("train", "--from", log, "--force")
    assert (answer.code, answer.err) == (130, "interrupted; the models are as they were.\n")
    assert run("models", "list", "--json").json()["current"] == first["version"]


def test_the_folder_of_the_models_is_a_setting(
    run: Callable[..., Answer], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPORTION_TELEMETRY__MODELS_PATH", str(place / "elsewhere"))
    answer = run("train", "--from", write_log(place / "log.jsonl", 0, 8), "--quiet")
    assert (answer.code, answer.out) == (0, "")
    assert (place / "elsewhere" / "current").exists()


def test_help_shows_examples(run: Callable[..., Answer]) -> None:
    for command in (("train",), ("models", "list"), ("models", "show"), ("models", "evaluate"), ("models",)):
        assert "Example" in run(*command, "--help").out


def test_of_two_copies_of_a_workflow_the_fuller_one_is_learned_from(run: Callable[..., Answer], place: Path) -> None:
    whole = write_log(place / "b.jsonl", 0, 12)
    lines = whole.read_text().splitlines()
    (place / "a.jsonl").write_text("\n".join(lines[:2]) + "\n")  # the beginning of w0, and read first
    found = Workflows(place / "none.db", [str(place / "a.jsonl"), str(whole)])
    assert [(log.id, log.calls) for log in found if isinstance(log, WorkflowLog)][-1:] == [("w11", 6)]
    assert sorted(log.calls for log in found if isinstance(log, WorkflowLog)) == [6] * 12


def test_an_interrupt_that_compiled_code_turned_into_another_error_is_still_an_interrupt(
    run: Callable[..., Answer], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("import", write_log(place / "log.jsonl", 0, 12))

    def interrupted(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("not a valid buffer format string") from None

    monkeypatch.setattr(training, "train", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind a shell
    try:
        answer = run("train")
    finally:
        signal.signal(signal.SIGINT, before)
    assert answer.code == 130
    assert "the models are as they were" in answer.err
