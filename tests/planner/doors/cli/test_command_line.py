"""The command line as a whole: every command has examples and JSON, codes are as documented, shells complete it."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.planner.doors.cli.conftest import Answer

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")

WITHOUT_JSON = {"apportion expand", "apportion handoff", "apportion serve"} | {
    f"apportion claude-code {name}" for name in ("path", "install", "off", "on")
}
"""Commands whose output is the content itself, or that report nothing; docs/cli.md says so."""


def reference() -> Any:
    spec = importlib.util.spec_from_file_location("update_cli", ROOT / "docs" / "update_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "docs"))  # as for a script
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


COMMANDS = dict(reference().commands())


def test_the_page_shows_the_help_as_it_is() -> None:
    assert reference().renewed(PAGE) == PAGE, "run `make docs`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_names_it(name: str) -> None:
    text = COMMANDS[name].help
    assert re.search(r"Examples?:", text), name
    assert re.search(rf"{name}\b", text), name


def test_every_command_that_reports_has_json() -> None:
    options = {name: {word for each in command.params for word in each.opts} for name, command in COMMANDS.items()}
    without = {name for name, words in options.items() if "--json" not in words}
    assert without == WITHOUT_JSON


def test_every_code_that_a_help_names_is_in_the_table_and_every_number_there_is_used() -> None:
    table = set(re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE))
    texts = [command.help for command in COMMANDS.values()] + re.findall(r"Exit codes: [^\n]*", PAGE)
    named = {code for text in texts for found in re.findall(r"Exit codes?: (.*?)(?:\n\n|$)", text, re.DOTALL)
             for code in re.findall(r"(?:^|; |\n)\s*(\d+) ", found)}  # fmt: skip
    assert named
    assert named <= table
    assert table - named <= {"130", "143"}  # those of every command


def test_the_spellings_of_the_page_work_in_their_order(run: Callable[..., Answer]) -> None:
    block = PAGE.partition("## Switching optimisation on and off")[2].partition("```text\n")[2].partition("```")[0]
    lines = [shlex.split(line)[1:] for line in block.splitlines()]
    assert [line[:2] for line in lines] == [
        ["config", "set"], ["config", "set"], ["config", "set"], ["status", "--show-optimization"],
        ["optimization", "validate"],
    ]  # fmt: skip
    done = [run(*line).code for line in lines]
    assert done == [0, 0, 0, 0, 2]  # nothing has been recorded yet
    shown = run("config", "get", "token_optimization.target_reduction", "--json").json()
    assert (shown["value"], "apportion.toml" in shown["origin"]) == (0.5, True)


def test_settings_are_told_as_json_too(run: Callable[..., Answer]) -> None:
    told = run("config", "set", "replay.jobs", "3", "--json").json()
    assert (told["key"], told["changed"], told["in_effect"]["value"]) == ("replay.jobs", True, 3)
    files = run("config", "path", "--json").json()
    assert [(each["scope"], each["exists"]) for each in files] == [("project", True), ("user", False)]


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that can close a stream")
@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)])
def test_a_stream_that_is_closed_takes_nothing_and_does_no_harm(closed: str, code: int, place: Path) -> None:
    line = f"exec {shlex.quote(sys.executable)} -m apportion config path --json {closed}"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False, timeout=300, cwd=place)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("apportion what", "whatif"),
        ("apportion config s", "set show"),
        ("apportion status --show-o", "--show-optimization"),
        ("apportion config set token_optimization.e", "token_optimization.enabled"),
    ],
)
def test_bash_completes_commands_options_and_settings(line: str, completed: str, place: Path) -> None:
    program = place / "apportion"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m apportion "$@"\n')
    program.chmod(0o755)
    words = line.split()
    script = f"""
        eval "$(_APPORTION_COMPLETE=source_bash apportion)"
        COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
        _apportion_completion apportion
        echo "${{COMPREPLY[@]}}" | tr ' ' '\\n' | sort | xargs echo
    """
    environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    assert set(completed.split()) <= set(done.stdout.split())
    assert all(word.startswith(words[-1]) for word in done.stdout.split())
