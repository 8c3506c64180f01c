from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.compression import sqlite_store
from apportion.compression import store as store_module
from apportion.compression.expand_tool import expand
from apportion.compression.sqlite_store import SqliteHandleStore
from apportion.compression.store import Handle
from apportion.errors import InputError, StoreError
from apportion.telemetry.store import TelemetryStore

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


def edit(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


def noise(number: int, size: int = 1000) -> bytes:
    """Bytes that no compression makes shorter."""
    return b"".join(hashlib.sha256(b"%d/%d" % (number, part)).digest() for part in range(size // 32 + 1))[:size]


@given(st.lists(st.binary(max_size=50), max_size=12))
@settings(max_examples=25)
def test_every_content_comes_back_after_the_store_was_closed(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("store") / "originals"
    with SqliteHandleStore(path) as store:
        handles = [store.put(content) for content in contents]
    with SqliteHandleStore(path) as store:
        assert [store.put(content) for content in contents] == handles
        assert [store.expand(handle) for handle in handles] == contents
        assert [store.expand(str(handle), 1, 3) for handle in handles] == [content[1:3] for content in contents]
        assert len(store) == len(set(contents))
        assert store.size == sum(map(len, set(contents)))


def test_lines_are_had_as_markers_name_them(tmp_path: Path) -> None:
    with SqliteHandleStore(tmp_path / "originals") as store:
        handle = store.put(b"one\ntwo\nthree")
        assert expand(store, handle, "2-3") == b"two\nthree"
        assert store.write_out(handle, tmp_path / "out").read_bytes() == b"one\ntwo\nthree"


def test_the_file_and_its_folder_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "originals"
    with SqliteHandleStore(path) as store:
        store.put(b"secret")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes
    assert set(modes.values()) == {0o600}


def test_contents_take_less_room_than_they_have(tmp_path: Path) -> None:
    with SqliteHandleStore(tmp_path / "originals") as store:
        store.put(b"the same line again\n" * 10_000)
        totals = store.totals()
    assert (totals.contents, totals.bytes, totals.evictions) == (1, 200_000, 0)
    assert totals.stored_bytes < 2_000


def test_contents_that_would_share_a_handle_get_longer_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SHORT_DIGITS", 1)
    with SqliteHandleStore(tmp_path / "originals") as store:
        contents = [b"%d" % number for number in range(60)]
        handles = [store.put(content) for content in contents]
        assert len({handle.short for handle in handles}) == 60
        assert {len(handle.short) for handle in handles} > {1}
        assert [store.expand(handle.short) for handle in handles] == contents
        with pytest.raises(StoreError, match="unknown handle"):
            store.expand(Handle(handles[0].short, "0" * 64, 1))


@pytest.mark.parametrize("spelling", ["h:00000000", "", "h:", "nonsense", "\0", "\ud800", "' OR 1=1 --", "%"])
def test_an_unknown_handle_is_refused_with_a_hint(tmp_path: Path, spelling: str) -> None:
    with SqliteHandleStore(tmp_path / "originals") as store:
        store.put(b"abc")
        with pytest.raises(StoreError, match="unknown handle") as caught:
            store.expand(spelling)
    assert caught.value.hint


# What a store with limits forgets.


def test_a_full_store_forgets_the_oldest_wholly_and_says_so(tmp_path: Path) -> None:
    clock = Clock()
    with SqliteHandleStore(tmp_path / "originals", max_bytes=3500, clock=clock) as store:
        handles = []
        for number in range(5):
            clock.seconds += 60
            handles.append(store.put(noise(number)))
        assert len(store) == 3
        assert store.totals().stored_bytes <= 3500
        assert [store.expand(handle) for handle in handles[2:]] == [noise(number) for number in (2, 3, 4)]
        for handle in handles[:2]:
            with pytest.raises(StoreError, match=r"was evicted on 2027-01-15 08:0\d UTC: the store was full") as caught:
                store.expand(handle)
            assert caught.value.hint
        assert store.totals().evictions == 2


def test_what_is_given_out_again_is_young_again(tmp_path: Path) -> None:
    clock = Clock()
    with SqliteHandleStore(tmp_path / "originals", max_bytes=2500, clock=clock) as store:
        first, second = store.put(noise(1)), store.put(noise(2))
        clock.seconds += 1
        assert store.put(noise(1)) == first
        clock.seconds += 1
        store.put(noise(3))
        assert store.expand(first) == noise(1)
        clock.seconds += 1
        assert not store.renew(second)
        assert store.renew(first)
        clock.seconds += 1
        store.put(noise(4))
        assert store.expand(first) == noise(1)


def test_originals_go_when_they_are_too_old_and_not_before(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "originals"
    with SqliteHandleStore(path, max_age_days=2, clock=clock) as store:
        handle = store.put(b"old")
        clock.seconds += 2 * DAY
        store.put(b"new")
        assert store.expand(handle) == b"old"
        clock.seconds += 1
    with SqliteHandleStore(path, max_age_days=2, clock=clock) as store:
        with pytest.raises(StoreError, match="it was older than 2 days"):
            store.expand(str(handle))
        assert store.expand(Handle.of(b"new")) == b"new"
    with SqliteHandleStore(path, clock=clock) as store:
        clock.seconds += 1000 * DAY
        store.put(b"newer")
        assert len(store) == 2


def test_an_evicted_original_that_is_put_again_has_its_handle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SHORT_DIGITS", 1)
    clock = Clock()
    with SqliteHandleStore(tmp_path / "originals", max_age_days=1, clock=clock) as store:
        handles = [store.put(b"%d" % number) for number in range(20)]
        clock.seconds += 3 * DAY
        others = [store.put(b"x%d" % number) for number in range(20)]
        assert len(store) == 20
        assert not {handle.short for handle in handles} & {other.short for other in others}
        assert [store.put(b"%d" % number) for number in range(20)] == handles
        assert [store.expand(handle) for handle in handles] == [b"%d" % number for number in range(20)]


def test_the_account_of_what_was_evicted_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_store, "ACCOUNTS", 3)
    clock = Clock()
    with SqliteHandleStore(tmp_path / "originals", max_bytes=1100, clock=clock) as store:
        handles = []
        for number in range(8):
            clock.seconds += 1
            handles.append(store.put(noise(number)))
        with pytest.raises(StoreError, match="unknown handle"):
            store.expand(handles[0])
        for handle in handles[4:7]:
            with pytest.raises(StoreError, match="was evicted"):
                store.expand(handle)


def test_a_content_that_is_larger_than_the_store_is_refused_and_nothing_goes(tmp_path: Path) -> None:
    with SqliteHandleStore(tmp_path / "originals", max_bytes=1500) as store:
        handle = store.put(noise(1))
        with pytest.raises(StoreError, match="do not fit"):
            store.put(noise(2, 2000))
        assert store.expand(handle) == noise(1)


@pytest.mark.parametrize("limits", [{"max_bytes": -1}, {"max_age_days": -0.5}, {"max_age_days": float("nan")}])
def test_limits_below_nothing_are_refused(tmp_path: Path, limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match="negative"):
        SqliteHandleStore(tmp_path / "originals", **limits)  # type: ignore[arg-type]


# Damage.


@pytest.mark.parametrize(
    "damage",
    [
        "content = x'00'",
        "content = x''",
        "content = substr(content, 1, length(content) - 1)",
        "content = substr(content, 1, 20) || x'00' || substr(content, 22)",
        "size = size + 1",
        "size = 1 << 60",
        "digest = x'00'",
    ],
)
def test_a_damaged_original_is_refused_and_mended_by_putting_it_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "originals"
    content = noise(7, 200)
    with SqliteHandleStore(path) as store:
        handle = store.put(content)
        other = store.put(b"untouched")
    edit(path, f"UPDATE originals SET {damage} WHERE short = ?", handle.short)  # noqa: S608  (ours)
    with SqliteHandleStore(path) as store:
        with pytest.raises(StoreError, match="damaged"):
            store.expand(str(handle))
        assert store.expand(other) == b"untouched"
        if "digest" not in damage:  # then it is another original
            assert store.put(content) == handle
            assert store.expand(handle) == content
            assert store.size == len(content) + len(b"untouched")


def test_no_flipped_bit_and_no_missing_end_gives_wrong_bytes(tmp_path: Path) -> None:
    path = tmp_path / "originals"
    contents = [noise(number, 300) + b"text " * number for number in range(20)]
    with SqliteHandleStore(path) as store:
        handles = [store.put(content) for content in contents]
    whole = path.read_bytes()
    refused = 0
    for number in range(300):
        place = (number * 2_654_435_761) % (8 * len(whole))
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged if number % 10 else whole[: place // 8])
        for leftover in (path.with_name("originals-wal"), path.with_name("originals-shm")):
            leftover.unlink(missing_ok=True)
        try:
            with SqliteHandleStore(path) as store:
                for handle, content in zip(handles, contents, strict=True):
                    try:
                        assert store.expand(handle) == content
                    except StoreError:
                        refused += 1
        except StoreError:
            refused += 1
    assert refused > 30


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    telemetry = tmp_path / "telemetry"
    TelemetryStore(telemetry).close()
    text = tmp_path / "text"
    text.write_text("not a database" * 100)
    for path in (telemetry, text):
        before = path.read_bytes()
        with pytest.raises(StoreError, match=r"of another application|not a store of originals") as caught:
            SqliteHandleStore(path)
        assert "import" not in str(caught.value.hint)
        assert path.read_bytes() == before
    SqliteHandleStore(tmp_path / "originals").close()
    with pytest.raises(StoreError, match="of another application"):
        TelemetryStore(tmp_path / "originals")


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteHandleStore(tmp_path / "originals")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.put(b"abc")


# Many at once.


def test_threads_may_share_a_store(tmp_path: Path) -> None:
    failures: list[bytes] = []
    with SqliteHandleStore(tmp_path / "originals") as store:

        def work(offset: int) -> None:
            for number in range(60):
                content = b"%d" % ((number + offset) % 40)
                if store.expand(store.put(content)) != content:
                    failures.append(content)

        threads = [threading.Thread(target=work, args=(7 * offset,)) for offset in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(store) == 40


WRITER = """
import sys
from pathlib import Path
from apportion.compression.sqlite_store import SqliteHandleStore
with SqliteHandleStore(Path(sys.argv[1]), max_bytes=1_000_000) as store:
    for number in range(100):
        content = b"%d" % ((number + int(sys.argv[2])) % 120)
        assert store.expand(store.put(content)) == content
"""


def test_processes_may_write_to_one_store(tmp_path: Path) -> None:
    path = tmp_path / "originals"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(10 * n)]) for n in range(4)]
    assert [writer.wait(timeout=300) for writer in writers] == [0] * 4
    with SqliteHandleStore(path) as store:
        contents = {b"%d" % ((number + 10 * n) % 120) for n in range(4) for number in range(100)}
        assert store.totals()[:2] == (len(contents), sum(map(len, contents)))
        assert all(store.expand(Handle.of(content)) == content for content in contents)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_may_go_on_with_the_store(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from apportion.compression.sqlite_store import SqliteHandleStore\n"
        "store = SqliteHandleStore(Path(sys.argv[1]))\nstore.put(b'before')\n"
        "child = os.fork()\n"
        "store.put(b'child' if child == 0 else b'parent')\n"
        "if child == 0: os._exit(0)\n"
        "os.waitpid(child, 0)\nassert len(store) == 3\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "originals"], check=True, timeout=300)


KILLED = """
import sys
from pathlib import Path
from apportion.compression.sqlite_store import SqliteHandleStore
store = SqliteHandleStore(Path(sys.argv[1]), max_bytes=10**9)
for number in range(10**9):
    content = b"%s %d " % (sys.argv[2].encode(), number) * 50
    sys.stdout.buffer.write(b"%s %d\\n" % (str(store.put(content)).encode(), number))
    sys.stdout.buffer.flush()
"""


def test_what_was_given_out_before_a_process_was_killed_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "originals"
    given: list[tuple[str, bytes]] = []
    for turn in range(4):
        command = [sys.executable, "-c", KILLED, str(path), str(turn)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(20 + 7 * turn)]
            writer.kill()
            lines += [line for line in writer.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
        for handle, number in map(bytes.split, lines):
            given.append((handle.decode(), b"%d %s " % (turn, number) * 50))
    with SqliteHandleStore(path) as store:
        assert all(store.expand(handle) == content for handle, content in given)
        assert len(given) <= len(store) <= len(given) + 4


def test_a_store_that_is_not_waited_for_is_not_asked_again_at_once(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "originals"
    with SqliteHandleStore(path, wait_s=0.0, timer=lambda: now[0]) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                store.put(b"content")
            other.execute("ROLLBACK")
        now[0] = 0.9
        with pytest.raises(StoreError, match="a moment ago"):
            store.put(b"content")
        now[0] = 1.0
        assert store.expand(store.put(b"content")) == b"content"
        now[0] = 1.1
        assert store.put(b"other")
