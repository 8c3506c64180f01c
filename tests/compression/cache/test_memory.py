from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from apportion.compression.cache import Cache, CacheCounts, Found, SecondLevel
from apportion.compression.cache.memory import ENTRY_BYTES, RETRY_S
from apportion.compression.cache.types import DamagedError
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = st.sampled_from([b"a", b"b", b"cc", b"ddd"])
VALUES = st.sampled_from([b"", b"1", b"22" * 10, b"3" * 90, b"4" * 500])


class Clock:
    """A clock that is put forward by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Kept:
    """A second level in a dictionary, which fails when told to."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.values: dict[bytes, tuple[bytes, float]] = {}
        self.error: Exception | None = None
        self.asked = 0
        self.closed_with: CacheCounts | None = None

    def get(self, key: bytes) -> Found | None:
        self.asked += 1
        if self.error:
            raise self.error
        held = self.values.get(key)
        return None if held is None else Found(held[0], self.clock() - held[1])

    def put(self, key: bytes, value: bytes, ttl_s: float | None) -> None:  # noqa: ARG002  (the caller's part)
        self.asked += 1
        if self.error:
            raise self.error
        self.values[key] = (value, self.clock())

    def discard(self, key: bytes) -> None:
        self.values.pop(key, None)

    def clear(self) -> None:
        self.values.clear()

    def close(self, counts: CacheCounts) -> None:
        if self.error:
            raise self.error
        self.closed_with = counts


class CacheAgainstModel(RuleBasedStateMachine):
    """A cache beside a list of entries, the least recently used one first, searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.limits = (3 * ENTRY_BYTES + 200, 3, 10.0)
        self.cache = Cache(max_bytes=self.limits[0], max_entries=3, ttl_s=10.0, timer=self.clock)
        self.model: list[tuple[bytes, bytes, float]] = []
        self.asked = self.answered = 0

    def _live(self) -> None:
        self.model = [entry for entry in self.model if self.clock() < entry[2] + 10.0]

    def _model_get(self, key: bytes) -> bytes | None:
        self._live()
        self.asked += 1
        for entry in self.model:
            if entry[0] == key:
                self.model.remove(entry)
                self.model.append(entry)
                self.answered += 1
                return entry[1]
        return None

    def _model_put(self, key: bytes, value: bytes) -> None:
        self._live()
        self.model = [entry for entry in self.model if entry[0] != key]
        if ENTRY_BYTES + len(key) + len(value) > self.limits[0]:
            return
        self.model.append((key, value, self.clock()))
        while len(self.model) > 3 or self._size() > self.limits[0]:
            self.model.pop(0)

    def _size(self) -> int:
        return sum(ENTRY_BYTES + len(key) + len(value) for key, value, _ in self.model)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        assert self.cache.get(key) == self._model_get(key)

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.cache.put(key, value)
        self._model_put(key, value)

    @rule(key=KEYS, value=VALUES)
    def get_or_compute(self, key: bytes, value: bytes) -> None:
        expected = self._model_get(key)
        computed: list[bytes] = []

        def compute() -> bytes:
            computed.append(value)
            return value

        assert self.cache.get_or_compute(key, compute) == (value if expected is None else expected)
        assert bool(computed) == (expected is None)
        if expected is None:
            self._model_put(key, value)

    @rule(key=KEYS)
    def compute_and_fail(self, key: bytes) -> None:
        expected = self._model_get(key)

        def fail() -> bytes:
            raise LookupError("nothing there")

        if expected is None:
            with pytest.raises(LookupError, match="nothing there"):
                self.cache.get_or_compute(key, fail)
        else:
            assert self.cache.get_or_compute(key, fail) == expected

    @rule(key=KEYS)
    def discard(self, key: bytes) -> None:
        self.cache.discard(key)
        self.model = [entry for entry in self.model if entry[0] != key]

    @precondition(lambda self: len(self.model) > 2)
    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 4.0, 9.5, 10.0, 86_400.0]))
    def wait(self, seconds: float) -> None:
        self.clock.seconds += seconds

    @invariant()
    def same_as_the_model(self) -> None:
        self._live()
        assert len(self.cache) == len(self.model) <= 3
        assert self.cache.size == self._size() <= self.limits[0]
        counts = self.cache.counts()
        assert (counts.asked, counts.hits) == (self.asked, self.answered)


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=40)


@pytest.mark.parametrize("limits", [{"max_bytes": -1}, {"max_entries": -1}, {"ttl_s": -1.0}, {"ttl_s": float("nan")}])
def test_limits_below_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InputError, match="negative"):
        Cache(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"max_entries": 0}, {"ttl_s": 0.0}])
def test_a_cache_may_keep_nothing(limits: dict[str, int]) -> None:
    cache = Cache(**limits)  # type: ignore[arg-type]
    cache.put(b"k", b"v")
    assert (cache.get(b"k"), len(cache), cache.size) == (None, 0, 0)
    assert [cache.get_or_compute(b"k", lambda: b"w") for _ in range(2)] == [b"w", b"w"]


def test_expired_entries_go_before_those_that_are_still_good() -> None:
    clock = Clock()
    cache = Cache(max_entries=2, ttl_s=10, timer=clock)
    cache.put(b"old", b"1")
    clock.seconds += 6
    cache.put(b"good", b"2")
    cache.get(b"old")
    clock.seconds += 6
    cache.put(b"new", b"3")
    assert (cache.get(b"good"), cache.get(b"new")) == (b"2", b"3")
    assert (cache.counts().evictions, cache.counts().expired) == (0, 1)


def test_replacing_a_value_over_and_over_takes_no_more_room() -> None:
    cache = Cache(ttl_s=1000)
    for number in range(5000):
        cache.put(b"%d" % (number % 3), b"%d" % number)
    assert len(cache._expiries) <= 110
    assert len(cache) == 3


# Many at once.


def run_together(*works: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
        assert not thread.is_alive()


def wait_for(number: int, cache: Cache) -> None:
    """Return when so many threads wait for what is computed of the key `k`."""
    done = cache._flights[b"k"].done
    while len(done._cond._waiters) < number:  # type: ignore[attr-defined]
        time.sleep(0.001)


def test_fifty_threads_that_miss_one_key_compute_it_once() -> None:
    cache = Cache()
    computed: list[int] = []
    answers: list[bytes] = []

    def compute() -> bytes:
        wait_for(49, cache)
        computed.append(1)
        return b"value"

    run_together(*[lambda: answers.append(cache.get_or_compute(b"k", compute))] * 50)
    assert (len(computed), answers) == (1, [b"value"] * 50)
    assert cache.counts() == CacheCounts(misses=1, waited=49)


def test_an_error_reaches_all_that_wait_and_is_not_kept() -> None:
    cache = Cache()
    errors: list[str] = []

    def fail() -> bytes:
        wait_for(7, cache)
        raise LookupError("nothing there")

    def ask() -> None:
        try:
            cache.get_or_compute(b"k", fail)
        except LookupError as error:
            errors.append(str(error))

    run_together(*[ask] * 8)
    assert errors == ["nothing there"] * 8
    assert cache.get_or_compute(b"k", lambda: b"now") == b"now"


def test_who_waits_for_one_that_was_interrupted_computes_it() -> None:
    cache = Cache()
    started = threading.Event()
    answers: list[bytes] = []

    def interrupted() -> bytes:
        started.set()
        wait_for(1, cache)
        raise KeyboardInterrupt

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            cache.get_or_compute(b"k", interrupted)

    def second() -> None:
        started.wait(300)
        answers.append(cache.get_or_compute(b"k", lambda: b"value"))

    run_together(first, second)
    assert answers == [b"value"]


def test_what_is_discarded_while_it_is_computed_is_not_kept() -> None:
    for forget in (lambda cache: cache.discard(b"k"), lambda cache: cache.clear()):
        cache = Cache()

        def compute(cache: Cache = cache, forget: Callable[[Cache], None] = forget) -> bytes:
            forget(cache)
            return b"old"

        assert cache.get_or_compute(b"k", compute) == b"old"
        assert cache.get(b"k") is None


def test_what_is_put_while_it_is_computed_is_kept_instead() -> None:
    cache = Cache()

    def compute() -> bytes:
        cache.put(b"k", b"new")
        return b"old"

    assert cache.get_or_compute(b"k", compute) == b"old"
    assert cache.get(b"k") == b"new"


def test_a_value_whose_computation_asks_for_itself_does_not_wait_for_itself() -> None:
    cache = Cache()
    assert cache.get_or_compute(b"k", lambda: cache.get_or_compute(b"k", lambda: b"inner") + b"!") == b"inner!"


def test_threads_never_see_a_wrong_value_nor_a_cache_above_its_limits() -> None:
    cache = Cache(max_bytes=20 * (ENTRY_BYTES + 20), max_entries=15)
    wrong: list[object] = []

    def work() -> None:
        for number in range(1500):
            key = b"%d" % (number * 7919 % 40)
            value = key * 3
            if number % 7 == 0:
                cache.put(key, value)
            elif number % 11 == 0:
                cache.discard(key)
            elif cache.get_or_compute(key, lambda value=value: value) != value:  # type: ignore[misc]
                wrong.append(key)
            if cache.size > cache.max_bytes or len(cache) > cache.max_entries:
                wrong.append("limits")

    run_together(*[work] * 8)
    assert wrong == []


# The second level.


def test_what_one_cache_put_another_finds_in_the_second_level() -> None:
    clock = Clock()
    level = Kept(clock)
    assert isinstance(level, SecondLevel)
    Cache(second=level, timer=clock).put(b"k", b"v")
    cache = Cache(second=level, timer=clock)
    assert [cache.get(b"k"), cache.get(b"k")] == [b"v", b"v"]
    assert level.asked == 2
    counts = cache.counts()
    assert (counts.second_hits, counts.hits, counts.misses) == (1, 1, 0)
    assert counts.hit_ratio == 1
    cache.discard(b"k")
    assert (cache.get(b"k"), level.values) == (None, {})


def test_a_value_from_the_second_level_is_as_old_as_it_is() -> None:
    clock = Clock()
    level = Kept(clock)
    Cache(second=level, timer=clock).put(b"k", b"v")
    clock.seconds += 8
    cache = Cache(second=level, ttl_s=10, timer=clock)
    assert cache.get_or_compute(b"k", lambda: b"new") == b"v"
    clock.seconds += 1.9
    assert cache.get(b"k") == b"v"
    clock.seconds += 0.2
    assert cache.get(b"k") is None
    assert cache.get_or_compute(b"k", lambda: b"new") == b"new"


@pytest.mark.parametrize("error", [OSError("gone"), ValueError("bad"), DamagedError("bits"), RuntimeError()])
def test_a_second_level_that_fails_is_a_miss_and_counted(error: Exception) -> None:
    clock = Clock()
    level = Kept(clock)
    level.error = error
    cache = Cache(second=level, timer=clock)
    assert cache.get(b"k") is None
    assert cache.get_or_compute(b"k", lambda: b"v") == b"v"
    assert cache.get(b"k") == b"v"
    counts = cache.counts()
    assert (counts.damaged > 0) == isinstance(error, DamagedError)
    assert (counts.failures > 0) != isinstance(error, DamagedError)
    cache.close()
    assert cache.counts().failures > 0


def test_a_second_level_that_failed_is_left_alone_for_a_while() -> None:
    clock = Clock()
    level = Kept(clock)
    level.error = OSError("gone")
    cache = Cache(second=level, timer=clock)
    for number in range(100):
        cache.get(b"%d" % number)
    assert (level.asked, cache.counts().failures) == (1, 1)
    level.error = None
    level.put(b"k", b"v", None)
    assert cache.get(b"k") is None
    clock.seconds += RETRY_S
    assert cache.get(b"k") == b"v"


def test_closing_hands_over_what_was_counted() -> None:
    level = Kept(Clock())
    cache = Cache(second=level)
    cache.get(b"k")
    cache.close()
    cache.close()
    assert level.closed_with == cache.counts() == CacheCounts(misses=1)
    assert cache.get(b"k") is None


def test_counts_add_up_and_have_no_ratio_without_questions() -> None:
    assert CacheCounts().hit_ratio is None
    total = CacheCounts(hits=2, misses=1) + CacheCounts(second_hits=1, waited=1, misses=5, damaged=3)
    assert total == CacheCounts(hits=2, second_hits=1, waited=1, misses=6, damaged=3)
    assert total.hit_ratio == pytest.approx(0.4)
