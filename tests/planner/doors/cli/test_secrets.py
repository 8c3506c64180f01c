"""Secrets in logs: whatever is imported, shown, examined or validated, none of them reaches a file or the screen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from apportion.telemetry.queue import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.planner.doors.cli.conftest import Answer


def write_log(path: Path, planted: list[str]) -> None:
    """Write workflows that hold the secrets in contents, names, models, links and what they say of themselves."""
    lines = []
    for number in range(0, len(planted), 10):
        some = planted[number : number + 10]
        about: dict[str, Any] = {
            "workflow_id": f"w{number}",
            "source": "tests",
            "framework": "handmade",
            "agent_run": "r",
        }
        about |= {"meta": {"note": some[0], "version": some[1]}, "outcome": {"result": some[2]}}
        for step, secret in enumerate(some):
            event: dict[str, Any] = {
                "step": step,
                "kind": "tool_call" if step % 2 else "user",
                "agent": f"for {secret}",
            }
            event |= {"content": f"use {secret} today", "name": secret, "link": secret, "model": secret}
            if step % 2:
                event |= {"call": step // 2, "usage": {"input": 100, "output": 7}}
            lines.append(json.dumps({**about, **event}))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("capture", ["--no-capture-content", "--capture-content"])
def test_no_planted_secret_of_a_log_or_session_reaches_a_file_or_the_screen(
    run: Callable[..., Answer], place: Path, planted_secrets: dict[str, str], capture: str
) -> None:
    planted = [*planted_secrets]
    log = place / "log.jsonl"
    write_log(log, planted)
    assert not [secret for secret in planted if json.dumps(secret)[1:-1] not in log.read_text()]  # they are in there
    database = place / "data" / "apportion" / "apportion.db"
    answers = [run("import", log, capture)]
    log.unlink()
    with Telemetry.to_store(database, capture_content=capture == "--capture-content") as telemetry:
        for start in range(0, len(planted), 10):
            reason = f"no {' or '.join(planted[start : start + 10])}"
            telemetry.record({"kind": "degraded", "workflow": planted[start], "component": "tests", "reason": reason})
            telemetry.record({"kind": "usage", "workflow": "s", "agent": planted[start + 1], "input_tokens": 5})
    answers += [
        run("status", "--show-optimization", "--verbose"),
        run("status", "--json"),
        run("doctor", "--json"),
        run("optimization", "validate", "--session-id", "s"),
        run("optimization", "validate", "--session-id", "w0"),
    ]
    assert [answer.code for answer in answers] == [0, 0, 0, 0, 0, 0 if capture == "--capture-content" else 2]
    shown = "".join(answer.out + answer.err for answer in answers)
    kept = b"".join(file.read_bytes() for file in sorted(place.rglob("*")) if file.is_file())
    assert [part for part in planted_secrets.values() if part in shown or part.encode() in kept] == []
