"""`apportion compress`, `expand` and `inspect`, run as users run them."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.compression.cache.sqlite_level import SqliteLevel
from apportion.compression.pipeline import Lossless, restore
from apportion.compression.strategies.types import Item, Outcome, Query
from apportion.planner.doors.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = Path(__file__).parents[4] / "fixtures" / "content"
JSON_FILE = CONTENT / "json-taubench-airline.txt"
LITERAL = base64.b64encode(bytes(range(256)) * 8)
HOLDS_LITERAL = b"first line\n" + LITERAL + b"\nlast line\xff\x00\n"


class Answer:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Answer]:
    assert place.is_dir()

    def command(*arguments: str | Path, stdin: bytes = b"") -> Answer:
        monkeypatch.setattr(sys, "argv", ["apportion", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsysbinary.readouterr()
        return Answer(int(ended.value.code or 0), printed.out, printed.err.decode())

    return command


def test_the_default_loses_nothing_and_says_what_it_saved(run: Callable[..., Answer]) -> None:
    answer = run("compress", JSON_FILE)
    assert answer.code == 0
    original = JSON_FILE.read_bytes()
    outcome = Lossless().execute(Item(original), None, Query())
    assert answer.out == outcome.content
    made = Outcome(answer.out, original, outcome.tokens, outcome.original_tokens, outcome.steps)
    assert restore(made, [Lossless()]) == original
    assert f"tokens: {outcome.original_tokens:,} before, {outcome.tokens:,} after" in answer.err
    assert f"steps:  {', '.join(outcome.steps)}" in answer.err
    assert "facts:  " in answer.err


@pytest.mark.parametrize("content", [b"", b"\xff\x00 binary \r\n", b"short"])
def test_what_cannot_be_made_shorter_is_written_as_it_is(run: Callable[..., Answer], content: bytes) -> None:
    answer = run("compress", "-", stdin=content)
    assert (answer.code, answer.out) == (0, content)
    assert "none: the original was written" in answer.err


def test_parts_are_left_out_only_for_readers_that_can_expand(run: Callable[..., Answer], place: Path) -> None:
    answer = run("compress", "-", "--strategy", "literals", stdin=HOLDS_LITERAL)
    assert answer.out == HOLDS_LITERAL
    assert "the receiver cannot expand" in answer.err
    assert not (place / "data").exists()


@pytest.mark.parametrize("named", [True, False])
def test_what_was_left_out_comes_back_by_its_handle(run: Callable[..., Answer], place: Path, named: bool) -> None:  # noqa: FBT001
    store = place / "new" / "originals"
    given = ["--store", store] if named else []
    answer = run(
        "compress", "-", *(given or ["--can-expand"]), "--strategy", "literals", "--strategy", "lossless",
        stdin=HOLDS_LITERAL,
    )  # fmt: skip
    assert answer.code == 0
    assert len(answer.out) < 200
    handle = answer.out.decode("utf-8", "replace").partition("expand ")[2].partition("]")[0]
    assert f"back:   apportion expand {handle}" in answer.err
    assert run("expand", handle, *given).out == LITERAL
    assert run("expand", handle.removeprefix("h:"), "b10-20", *given).out == LITERAL[10:20]
    assert run("expand", handle, "1", "--output", place / "part", *given).out == b""
    assert (place / "part").read_bytes() == LITERAL
    file = store if named else place / "data" / "apportion" / "apportion.db.originals"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("options", [["--strategy", "extractive"], ["--level", "recoverable_90"]])
def test_every_marker_that_is_printed_can_be_given_to_expand(run: Callable[..., Answer], options: list[str]) -> None:
    text = "".join(
        f"Record {number}: the value is {number % 3}. It was read twice.\n" for number in range(200)
    ).encode()
    data = run("compress", "-", "--json", "--store", "o", *options, stdin=text).json()
    assert data["left_out"]
    handle, _, first = data["content"].partition("expand ")[2].partition("]")[0].partition(" ")
    assert handle == data["handles"][0]
    nonce = data["content"].partition("expand ")[0].rpartition("[")[2].partition(":")[0]
    ranges = [
        first,
        *re.findall(rf"\[{nonce}: (?:lines? )?(b?[0-9-]+)(?: left out)?\]", data["content"]),
    ]
    parts = [run("expand", handle, each, "--store", "o").out for each in ranges]
    assert len(parts) == len(data["left_out"])
    position = 0
    for part in parts:
        assert part
        position = text.index(part, position) + len(part)
    visible = run("expand", handle, "--store", "o").out
    assert visible == text


def test_json_tells_everything_and_holds_the_form(run: Callable[..., Answer], place: Path) -> None:
    data = run("compress", JSON_FILE, "--json").json()
    assert data["schema"] == "apportion.compression/1"
    assert data["content"].encode() == run("compress", JSON_FILE).out
    assert data["facts"]["back"] == "restored"
    assert (data["store"], data["handles"], data["left_out"]) == (None, [], [])
    data = run("compress", "-", "--json", "--store", "o", "--strategy", "literals", stdin=HOLDS_LITERAL).json()
    assert base64.b64decode(data["content_base64"]).endswith(b"last line\xff\x00\n")
    assert (data["store"], len(data["handles"])) == ("o", 1)
    answer = run("compress", JSON_FILE, "--json", "--output", "form")
    assert "content" not in answer.json()
    assert (place / "form").read_bytes() == run("compress", JSON_FILE).out


def test_the_task_and_the_target_reach_the_strategy(
    run: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int | None, bool, str | None]] = []

    class Noting(Lossless):
        def execute(self, item: Item, target_tokens: int | None, query: Query) -> Outcome:
            seen.append((query.task, target_tokens, query.can_expand, item.name))
            return super().execute(item, target_tokens, query)

    known = ({"lossless": Noting()}, ())
    monkeypatch.setattr("apportion.compression.pipeline.load_strategies", lambda _store=None: known)
    for command in ("compress", "inspect"):
        run(command, JSON_FILE, "--query", "find flights", "--target-tokens", "100", "--can-expand")
        run(command, "-", stdin=b"x")
    assert seen == [("find flights", 100, True, JSON_FILE.name), ("", None, False, None)] * 2


def test_a_target_that_is_not_reached_is_told(run: Callable[..., Answer]) -> None:
    assert "above the target of 100 tokens" in run("compress", JSON_FILE, "--target-tokens", "100").err
    assert "above the target" not in run("compress", JSON_FILE, "--target-tokens", "300").err


def test_strategies_are_listed_with_what_they_do(run: Callable[..., Answer]) -> None:
    for command in ("compress", "inspect"):
        answer = run(command, "--list")
        assert answer.code == 0
        names = [line.split()[0] for line in answer.out.decode().splitlines() if line]
        assert {"lossless", "literals", "json_columns", "levels:"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strategy", "loseless"], "Did you mean 'lossless'"),
        (["--strategy", "\x1b[31mzzz"], "Installed: "),
        (["--level", "recoverable_9"], "there is no level 'recoverable_9'"),
        (["--level", "json_columns"], "Choose one of lossless, recoverable"),
        (["--strategy", "recoverable_9"], "Did you mean 'recoverable_9"),
        (["--level", "lossless", "--strategy", "literals"], "cannot both be given"),
        (["--target-tokens", "-1"], "--target-tokens must be from 0"),
        (["--target-tokens", "many"], "must be a whole number"),
    ],
)
@pytest.mark.parametrize("command", ["compress", "inspect"])
def test_a_wrong_option_is_told_with_what_may_have_been_meant(
    run: Callable[..., Answer], command: str, arguments: list[str], said: str
) -> None:
    answer = run(command, "-", *arguments, stdin=b"x")
    assert (answer.code, answer.out) == (2, b"")
    assert said in answer.err
    assert "\x1b[31mzzz" not in answer.err
    assert "Traceback" not in answer.err


def test_files_that_cannot_be_used_are_told_without_a_traceback(run: Callable[..., Answer], place: Path) -> None:
    (place / "folder").mkdir()
    (place / "file").write_text("text")
    (place / "no store").write_text("text")
    for arguments in (
        ["compress", "missing"],
        ["compress", "folder"],
        ["compress", "file", "--output", "file"],
        ["compress", "file", "--output", "missing/out"],
        ["compress", "file", "--store", "no store"],
        ["inspect", "missing"],
        ["inspect", "file", "--html", "-"],
        ["inspect", "file", "--html", "file"],
        ["expand", "h:12345678"],
        ["expand", "h:12345678", "--store", "no store"],
    ):
        answer = run(*arguments)
        assert (answer.code, answer.out) == (2, b""), arguments
        assert answer.err.startswith("error: "), arguments
    assert (place / "file").read_text() == (place / "no store").read_text() == "text"


@pytest.mark.parametrize("text_range", ["9", "2-1", "b9-", "x"])
def test_a_range_with_nothing_in_it_is_told(run: Callable[..., Answer], text_range: str) -> None:
    out = run("compress", "-", "--store", "o", "--strategy", "literals", stdin=HOLDS_LITERAL).out
    handle = out.decode("utf-8", "replace").partition("expand ")[2].partition("]")[0]
    answer = run("expand", handle, text_range if text_range != "b9-" else "b9999-", "--store", "o")
    assert (answer.code, answer.out) == (2, b"")
    assert "hint: " in answer.err


def test_a_cache_answers_the_second_time(run: Callable[..., Answer], place: Path) -> None:
    first = run("compress", JSON_FILE, "--cache")
    second = run("compress", JSON_FILE, "--cache")
    assert first.out == second.out == run("compress", JSON_FILE).out
    assert first.err == second.err
    level = SqliteLevel(place / "data" / "apportion" / "apportion.db.cache")
    summary = level.summary()
    level.close(summary.last)
    assert (summary.runs, summary.total.misses, summary.total.second_hits) == (2, 1, 1)


def test_an_inspection_is_shown_in_the_terminal_as_json_and_as_a_page(run: Callable[..., Answer], place: Path) -> None:
    answer = run("inspect", JSON_FILE, "--lines", "4")
    assert answer.code == 0
    text = answer.out.decode()
    assert "facts:  51 of 51 visible word for word" in text
    assert max(map(len, text.splitlines())) <= 80
    data = run("inspect", "-", "--json", "--can-expand", "--strategy", "literals", stdin=HOLDS_LITERAL).json()
    assert (data["name"], data["steps"]) == ("standard input", ["literals"])
    answer = run("inspect", JSON_FILE, "--html", "page.html")
    assert (answer.code, answer.out, answer.err) == (0, b"", "wrote page.html\n")
    assert "HAT057" in (place / "page.html").read_text(encoding="utf-8")
    assert not (place / "data").exists()


@pytest.mark.parametrize("command", ["compress", "expand", "inspect"])
def test_help_teaches_with_examples(run: Callable[..., Answer], command: str) -> None:
    text = run(command, "--help").out.decode()
    assert f"apportion {command} " in text
    assert "Examples:" in text
    assert "Exit codes:" in text
    assert max(map(len, text.splitlines())) <= 80


def test_ctrl_c_while_standard_input_is_read_ends_without_a_traceback(place: Path) -> None:
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv = ['apportion', 'compress', '-']\n"
        "from apportion.planner.doors.cli import main, _compression\n"
        "read = _compression.read_content\n"
        "def announce(file):\n"
        "    print('ready', file=sys.stderr, flush=True)\n"
        "    return read(file)\n"
        "_compression.read_content = announce\n"
        "main()\n"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", script], cwd=place, **pipes) as run:  # type: ignore[call-overload]
        assert run.stderr is not None
        assert run.stderr.readline() == b"ready\n"
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=300) == 130
        assert b"Traceback" not in run.stderr.read()


def test_status_shows_the_hit_rate_and_the_originals(run: Callable[..., Answer], place: Path) -> None:
    assert run("status", "--json").json()["cache"] is None
    for _ in range(4):
        run("compress", JSON_FILE, "--cache")
    run("compress", "-", "--can-expand", "--strategy", "literals", stdin=HOLDS_LITERAL)
    status = run("status", "--json").json()
    assert (status["cache"]["entries"], status["cache"]["runs"], status["cache"]["asked"]) == (1, 4, 4)
    assert (status["cache"]["hit_ratio"], status["cache"]["last_hit_ratio"]) == (0.75, 1)
    assert status["originals"]["contents"] == 1
    assert status["originals"]["bytes"] == len(LITERAL)
    text = run("status").out.decode()
    assert "hit rate 75.0 % of 4 in the last 4 runs, 100 % in the last one" in text
    assert f"1 original, {len(LITERAL):,} bytes in " in text
    assert run("status").out.decode() == text  # looking is not asking


def test_status_shows_files_that_cannot_be_read_and_goes_on(run: Callable[..., Answer], place: Path) -> None:
    folder = place / "data" / "apportion"
    folder.mkdir(parents=True)
    for name in ("cache", "originals"):
        (folder / f"apportion.db.{name}").write_text("not a database")
    answer = run("status")
    assert answer.code == 0
    assert "is not a cache" in answer.out.decode()
    assert "is not a store of originals" in answer.out.decode()
