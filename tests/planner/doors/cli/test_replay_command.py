"""`apportion replay`, run as users run it."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from apportion.planner.doors.cli import app, main
from apportion.planner.doors.cli._common import HURRY_S, STOPPING, Interrupts
from apportion.planner.doors.cli.replay import MOST_JOBS, MOST_TOKENS, MOST_USD
from apportion.planner.replay.baselines import BASELINES
from apportion.records import Budget
from apportion.settings import parse_value

if TYPE_CHECKING:
    from collections.abc import Callable

posix = pytest.mark.skipif(os.name == "nt", reason="pipes, devices and signals are those of POSIX")


def write_log(path: Path, *workflows: str, steps: int = 6, size: int = 1) -> Path:
    """Write a log of normalised events in which user and model take turns."""
    events = []
    for name in workflows:
        for step in range(steps):
            event: dict[str, Any] = {"workflow_id": name, "source": "tests", "framework": "handmade", "agent": "main"}
            event |= {"agent_run": "main", "step": step, "kind": "user", "content": f"question {step} " * size}
            if step % 2:
                usage = {"input": 1000, "cache_read": 50, "output": 7}
                event |= {"kind": "assistant", "call": step // 2, "model": "claude-sonnet-4-5", "usage": usage}
            events.append(json.dumps(event))
    path.write_text("\n".join(events) + "\n")
    return path


@pytest.fixture
def log(place: Path) -> Path:
    return write_log(place / "log.jsonl", "a", "b")


class Answer:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Replays in this process."""

    def command(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["apportion", "replay", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Answer(int(ended.value.code or 0), printed.out, printed.err)

    return command


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Start a replay as the leader of a group of processes, as a shell does, with Ctrl-C in force."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'apportion';"
        "from apportion.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, "replay", *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen(command, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str]) -> Answer:
    """Wait until the process and all that it started have closed their outputs."""
    out, err = process.communicate(timeout=300)
    return Answer(process.returncode, out or "", err or "")


def spawn(*arguments: str | Path, **options: Any) -> Answer:
    return finish(start(*arguments, **options))


# ------------------------------------------------------------------ outputs


def test_content_is_shown_and_originals_are_kept_only_where_that_is_asked_for(
    run: Callable[..., Answer], place: Path
) -> None:
    logs = Path(__file__).parents[4] / "fixtures" / "logs" / "pi"
    assert run(logs, "--json", "private.json", "--quiet").code == 0
    assert run(logs, "--json", "open.json", "--show-content", "--keep-originals", "--quiet").code == 0
    private, shown = (json.loads((place / name).read_text())["left_out"] for name in ("private.json", "open.json"))
    assert [row["tokens"] for row in private] == [row["tokens"] for row in shown]
    assert {(row["head"], row["handle"]) for row in private} == {(None, None)}
    for row in shown[:3]:
        given = CliRunner().invoke(app, ["expand", row["handle"]])
        assert given.exit_code == 0
        assert given.stdout.startswith(row["head"])


def test_the_files_that_were_written_are_told_on_standard_error(run: Callable[..., Answer], log: Path) -> None:
    answer = run(log, "--json", "report.json", "--html", "report.html")
    assert answer.code == 0
    assert answer.err == "wrote report.json, report.html\n"
    assert answer.out.startswith("2 workflows, 6 calls")
    assert json.loads(Path("report.json").read_text())["workflows"] == 2
    assert Path("report.html").read_text().startswith("<!doctype html>")
    assert run(log, "--json", "report.json", "--quiet").err == ""


def test_json_on_standard_output_stands_alone(run: Callable[..., Answer], log: Path) -> None:
    answer = run(log, "--json", "-")
    assert json.loads(answer.out)["calls"] == 6
    assert answer.err == ""


def test_html_on_standard_output_is_refused(run: Callable[..., Answer], log: Path) -> None:
    answer = run(log, "--html", "-")
    assert answer.code == 2
    assert answer.err == "error: --html cannot print to standard output\nhint: Name a file: --html report.html\n"
    assert not Path("-").exists()


@posix
def test_a_named_pipe_is_written_into(run: Callable[..., Answer], log: Path, place: Path) -> None:
    os.mkfifo(place / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((place / "pipe").read_text()), daemon=True)
    reader.start()
    assert run(log, "--json", "pipe").code == 0
    reader.join(30)
    assert json.loads(read[0])["workflows"] == 2
    assert stat.S_ISFIFO((place / "pipe").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_what_cannot_be_written_is_told_and_does_not_keep_the_rest_from_being_written(
    run: Callable[..., Answer], log: Path
) -> None:
    answer = run(log, "--json", "/dev/full", "--html", "report.html")
    assert answer.code == 2
    assert answer.err == "wrote report.html\nerror: /dev/full: cannot write: No space left on device\n"
    assert answer.out.startswith("2 workflows")
    assert Path("report.html").exists()
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="there is no /dev/stdout")
def test_standard_output_may_be_named_as_a_device(log: Path, place: Path) -> None:
    answer = spawn(log, "--json", "/dev/stdout")
    assert json.loads(answer.out)["workflows"] == 2
    with (place / "out.txt").open("w") as out:
        assert spawn(log, "--json", "/dev/stdout", stdout=out).code == 0
    assert json.loads((place / "out.txt").read_text())["workflows"] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_standard_output_does_not_keep_the_files_from_being_written(log: Path) -> None:
    with Path("/dev/full").open("w") as full:
        answer = spawn(log, "--json", "report.json", stdout=full)
    assert answer.code == 2
    assert answer.err == "wrote report.json\nerror: cannot write to standard output: No space left on device\n"
    assert json.loads(Path("report.json").read_text())["workflows"] == 2


@posix
def test_a_reader_that_leaves_does_not_keep_the_files_from_being_written(log: Path) -> None:
    process = start(log, "--json", "report.json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == "wrote report.json\n"
    process.stderr.close()
    assert process.wait(60) == 1
    assert json.loads(Path("report.json").read_text())["workflows"] == 2


# ------------------------------------------------------------------ outputs that are refused before the work


@pytest.mark.parametrize("given", ["log.jsonl", ".", "*.jsonl", "link.jsonl", "folder"])
@pytest.mark.parametrize("name", ["log.jsonl", "./log.jsonl", "link.jsonl"])
def test_a_log_is_never_overwritten(run: Callable[..., Answer], log: Path, place: Path, given: str, name: str) -> None:
    (place / "link.jsonl").symlink_to(log)
    (place / "folder").symlink_to(place)
    before = log.read_text()
    for option in ("--json", "--html"):
        answer = run(given, option, name)
        assert answer.code == 2
        assert f"error: {name.removeprefix('./')}: {option} would overwrite" in answer.err.replace("./", "")
        assert answer.out == ""
    assert log.read_text() == before


def test_the_log_on_standard_input_is_never_overwritten(log: Path) -> None:
    before = log.read_text()
    with log.open() as stdin:
        answer = spawn("-", "--json", log, stdin=stdin)
    assert answer.code == 2
    assert "--json would overwrite what is read" in answer.err
    assert log.read_text() == before


def test_a_report_among_the_logs_may_be_written_again(run: Callable[..., Answer], log: Path) -> None:
    for _ in range(2):
        assert run(log.parent, "--json", "report.json", "--html", "report.html").code == 0


def test_two_outputs_are_two_files(run: Callable[..., Answer], log: Path, place: Path) -> None:
    (place / "link").symlink_to(place / "one")
    for json_file, html_file in (("one", "one"), ("one", "./one"), ("one", "link"), ("link", str(place / "one"))):
        answer = run(log, "--json", json_file, "--html", html_file)
        assert answer.code == 2
        assert "--json and --html name the same file" in answer.err
    assert not (place / "one").exists()
    assert run(log, "--json", os.devnull, "--html", os.devnull).code == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/report.json", "error: missing: the directory does not exist\nhint: Create it first\n"),
        ("folder", "error: folder: is a directory\nhint: Name a file in it: folder/report.json\n"),
        ("", "error: --json needs the name of a file, not an empty one\nhint: Is a variable empty?\n"),
        ("log.jsonl/report.json", "error: log.jsonl/report.json: cannot be written: Not a directory\n"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    run: Callable[..., Answer], log: Path, place: Path, name: str, message: str
) -> None:
    (place / "folder").mkdir()
    answer = run(log, "--json", name)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == message


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_before_the_work(
    run: Callable[..., Answer], log: Path, place: Path
) -> None:
    (place / "mine").mkdir(mode=0o500)
    answer = run(log, "--json", "mine/report.json")
    assert (answer.code, answer.out) == (2, "")
    assert "cannot be written" in answer.err


# ------------------------------------------------------------------ arguments


def test_a_mistyped_path_beside_a_good_one_is_told_at_once(run: Callable[..., Answer], log: Path) -> None:
    answer = run(log, "/nope", "*.zip", "")
    assert answer.code == 0
    assert answer.err.splitlines() == [
        "warning: /nope: no such file or directory",
        "warning: *.zip: the pattern matches nothing",
        "warning: '': an empty path was given",
    ]


@pytest.mark.parametrize(
    ("path", "message", "hint"),
    [
        ("/nope", "(/nope: no such file or directory)", "Check the path"),
        ("", "('': an empty path was given)", "Is a variable of the shell empty?"),
        ("folder", "(folder: the directory holds no files)", "Give a directory that holds logs"),
        ("notes.txt", "(notes.txt: no importer recognises the content)", "Supported logs: AG2"),
    ],
)
def test_where_there_is_nothing_to_replay_the_next_step_is_told(
    run: Callable[..., Answer], place: Path, path: str, message: str, hint: str
) -> None:
    (place / "folder").mkdir()
    (place / "notes.txt").write_text("just words\n")
    answer = run(path)
    assert answer.code == 2
    assert answer.err.startswith(f"error: nothing to replay {message}\nhint: {hint}")
    assert answer.err.count("\n") == 2


def test_an_empty_standard_input_is_told(place: Path) -> None:
    answer = spawn("-", stdin=subprocess.DEVNULL, cwd=place)
    assert answer.code == 2
    assert "hint: Nothing came through standard input: pipe a log into it" in answer.err


@pytest.mark.parametrize("option", ["--budget-tokens", "--budget-usd", "--target-reduction", "--jobs", "--limit"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e308", "-1", "99999999999999999999", "2X", ""])
def test_a_wrong_number_is_one_message_before_anything_is_read(
    run: Callable[..., Answer], option: str, value: str
) -> None:
    answer = run("/nope", option, value)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"error: {option} must be ")
    assert answer.err.count("\n") <= 2


def test_the_greatest_numbers_that_are_taken_are_those_of_the_records(run: Callable[..., Answer], log: Path) -> None:
    assert Budget(max_tokens=MOST_TOKENS, max_usd=MOST_USD).max_tokens == MOST_TOKENS
    for wrong in ({"max_tokens": MOST_TOKENS + 1}, {"max_usd": MOST_USD * 1.001}):
        with pytest.raises(ValueError, match="less than or equal"):
            Budget.model_validate(wrong)
    assert parse_value("replay.jobs", str(MOST_JOBS)) == MOST_JOBS
    assert run(log, "--budget-tokens", MOST_TOKENS, "--budget-usd", MOST_USD, "--limit", 10**9).code == 0


@pytest.mark.parametrize(
    ("environment", "options", "ignored"),
    [
        ({}, (), ""),
        ({}, ("--target-reduction", "0.5"), "; --target-reduction is ignored"),
        (
            {"APPORTION_TOKEN_OPTIMIZATION__TARGET_REDUCTION": "0.5"},
            (),
            "; token_optimization.target_reduction is ignored",
        ),
    ],
)
def test_planning_that_is_switched_off_is_told_with_its_origin(
    run: Callable[..., Answer],
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    options: tuple[str, ...],
    ignored: str,
) -> None:
    monkeypatch.setenv("APPORTION_TOKEN_OPTIMIZATION__ENABLED", "false")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    answer = run(log, "--json", "-", *options)
    place = "environment APPORTION_TOKEN_OPTIMIZATION__ENABLED"
    note = f"note: planning is switched off by {place}; every prompt is counted as it was{ignored}\n"
    assert answer.err == note
    ledger = json.loads(answer.out)["ledgers"]["visible_tokens"]
    assert ledger["planned"] == ledger["baseline"]


# ------------------------------------------------------------------ Ctrl-C and requests to end


def ctrl_c(process: subprocess.Popen[str]) -> None:
    """Send what a terminal sends: an interrupt to the whole group."""
    os.killpg(process.pid, signal.SIGINT)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def workers(process: subprocess.Popen[str]) -> int:
    """How many processes run that a replay has started, without the one that looks after semaphores."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sum(b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)


NOTHING_DONE = "interrupted before the first workflow was done; no report was written\n"


@posix
def test_ctrl_c_while_logs_are_looked_for_leaves_no_report(place: Path) -> None:
    os.mkfifo(place / "pipe")
    process = start("pipe", "--json", "report.json")
    writer = os.open(place / "pipe", os.O_WRONLY)  # waits until the replay reads
    time.sleep(0.05)
    ctrl_c(process)
    answer = finish(process)
    os.close(writer)
    assert (answer.code, answer.out, answer.err) == (130, "", NOTHING_DONE)
    assert not Path("report.json").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="worker processes are found in /proc")
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.4])
def test_ctrl_c_while_workers_start_shows_no_traceback_and_leaves_no_report(place: Path, delay: float) -> None:
    log = write_log(place / "long.jsonl", "a", "b", steps=4000, size=200)
    process = start(log, "--jobs", "2", "--json", "report.json")
    wait_for(lambda: workers(process) > 0)
    time.sleep(delay)
    ctrl_c(process)
    answer = finish(process)
    assert (answer.code, answer.out, answer.err) == (130, "", NOTHING_DONE)
    assert not Path("report.json").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="worker processes are found in /proc")
def test_a_request_to_end_ends_the_workers_too(place: Path) -> None:
    log = write_log(place / "long.jsonl", "a", "b", steps=4000, size=200)
    process = start(log, "--jobs", "2", "--json", "report.json")
    wait_for(lambda: workers(process) > 0)
    process.terminate()
    answer = finish(process)  # all have closed their outputs
    assert (answer.code, answer.out, answer.err) == (143, "", "")
    assert not Path("report.json").exists()


@posix
def test_ctrl_c_while_files_are_written_says_what_is_missing(log: Path, place: Path) -> None:
    os.mkfifo(place / "pipe")
    process = start(log, "--json", "report.json", "--html", "pipe")  # waits for a reader that never comes
    wait_for(Path("report.json").exists)
    time.sleep(0.1)
    ctrl_c(process)
    answer = finish(process)
    assert answer.code == 130
    assert answer.err == "interrupted; wrote report.json; not written: pipe\n"
    assert json.loads(Path("report.json").read_text())["workflows"] == 2


@posix
def test_ctrl_c_between_workflows_leaves_a_partial_report(place: Path) -> None:
    for number in range(60):
        write_log(place / f"{number}.jsonl", f"w{number}", steps=400, size=40)
    terminal, end = os.openpty()  # there the progress is shown
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    process = start(".", "--jobs", "1", "--json", "report.json", stderr=end, env=environment)
    os.close(end)
    shown = b""
    while not re.search(rb"[1-9]\d* workflows", shown):
        shown += os.read(terminal, 4096)
    for _ in range(4):  # an impatient user
        ctrl_c(process)
        time.sleep(0.02)
    answer = finish(process)
    shown += os.read(terminal, 65536)
    os.close(terminal)
    assert answer.code == 130
    assert shown.count(STOPPING.encode()) == 1
    assert "PARTIAL REPORT" in answer.out
    report = json.loads(Path("report.json").read_text())
    assert not report["complete"]
    assert 1 <= report["workflows"] < 60


def test_quick_presses_of_ctrl_c_count_as_one_and_a_later_one_gives_up(capfd: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    interrupts = Interrupts(timer=lambda: now)
    interrupts.reportable = True
    with pytest.raises(KeyboardInterrupt):
        interrupts.press()
    assert capfd.readouterr().err == f"{STOPPING}\n"
    now += 0.9 * HURRY_S
    interrupts.press()
    now += 0.2 * HURRY_S
    with pytest.raises(KeyboardInterrupt):
        interrupts.press()
    assert capfd.readouterr().err == ""


def test_ctrl_c_with_nothing_to_report_promises_no_report(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        Interrupts(timer=lambda: 100.0).press()
    assert capfd.readouterr().err == ""


# ------------------------------------------------------------------ help


COMMANDS = [(), ("replay",), ("import",), ("status",), ("config",), ("diff",), ("handoff",)]
COMMANDS += [("config", name) for name in ("show", "get", "set", "path")]
COMMANDS += [("train",), ("models",), *(("models", name) for name in ("list", "show", "evaluate"))]


def help_on(*command: str) -> str:
    """Return what a command says about itself on a terminal of 80 columns."""
    shown = CliRunner().invoke(app, [*command, "--help"], prog_name="apportion", env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    return shown.stdout


def test_the_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "apportion", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout == f"apportion {version('apportion')}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_nothing_is_cut_off(command: tuple[str, ...]) -> None:
    lines = help_on(*command).splitlines()
    assert lines[0].startswith("Usage: apportion")
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines[1:] if line.endswith(("...", "…"))]


def test_help_says_what_the_options_need_and_show() -> None:
    text = " ".join(help_on("replay").split())
    assert "needs the extra 'report'" in text
    assert "- reads one log from standard input" in text
    assert "and every skipped file and line" in text
    text = " ".join(help_on("import").split())
    assert "from which `train` learns and of which `status` tells" in text


def test_baselines_are_replayed_beside_the_plan(run: Callable[..., Answer], log: Path, place: Path) -> None:
    done = run(log, "--against", "rule-a", "--against", "equal-split", "--against", "rule-a", "--json", "r.json")
    assert done.code == 0
    assert "rule-a" in done.out
    assert "nothing to split" in " ".join(done.out.split())
    report = json.loads((place / "r.json").read_text())
    assert [row["name"] for row in report["against"]] == ["rule-a", "equal-split"]
    assert report["against"][0]["ledgers"]["visible_tokens"]["baseline"] > 0
    assert [row["source"] for row in report["against"][0]["per_source"]] == ["tests"]


def test_an_unknown_baseline_is_refused_before_anything_is_read(run: Callable[..., Answer], log: Path) -> None:
    refused = run(log, "--against", "rule-b")
    assert refused.code == 2
    assert "no baseline is called 'rule-b'" in refused.err
    assert all(name in refused.err for name in BASELINES)


def test_help_names_every_baseline(run: Callable[..., Answer]) -> None:
    shown = run("--help").out
    assert all(name in shown for name in BASELINES)
