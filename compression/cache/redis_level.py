"""A second level in Redis or Valkey: one cache for several machines. Needs the extra `redis`.

Values are written with a checksum and the time, nothing that is read can run. The server forgets them by itself, by
age (`ttl_s`) and by its own `maxmemory`. A server that is away is a miss.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from apportion.compression.cache.types import CHECKSUM_BYTES, DamagedError, Found, checksum
from apportion.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.compression.cache.memory import CacheCounts

TIMEOUT_S = 0.25
"""How long the server may take to answer: beyond that most values are worked out sooner."""

_TIME_BYTES = 8
_HEAD_BYTES = CHECKSUM_BYTES + _TIME_BYTES


def available() -> bool:
    """Return whether the extra `redis` is installed; loads nothing."""
    return find_spec("redis") is not None


class RedisLevel:
    """Values on a server.

    Nothing is asked of the server before the first use.

    Args:
        url: Of the server, for example `redis://localhost:6379/0` or `unix:///run/redis.sock`.
        prefix: What our keys begin with there.
        timeout_s: How long the server may take to answer, in seconds.
        clock: Tells the time in seconds since 1970; for tests.

    Raises:
        MissingExtraError: The extra `redis` is not installed.
        InputError: The URL is none of a server.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "apportion:",
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not available():
            raise MissingExtraError("a cache on a server", extra="redis")
        import redis

        self._prefix = prefix.encode()
        self._clock = clock
        try:
            self._server: Any = redis.Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, protocol=2, retry=None
            )
        except ValueError as error:
            raise InputError(
                f"not the URL of a server: {error}", hint="For example redis://localhost:6379/0"
            ) from error

    def get(self, key: bytes) -> Found | None:
        """Return what is held for a key, or `None`.

        Raises:
            redis.RedisError: The server fails.
            DamagedError: It is not what was put there; it is forgotten.
        """
        held = self._server.get(self._prefix + key)
        if held is None:
            return None
        found, stored, value = held[:CHECKSUM_BYTES], held[CHECKSUM_BYTES:_HEAD_BYTES], held[_HEAD_BYTES:]
        if found != checksum(key, stored, value):
            self.discard(key)
            raise DamagedError("a value on the server is damaged")
        age_s = self._clock() - int.from_bytes(stored, "big") / 1e6
        return Found(value, age_s) if age_s >= 0 else None

    def put(self, key: bytes, value: bytes, ttl_s: float | None) -> None:
        """Keep a value, for so many seconds at most.

        Raises:
            redis.RedisError: The server fails.
        """
        stored = round(self._clock() * 1e6).to_bytes(_TIME_BYTES, "big")
        held = checksum(key, stored, value) + stored + value
        self._server.set(self._prefix + key, held, px=None if ttl_s is None else max(1, round(ttl_s * 1000)))

    def discard(self, key: bytes) -> None:
        """Forget the value of a key, if there is one.

        Raises:
            redis.RedisError: The server fails.
        """
        self._server.delete(self._prefix + key)

    def clear(self) -> None:
        """Forget all values under our prefix; others of the server stay.

        Raises:
            redis.RedisError: The server fails.
        """
        for key in self._server.scan_iter(match=_literally(self._prefix) + b"*", count=1000):
            self._server.delete(key)

    def close(self, counts: CacheCounts) -> None:  # noqa: ARG002  (counts of one machine say little about all)
        """Close the connections.

        Raises:
            redis.RedisError: The server fails.
        """
        self._server.close()


def _literally(prefix: bytes) -> bytes:
    """Return a pattern that only the prefix itself matches."""
    return b"".join(b"\\" + bytes([mark]) if mark in b"*?[]^\\" else bytes([mark]) for mark in prefix)
