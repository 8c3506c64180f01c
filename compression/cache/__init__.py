"""Results that are kept so that nobody works them out twice: `Cache`, keys that cannot be confused, further levels.

    cache = Cache(max_bytes=64 * 2**20, second=SqliteLevel(path))
    strategy = CachedStrategy(Lossless(), cache, tenant_salt=salt)

Keys and values are bytes; what they mean is known to who asks. A cache is never needed: where it cannot answer, for
whatever reason, the answer is worked out, and the reason is counted.
"""

from __future__ import annotations

from apportion.compression.cache.keys import CacheKey
from apportion.compression.cache.memory import Cache, CacheCounts
from apportion.compression.cache.strategy import CachedStrategy
from apportion.compression.cache.types import Found, SecondLevel

__all__ = ["Cache", "CacheCounts", "CacheKey", "CachedStrategy", "Found", "SecondLevel"]
