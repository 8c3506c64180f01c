"""What a second level of a cache is: the protocol that all of them share."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from apportion.compression.cache.memory import CacheCounts

CHECKSUM_BYTES = 16
"""Bytes of the checksum that goes with each value: enough against damage, not against forgery."""


class Found(NamedTuple):
    """What a second level holds for a key.

    Attributes:
        value: The value, undamaged.
        age_s: Seconds since it was put there.
    """

    value: bytes
    age_s: float


class DamagedError(Exception):
    """A second level holds something for a key that is not what was put there."""


@runtime_checkable
class SecondLevel(Protocol):
    """Where values go that outlive the process, or are shared by several.

    Any method may raise: the cache takes that for a miss, and counts it. For a damaged value, `get` raises
    `DamagedError`.
    """

    def get(self, key: bytes) -> Found | None:
        """Return what is held for a key, or `None`; never anything that is damaged or older than it may be."""
        ...

    def put(self, key: bytes, value: bytes, ttl_s: float | None) -> None:
        """Keep a value, for so many seconds at most; `None` for no limit."""
        ...

    def discard(self, key: bytes) -> None:
        """Forget the value of a key, if there is one."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...

    def close(self, counts: CacheCounts) -> None:
        """Take what the cache above counted, if that is of use, and end."""
        ...


def checksum(*parts: bytes) -> bytes:
    """Return the checksum of several texts, each with its length, so that none can lend bytes to the next one."""
    digest = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
