from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from apportion.planner.doors.cli import app, main
from apportion.planner.doors.cli.config import as_text

if TYPE_CHECKING:
    from pathlib import Path

runner = CliRunner()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository as current folder, a user's folder of its own, no variables of ours."""
    for name in [name for name in os.environ if name.startswith("APPORTION_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = tmp_path / "repository"
    (root / ".git").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def run(*arguments: str) -> str:
    """Run a command in this process and return what it printed."""
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def spawn(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as users do."""
    code = "from apportion.planner.doors.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


WRITTEN = [("replay.jobs=3",), ("replay.jobs", "3"), ("--project", "replay.jobs=3")]
WRITTEN += [("replay.jobs", "=", "3"), ("replay.jobs=", "3"), ("replay.jobs", "=3")]


@pytest.mark.parametrize("arguments", WRITTEN)
def test_a_setting_is_written_with_or_without_an_equals_sign(project: Path, arguments: tuple[str, ...]) -> None:
    assert run("config", "set", *arguments) == f"wrote replay.jobs = 3 to {project / 'apportion.toml'}\n"
    assert (project / "apportion.toml").read_text() == "[replay]\njobs = 3\n"
    assert run("config", "get", "replay.jobs") == "3\n"


def test_the_spelling_of_the_documentation_works(project: Path) -> None:
    run("config", "set", "token_optimization.enabled=true")
    assert (project / "apportion.toml").read_text() == "[token_optimization]\nenabled = true\n"
    run("config", "set", "token_optimization.target_reduction=0.4")
    assert run("config", "get", "token_optimization.target_reduction") == "0.4\n"
    run("config", "set", "token_optimization.target_reduction=none")
    assert run("config", "get", "token_optimization.target_reduction") == "none\n"


def test_a_users_setting_goes_to_the_users_file(project: Path, tmp_path: Path) -> None:
    run("config", "set", "--user", "replay.jobs", "2")
    assert (tmp_path / "config" / "apportion" / "config.toml").read_text() == "[replay]\njobs = 2\n"
    assert not (project / "apportion.toml").exists()


def test_a_value_that_is_overridden_elsewhere_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPORTION_REPLAY__JOBS", "7")
    file = project / "apportion.toml"
    effect = "in effect: 7 (environment APPORTION_REPLAY__JOBS)"
    assert run("config", "set", "replay.jobs=3") == f"wrote replay.jobs = 3 to {file}; {effect}\n"
    assert run("config", "set", "replay.jobs=none") == f"removed replay.jobs from {file}; {effect}\n"
    assert run("config", "set", "replay.jobs=none") == f"replay.jobs is not in {file}: nothing to remove; {effect}\n"


def test_what_was_written_is_told_before_what_another_source_gets_wrong(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPORTION_REPLAY__JOBS", "many")
    done = spawn("config", "set", "replay.jobs=3")
    assert done.returncode == 2
    assert done.stdout == f"wrote replay.jobs = 3 to {project / 'apportion.toml'}\n"
    assert "error: setting 'replay.jobs' cannot be 'many' (environment APPORTION_REPLAY__JOBS)" in done.stderr
    assert "hint: Give a whole number from 1 to 1024, or none" in done.stderr


def test_show_lists_every_setting_and_its_origin(project: Path) -> None:
    run("config", "set", "replay.jobs=3")
    shown = run("config", "show", "--origin")
    assert f"(project file {project / 'apportion.toml'})" in shown
    assert "token_optimization.enabled = true   (default)" in shown
    assert "Processes that replay in parallel" in shown
    assert "(default)" not in run("config", "show")


def test_show_prints_json_for_programs(project: Path) -> None:
    assert json.loads(run("config", "show", "--json"))["replay.jobs"] is None
    with_origin = json.loads(run("config", "show", "--json", "--origin"))
    assert with_origin["replay.jobs"] == {"value": None, "origin": "default"}


def test_path_says_which_files_count(project: Path) -> None:
    lines = run("config", "path").splitlines()
    assert lines[0] == f"project: {project / 'apportion.toml'}   (does not exist)"
    run("config", "set", "replay.jobs=3")
    assert run("config", "path").splitlines()[0] == f"project: {project / 'apportion.toml'}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[replay]\njobs = \n", "not TOML: Invalid value (at line 2, column 8)"),
        ("[replay]\njbos = 1\n", "unknown setting 'replay.jbos'"),
        ("[replay]\njobs = 0\n", "setting 'replay.jobs' cannot be 0: input should be greater than or equal to 1"),
    ],
)
def test_path_flags_a_broken_file(project: Path, content: str, problem: str) -> None:
    (project / "apportion.toml").write_text(content)
    lines = run("config", "path").splitlines()
    assert lines[0] == f"project: {project / 'apportion.toml'}   (broken: {problem})"
    assert lines[1].endswith("(does not exist)")


def test_settings_fit_80_columns(project: Path) -> None:
    run("config", "set", "replay.jobs=3")
    for arguments in (("show",), ("show", "--origin")):
        lines = run("config", *arguments).splitlines()
        assert all(len(line) <= 80 for line in lines if str(project) not in line)
        assert "    Share of visible prompt tokens to save; unset means as much as pays for" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("config", "get", "replay.jbos"), "unknown setting 'replay.jbos'\nhint: Did you mean 'replay.jobs'?"),
        (("config", "get", "replay.zz"), "unknown setting 'replay.zz'\nhint: Known settings: replay.jobs"),
        (("config", "set", "replay.jobs=0"), "greater than or equal to 1"),
        (("config", "set", "token_optimization.enabled=maybe"), "hint: Give true or false"),
        (("config", "set", "replay.jobs", "-1"), "greater than or equal to 1"),
        (("config", "set", "--user", "replay.jobs", "-1"), "greater than or equal to 1"),
        (("config", "set", "replay.jobs=-1"), "greater than or equal to 1"),
        (("config", "set", "replay.jobs"), "no value given for replay.jobs"),
        (("config", "set", "replay.jobs", "="), "no value given for replay.jobs"),
        (("config", "set", "replay.jobs", "=", "1", "2"), "give the value once"),
        (("config", "set", "replay.jobs", "--usr", "1"), "No such option"),
        (("config", "set", "replay.jobs=1", "2"), "give the value once"),
        (("config", "bogus"), "No such command"),
        (("bogus",), "No such command"),
    ],
)
@pytest.mark.usefixtures("project")
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["apportion", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert message in printed.err
    assert printed.out == ""
    assert "Traceback" not in printed.err


@pytest.mark.usefixtures("project")
def test_a_file_that_cannot_be_written_is_told_without_a_traceback(project: Path) -> None:
    (project / "apportion.toml").mkdir()
    done = spawn("config", "set", "replay.jobs=1")
    assert done.returncode == 2
    assert "error: cannot write" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("project")
def test_a_reader_that_leaves_is_not_an_error_message() -> None:
    code = "from apportion.planner.doors.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "config", "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1
    process.stderr.close()


INTERRUPT = """
import signal, typer, time
from apportion.planner.doors import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
@cli.app.command()
def wait() -> None:
    print("ready", flush=True)
    time.sleep(60)
cli.main()
"""


@pytest.mark.usefixtures("project")
def test_control_c_ends_with_130_and_without_a_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPT, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _out, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_version_and_help_answer() -> None:
    assert run("--version") == run("-V") == f"apportion {version('apportion')}\n"
    shown = run("--help")
    assert all(command in shown for command in ("replay", "import", "status", "config"))
    for command in ("show", "get", "set", "path"):
        assert "Example" in run("config", command, "--help")


HEAVY = ("ortools", "sklearn", "pandas", "torch", "altair", "tiktoken", "pydantic_settings", "tomlkit", "numpy")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom apportion.planner.doors.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code, "--help"], check=True, capture_output=True, timeout=300)


@pytest.mark.parametrize(("value", "text"), [(None, "none"), (True, "true"), (False, "false"), (0.4, "0.4"), (3, "3")])
def test_values_are_written_as_they_are_read(value: object, text: str) -> None:
    assert as_text(value) == text
