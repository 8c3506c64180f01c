"""Keys of cached results: everything that a result depends on, so that two that may differ never share one."""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
"""Goes up whenever what is cached under a key changes its meaning."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What a cached result depends on.

    Attributes:
        tenant_salt: Bytes that tenants do not share; they never get each other's results, nor learn that there is one.
        strategy: Name of what made the result.
        content_hash: SHA-256 of the content.
        parameters: Everything else that the result depends on, by name.
        tokenizer: What counted the tokens.
        model_hash: Hash of the model that had a part in it; empty where none had.
    """

    tenant_salt: bytes
    strategy: str
    content_hash: bytes
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = ""
    model_hash: str = ""

    def canonical(self) -> bytes:
        """Return bytes that two keys share only if they are equal.

        Raises:
            InputError: A parameter is of a kind that has no canonical form.
        """
        return _canonical(
            (
                SCHEMA,
                self.tenant_salt,
                self.strategy,
                self.content_hash,
                self.parameters,
                self.tokenizer,
                self.model_hash,
            )
        )

    def digest(self) -> bytes:
        """Return the key under which a result is kept: 32 bytes that tell nothing to who does not know the salt.

        Raises:
            InputError: A parameter is of a kind that has no canonical form.
        """
        secret = hashlib.sha256(self.tenant_salt).digest()  # an HMAC takes a short secret and its padding for the same
        return hmac.digest(secret, self.canonical(), "sha256")


def _canonical(value: Any) -> bytes:
    """Return a text that says what kind of value it is, and how long, before the value."""
    kind, body = _kind_and_body(value)
    return kind + len(body).to_bytes(8, "big") + body


def _kind_and_body(value: Any) -> tuple[bytes, bytes]:
    match value:
        case None:
            return b"n", b""
        case bool():
            return b"t" if value else b"f", b""
        case int():
            return b"i", b"%d" % value
        case float():
            return b"d", struct.pack(">d", math.nan if math.isnan(value) else value)
        case str():
            return b"s", value.encode("utf-8", "surrogatepass")
        case bytes():
            return b"b", value
        case tuple() | list():
            return b"l", b"".join(map(_canonical, value))
        case dict():
            items = sorted((_canonical(name), _canonical(each)) for name, each in value.items())
            return b"m", b"".join(name + each for name, each in items)
    raise InputError(
        f"{type(value).__name__} cannot be part of a cache key", hint="Name the parameters as texts and numbers."
    )
