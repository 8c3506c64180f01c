"""The telemetry store: nothing lost, nothing doubled, nothing leaked, nothing overwritten."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apportion.errors import InputError, StoreError
from apportion.records import Kind, Usage
from apportion.telemetry import _database
from apportion.telemetry._migrations import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION, migrate
from apportion.telemetry._privacy import safe_part
from apportion.telemetry.events import Event, WorkflowLog
from apportion.telemetry.store import Added, FileGroup, GroupRecord, Outcome, TelemetryStore
from apportion.testing import texts, workflow_logs

MARKER = "zanzibar-quartz-7741"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_log(name: str = "one", contents: tuple[str, ...] = ("please", "done"), **fields: Any) -> WorkflowLog:
    """Return a workflow that asks once and answers with each further content."""
    events = [Event(step=0, agent="main", agent_run="main", kind=Kind.USER, content=contents[0], started_at=NOON)]
    events += [
        Event(
            step=nth,
            agent="main",
            agent_run="main",
            kind=Kind.ASSISTANT,
            content=content,
            call=nth - 1,
            model="model-a",
            usage=Usage(input_uncached=10, cache_read=100, output=5),
            started_at=NOON + timedelta(minutes=nth),
        )
        for nth, content in enumerate(contents[1:], start=1)
    ]
    return WorkflowLog(**{"id": name, "source": "tests", "framework": "none", "events": tuple(events), **fields})


def open_store(path: Path, **options: Any) -> TelemetryStore:
    return TelemetryStore(path, **{"count_tokens": len, **options})


def bytes_on_disk(folder: Path) -> bytes:
    """Return all that lies in the folder: database, write-ahead log, shared memory, key."""
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


# ------------------------------------------------------------------ what goes in comes out


@settings(max_examples=30)
@given(log=workflow_logs())
def test_a_captured_workflow_comes_back_with_every_field(log: WorkflowLog, tmp_path_factory: Any) -> None:
    with open_store(tmp_path_factory.mktemp("store") / "t.db", capture_content=True) as store:
        assert store.add(log) is Added.NEW
        stored = store.load(log.id)
        assert stored is not None
        assert stored.to_log() == log
        assert [event.content_bytes for event in stored.events] == [
            len(event.content.encode("utf-8", "surrogatepass")) for event in log.events
        ]
        assert (stored.summary.calls, stored.summary.agents) == (log.calls, log.agents)
        assert store.add(log) is Added.UNCHANGED
        assert store.check() == []


@settings(max_examples=20)
@given(log=workflow_logs())
def test_a_workflow_without_contents_keeps_its_numbers(log: WorkflowLog, tmp_path_factory: Any) -> None:
    with open_store(tmp_path_factory.mktemp("store") / "t.db") as store:
        store.add(log)
        stored = store.load(log.id)
    assert stored is not None
    for kept, event in zip(stored.events, log.events, strict=True):
        numbers = ("step", "stage", "kind", "call", "usage", "prompt_steps", "started_at", "duration_ms", "cost_usd")
        assert all(getattr(kept, name) == getattr(event, name) for name in (*numbers, "is_error", "compaction"))
        assert kept.content is None
        assert kept.content_tokens == len(event.content)


@settings(max_examples=15)
@given(logs=st.lists(workflow_logs(workflow_ids=st.sampled_from(["a", "b", "c"])), max_size=8))
def test_the_store_agrees_with_a_dictionary(logs: list[WorkflowLog], tmp_path_factory: Any) -> None:
    expected: dict[str, WorkflowLog] = {}
    with open_store(tmp_path_factory.mktemp("store") / "t.db", capture_content=True) as store:
        for log in logs:
            predicted = store.compare(log)
            added = store.add(log)
            assert added is predicted
            if added is Added.NEW:
                assert log.id not in expected
            if added is not Added.UNCHANGED:
                expected[log.id] = log
        assert {summary.id for summary in store.workflows()} == set(expected)
        for name, log in expected.items():
            stored = store.load(name)
            assert stored is not None
            assert stored.to_log() == log
        summary = store.summary()
        assert summary.workflows == len(expected)
        assert summary.calls == sum(log.calls for log in expected.values())
        assert summary.agents == sum(log.agents for log in expected.values())


def test_a_workflow_whose_contents_are_not_captured_refuses_to_be_a_log(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log())
        stored = store.load("one")
    assert stored is not None
    assert not stored.captured
    with pytest.raises(StoreError, match=r"not captured.*--capture-content"):
        stored.to_log()


def test_an_unknown_workflow_is_none(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        assert store.load("nobody") is None
        assert store.delete("nobody") is False


def test_prompts_of_consecutive_steps_take_little_room(tmp_path: Path) -> None:
    steps = tuple(range(2000))
    events = [Event(step=step, agent="a", agent_run="a", kind=Kind.USER, content="x") for step in steps]
    events.append(
        Event(step=2000, agent="a", agent_run="a", kind=Kind.ASSISTANT, content="y", call=0, prompt_steps=steps[:-1])
    )
    log = WorkflowLog(id="long", source="s", framework="f", events=tuple(events))
    with open_store(tmp_path / "t.db", capture_content=True) as store:
        store.add(log)
        stored = store.load("long")
    assert stored is not None
    assert stored.to_log() == log
    rows = raw(tmp_path / "t.db").execute("SELECT prompt_steps FROM events WHERE prompt_steps IS NOT NULL").fetchall()
    assert rows == [("[[0,1999]]",)]


def raw(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path)


# ------------------------------------------------------------------ new, unchanged, replaced


def test_adding_twice_changes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        assert [store.add(make_log()) for _ in range(3)] == [Added.NEW, Added.UNCHANGED, Added.UNCHANGED]
        assert store.summary().events == 2


def test_a_moved_file_is_the_same_workflow(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log(origin="/old/place.jsonl"))
        assert store.add(make_log(origin="/new/place.jsonl")) is Added.UNCHANGED


def test_a_log_that_has_grown_replaces_what_was_stored(tmp_path: Path) -> None:
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text)

    with open_store(tmp_path / "t.db", count_tokens=count) as store:
        store.add(make_log(contents=("please", "working")))
        assert store.add(make_log(contents=("please", "working", "done"))) is Added.REPLACED
        summary = store.summary()
    assert (summary.workflows, summary.events, summary.calls) == (1, 3, 2)
    assert counted == ["please", "working", "done"]  # what was counted is not counted again


def test_an_older_copy_of_a_log_does_not_replace_the_newer(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log(contents=("please", "working", "done")))
        assert store.add(make_log(contents=("please", "working"))) is Added.UNCHANGED
        assert store.add(make_log(contents=("please", "resting"))) is Added.REPLACED
        assert store.summary().events == 2


def test_capturing_later_fills_in_the_contents_and_switching_it_off_keeps_them(tmp_path: Path) -> None:
    log = make_log()
    with open_store(tmp_path / "t.db") as store:
        store.add(log)
    with open_store(tmp_path / "t.db", capture_content=True) as store:
        assert store.add(log) is Added.REPLACED
        assert store.summary().captured_workflows == 1
    with open_store(tmp_path / "t.db") as store:
        assert store.add(log) is Added.UNCHANGED
        stored = store.load("one")
    assert stored is not None
    assert stored.to_log() == log


@pytest.mark.parametrize("field", ["outcome", "meta"])
def test_a_log_with_values_that_are_not_json_is_refused_and_nothing_is_stored(tmp_path: Path, field: str) -> None:
    with open_store(tmp_path / "t.db") as store:
        with pytest.raises(InputError, match="not JSON"):
            store.add(make_log().model_copy(update={field: {"when": NOON}}))
        assert store.summary().workflows == 0


def test_a_number_beyond_64_bits_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    event = Event(step=2**64, agent="a", agent_run="a", kind=Kind.USER, content="x")
    with open_store(tmp_path / "t.db") as store:
        with pytest.raises(InputError, match="number beyond 64 bits"):
            store.add(WorkflowLog(id="big", source="s", framework="f", events=(event,)))
        assert store.summary().workflows == 0
        assert store.add(make_log()) is Added.NEW


# ------------------------------------------------------------------ secrets


def secret_log() -> WorkflowLog:
    """Return a workflow with the marker wherever text can stand that is not an identifier of the workflow."""
    sentence = f"the password is {MARKER}\n"
    event = Event(
        step=0,
        agent=sentence,
        agent_run=sentence,
        parent_agent=sentence,
        kind=Kind.TOOL_RESULT,
        name=sentence,
        content=sentence,
        model=sentence,
        link=sentence,
    )
    values = {
        "note": MARKER,
        "status": f"failed because of {MARKER} " * 3,
        MARKER: 1,
        "score": 0.5,
        "nested": {"prompt": sentence, "passed": True},
        "list": [MARKER],
    }
    return WorkflowLog(id="secret", source="s", framework="f", events=(event,), outcome=values, meta=values)


@pytest.mark.parametrize("captured", [False, True])
def test_contents_reach_the_disk_only_when_they_are_captured(tmp_path: Path, captured: bool) -> None:  # noqa: FBT001
    with open_store(tmp_path / "t.db", capture_content=captured) as store:
        store.add(secret_log())
        while_open = bytes_on_disk(tmp_path)
    closed = bytes_on_disk(tmp_path)
    assert (tmp_path / "t.db-wal").exists() is False
    assert (MARKER.encode() in while_open, MARKER.encode() in closed) == (captured, captured)


@pytest.mark.parametrize("captured", [False, True])
def test_secrets_never_reach_the_disk_and_the_store_says_how_many_it_took_out(
    tmp_path: Path,
    captured: bool,  # noqa: FBT001
) -> None:
    secrets = [prefix + "a1B2" * 12 for prefix in ("gh" + "p_", "sk-" + "ant-api03-", "hf" + "_")]
    log = make_log(contents=("use " + secrets[0], f"key {secrets[1]} or {secrets[2]}", "use " + secrets[0]))
    log = log.model_copy(update={"meta": {"note": secrets[0]}, "outcome": {"status": secrets[1]}})
    with open_store(tmp_path / "t.db", capture_content=captured) as store:
        assert store.add(log) is Added.NEW
        assert store.add(log) is Added.UNCHANGED
        on_disk = bytes_on_disk(tmp_path)
        stored = store.load("one")
        redactions = store.summary().redactions
        assert store.check() == []
    assert not any(secret.encode() in on_disk for secret in secrets)
    assert stored is not None
    assert stored.events[0].content_hash == stored.events[2].content_hash
    assert stored.events[0].content_bytes == len(log.events[0].content)
    assert stored.summary.redactions == redactions == (3 if captured else 0)
    if captured:
        assert stored.events[1].content == "key [redacted: anthropic key] or [redacted: hugging face token]"
        assert stored.to_log().meta == {"note": "[redacted: github token]"}


def test_a_name_that_holds_a_secret_is_hashed(tmp_path: Path) -> None:
    secret = "gh" + "p_" + "a1B2" * 12
    event = Event(step=0, agent=secret, agent_run="main", kind=Kind.TOOL_CALL, name="Bash", content="x", link=secret)
    with open_store(tmp_path / "t.db") as store:
        store.add(WorkflowLog(id="named", source="s", framework="f", events=(event,)))
        stored = store.load("named")
    assert secret.encode() not in bytes_on_disk(tmp_path)
    assert stored is not None
    assert stored.events[0].agent == stored.events[0].link
    assert stored.events[0].agent.startswith("hash:")
    assert (stored.events[0].agent_run, stored.events[0].name) == ("main", "Bash")


def test_the_hash_of_a_content_cannot_be_guessed_without_the_key(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log(contents=("hunter2", "ok")))
        stored = store.load("one")
    assert stored is not None
    bare = hashlib.sha256(b"hunter2")
    assert stored.events[0].content_hash != bare.hexdigest()
    assert bare.digest() not in bytes_on_disk(tmp_path)
    key = bytes.fromhex((tmp_path / "t.db.key").read_text())
    assert key not in (tmp_path / "t.db").read_bytes()


def test_equal_contents_have_equal_hashes_across_workflows_and_openings(tmp_path: Path) -> None:
    hashes = []
    for name in ("one", "two"):
        with open_store(tmp_path / "t.db") as store:
            store.add(make_log(name))
            stored = store.load(name)
            assert stored is not None
            hashes.append([event.content_hash for event in stored.events])
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == 2


def test_only_numbers_and_short_identifiers_of_outcome_and_meta_are_kept() -> None:
    assert safe_part(
        {
            "reward": 1.0,
            "resolved": True,
            "steps": 12,
            "status": "submitted",
            "exit_status": "no\nline",
            "reason": "short",
            "scores": {"task": {"pass_at_1": 0.5, "why": "text"}},
            "none": None,
            "list": [1, 2],
            "AKIA0EXAMPLE0KEY0001": 1,
            "ratio": float("nan"),
            "huge": 2**70,
            "deep": {"a": {"b": {"c": {"d": 1}}}},
        }
    ) == {"reward": 1.0, "resolved": True, "steps": 12, "status": "submitted", "scores": {"task": {}}} | {
        "scores": {"task": {"pass_at_1": 0.5}}
    }


def test_deleted_contents_are_gone_from_the_disk(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db", capture_content=True) as store:
        store.add(make_log("kept"))
        store.add(secret_log())
        assert MARKER.encode() in bytes_on_disk(tmp_path)
        assert store.delete("secret") is True
        assert MARKER.encode() not in bytes_on_disk(tmp_path)
        assert [summary.id for summary in store.workflows()] == ["kept"]
        assert store.check() == []


def test_files_and_folder_are_for_the_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with open_store(tmp_path / "deep" / "folder" / "t.db") as store:
            store.add(make_log())
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "deep" / "folder").iterdir()}
    finally:
        os.umask(old)
    assert set(modes) == {"t.db", "t.db-wal", "t.db-shm", "t.db.key"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "deep" / "folder").stat().st_mode) == 0o700


def test_a_store_without_its_key_can_be_read_but_not_written(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log())
    key = (tmp_path / "t.db.key").read_text()
    (tmp_path / "t.db.key").unlink()
    with open_store(tmp_path / "t.db") as store:
        assert store.load("one") is not None
        with pytest.raises(StoreError, match=r"key of the store.*is missing"):
            store.add(make_log("two"))
    for wrong, why in (("ab" * 32, "belongs to another store"), ("not hex", "cannot be read"), ("abcd", "is missing")):
        (tmp_path / "t.db.key").write_text(wrong)
        with open_store(tmp_path / "t.db") as store, pytest.raises(StoreError, match=why):
            store.add(make_log("two"))
    (tmp_path / "t.db.key").write_text(key)
    with open_store(tmp_path / "t.db") as store:
        assert store.add(make_log("two")) is Added.NEW


# ------------------------------------------------------------------ what is listed and added up


def test_workflows_are_filtered_by_source_framework_and_time(tmp_path: Path) -> None:
    timeless = Event(step=0, agent="a", agent_run="a", kind=Kind.USER, content="x")
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log("first"))
        store.add(make_log("second", source="other"))
        store.add(make_log("third", framework="codex"))
        store.add(WorkflowLog(id="timeless", source="tests", framework="none", events=(timeless,)))

        def ids(**filters: Any) -> list[str]:
            return [summary.id for summary in store.workflows(**filters)]

        assert ids() == ["first", "second", "third", "timeless"]
        assert ids(source="tests") == ["first", "third", "timeless"]
        assert ids(source="tests", framework="none") == ["first", "timeless"]
        assert ids(since=NOON + timedelta(minutes=1)) == ["first", "second", "third"]
        assert ids(since=NOON + timedelta(minutes=1, microseconds=1)) == []
        with pytest.raises(InputError, match="time zone"):
            store.workflows(since=datetime(2026, 1, 1))  # noqa: DTZ001


def test_more_workflows_than_a_page_are_all_listed_while_others_are_written(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        for nth in range(1203):
            store.add(make_log(f"w{nth}", contents=("x",)))
        listed = []
        for nth, summary in enumerate(store.workflows()):
            listed.append(summary.id)
            if nth == 10:
                store.add(make_log("late", contents=("x",)))
    assert listed == [*(f"w{nth}" for nth in range(1203)), "late"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts() | st.sampled_from(["' OR '1'='1", '" OR ""="', "tests' --", "%", "_", ":source", "?1", "tests\0"]))
def test_filters_are_data_never_sql(text: str, injection_store: TelemetryStore) -> None:
    expected = ["one"] if text == "tests" else []
    assert [summary.id for summary in injection_store.workflows(source=text)] == expected
    assert list(injection_store.workflows(framework=text)) == []
    assert injection_store.load(text) is None
    assert injection_store.delete(text) is False
    assert injection_store.summary().workflows == 1


@pytest.fixture(scope="module")
def injection_store(tmp_path_factory: Any) -> Any:
    with open_store(tmp_path_factory.mktemp("store") / "t.db") as store:
        store.add(make_log())
        yield store


def test_unknown_usage_stays_unknown_in_the_summary(tmp_path: Path) -> None:
    silent = Event(step=0, agent="a", agent_run="a", kind=Kind.ASSISTANT, content="x", call=0)
    with open_store(tmp_path / "t.db", capture_content=True) as store:
        empty = store.summary()
        store.add(WorkflowLog(id="silent", source="quiet", framework="f", events=(silent,)))
        store.add(make_log(contents=("a", "b", "c")))
        summary = store.summary()
    assert (empty.workflows, empty.usage.output, empty.first_at, empty.sources) == (0, None, None, ())
    quiet, talking = summary.sources
    assert (quiet.source, quiet.usage.calls, quiet.usage.calls_with_usage) == ("quiet", 1, 0)
    assert (quiet.usage.output, quiet.usage.input_uncached, quiet.usage.cost_usd) == (None, None, None)
    assert (talking.usage.input_uncached, talking.usage.cache_read, talking.usage.output) == (20, 200, 10)
    assert (talking.usage.cache_write_5m, talking.usage.reasoning) == (None, None)
    assert [(model.model, model.calls) for model in talking.models] == [("model-a", 2)]
    assert (summary.usage.calls, summary.usage.calls_with_usage, summary.usage.output) == (3, 2, 10)
    assert (summary.first_at, summary.last_at) == (NOON, NOON + timedelta(minutes=2))
    assert (summary.schema_version, summary.journal_mode) == (SCHEMA_VERSION, "wal")
    assert (summary.capture_content, summary.captured_workflows) == (True, 2)
    assert summary.size_bytes > 4096


def test_estimates_and_absurd_claims_survive_adding_up(tmp_path: Path) -> None:
    usage = Usage(output=2**53, reasoning=0, estimated=frozenset({"output"}))
    events = tuple(
        Event(
            step=nth, agent="a", agent_run="a", kind=Kind.ASSISTANT, content="", call=nth, usage=usage, cost_usd=1.7e308
        )
        for nth in range(1500)
    )
    with open_store(tmp_path / "t.db") as store:
        store.add(WorkflowLog(id="absurd", source="s", framework="f", events=events))
        store.add(WorkflowLog(id="absurd too", source="t", framework="f", events=events))
        summary = store.summary()
    assert summary.usage.output == 3000 * 2**53
    assert summary.usage.reasoning == 0
    assert summary.usage.estimated == ("output",)
    assert summary.usage.cost_usd == sys.float_info.max


# ------------------------------------------------------------------ files read before


def store_calls(store: TelemetryStore, name: str) -> int:
    (calls,) = (summary.calls for summary in store.workflows() if summary.id == name)
    return calls


def test_a_finished_group_is_known_until_a_file_or_a_workflow_of_it_changes(tmp_path: Path) -> None:
    group = FileGroup("/logs/a.jsonl", 100, 5, b"print")
    with open_store(tmp_path / "t.db") as store:
        assert store.known_group(group) is None
        store.add(make_log("one"))
        store.add(make_log("two"))
        store.finish_group(group, GroupRecord(workflows=2, calls=2, skipped=0), ["one", "two"])
        assert store.known_group(group) == GroupRecord(2, 2, 0)
        assert sorted(store.workflows_of(group)) == [
            ("one", store_calls(store, "one")),
            ("two", store_calls(store, "two")),
        ]
        assert store.workflows_of(group._replace(fingerprint=b"other")) == []
        assert store.known_group(group._replace(fingerprint=b"other")) is None
        assert store.known_group(group._replace(path="/logs/b.jsonl")) is None
        store.delete("two")
        assert store.known_group(group) is None


def test_a_group_with_skipped_lines_is_known_with_them(tmp_path: Path) -> None:
    group = FileGroup("/logs/a\udcff.jsonl", 100, 5, b"print")
    with open_store(tmp_path / "t.db") as store:
        store.finish_group(group, GroupRecord(workflows=0, calls=0, skipped=1), [])
        assert store.known_group(group) == GroupRecord(0, 0, 1)
        store.finish_group(group, GroupRecord(workflows=0, calls=0, skipped=0), [])
        assert store.known_group(group) == GroupRecord(0, 0, 0)


# ------------------------------------------------------------------ files that are not ours


def foreign_files() -> dict[str, bytes]:
    return {
        "garbage": b"\x00\x01garbage" * 1000,
        "text": b'{"id": "a log, not a store"}\n',
        "one byte": b"S",
        "magic only": b"SQLite format 3\0",
        "garbage with magic": b"SQLite format 3\0" + b"\xff" * 8192,
    }


@pytest.mark.parametrize("what", foreign_files())
def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path, what: str) -> None:
    path = tmp_path / "t.db"
    path.write_bytes(foreign_files()[what])
    with pytest.raises(StoreError, match="left untouched"):
        open_store(path)
    assert path.read_bytes() == foreign_files()[what]
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_of_another_application_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with raw(path) as connection:
        connection.execute("CREATE TABLE workflows (id TEXT)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another application"):
        open_store(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    open_store(path).close()
    with raw(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"schema version {SCHEMA_VERSION + 1}.*Upgrade apportion"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_newer_schema_that_is_still_in_the_write_ahead_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    open_store(path).close()
    newer = raw(path)
    newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert int.from_bytes(path.read_bytes()[60:64], "big") == SCHEMA_VERSION  # the main file does not say so yet
    with pytest.raises(StoreError, match="Upgrade apportion"):
        open_store(path)
    newer.close()


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_store_is_refused_and_left_as_it_is(tmp_path: Path, share: float) -> None:
    path = tmp_path / "t.db"
    with open_store(path, capture_content=True) as store:
        for nth in range(30):
            store.add(make_log(f"w{nth}", contents=("x" * 500, "y" * 500)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"damaged|telemetry store"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_flipped_byte_is_found_or_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    logs = [make_log(f"w{nth}", contents=(f"ask {nth}" * 20, "answer " * 20)) for nth in range(20)]
    with open_store(path, capture_content=True) as store:
        for log in logs:
            store.add(log)
    whole = path.read_bytes()
    found = 0
    for position in range(100, len(whole), len(whole) // 150):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            with open_store(path, capture_content=True) as store:
                problems = store.check()
                found += bool(problems)
                if not problems:
                    assert [load_log(store, log.id) for log in logs] == logs, position
        except StoreError:
            found += 1
    assert found > 30  # the rest is free space


def load_log(store: TelemetryStore, name: str) -> WorkflowLog:
    stored = store.load(name)
    assert stored is not None
    return stored.to_log()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE contents SET content = x'00' WHERE content = CAST('please' AS BLOB)",
        "DELETE FROM contents WHERE content = CAST('done' AS BLOB)",
        "UPDATE events SET content_tokens = content_tokens + 1 WHERE step = 1",
        "UPDATE usages SET output = NULL",
        "UPDATE workflows SET framework = 'other'",
    ],
)
def test_a_workflow_that_was_changed_in_the_file_is_refused_and_found(tmp_path: Path, change: str) -> None:
    with open_store(tmp_path / "t.db", capture_content=True) as store:
        store.add(make_log())
        assert store.check() == []
    with raw(tmp_path / "t.db") as connection:
        assert connection.execute(change).rowcount == 1
    connection.close()
    with open_store(tmp_path / "t.db") as store:
        assert store.check() == ["workflow one differs from its checksum"]
        with pytest.raises(StoreError, match=r"workflow one is damaged.*import its log again"):
            store.load("one")


def test_a_reference_to_nothing_is_found_by_the_check(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log())
    with raw(tmp_path / "t.db") as connection:  # without foreign keys, which are a setting of each connection
        connection.execute("INSERT INTO contents (workflow, hash, content) VALUES (99, x'00', x'00')")
    connection.close()
    with open_store(tmp_path / "t.db") as store:
        assert store.check() == ["a row of contents refers to a missing row of workflows"]


# ------------------------------------------------------------------ paths that cannot be a store


def test_a_directory_or_a_pipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is a directory.*Give the path of a file"):
        open_store(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="not a regular file"):
        open_store(tmp_path / "pipe")
    (tmp_path / "nowhere.db").symlink_to(tmp_path / "missing")
    with pytest.raises(StoreError, match="not a regular file"):
        open_store(tmp_path / "nowhere.db")


def test_a_path_below_a_file_or_in_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "t.db", Path("/proc/apportion/t.db"), tmp_path / ("n" * 300)):
        with pytest.raises(StoreError, match=r"cannot use the store.*can write to"):
            open_store(path)


def run_python(code: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


def test_a_read_only_folder_is_refused_with_a_hint() -> None:
    code = """
        import os, sys
        from pathlib import Path
        from apportion.errors import StoreError
        from apportion.telemetry.store import TelemetryStore
        if os.getuid() == 0:
            os.setuid(65534)  # permissions do not bind root
        try:
            TelemetryStore(Path(sys.argv[1]))
        except StoreError as error:
            print(error)
    """
    with tempfile.TemporaryDirectory() as place:  # pytest's folders are closed to the user that root becomes
        folder = Path(place)
        with open_store(folder / "old.db") as store:
            store.add(make_log())
        (folder / "old.db").chmod(0o444)
        folder.chmod(0o555)
        new, old = run_python(code, folder / "new.db"), run_python(code, folder / "old.db")
        folder.chmod(0o755)
    assert "cannot use the store" in new.stdout, new
    assert "can write to" in new.stdout
    assert "cannot be used" in old.stdout, old
    assert "read-only" in old.stdout or "writable" in old.stdout


def test_a_full_disk_is_an_error_and_the_store_stays_whole(tmp_path: Path) -> None:
    code = """
        import resource, sys
        from pathlib import Path
        from apportion.errors import StoreError
        from apportion.telemetry.store import TelemetryStore
        from apportion.telemetry.events import Event, WorkflowLog
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        with TelemetryStore(Path(sys.argv[1]), capture_content=True, count_tokens=len) as store:
            for nth in range(100):
                event = Event(step=0, agent="a", agent_run="a", kind="user", content=f"{nth}" + "x" * 20_000)
                try:
                    store.add(WorkflowLog(id=f"w{nth}", source="s", framework="f", events=(event,)))
                except StoreError as error:
                    print(nth, error)
                    break
    """
    answer = run_python(code, tmp_path / "t.db")
    assert answer.returncode == 0, answer
    stored = int(answer.stdout.split()[0])
    assert "cannot be used" in answer.stdout
    with open_store(tmp_path / "t.db") as store:
        assert store.summary().workflows == stored > 3
        assert store.check() == []


# ------------------------------------------------------------------ what was forecast, and what was used


def outcome(run: str = "main", used: int = 100, **fields: Any) -> Outcome:
    about = {"agent_run": run, "agent": "main", "stage": 0, "version": "0001-0123abcd"}
    return Outcome(
        **{**about, "low_tokens": 50, "median_tokens": 90, "likely_tokens": 200, "used_tokens": used, **fields}
    )


def noted(store: TelemetryStore, **filters: Any) -> list[tuple[str, str, int]]:
    return [(one.workflow, one.agent_run, one.used_tokens) for one in store.outcomes(**filters)]


def test_outcomes_come_back_in_the_order_in_which_they_were_noted(tmp_path: Path) -> None:
    times = iter(NOON + timedelta(minutes=nth) for nth in range(10))
    with open_store(tmp_path / "t.db", clock=lambda: next(times)) as store:
        store.add(make_log("one"))
        store.add(make_log("two"))
        store.record_outcomes("two", [outcome("a", 1), outcome("b", 2)])
        store.record_outcomes("one", [outcome("c", 3, version="0002-0123abcd")])
        assert noted(store) == [("two", "a", 1), ("two", "b", 2), ("one", "c", 3)]
        assert noted(store, version="0001-0123abcd") == [("two", "a", 1), ("two", "b", 2)]
        assert noted(store, latest=2) == [("two", "b", 2), ("one", "c", 3)]
        first = store.outcomes()[0]
        assert (first.framework, first.recorded_at) == ("none", NOON + timedelta(minutes=2))
        assert Outcome(**first.model_dump(include=set(Outcome.model_fields))) == outcome("a", 1)
        assert store.check() == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 3)), max_size=8))
def test_outcomes_are_replaced_and_never_doubled(
    steps: list[tuple[str, bool, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected: dict[str, list[int]] = {}
    forecast: list[Outcome] = []
    with open_store(tmp_path_factory.mktemp("store") / "t.db", forecast=lambda _log, _before: tuple(forecast)) as store:
        for number, (name, again, count) in enumerate(steps, start=1):
            made = [outcome(f"r{nth}", number) for nth in range(count)]
            if again and name in expected:
                store.record_outcomes(name, made)
            else:
                forecast[:] = made
                assert store.add(make_log(name, ("please", f"done {number}"))) is not Added.UNCHANGED
            expected[name] = [number] * count
        for name, used in expected.items():
            assert [one.used_tokens for one in store.outcomes() if one.workflow == name] == used
        for name in expected:
            store.delete(name)
        assert store.outcomes() == []


def test_a_workflow_that_is_stored_already_is_not_forecast_again(tmp_path: Path) -> None:
    asked: list[tuple[str, datetime | None]] = []

    def forecast(log: WorkflowLog, before: datetime | None) -> list[Outcome]:
        asked.append((log.id, before))
        return [outcome()]

    with open_store(tmp_path / "t.db", forecast=forecast, clock=lambda: NOON) as store:
        store.add(make_log())
        store.add(make_log())
        store.compare(make_log("two"))
        store.add(make_log(contents=("please", "done", "more")))
        assert asked == [("one", None), ("one", NOON)]
        assert len(store.outcomes()) == 1


def test_a_workflow_is_stored_with_its_outcomes_or_not_at_all(tmp_path: Path) -> None:
    twice_the_size = [outcome(stage=2**63)]  # beyond what SQLite holds
    with open_store(tmp_path / "t.db", forecast=lambda _log, _before: twice_the_size) as store:
        with pytest.raises(InputError, match="beyond 64 bits"):
            store.add(make_log())
        assert (store.load("one"), store.outcomes()) == (None, [])


def test_damaged_outcomes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with open_store(path, forecast=lambda _log, _before: [outcome()]) as store:
        store.add(make_log())
        connection = raw(path)
        connection.execute("UPDATE outcomes SET low_tokens = 1000")
        connection.commit()
        connection.close()
        with pytest.raises(StoreError, match="outcomes are damaged"):
            store.outcomes()


def test_outcomes_of_an_unknown_workflow_are_refused(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store, pytest.raises(InputError, match="no workflow nobody"):
        store.record_outcomes("nobody", [outcome()])


@pytest.mark.parametrize("captured", [False, True])
def test_outcomes_hold_no_text_of_a_log(captured: bool, tmp_path: Path) -> None:  # noqa: FBT001  (parametrised)
    secret = f"{MARKER}\nis no name"
    with open_store(tmp_path / "t.db", capture_content=captured) as store:
        store.add(make_log())
        store.record_outcomes("one", [outcome(secret, agent=secret)])
        (found,) = store.outcomes()
    assert (found.agent == secret) is captured
    assert (MARKER.encode() in bytes_on_disk(tmp_path)) is captured
    assert captured or found.agent.startswith("hash:")


@pytest.mark.parametrize("fields", [{"low_tokens": 91}, {"likely_tokens": 89}, {"used_tokens": 0}, {"version": ""}])
def test_an_outcome_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Outcome"):
        outcome(**fields)


def test_a_store_from_before_outcomes_takes_the_step_and_keeps_its_workflows(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with open_store(path) as store:
        store.add(make_log())
    connection = raw(path)
    connection.execute("DROP TABLE outcomes")
    connection.execute("DROP TABLE live_events")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    with open_store(path) as store:
        assert store.summary().schema_version == SCHEMA_VERSION
        assert (store.outcomes(), store.check()) == ([], [])
        store.record_outcomes("one", [outcome()])
        assert noted(store) == [("one", "main", 100)]


# ------------------------------------------------------------------ creation and migration


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "t.db").touch()
    with open_store(tmp_path / "t.db") as store:
        assert store.add(make_log()) is Added.NEW


def test_a_store_is_created_in_place_where_hard_links_do_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with open_store(tmp_path / "t.db") as store:
        assert store.add(make_log()) is Added.NEW
        assert store.summary().journal_mode == "wal"
    assert stat.S_IMODE((tmp_path / "t.db").stat().st_mode) == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["t.db", "t.db.key"]


def test_a_new_store_has_taken_every_step(tmp_path: Path) -> None:
    open_store(tmp_path / "t.db").close()
    connection = raw(tmp_path / "t.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()


def test_a_step_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
    steps = [["CREATE TABLE a (x)"], ["CREATE TABLE b (x)", "CREATE TABLE a (x)"]]
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(connection, steps)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    migrate(connection, [steps[0], ["CREATE TABLE b (x)"]])
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    connection.close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path / "t.db")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.summary()


# ------------------------------------------------------------------ threads, processes, kills


def test_threads_share_one_store(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    with open_store(tmp_path / "t.db") as store:

        def work(worker: int) -> None:
            try:
                for nth in range(40):
                    store.add(make_log(f"{worker}-{nth}"))
                    store.add(make_log(f"shared-{nth}"))
                    store.summary()
            except BaseException as error:  # noqa: BLE001  (shown by the assertion below)
                errors.append(error)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert store.summary().workflows == 6 * 40 + 40
        assert store.check() == []


WRITER = """
    import sys
    from pathlib import Path
    from apportion.telemetry.store import TelemetryStore
    from apportion.telemetry.events import Event, WorkflowLog
    path, worker, count, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    print("ready", flush=True)
    sys.stdin.readline()
    with TelemetryStore(path, count_tokens=len, capture_content=True) as store:
        for nth in range(count):
            events = tuple(
                Event(step=step, agent="a", agent_run="a", kind="user", content=f"{worker} {nth} {step}" * 20)
                for step in range(size)
            )
            added = store.add(WorkflowLog(id=f"{worker}-{nth}", source="s", framework="f", events=events))
            print(f"{worker}-{nth}", added, flush=True)
"""


def start_writer(path: Path, worker: str, *, count: int, size: int) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path), worker, str(count), str(size)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    expect_line(writer, "ready")
    return writer


def expect_line(writer: subprocess.Popen[str], expected: str) -> None:
    """Read the next line of a writer; if it is another one, say what the writer complained about."""
    assert writer.stdout is not None
    line = writer.stdout.readline()
    assert line == f"{expected}\n", (line, writer.communicate(timeout=300))


def test_four_processes_create_and_fill_one_store_without_loss(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path / "t.db", str(nth), count=50, size=5) for nth in range(4)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    answers = [writer.communicate(timeout=300) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, answers
    assert all(out.count("new") == 50 for out, _ in answers)
    with open_store(tmp_path / "t.db") as store:
        assert store.summary().workflows == 200
        assert store.summary().events == 1000
        assert store.check() == []


def test_a_killed_import_leaves_whole_workflows_and_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    for repetition, delay in enumerate((0.0, 0.004, 0.015, 0.03, 0.06)):
        writer = start_writer(path, f"r{repetition}", count=400, size=60)
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
        if delay:  # the first is killed while it creates the store
            expect_line(writer, f"r{repetition}-0 new")
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        out, error = writer.communicate(timeout=300)
        acknowledged = [line.split()[0] for line in out.splitlines() if line.endswith("new")]
        assert writer.returncode == -signal.SIGKILL, error
        with open_store(path, capture_content=True) as store:
            assert store.check() == []
            assert {summary.events for summary in store.workflows()} <= {60}
            assert {summary.id for summary in store.workflows()} >= set(acknowledged)
    finished = start_writer(path, "r4", count=60, size=60)
    out, error = finished.communicate("go\n", timeout=300)
    assert finished.returncode == 0, error
    with open_store(path, capture_content=True) as store:
        ids = [summary.id for summary in store.workflows()]
        assert len(ids) == len(set(ids))
        assert set(ids) >= {f"r4-{nth}" for nth in range(60)}
        assert store.check() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_store_opened_before_a_fork_works_on_both_sides(tmp_path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from apportion.telemetry.store import TelemetryStore
        from apportion.telemetry.events import Event, WorkflowLog
        def log(name):
            event = Event(step=0, agent="a", agent_run="a", kind="user", content=name)
            return WorkflowLog(id=name, source="s", framework="f", events=(event,))
        store = TelemetryStore(Path(sys.argv[1]), count_tokens=len)
        store.add(log("before"))
        children = []
        for worker in range(3):
            child = os.fork()
            if not child:
                for nth in range(30):
                    store.add(log(f"child {worker} {nth}"))
                store.close()
                os._exit(0)
            children.append(child)
            for nth in range(10):
                store.add(log(f"parent {worker} {nth}"))
        store.close()
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    """
    answer = run_python(code, tmp_path / "t.db")
    assert answer.returncode == 0, answer
    with open_store(tmp_path / "t.db") as store:
        assert store.summary().workflows == 1 + 3 * 30 + 3 * 10
        assert store.check() == []


def test_a_writer_that_waits_too_long_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.05)
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log())
        other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"locked.*Another process"):
            store.add(make_log("two"))
        assert store.summary().workflows == 1
        other.execute("ROLLBACK")
        other.close()
        assert store.add(make_log("two")) is Added.NEW


def reader_of_a_store_without_log(path: Path) -> sqlite3.Connection:
    """Return a connection that reads a store which has lost its write-ahead mode, so that it cannot get it back yet."""
    open_store(path).close()
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("PRAGMA journal_mode = DELETE")
    reader.execute("BEGIN")
    reader.execute("SELECT COUNT(*) FROM workflows").fetchone()
    return reader


def test_opening_waits_until_the_write_ahead_log_can_be_used(tmp_path: Path) -> None:
    reader = reader_of_a_store_without_log(tmp_path / "t.db")
    done = threading.Timer(0.1, reader.execute, ["COMMIT"])
    done.start()
    with open_store(tmp_path / "t.db") as store:
        assert store.summary().journal_mode == "wal"
    done.join()
    reader.close()


def test_opening_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.05)
    reader = reader_of_a_store_without_log(tmp_path / "t.db")
    with pytest.raises(StoreError, match="locked"):
        open_store(tmp_path / "t.db")
    reader.close()


def test_a_store_that_another_process_creates_at_the_same_time_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def be_second(new: Path, path: Path) -> None:
        with open_store(tmp_path / "other.db") as other:
            other.add(make_log())
        (tmp_path / "other.db.key").rename(tmp_path / "t.db.key")
        link(tmp_path / "other.db", path)
        link(new, path)

    monkeypatch.setattr(os, "link", lambda new, path: (be_second if path.name == "t.db" else link)(new, path))
    with open_store(tmp_path / "t.db") as store:
        assert store.add(make_log()) is Added.UNCHANGED


def test_the_summary_is_json(tmp_path: Path) -> None:
    with open_store(tmp_path / "t.db") as store:
        store.add(make_log())
        assert json.loads(store.summary().model_dump_json())["sources"][0]["usage"]["reasoning"] is None
