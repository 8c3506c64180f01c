from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from apportion.compression.diff import read_context
from apportion.compression.handoff import Capabilities, read_handoff
from apportion.errors import DeltaError, InputError
from apportion.planner.doors.cli import app

if TYPE_CHECKING:
    from pathlib import Path

MESSAGES = [{"role": "user", "content": "word " * 60 + f"{number}"} for number in range(6)]
BASE = json.dumps(MESSAGES).encode()
TARGET = json.dumps([*MESSAGES, {"role": "assistant", "content": "h\u00e9 \u001b[31m"}], ensure_ascii=False).encode()


@pytest.fixture
def files(place: Path) -> Path:
    (place / "base.json").write_bytes(BASE)
    (place / "target.json").write_bytes(TARGET)
    return place


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False, standalone_mode=False)
    return done.output


def fails(*arguments: str) -> InputError:
    with pytest.raises(InputError) as caught:
        run(*arguments)
    return caught.value


def test_diff_says_what_changed_and_that_it_was_tried(files: Path) -> None:
    shown = run("diff", "base.json", "target.json", "--show")
    assert "1 edited" in shown or "added" in shown
    assert "checked   gives the target byte for byte" in shown
    assert "transport" in shown
    assert "\u001b" not in shown
    figures = json.loads(run("diff", "base.json", "target.json", "--json", "-"))
    assert (figures["schema"], figures["form"], figures["exact"]) == ("apportion.diff/1", "delta", True)
    assert figures["tokens"] < figures["target"]["tokens"] / 3
    assert figures["base"]["digest"] == read_context(BASE).digest


@pytest.mark.parametrize("compact", [(), ("--compact",)])
def test_what_diff_writes_it_applies_byte_for_byte(files: Path, compact: tuple[str, ...]) -> None:
    run("diff", "base.json", "target.json", "--output", "delta", *compact)
    assert (files / "delta").stat().st_size < len(TARGET) / 2
    said = run("diff", "base.json", "--apply", "delta", "--output", "again.json")
    assert (files / "again.json").read_bytes() == TARGET
    assert "as the delta says they must be" in said


def test_bytes_that_are_no_text_come_back(files: Path) -> None:
    content = b"\xff\xfe" + bytes(range(256)) * 9
    (files / "target.bin").write_bytes(content)
    run("diff", "base.json", "target.bin", "--output", "delta")
    run("diff", "base.json", "--apply", "delta", "--output", "again.bin")
    assert (files / "again.bin").read_bytes() == content


def test_where_a_delta_is_not_worth_it_the_reason_is_told(files: Path) -> None:
    (files / "new.txt").write_text("all of this is new")
    assert "no delta: not worth it" in run("diff", "base.json", "new.txt")


def test_a_delta_that_cannot_be_applied_is_an_error_with_its_reason(files: Path) -> None:
    run("diff", "base.json", "target.json", "--output", "delta")
    error = fails("diff", "target.json", "--apply", "delta", "--output", "again.json")
    assert isinstance(error, DeltaError)
    assert error.reason == "no_base"
    (files / "delta").write_text((files / "delta").read_text().replace('"size":', '"size":1'))
    assert "seal" in str(fails("diff", "base.json", "--apply", "delta", "--output", "again.json"))
    (files / "delta").write_text("{")
    assert "damaged envelope" in str(fails("diff", "base.json", "--apply", "delta", "--output", "again.json"))
    assert not (files / "again.json").exists()


def test_diff_wants_a_target_or_a_delta_and_does_not_overwrite_what_it_reads(files: Path) -> None:
    assert "TARGET" in str(fails("diff", "base.json"))
    assert "TARGET" in str(fails("diff", "base.json", "target.json", "--apply", "x"))
    assert "--output" in str(fails("diff", "base.json", "--apply", "target.json"))
    assert "overwrite" in str(fails("diff", "base.json", "target.json", "--output", "base.json"))


def test_handoff_writes_the_whole_for_agents_that_know_no_deltas(files: Path) -> None:
    said = run(
        "handoff", "target.json", "--to", "t-1:tester", "--task", "Test it", "--base", "base.json", "--output", "m"
    )
    assert "the whole context" in said
    assert "not understood" in said
    message = json.loads((files / "m").read_text())
    assert message["target"] == {"agent_id": "t-1", "agent_type": "tester"}
    assert "delta" not in message["context"]
    assert "compared with its hash" in run("handoff", "m", "--read", "--output", "again.json")
    assert (files / "again.json").read_bytes() == TARGET


def test_handoff_writes_a_delta_for_those_who_say_that_they_hold_a_base(files: Path) -> None:
    tags = Capabilities(deltas=True, holds=(read_context(BASE).digest,)).tags()
    (files / "reply").write_text(json.dumps({"metadata": {"tags": tags}}))
    for known in (("--reply", "reply"), ("--held",)):
        assert "a delta of" in run("handoff", "target.json", "--base", "base.json", *known, "--output", "m")
        run("handoff", "m", "--read", "--base", "base.json", "--output", "again.json")
        assert (files / "again.json").read_bytes() == TARGET
    assert read_handoff(json.loads((files / "m").read_text())).context is None
    error = fails("handoff", "m", "--read", "--output", "other.json")
    assert "no base" in str(error)
    assert not (files / "other.json").exists()


def test_handoff_names_mistakes(files: Path) -> None:
    assert "--output" in str(fails("handoff", "target.json"))
    assert "ID:TYPE" in str(fails("handoff", "target.json", "--to", "tester", "--output", "m"))
    assert "handoff message" in str(fails("handoff", "target.json", "--read", "--output", "m"))
    (files / "text").write_text("x")
    assert "no JSON" in str(fails("handoff", "text", "--read", "--output", "m"))
