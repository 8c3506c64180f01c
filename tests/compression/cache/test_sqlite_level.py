from __future__ import annotations

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

from apportion.compression.cache import Cache, CacheCounts, SecondLevel, sqlite_level
from apportion.compression.cache.sqlite_level import SqliteLevel
from apportion.compression.cache.types import DamagedError
from apportion.errors import InputError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

NONE = CacheCounts()


class Clock:
    """A clock that is put forward and back by hand."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@given(st.dictionaries(st.binary(max_size=8), st.binary(max_size=100), max_size=8))
@settings(max_examples=20)
def test_values_come_back_after_the_file_was_closed(
    tmp_path_factory: pytest.TempPathFactory, values: dict[bytes, bytes]
) -> None:
    path = tmp_path_factory.mktemp("cache") / "cache"
    level = SqliteLevel(path)
    for key, value in values.items():
        level.put(key, b"before", None)
        level.put(key, value, None)
    level.close(NONE)
    level = SqliteLevel(path)
    for key, value in values.items():
        found = level.get(key)
        assert found is not None
        assert found.value == value
    assert level.get(b"never put there") is None
    assert level.summary()[:2] == (len(values), sum(len(key) + len(value) for key, value in values.items()))
    level.close(NONE)


def test_the_file_is_the_owners_alone_and_follows_the_protocol(tmp_path: Path) -> None:
    level = SqliteLevel(tmp_path / "new" / "cache")
    assert isinstance(level, SecondLevel)
    level.put(b"k", b"v", None)
    assert stat.S_IMODE((tmp_path / "new" / "cache").stat().st_mode) == 0o600
    level.close(NONE)


def test_ages_go_by_the_clock_and_a_clock_that_was_put_back_makes_nothing_young(tmp_path: Path) -> None:
    clock = Clock()
    level = SqliteLevel(tmp_path / "cache", clock=clock)
    level.put(b"k", b"v", 10.0)
    level.put(b"for ever", b"v", None)
    clock.seconds += 9.5
    found = level.get(b"k")
    assert found is not None
    assert found.age_s == pytest.approx(9.5)
    clock.seconds += 0.5
    assert level.get(b"k") is None
    clock.seconds -= 86_400
    assert level.get(b"k") is None
    assert level.get(b"for ever") is None  # it cannot be told how old it is
    clock.seconds += 2 * 86_400
    assert level.get(b"for ever") is not None
    level.put(b"other", b"v", 10.0)
    assert level.summary().entries == 2  # what was too old has gone
    level.close(NONE)


def test_a_full_file_forgets_what_was_stored_first(tmp_path: Path) -> None:
    level = SqliteLevel(tmp_path / "cache", max_bytes=35)
    for number in range(10):
        level.put(b"%d" % number, b"v" * 9, None)
        assert level.summary().bytes <= 35
    assert [number for number in range(10) if level.get(b"%d" % number)] == [7, 8, 9]
    level.put(b"large", b"v" * 31, None)
    assert level.get(b"large") is None
    assert level.summary().entries == 3
    level.discard(b"7")
    level.discard(b"7")
    assert level.summary()[:2] == (2, 20)
    level.clear()
    assert level.summary()[:2] == (0, 0)
    level.close(NONE)


def test_a_limit_below_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="negative"):
        SqliteLevel(tmp_path / "cache", max_bytes=-1)


@pytest.mark.parametrize(
    "damage",
    [
        "value = x'00'",
        "value = 'text'",
        "key = x'6c'",
        "stored_us = 1",
        "stored_us = 'x'",
        "expires_us = 5",
        "checksum = x''",
    ],
)
def test_a_damaged_value_is_a_miss_that_is_counted_and_forgotten(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "cache"
    Cache(second=SqliteLevel(path)).put(b"k", b"value")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE entries SET {damage}")  # noqa: S608  (ours)
    key = b"l" if "key" in damage else b"k"
    with pytest.raises(DamagedError):
        SqliteLevel(path).get(key)
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (0,)
        assert connection.execute("SELECT entries FROM totals").fetchone() == (0,)
    cache = Cache(second=SqliteLevel(path))
    assert cache.get_or_compute(key, lambda: b"anew") == b"anew"
    assert cache.counts().misses == 1


def test_no_flipped_bit_and_no_missing_end_gives_a_wrong_value_or_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    values = {b"key %d" % number: b"value %d " % number * 40 for number in range(20)}
    level = SqliteLevel(path)
    for key, value in values.items():
        level.put(key, value, 1000.0)
    level.close(CacheCounts(hits=1))
    whole = path.read_bytes()
    seen = CacheCounts()
    for number in range(300):
        place = (number * 2_654_435_761) % (8 * len(whole))
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged if number % 10 else whole[: place // 8])
        for leftover in (path.with_name("cache-wal"), path.with_name("cache-shm")):
            leftover.unlink(missing_ok=True)
        cache = Cache(second=SqliteLevel(path))
        assert all(cache.get(key) in {value, None} for key, value in values.items())
        cache.put(b"new", b"value")
        cache.close()
        seen += cache.counts()
    assert seen.damaged > 20
    assert seen.failures > 10


def test_a_file_of_another_kind_is_left_alone_and_is_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("not a database")
    cache = Cache(second=SqliteLevel(path))
    assert cache.get_or_compute(b"k", lambda: b"v") == b"v"
    cache.close()
    assert cache.counts().failures >= 1
    assert path.read_text() == "not a database"
    with pytest.raises(StoreError, match="not a cache"):
        SqliteLevel(path).summary()


def test_what_was_counted_in_the_last_runs_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_level, "RUNS", 3)
    path = tmp_path / "cache"
    for number in range(5):
        SqliteLevel(path).close(CacheCounts(hits=number + 1, misses=1))
    SqliteLevel(path).close(NONE)  # nobody asked
    level = SqliteLevel(path)
    summary = level.summary()
    assert summary.runs == 3
    assert summary.last == CacheCounts(hits=5, misses=1)
    assert summary.total == CacheCounts(hits=3 + 4 + 5, misses=3)
    level.close(NONE)


def test_threads_may_share_a_level(tmp_path: Path) -> None:
    level = SqliteLevel(tmp_path / "cache", max_bytes=400)
    wrong: list[bytes] = []

    def work() -> None:
        for number in range(60):
            key = b"%d" % (number * 7 % 20)
            level.put(key, key * 10, None)
            found = level.get(key)
            if found is not None and found.value != key * 10:
                wrong.append(key)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert level.summary().bytes <= 400
    level.close(NONE)


WRITER = """
import sys
from pathlib import Path
from apportion.compression.cache import Cache
from apportion.compression.cache.sqlite_level import SqliteLevel
cache = Cache(max_entries=2, second=SqliteLevel(Path(sys.argv[1])))
for number in range(100):
    key = b"%d" % (number % 50)
    assert cache.get_or_compute(key, lambda: key * 3) == key * 3
cache.close()
assert cache.counts().failures == 0, cache.counts()
"""


def test_processes_may_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path]) for _ in range(4)]
    assert [writer.wait(timeout=300) for writer in writers] == [0] * 4
    level = SqliteLevel(path)
    assert (level.summary().entries, level.summary().runs) == (50, 4)
    assert level.summary().total.asked == 400
    level.close(NONE)
