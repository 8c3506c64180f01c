"""The doctor: whatever bit flips in files of ours is found, what follows from other files is mended, nothing else."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from apportion.compression.cache.memory import CacheCounts
from apportion.compression.cache.sqlite_level import SqliteLevel
from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.models.next_agent import NextAgentModel
from apportion.models.persistence import CURRENT, save_models
from apportion.models.trails import Step
from apportion.models.training import TrainingData
from apportion.planner.doctor import FILES, Doctor, State
from apportion.planner.ledger import Ledger
from apportion.records import Kind
from apportion.seals import Seals, Verdict
from apportion.settings import Settings, TelemetrySettings
from apportion.telemetry.events import Event, WorkflowLog
from apportion.telemetry.queue import Telemetry
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from pathlib import Path

    from apportion.planner.doctor import Finding

FLIPS = 500
"""Bits that are flipped one after the other; the benchmark flips 10,000."""


def fill(folder: Path) -> Settings:
    """Make one file of each kind, with something in it."""
    settings = Settings(telemetry=TelemetrySettings(store_path=folder / "a.db"))
    database = settings.telemetry.database
    with TelemetryStore(database) as store:
        for number in range(3):
            event = Event(step=0, agent="main", agent_run="main", kind=Kind.USER, content=f"please {number}")
            store.add(WorkflowLog(id=f"w{number}", source="tests", framework="none", events=(event,)))
    with Telemetry.to_store(database) as telemetry:
        telemetry.record({"kind": "usage", "workflow": "w0", "agent": "main", "output_tokens": 5})
    with SqliteHandleStore(folder / "a.db.originals") as originals:
        for number in range(20):
            originals.put(b"line %d\n" % number * 50)
    level = SqliteLevel(folder / "a.db.cache")
    for number in range(20):
        level.put(b"key %d" % number, b"value %d" % number * 30, None)
    level.close(CacheCounts())
    with Ledger(folder / "ledger.db") as ledger:
        ledger.open_account("run", tokens=1_000)
        ledger.reserve("run", tokens=10)
    data = TrainingData(fingerprint="ab" * 32, workflows=3, without_content=0, sources={"tests": 3})
    steps = [Step(f"w{number}", "tests", None, (), "do it", "plan") for number in range(20)]
    models = {"next_agent": NextAgentModel().fit_steps(steps)}
    save_models(settings.telemetry.models_folder, models, data, created_at=datetime(2026, 3, 1, tzinfo=UTC))
    return settings


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor") / "filled"
    folder.mkdir()
    fill(folder)
    return folder


@pytest.fixture
def settings(filled: Path, tmp_path: Path) -> Settings:
    """Files of each kind in a folder of this test, examined once and found well."""
    shutil.copytree(filled, tmp_path / "kept")
    settings = Settings(telemetry=TelemetrySettings(store_path=tmp_path / "kept" / "a.db"))
    assert broken(examine(settings)) == []
    return settings


def examine(settings: Settings, *, repair: bool = False) -> list[Finding]:
    return Doctor(settings, repair=repair).examine(FILES)


def broken(findings: list[Finding]) -> list[str]:
    return [finding.part for finding in findings if finding.state is State.BROKEN]


def repaired(findings: list[Finding]) -> list[str]:
    return [finding.part for finding in findings if finding.state is State.REPAIRED]


def flip(path: Path, bit: int) -> None:
    """Flip a bit as a disk does: without a new time of change."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_every_flipped_bit_of_any_file_is_found(settings: Settings) -> None:
    files = Doctor(settings).files()
    assert {path.name for path in files} > {"a.db", "a.db.key", "a.db.originals", "a.db.cache", "ledger.db", CURRENT}
    rng = random.Random(11)  # noqa: S311  (places, not secrets)
    seals = Doctor(settings).seals
    for _ in range(FLIPS):
        path = rng.choice(files)
        bit = rng.randrange(path.stat().st_size * 8)
        flip(path, bit)
        assert [file for file in files if seals.verdict(file) is Verdict.DAMAGED] == [path], (path, bit)
        flip(path, bit)
    assert all(seals.verdict(file) is Verdict.INTACT for file in files)


def test_the_doctor_names_the_part_whose_file_has_a_flipped_bit(settings: Settings) -> None:
    rng = random.Random(12)  # noqa: S311
    for part, name in (("store", "a.db"), ("originals", "a.db.originals"), ("ledger", "ledger.db")):
        path = settings.telemetry.database.with_name(name)
        bit = rng.randrange(800, path.stat().st_size * 8)
        flip(path, bit)
        findings = examine(settings, repair=True)
        assert set(broken(findings)) == {part}
        assert all(finding.next_step for finding in findings if finding.state is State.BROKEN)
        flip(path, bit)
        assert broken(examine(settings)) == []


def test_a_flipped_bit_of_the_cache_is_mended_by_emptying_it_but_only_with_repair(settings: Settings) -> None:
    path = settings.telemetry.database.with_name("a.db.cache")
    flip(path, path.stat().st_size * 8 - 3)
    assert set(broken(examine(settings))) == {"cache"}
    assert path.exists()
    findings = examine(settings, repair=True)
    assert (broken(findings), repaired(findings)) == ([], ["cache"])
    assert broken(examine(settings)) == []


def test_a_damaged_value_is_found_without_any_seal(settings: Settings) -> None:
    path = settings.telemetry.database.with_name("a.db.cache")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET value = 'other' WHERE number = 3")
    connection.close()
    findings = examine(settings)
    assert [finding.what for finding in findings if finding.state is State.BROKEN] == ["1 of its values are damaged"]


def test_an_original_that_is_damaged_is_told_and_left_as_it_is(settings: Settings) -> None:
    path = settings.telemetry.database.with_name("a.db.originals")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE originals SET content = x'00' WHERE key = 2")
        before = connection.execute("SELECT * FROM originals").fetchall()
    connection.close()
    findings = examine(settings, repair=True)
    assert broken(findings) == ["originals"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM originals").fetchall() == before
    connection.close()


def test_wrong_counts_of_originals_are_counted_again(settings: Settings) -> None:
    path = settings.telemetry.database.with_name("a.db.originals")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE totals SET contents = 7")
    connection.close()
    assert broken(examine(settings)) == ["originals"]
    findings = examine(settings, repair=True)
    assert (broken(findings), repaired(findings)) == ([], ["originals"])


def test_an_index_that_lost_a_row_is_built_anew(settings: Settings) -> None:
    path = settings.telemetry.database.with_name("a.db.originals")
    change(path, "CREATE TABLE kept AS SELECT * FROM sqlite_master WHERE name = 'originals_by_age'")
    change(path, "DELETE FROM sqlite_master WHERE name = 'originals_by_age'")
    change(path, "UPDATE originals SET given_us = given_us + 1 WHERE key = 3")  # past the index
    change(path, "INSERT INTO sqlite_master SELECT * FROM kept", "DROP TABLE kept")
    (finding,) = [each for each in examine(settings) if each.state is State.BROKEN and "missing from" in each.what]
    assert (finding.part, finding.next_step) == ("originals", "apportion doctor --repair")
    findings = examine(settings, repair=True)
    assert (broken(findings), repaired(findings)) == ([], ["originals"])
    assert broken(examine(settings)) == []


def change(path: Path, *statements: str) -> None:
    """Change a file behind its schema."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_newest_sound_version_is_used_where_the_name_of_the_current_one_is_lost(settings: Settings) -> None:
    folder = settings.telemetry.models_folder
    (folder / CURRENT).write_text("rubbish")
    assert set(broken(examine(settings))) == {"models"}
    findings = examine(settings, repair=True)
    assert (broken(findings), repaired(findings)) == ([], ["models"])
    assert (folder / CURRENT).read_text().startswith("0001-")


def test_a_damaged_model_is_told_and_not_replaced(settings: Settings) -> None:
    (file,) = settings.telemetry.models_folder.glob("0001-*/next_agent.skops")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    findings = examine(settings, repair=True)
    assert set(broken(findings)) == {"models"}
    assert file.read_bytes() == bytes(content)


def test_a_file_that_was_written_since_is_judged_by_its_own_checks_alone(settings: Settings) -> None:
    with SqliteHandleStore(settings.telemetry.database.with_name("a.db.originals")) as originals:
        originals.put(b"another one")
    assert broken(examine(settings)) == []


def test_damaged_seals_are_told_and_made_again(settings: Settings) -> None:
    path = settings.telemetry.database.with_name("a.db.seals")
    flip(path, 800)
    assert broken(examine(settings)) == ["store"]
    findings = examine(settings, repair=True)
    assert (broken(findings), repaired(findings)) == ([], ["store"])
    assert Seals(path).problem is None


def test_the_key_of_the_store_is_missed(settings: Settings) -> None:
    settings.telemetry.database.with_name("a.db.key").unlink()
    findings = [finding for finding in examine(settings) if finding.state is State.BROKEN]
    assert {finding.part for finding in findings} == {"store"}


def test_without_any_files_nothing_is_broken_and_nothing_is_made(tmp_path: Path) -> None:
    settings = Settings(telemetry=TelemetrySettings(store_path=tmp_path / "none" / "a.db"))
    assert broken(examine(settings, repair=True)) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_installed_is_well() -> None:
    findings = Doctor(Settings()).examine(("package", "encodings", "plugins", "extras"))
    assert broken(findings) == []
    assert {finding.part for finding in findings} == {"package", "encodings", "plugins", "extras"}
    assert all(finding.next_step.startswith("pip install") for finding in findings if finding.state is State.NOTE)
