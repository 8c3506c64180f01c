"""A cache on a server: a real one, which the tests start themselves, reached through a socket in a folder of theirs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from apportion.compression.cache import Cache, CacheCounts, SecondLevel
from apportion.compression.cache.redis_level import RedisLevel, available
from apportion.compression.cache.types import DamagedError
from apportion.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = next(filter(None, map(shutil.which, ("valkey-server", "redis-server"))), None)

needs_client = pytest.mark.skipif(not available(), reason="the extra redis is not installed")


class Server:
    """A server of our own, which can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert SERVER is not None
        options = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.socket.parent)]
        self._process = subprocess.Popen([SERVER, *options], stdout=subprocess.DEVNULL)
        while not self.socket.exists():
            assert self._process.poll() is None
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=300)
            self._process = None
            self.socket.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if SERVER is None or not available():
        pytest.skip("needs redis-server or valkey-server, and the extra redis")
    folder = Path(tempfile.mkdtemp(prefix="cache-"))  # the path of a socket must be short
    started = Server(folder)
    started.start()
    yield started
    started.stop()
    shutil.rmtree(folder)


@pytest.fixture
def level(server: Server) -> Iterator[RedisLevel]:
    made = RedisLevel(server.url, timeout_s=60)
    made.clear()
    yield made
    made.close(CacheCounts())


@pytest.mark.needs_redis
def test_values_are_shared_by_all_that_ask_the_server(server: Server, level: RedisLevel) -> None:
    assert isinstance(level, SecondLevel)
    values = {b"": b"", b"\0\xff": b"\0\xff" * 50, b"key": b"value" * 10_000}
    for key, value in values.items():
        Cache(second=RedisLevel(server.url, timeout_s=60)).put(key, value)
    cache = Cache(second=level)
    assert {key: cache.get(key) for key in values} == values
    assert cache.get(b"other") is None
    assert cache.counts() == CacheCounts(second_hits=3, misses=1)
    cache.discard(b"key")
    assert level.get(b"key") is None


@pytest.mark.needs_redis
def test_the_server_forgets_what_is_too_old(level: RedisLevel) -> None:
    level.put(b"k", b"v", 1000.0)
    level.put(b"for ever", b"v", None)
    level.put(b"short", b"v", 0.001)
    assert level._server.ttl(b"apportion:k") + 1 > 999
    assert level._server.ttl(b"apportion:for ever") == -1
    while level._server.exists(b"apportion:short"):
        time.sleep(0.001)
    assert level.get(b"short") is None


@pytest.mark.needs_redis
def test_a_value_is_as_old_as_it_is_and_none_is_from_the_future(server: Server) -> None:
    now = [1_800_000_000.0]
    level = RedisLevel(server.url, timeout_s=60, clock=lambda: now[0])
    level.put(b"k", b"v", None)
    now[0] += 7
    found = level.get(b"k")
    assert found is not None
    assert found.age_s == pytest.approx(7)
    now[0] -= 86_400
    assert level.get(b"k") is None
    level.close(CacheCounts())


@pytest.mark.needs_redis
@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_value_is_forgotten_and_never_given_out(level: RedisLevel, damage: bytes | None) -> None:
    level.put(b"k", b"value", None)
    held = level._server.get(b"apportion:k")
    places = range(len(held)) if damage is None else range(1)
    for place in places:
        level._server.set(
            b"apportion:k", held[:place] + bytes([held[place] ^ 4]) + held[place + 1 :] if damage is None else damage
        )
        with pytest.raises(DamagedError):
            level.get(b"k")
        assert level.get(b"k") is None
    level._server.set(b"apportion:other", held)  # a value of another key
    with pytest.raises(DamagedError):
        level.get(b"other")


@pytest.mark.needs_redis
def test_clearing_leaves_what_others_keep_on_the_server(server: Server, level: RedisLevel) -> None:
    other = RedisLevel(server.url, prefix="a*[p]:", timeout_s=60)
    level._server.set("foreign", "kept")
    for each in (level, other):
        each.put(b"k", b"v", None)
    other.clear()
    assert other.get(b"k") is None
    assert level.get(b"k") is not None
    level.clear()
    assert level.get(b"k") is None
    assert level._server.get("foreign") == b"kept"
    other.close(CacheCounts())


@pytest.mark.needs_redis
def test_a_server_that_goes_is_a_miss_that_is_counted_and_one_that_comes_back_is_used(server: Server) -> None:
    now = [1000.0]
    cache = Cache(max_entries=0, second=RedisLevel(server.url, timeout_s=60), timer=lambda: now[0])
    cache.put(b"k", b"v")
    assert cache.get(b"k") == b"v"
    server.stop()
    try:
        assert cache.get(b"k") is None
        assert cache.get_or_compute(b"k", lambda: b"anew") == b"anew"
        assert cache.counts().failures == 1
    finally:
        server.start()
    now[0] += 60
    assert cache.get_or_compute(b"k", lambda: b"anew") == b"anew"
    assert cache.get(b"k") == b"anew"
    cache.close()


@pytest.mark.needs_redis
def test_threads_may_share_a_level(level: RedisLevel) -> None:
    cache = Cache(max_entries=3, second=level)
    wrong: list[bytes] = []

    def work() -> None:
        for number in range(100):
            key = b"%d" % (number % 20)
            if cache.get_or_compute(key, lambda key=key: key * 3) != key * 3:  # type: ignore[misc]
                wrong.append(key)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.counts().failures == 0


@needs_client
def test_without_a_server_everything_is_a_miss(tmp_path: Path) -> None:
    cache = Cache(second=RedisLevel(f"unix://{tmp_path}/none"))
    assert cache.get_or_compute(b"k", lambda: b"v") == b"v"
    cache.discard(b"k")
    cache.clear()
    cache.close()
    assert cache.counts().failures >= 1


@needs_client
@pytest.mark.parametrize("url", ["", "localhost", "http://localhost"])
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="not the URL of a server") as caught:
        RedisLevel(url)
    assert caught.value.hint


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apportion.compression.cache.redis_level.available", lambda: False)
    with pytest.raises(MissingExtraError, match="needs the extra 'redis'"):
        RedisLevel("redis://localhost")
