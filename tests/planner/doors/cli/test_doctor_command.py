"""`apportion doctor`, run as users run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from apportion.compression.cache.memory import CacheCounts
from apportion.compression.cache.sqlite_level import SqliteLevel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.planner.doors.cli.conftest import Answer


@pytest.fixture
def doctor(run: Callable[..., Answer]) -> Callable[..., Answer]:
    return lambda *arguments: run("doctor", *arguments)


def test_it_ends_with_1_while_something_is_broken_and_with_0_when_it_is_mended(
    doctor: Callable[..., Answer], place: Path
) -> None:
    assert doctor()[0] == 0
    cache = place / "data" / "apportion" / "apportion.db.cache"
    cache.parent.mkdir(parents=True)
    level = SqliteLevel(cache)
    level.put(b"key", b"value", None)
    level.close(CacheCounts())
    cache.write_bytes(cache.read_bytes()[:5_000])
    code, out, _ = doctor()
    assert code == 1
    assert "broken    cache: " in out
    assert "apportion doctor --repair" in out
    code, out, _ = doctor("--repair", "--json")
    assert code == 0
    findings = json.loads(out)["findings"]
    assert [each["part"] for each in findings if each["state"] == "repaired"] == ["cache"]
    assert doctor()[0] == 0


def test_broken_settings_are_told_among_the_rest(doctor: Callable[..., Answer], place: Path) -> None:
    (place / "apportion.toml").write_text("[replay]\njobs = -1\n")
    code, out, _ = doctor("--json")
    data = json.loads(out)
    assert (code, data["ok"], data["schema"]) == (1, False, "apportion.doctor/1")
    (told,) = (each for each in data["findings"] if each["state"] == "broken")
    assert told["part"] == "settings"
    assert told["where"].endswith("apportion.toml")
    assert "jobs" in told["what"]
