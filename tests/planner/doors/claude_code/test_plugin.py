"""The plugin as Claude Code runs it: the shim as a process of its own, and the command lines as they stand in files."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.doors.cli.claude_code import PLUGIN, _shim, elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOOKS: dict[str, list[dict[str, Any]]] = json.loads((PLUGIN / "hooks" / "hooks.json").read_text("utf-8"))["hooks"]
COMMANDS = {file.stem: file.read_text("utf-8") for file in sorted((PLUGIN / "commands").glob("*.md"))}
ENTRY: dict[str, Any] = HOOKS["PostToolUse"][0]["hooks"][0]
SESSION = "50000000-1111-4111-8111-111111111111"
LONGEST_S = 60


def arguments(plugin: Path = PLUGIN) -> list[str]:
    """Return the command line of a hook, with the Python that runs the tests."""
    given = [each.replace("${CLAUDE_PLUGIN_ROOT}", str(plugin)) for each in ENTRY["args"]]
    assert (ENTRY["command"], given[:2]) == ("python3", ["-I", "-S"])
    return [sys.executable, *given]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment whose home and data are in a folder, where `apportion` is the one under test."""
    found = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder)}
    data, config = str(folder / "data"), str(folder / "config")
    found |= {"XDG_DATA_HOME": data, "XDG_CONFIG_HOME": config, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    return found | {"CLAUDE_CODE_SESSION_ID": SESSION, "AI_AGENT": "claude-code_2-1-330_harness"} | more


def shim(stdin: bytes, env: dict[str, str], plugin: Path = PLUGIN) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(arguments(plugin), input=stdin, env=env, capture_output=True, timeout=LONGEST_S, check=False)


def said_nothing(done: subprocess.CompletedProcess[bytes]) -> bool:
    """Say whether the client would go on as without us: it ended well, and answered nothing."""
    return (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("home")
    (made / "bin").mkdir()
    command = made / "bin" / "apportion"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m apportion "$@"\n', "utf-8")
    command.chmod(0o755)
    return made


@pytest.fixture(scope="module")
def up(folder: Path, recorded: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Return the environment of a client beside a planner that answers, started by the command, and warm."""
    pytest.importorskip("uvicorn", reason="needs the extra serve")
    command = [str(folder / "bin" / "apportion"), "serve", "--port", "0"]
    with subprocess.Popen(command, env=environment(folder), stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            process.stderr.readline()
            url = process.stderr.readline().split()[-1]
            patient = _shim()  # the first hook loads what answers it, which takes longer where others work too
            patient.__dict__["ANSWER_S"] = LONGEST_S
            token = (folder / "data" / "apportion" / "apportion.db.token").read_text("ascii").strip()
            body = sent(recorded, "PostToolUse_Bash", client_version="2.1.330", session_id="warm")
            assert patient.post("127.0.0.1", int(url.rpartition(":")[2]), token, body)
            yield environment(folder, CC_APPORTION_URL=url)
        finally:
            process.terminate()


def sent(recorded: dict[str, Any], name: str, **more: Any) -> bytes:
    return json.dumps({**recorded[name], "session_id": SESSION, **more}).encode()


def test_who_keeps_the_token_elsewhere_is_told_where_hooks_look_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC_APPORTION_TOKEN", raising=False)
    monkeypatch.delenv("CC_APPORTION_TOKEN_FILE", raising=False)
    note = elsewhere(tmp_path / "my.db.token")
    assert note is not None
    assert note.endswith(f"CC_APPORTION_TOKEN_FILE={tmp_path / 'my.db.token'}")
    monkeypatch.setenv("CC_APPORTION_TOKEN_FILE", str(tmp_path / "my.db.token"))
    assert elsewhere(tmp_path / "my.db.token") is None


# The shim, with a planner.


def test_with_the_planner_up_a_result_comes_back_shorter(up: dict[str, str], recorded: dict[str, Any]) -> None:
    done = shim(sent(recorded, "PostToolUse_Bash"), up)
    assert (done.returncode, done.stderr) == (0, b"")
    output = json.loads(done.stdout)["hookSpecificOutput"]["updatedToolOutput"]
    assert len(output["stdout"]) < len(recorded["PostToolUse_Bash"]["tool_response"]["stdout"]) / 2
    assert said_nothing(shim(sent(recorded, "PostToolUse_Bash", tool_name="Unknown"), up))


def test_every_hook_of_the_plugin_has_a_command_line_that_ends_well(
    up: dict[str, str], recorded: dict[str, Any]
) -> None:
    entries = [hook for groups in HOOKS.values() for group in groups for hook in group["hooks"]]
    assert all(entry == ENTRY for entry in entries), "the one command line that is run here"
    for name in recorded:
        done = shim(sent(recorded, name), up)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"" or isinstance(json.loads(done.stdout), dict)


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\n",
        b"null",
        b"[1]",
        b"{",
        b"{}",
        b"\xff\xfe\x00{",
        b'{"session_id": "s", "hook_event_name": 7}',
        b"{" * 100_000,
        b"{" + b" " * (8 * 2**20 + 1) + b"}",
    ],
    ids=["nothing", "a line", "null", "a list", "half", "empty", "bytes", "no name", "depth", "size"],
)
def test_what_is_no_hook_is_answered_with_nothing(given: bytes, up: dict[str, str]) -> None:
    assert said_nothing(shim(given, up))


def test_with_a_wrong_token_or_a_place_elsewhere_nothing_is_answered(
    up: dict[str, str], recorded: dict[str, Any]
) -> None:
    hook = sent(recorded, "PostToolUse_Bash")
    port = up["CC_APPORTION_URL"].rpartition(":")[2]
    for more in (
        {"CC_APPORTION_TOKEN": "not the token"},
        {"CC_APPORTION_TOKEN": "two\r\nlines"},
        {"CC_APPORTION_TOKEN_FILE": "/nowhere/token"},
        {"CC_APPORTION_URL": f"https://127.0.0.1:{port}"},
        {"CC_APPORTION_URL": f"http://192.0.2.1:{port}"},
        {"CC_APPORTION_URL": "http://127.0.0.1:port"},
        {"CC_APPORTION_URL": "http://127.0.0.1:99999"},
    ):
        assert said_nothing(shim(hook, up | more)), more
    assert shim(hook, up).stdout, "the control"


# The shim, with no planner or a strange one.


def test_with_the_planner_down_nothing_is_answered(tmp_path: Path, recorded: dict[str, Any]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens there
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        for more in ({}, {"CC_APPORTION_TOKEN": "a-token-for-this-test"}):
            env = environment(tmp_path, CC_APPORTION_URL=url, **more)
            assert said_nothing(shim(sent(recorded, "PostToolUse_Bash"), env))
            assert said_nothing(shim(sent(recorded, "SessionStart"), env))


def test_asked_to_it_starts_the_planner_at_the_beginning_of_a_session_only(
    tmp_path: Path, recorded: dict[str, Any]
) -> None:
    command = tmp_path / "bin" / "apportion"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/made" && mv "{tmp_path}/made" "{tmp_path}/told"\n', "utf-8")
    command.chmod(0o755)
    told = tmp_path / "told"
    env = environment(tmp_path, CC_APPORTION_START="1", CC_APPORTION_URL="http://127.0.0.1:9")
    assert said_nothing(shim(sent(recorded, "PostToolUse_Bash"), env))
    assert said_nothing(shim(b'{"hook_event_name":"SessionStart"}', env | {"CC_APPORTION_START": ""}))
    assert not told.exists()
    assert said_nothing(shim(b'{"hook_event_name":"SessionStart"}', env))
    for _ in range(LONGEST_S * 50):
        if told.exists():
            break
        time.sleep(0.02)
    assert told.read_text("utf-8") == "serve\n"


@contextmanager
def strange(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """Give the address of a server that takes one connection and does anything to it."""

    def serve() -> None:
        with suppress(OSError):
            line, _ = listener.accept()
            with line:
                answer(line)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(LONGEST_S)
    assert not thread.is_alive()


def reset(line: socket.socket) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answering(text: bytes) -> Callable[[socket.socket], object]:
    def answer(line: socket.socket) -> None:
        line.settimeout(LONGEST_S)
        got = b""
        while b"\r\n\r\n" not in got or not got.endswith(b"}"):
            got += line.recv(65_536)
        line.sendall(text)

    return answer


def hanging(line: socket.socket) -> None:
    line.settimeout(LONGEST_S)
    while line.recv(65_536):  # until the other side has enough of it
        pass


def dripping(line: socket.socket) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{")
    while True:
        line.sendall(b" ")
        time.sleep(0.05)


BODY = b'{"systemMessage":"hello"}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (answering(HEAD % len(BODY) + BODY), BODY),
        (answering(HEAD % len(BODY) + BODY[:-9]), b""),
        (answering(HEAD % 2 + b"no"), b""),
        (answering(b"HTTP/1.1 500 Oh no\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY), b""),
        (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), b""),
        (answering(b"\xff\xfe\x00" * 100), b""),
        (answering(b""), b""),
        (reset, b""),
        (hanging, b""),
        (dripping, b""),
    ],
    ids=["control", "half", "no JSON", "500", "chunked", "garbage", "closed", "reset", "hangs", "drips"],
)
def test_a_strange_planner_holds_nobody_up(
    server: Callable[[socket.socket], object], said: bytes, tmp_path: Path, recorded: dict[str, Any]
) -> None:
    text = (PLUGIN / "shim.py").read_text("utf-8")
    impatient, changed = re.subn(r"^ANSWER_S = [\d.]+", "ANSWER_S = 0.5", text, flags=re.MULTILINE)
    assert changed == 1
    (tmp_path / "shim.py").write_text(impatient, "utf-8")
    with strange(server) as url:
        env = environment(tmp_path, CC_APPORTION_URL=url, CC_APPORTION_TOKEN="a-token-for-this-test")  # noqa: S106
        done = shim(sent(recorded, "PostToolUse_Bash"), env, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, b"")


def test_the_shim_gives_up_before_the_client_gives_up_on_it() -> None:
    limits = dict(
        re.findall(r"^(CONNECT_S|ANSWER_S) = ([\d.]+)", (PLUGIN / "shim.py").read_text("utf-8"), re.MULTILINE)
    )
    assert float(limits["CONNECT_S"]) + float(limits["ANSWER_S"]) <= ENTRY["timeout"] - 0.5


# The slash commands.


def line_of(command: str) -> str:
    """Return the command line of a slash command, as it stands in its file, and check that it may run it."""
    (line,) = re.findall(r"^!`(.+)`$", COMMANDS[command], re.MULTILINE)
    (allowed,) = re.findall(r"^allowed-tools: Bash\((.+):\*\)$", COMMANDS[command], re.MULTILINE)
    assert line == allowed or line.startswith(f"{allowed} ")
    return str(line)


def typed(command: str, env: dict[str, str], given: str = "") -> subprocess.CompletedProcess[str]:
    line = line_of(command).replace("$ARGUMENTS", given)
    return subprocess.run(
        ["sh", "-c", line],
        env=env, capture_output=True, text=True, timeout=LONGEST_S, check=False,
    )  # fmt: skip


def test_the_slash_commands_do_what_they_say(up: dict[str, str], recorded: dict[str, Any]) -> None:
    assert set(COMMANDS) == {"status", "budget", "off", "on"}
    up = up | {"CLAUDE_CODE_SESSION_ID": "60000000-1111-4111-8111-111111111111"}
    hook = sent(recorded, "PostToolUse_Bash")
    steps = [
        ("budget", "200000", "budget: 200,000 tokens, 200,000 left"),
        ("status", "", "budget: 200,000 tokens, 200,000 left"),
        ("budget", "none", "budget: none"),
        ("off", "", "apportion is off: Claude Code works as without it"),
        ("status", "", "apportion is off"),
    ]
    for command, given, expected in steps:
        done = typed(command, up, given)
        assert (done.returncode, expected in done.stdout.splitlines()) == (0, True), (command, done)
    assert said_nothing(shim(hook, up))
    assert typed("on", up).stdout == "apportion is on\n"
    assert shim(hook, up).stdout, "switched on again"


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [("status", "", "the planner does not answer"), ("budget", "much", "'much' is no budget")],
)
def test_a_slash_command_that_cannot_do_it_says_what_to_do(command: str, given: str, said: str, folder: Path) -> None:
    done = typed(command, environment(folder, CC_APPORTION_URL="http://127.0.0.1:9"), given)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
