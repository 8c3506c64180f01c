from __future__ import annotations

import io
import json
import sys

import pytest

from apportion.planner.doors.cli._stdin import watching_standard_input


def read_all(data: bytes, *, step: int) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(data))
    before, sys.stdin = sys.stdin, stdin
    try:
        with watching_standard_input(["-"]):
            while sys.stdin.buffer.read(step):
                pass
        assert sys.stdin is stdin
    finally:
        sys.stdin = before


def claude(*sessions: str) -> bytes:
    return "\n".join(json.dumps({"type": "user", "sessionId": name, "cwd": "/x"}) for name in sessions).encode()


def codex(*sessions: str) -> bytes:
    lines = ({"type": "session_meta", "payload": {"id": name, "cwd": "/x"}} for name in sessions)
    return "\n".join(map(json.dumps, lines)).encode()


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("data", [claude("one", "two", "one"), codex("one", "two")])
def test_several_sessions_through_standard_input_are_told(
    data: bytes, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    read_all(data, step=step)
    assert capsys.readouterr().err == (
        "warning: standard input holds 2 session ids and is read as one log; if it is several, give their files as "
        "paths\n"
    )


@pytest.mark.parametrize(
    "data", [b"", claude("one", "one"), codex("one"), claude("one") + json.dumps(claude("two").decode()).encode()]
)
def test_a_single_session_needs_no_words(data: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    read_all(data, step=64)
    assert capsys.readouterr().err == ""


def test_standard_input_that_is_not_read_is_left_alone() -> None:
    before = sys.stdin
    with watching_standard_input(["log.jsonl"]):
        assert sys.stdin is before
